//! Whatever a template leaves open and a row holds: nothing comes out that the validator refuses, and nothing that it
//! accepts is held back.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use fhirehose_fhir::validate;
use fhirehose_mapping::{
    DraftBody, Drafts, Fpml, FpmlOptions, Mappings, RowChange, RowOp, Scratch, Source, Zone,
};
use fhirehose_tape::Tape;
use fhirehose_topics::Registry;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

const COLUMNS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
const ROWS: usize = 2000;

/// Parts of resources that leave open what a rule is about.
const RESOURCES: [(&str, &str); 14] = [
    (
        "patient",
        "{resourceType: Patient, name: [{use: official, family: '{{ a }}', given: ['{{ b }}', '{{ c }}']}], birthDate: '{{ d }}'}",
    ),
    (
        "patient",
        "{resourceType: Patient, contact: [{name: {text: '{{ a }}'}, period: {start: '{{ b }}', end: '{{ c }}'}}]}",
    ),
    (
        "patient",
        "{resourceType: Patient, identifier: [{system: '{{ a }}', value: '{{ b }}'}, {system: 'urn:x:{{ c }}', value: '{{ d }}'}, {system: 'urn:ietf:{{ e }}', value: '{{ f }}'}]}",
    ),
    (
        "patient",
        "{resourceType: Patient, extension: [{url: '{{ a }}', valueString: '{{ b }}'}], _birthDate: {extension: [{url: 'http://x.org/y', valueCode: '{{ c }}'}]}}",
    ),
    (
        "patient",
        "{resourceType: Patient, generalPractitioner: [{reference: '{{ a }}'}, {reference: 'Practitioner/{{ b }}', type: '{{ c }}'}, {reference: '{{ d }}', display: '{{ e }}'}]}",
    ),
    (
        "patient",
        "{resourceType: Patient, contained: [{resourceType: Organization, id: x, name: '{{ a }}'}], managingOrganization: {reference: '{{ b }}'}}",
    ),
    (
        "patient",
        "{resourceType: Patient, name: [{id: '{{ a }}', text: '{{ b }}'}], telecom: [{system: '{{ c }}', value: '{{ d }}', rank: '{{ iif(e.exists(), 1, 0) }}'}], multipleBirthInteger: '{{ iif(f.exists(), 1, {}) }}', multipleBirthBoolean: '{{ iif(e.exists(), true, {}) }}'}",
    ),
    (
        "patient",
        "{resourceType: Patient, '{% if a.exists() %}': {deceasedBoolean: true, birthDate: '{{ b }}'}, '{% else %}': {deceasedDateTime: '{{ c }}'}}",
    ),
    (
        "patient",
        "{resourceType: Patient, birthDate: '2026-01-01', '{% merge %}': [{'{% if a.exists() %}': {birthDate: '{{ b }}'}}, {gender: '{{ c }}', contact: [{gender: '{{ d }}'}]}]}",
    ),
    (
        "encounter",
        "{resourceType: Encounter, status: '{{ a }}', class: {system: '{{ b }}', code: '{{ c }}'}, type: [{coding: [{system: 'http://loinc.org', code: '{{ d }}'}, {system: 'http://{{ e }}', code: '{{ f }}'}]}]}",
    ),
    (
        "encounter",
        "{resourceType: Encounter, status: finished, class: {code: AMB}, period: {start: '{{ b }}', end: '{{ c }}'}, length: {value: 1, code: '{{ d }}', system: '{{ e }}'}}",
    ),
    (
        "observation",
        "{resourceType: Observation, status: final, code: {coding: [{system: 'http://loinc.org', code: 8867-4}]}, effectiveDateTime: '{{ a }}', valueQuantity: {value: 1, code: '{{ b }}', system: 'http://unitsofmeasure.org'}, dataAbsentReason: {text: '{{ c }}'}}",
    ),
    (
        "observation",
        "{resourceType: Observation, status: '{{ a }}', code: {text: '{{ b }}'}, component: [{code: {text: '{{ c }}'}, valueString: '{{ d }}'}]}",
    ),
    (
        "condition",
        "{resourceType: Condition, subject: {reference: 'Patient/{{ a }}'}, clinicalStatus: {coding: [{system: 'http://terminology.hl7.org/CodeSystem/condition-clinical', code: \"{{ iif(b.exists(), 'active', 'resolved') }}\"}]}, onsetDateTime: '{{ c }}', abatementString: '{{ d }}', code: {text: '{{ e }}'}}",
    ),
];

/// Blank ones are read as nothing.
const TEXTS: [&str; 29] = [
    "/min",
    "x",
    "a b",
    " a",
    "male",
    "final",
    "finished",
    "active",
    "phone",
    "2026-01-01",
    "2026-13-01",
    "2026-01-02T03:04:05Z",
    "2026-01-03T03:04:05+02:00",
    "2025-01-02T03:04:05Z",
    "#x",
    "#",
    "#y",
    "Practitioner/1",
    "Patient/a b",
    "Organization",
    "urn:x:y",
    "http://loinc.org",
    "8867-4",
    "8867-5",
    "rfc:3986",
    "a\\b",
    "t\tb",
    "\u{1}",
    "é\u{a0}é",
];

fn mappings() -> Mappings {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("mappings/cdc/db");
    fs::create_dir_all(&folder).unwrap();
    for (number, (topic, resource)) in RESOURCES.iter().enumerate() {
        let columns = COLUMNS.map(|name| format!("  {name}: {{type: string, class: none}}\n")).concat();
        let mapping = format!(
            "mapping: cdc/db/t{number}\nversion: 1\ntable: db.t{number}\ncolumns:\n  id: {{type: string, class: none, key: true}}\n{columns}outputs:\n  - name: one\n    to: fhir.{topic}\n    resource: {resource}\n",
        );
        fs::write(folder.join(format!("t{number}.yaml")), mapping).unwrap();
    }
    let topics = Registry::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")).unwrap();
    Mappings::load(dir.path(), &topics).map_err(|problems| format!("{problems:?}")).unwrap()
}

fn row(random: &mut impl Rng) -> Value {
    let mut row = Map::from_iter([("id".to_owned(), json!("1"))]);
    for name in COLUMNS {
        let text = TEXTS.choose(random).filter(|_| random.random_bool(0.8));
        row.insert(name.to_owned(), text.map_or(Value::Null, |text| json!(text)));
    }
    row.into()
}

fn tape(json: &[u8]) -> Tape {
    let mut tape = Tape::new();
    tape.parse_json(json).unwrap();
    tape
}

#[test]
fn what_comes_out_is_what_the_validator_accepts() {
    let (mappings, mut random) = (mappings(), ChaCha8Rng::seed_from_u64(1));
    let zone = Zone::named("Africa/Khartoum").unwrap();
    let source = Source { name: "s".into(), tenant: "t".into(), zone, facility_tenants: BTreeMap::new() };
    let (mut scratch, mut drafts) = (Scratch::default(), Drafts::new());
    for (number, (_, resource)) in RESOURCES.iter().enumerate() {
        let mapping = mappings.cdc("db", &format!("t{number}")).unwrap();
        // The same template without a check.
        let options = FpmlOptions::default();
        let free =
            Fpml::compile(Path::new("t.yaml"), resource, &options).map_err(|p| format!("{p:?}")).unwrap();
        let (mut accepted, mut refused) = (0, 0);
        for _ in 0..ROWS {
            let row = tape(row(&mut random).to_string().as_bytes());
            let change = RowChange {
                op: RowOp::Create,
                key: None,
                before: None,
                after: Some(row.root()),
                source: &source,
                version_id: "1",
                last_updated: 0,
                record_time: 0,
            };
            let made = mapping.apply(&change, &mut scratch, &mut drafts);
            let written = free.resolve(row.root(), &[]).unwrap().unwrap();
            let verdict = validate(tape(&written).root());
            assert_eq!(
                made.is_ok(),
                verdict.is_ok(),
                "{resource} of {}: {made:?}, {verdict:?}",
                String::from_utf8_lossy(&written)
            );
            for draft in drafts.iter() {
                let DraftBody::Resource { json, .. } = draft.body else { continue };
                assert_eq!(validate(tape(json).root()), Ok(()), "{}", String::from_utf8_lossy(json));
                accepted += 1;
            }
            refused += usize::from(made.is_err());
        }
        assert!(accepted > 0 && refused > 0, "{resource}: {accepted} accepted, {refused} refused");
    }
}
