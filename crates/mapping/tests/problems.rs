//! What a mapping cannot mean is told at load, all of it, with file, line and column.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so")]

use std::fs;
use std::path::Path;

use fhirehose_mapping::{Mappings, Source, Vendor, Zone, explain};
use fhirehose_topics::Registry;

const MAP: &str = "source,system,code,display\nM,http://hl7.org/fhir/administrative-gender,male,Male\n";

const GOOD: &str = r#"mapping: cdc/db/people
version: 2
table: db.people
columns:
  id: {type: string, class: none, key: true}
  name: {type: string, class: direct}
  sex: {type: string, class: quasi}
  secret: {forbidden: true}
rules:
  - {when: "name = 'x'", reject: impossible_value, path: name}
  - {when: "sex.empty()", flag: no-sex}
outputs:
  - name: person
    to: fhir.patient
    resource:
      resourceType: Patient
      name: [{text: "{{ name }}"}]
      gender: "{{ sex.translate('sex').code }}"
"#;

fn topics() -> Registry {
    Registry::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")).unwrap()
}

fn load(files: &[(&str, &str)]) -> Result<Mappings, Vec<String>> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join("mappings").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let root = dir.path().join("mappings");
    Mappings::load(dir.path(), &topics()).map_err(|problems| {
        let short = |file: &Path| file.strip_prefix(&root).unwrap_or(file).display().to_string();
        problems
            .iter()
            .map(|p| format!("{}:{}:{}: {}", short(&p.file), p.line, p.column, p.message))
            .collect()
    })
}

/// The one problem of the good mapping with a line changed.
fn changed(from: &str, to: &str) -> Vec<String> {
    assert!(GOOD.contains(from), "{from}");
    let text = GOOD.replacen(from, to, 1);
    load(&[("maps/sex.csv", MAP), ("cdc/db/people.yaml", &text)]).err().unwrap_or_default()
}

#[test]
fn a_good_mapping_has_none() {
    let mappings =
        load(&[("maps/sex.csv", MAP), ("cdc/db/people.yaml", GOOD)]).map_err(|p| p.join("\n")).unwrap();
    assert_eq!(mappings.cdc("db", "people").unwrap().shape(), "cdc/db/people@2");
    assert!(mappings.cdc("db", "other").is_none());
}

#[test]
fn each_mistake_is_told_in_its_place() {
    for (from, to, place, word) in [
        ("{{ name }}", "{{ nome }}", "17:25", "nome"),
        ("{{ name }}", "{{ %nome }}", "17:", "nome"),
        ("{{ name }}", "{{ name.shout() }}", "17:", "shout"),
        ("{{ name }}", "{{ secret }}", "17:", "secret"),
        ("translate('sex')", "translate('sax')", "18:", "maps/sax.csv"),
        ("translate('sex')", "translate(name)", "18:", "literal"),
        ("gender:", "gendre:", "18:7", "no element `Patient.gendre`"),
        ("{text: \"", "{txt: \"", "17:", "Patient.name.txt"),
        ("resourceType: Patient", "resourceType: Observation", "16:", "fhir.patient takes no"),
        ("      gender:", "      id: x\n      gender:", "16:", "written by the engine"),
        ("to: fhir.patient", "to: fhir.person", "14:", "no such topic"),
        ("class: direct", "class: intimate", "6:", "direct, quasi"),
        ("class: direct", "klass: direct", "6:", "unknown key `klass`"),
        ("type: string, class: direct", "type: text, class: direct", "6:", "decimal"),
        (", key: true", "", "5:", "key: true"),
        ("reject: impossible_value", "reject: redelivered", "10:", "a rule rejects with one of"),
        ("reject: impossible_value, path: name", "reject: impossible_value", "10:", "`path`"),
        ("flag: no-sex", "flag: No Sex", "11:", "lower-case"),
        ("version: 2", "version: two", "2:10", "whole number"),
        ("mapping: cdc/db/people", "mapping: cdc/db/persons", "1:10", "cdc/db/people"),
        ("table: db.people", "table: db.persons", "3:8", "db.people"),
        ("rules:", "ruels:", "9:1", "unknown key `ruels`"),
        ("outputs:", "outputs: []\nmore:", "12:", "at least one"),
        ("    to: fhir.patient", "    to: fhir.patient\n    id: {key: [nr]}", "15:", "no column `nr`"),
        (
            "      gender:",
            "      maritalStatus: {coding: [{system: \"http://loinc.org\", code: 8867-5}]}\n      gender:",
            "18:",
            "check digit",
        ),
        ("name = 'x'", "name = 5", "10:18", "a string and a number are never equal"),
        ("name = 'x'", "name > 5", "10:18", "cannot be compared"),
        ("{{ name }}", "{{ name + 1 }}", "17:30", "+ does not go with a string and a number"),
        ("{{ name }}", "{{ name.given }}", "17:30", "a string has no member given"),
        ("{{ name }}", "{{ name.length() }}", "17:25", "is of type string, and a number is none"),
        ("translate('sex').code", "translate('sex').cod", "18:40", "no member cod; there are system, code"),
        ("translate('sex').code", "translate('sex')", "18:", "is of type code, and an object is none"),
        ("translate('sex').code", "memberOf('sax')", "18:", "maps/sax.csv"),
        ("translate('sex').code", "memberOf('sex')", "18:", "and a boolean is none"),
        (
            "      gender:",
            "      active: \"{{ name }} x\"\n      gender:",
            "18:",
            "is of type boolean, and a string is none",
        ),
        (
            "      gender:",
            "      active: yes\n      gender:",
            "18:",
            "is of type boolean, and a string is none",
        ),
        (
            "      gender:",
            "      birthDate: 2020\n      gender:",
            "18:",
            "is of type date, and a decimal is none",
        ),
        (
            "      gender:",
            "      birthDate: {a: 1}\n      gender:",
            "18:",
            "is of type date, and an object is none",
        ),
        ("      gender:", "      maritalStatus: single\n      gender:", "18:", "is of type CodeableConcept"),
        (
            "name: [{text: \"{{ name }}\"}]",
            "name: {text: \"{{ name }}\"}",
            "17:7",
            "`Patient.name` is a list",
        ),
        (
            "      gender:",
            "      birthDate: [2020-01-01]\n      gender:",
            "18:7",
            "`Patient.birthDate` is one value",
        ),
        (
            "      gender:",
            "      birthDate: \"{[ name ]}\"\n      gender:",
            "18:7",
            "`Patient.birthDate` is one value",
        ),
        (
            "resourceType: Patient",
            "resourceType: Patient\n      \"{% assign %}\": [{g: \"{{ sex.translate('sex') }}\"}]\n      \
             language: \"{{ %g.kode }}\"",
            "18:",
            "kode",
        ),
        (
            "resourceType: Patient",
            "resourceType: Patient\n      address:\n        \"{% for i, x in name %}\": {city: \"{{ %x + %i }}\"}",
            "18:",
            "+",
        ),
        ("      gender:", "      communication: [{preferred: 1}]\n      gender:", "", "boolean"),
        (
            "resourceType: Patient",
            "resourceType: Patient\n      birthDate: 26-01-02",
            "",
            "`Patient.birthDate`: malformed",
        ),
        (
            "resourceType: Patient",
            "resourceType: Patient\n      contact: [{gender: femal}]",
            "",
            "`Patient.contact.gender`: code outside its required value set",
        ),
        (
            "      gender:",
            "      contact: [{period: {start: 2026-02-01, end: 2026-01-01}, gender: male}]\n      gender:",
            "18:26",
            "`Patient.contact.period`: invariant per-1",
        ),
        (
            "      gender:",
            "      telecom: [{system: phone, value: '1'}, {value: '2'}]\n      gender:",
            "18:16",
            "`Patient.telecom[1]`: invariant cpt-2",
        ),
        (
            "      gender:",
            "      link: [{type: refer}]\n      gender:",
            "18:13",
            "`Patient.link` needs `other`",
        ),
        ("version: 2", "version: [", "", ""),
    ] {
        let told = changed(from, to);
        let expected = format!("cdc/db/people.yaml:{place}");
        assert!(
            told.iter().any(|p| p.starts_with(&expected) && p.contains(word)),
            "{from} -> {to}: {told:?}"
        );
    }
}

#[test]
fn all_problems_of_all_files_are_told_together() {
    let broken = GOOD.replace("{{ name }}", "{{ nome }}").replace("gender:", "gendre:");
    let files = [("maps/sex.csv", "source,system,code,display\nM,s\n"), ("cdc/db/people.yaml", &*broken)];
    let told = load(&files).err().unwrap();
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(load(&[]).err().unwrap()[0].contains("there is no mapping here"));
}

#[test]
fn records_are_checked_against_the_topics_schema() {
    let record = |fields: &str| {
        GOOD.replace("to: fhir.patient", "to: vitals.sample\n    key: [\"%tenant\", id]")
            .replace(&GOOD[GOOD.find("    resource:").unwrap()..], &format!("    record: {{{fields}}}\n"))
    };
    let all = "tenant: \"{{ %tenant }}\", patient_id: p, device_id: d, observed_at: 1, source: s, source_event_id: e";
    for (fields, word) in [
        ("tenant: t", "needs the field `patient_id`"),
        (&*format!("{all}, mood: good"), "no field `mood`"),
        (&*format!("{all}, flags: []"), "`flags` is written by the engine"),
    ] {
        let told = load(&[("cdc/db/people.yaml", &record(fields))]).err().unwrap_or_default();
        assert!(told.iter().any(|problem| problem.contains(word)), "{fields}: {told:?}");
    }
    assert!(load(&[("cdc/db/people.yaml", &record(all))]).is_ok());
}

#[test]
fn a_unit_its_code_cannot_have_is_a_problem() {
    let text = |unit: &str| {
        let observation = format!(
            "resource:\n      resourceType: Observation\n      status: final\n      \
             code: {{coding: [{{system: \"http://loinc.org\", code: 8480-6}}]}}\n      \
             valueQuantity: \"{{{{ (120).quantity('{unit}', 'mmHg') }}}}\"\n"
        );
        GOOD.replace("to: fhir.patient", "to: fhir.observation")
            .replace(&GOOD[GOOD.find("resource:").unwrap()..], &observation)
    };
    let told = load(&[("cdc/db/people.yaml", &text("mmHg"))]).err().unwrap();
    assert!(
        told.len() == 1 && told[0].contains(":19:22: the unit `mmHg` is not one of LOINC 8480-6"),
        "{told:?}"
    );
    assert!(load(&[("cdc/db/people.yaml", &text("mm[Hg]"))]).is_ok());
}

#[test]
fn what_an_element_must_have_is_written() {
    let text = |members: &str| {
        let observation = format!("resource:\n      resourceType: Observation\n{members}");
        GOOD.replace("to: fhir.patient", "to: fhir.observation")
            .replace(&GOOD[GOOD.find("resource:").unwrap()..], &observation)
    };
    let told = |members: &str| load(&[("cdc/db/people.yaml", &text(members))]).err().unwrap_or_default();
    let code = "      code: {text: \"{{ name }}\"}\n";
    assert_eq!(told(&format!("      status: final\n{code}")), Vec::<String>::new());
    assert_eq!(told(&format!("      \"{{% merge %}}\": {{status: final}}\n{code}")), Vec::<String>::new());
    assert_eq!(told(code), ["cdc/db/people.yaml:16:7: `Observation` needs `status`"]);
    let component = "      status: final\n      component: [{valueString: \"{{ name }}\"}]\n";
    let told = told(&format!("{component}{code}"));
    assert_eq!(told, ["cdc/db/people.yaml:18:18: `Observation.component` needs `code`"]);
}

#[test]
fn an_emergency_is_declared_as_one() {
    let text = "mapping: device/kati/x\nversion: 1\ntopic: device.kati\nmatch: \"a = 1\"\ndevice: IMEI\noutputs:\n  \
        - name: x\n    to: alert.emergency\n    key: [\"%device\"]\n    \
        record: {device_id: d, kind: sos, observed_at: 1, vendor: v}\n";
    let told = load(&[("device/kati/x.yaml", text)]).err().unwrap();
    assert!(told[0].contains("emergency: true"), "{told:?}");
    assert!(load(&[("device/kati/x.yaml", &format!("{text}emergency: true\n"))]).is_ok());
}

#[test]
fn explain_tells_every_hole_and_why_an_output_is_not_there() {
    let mappings =
        load(&[("maps/sex.csv", MAP), ("cdc/db/people.yaml", GOOD)]).map_err(|p| p.join("\n")).unwrap();
    let zone = Zone::named("Africa/Khartoum").unwrap();
    let source = Source {
        name: "s".into(),
        tenant: "t".into(),
        zone: zone.clone(),
        facility_tenants: Default::default(),
    };
    let vendor = Vendor { name: "kati".into(), zone };
    let explained = |row: &str| {
        let record =
            format!(r#"{{"key":null,"value":{{"op":"c","after":{row}}},"timestamp":1772366550057}}"#);
        explain(&mappings, "cdc.db.people", record.as_bytes(), &source, &vendor).unwrap()
    };
    let told = explained(r#"{"id":"1","name":"N","sex":null}"#).to_string();
    for line in [
        "mapping cdc/db/people@2",
        "rule (line 11): sex.empty() = true",
        "output person to fhir.patient",
        "Patient.name.text (line 17): name = \"N\"",
        "Patient.gender (line 18): sex.translate('sex').code = empty: sex is null",
        r#"fhir.patient t/"#,
        r#""tag":[{"system":"urn:fhirehose:dq","code":"no-sex"}]"#,
    ] {
        assert!(told.contains(line), "{line}\n{told}");
    }
    let told = explained(r#"{"id":"1","name":"N","sex":"Z"}"#).to_string();
    assert!(told.contains("rejected: unknown_code at Patient.gender"), "{told}");
    let missing = explain(&mappings, "cdc.db.people", b"{}", &source, &vendor).unwrap_err().to_string();
    assert!(missing.contains("no `value`"), "{missing}");
}

#[test]
fn codes_agree_with_the_files() {
    let own = "source,system,code,display\na,urn:fhirehose:codes:kind,one,One\n";
    let with = |coding: &str| {
        let text = GOOD
            .replace("      gender:", &format!("      maritalStatus: {{coding: [{coding}]}}\n      gender:"));
        load(&[("maps/sex.csv", MAP), ("maps/kind.csv", own), ("cdc/db/people.yaml", &text)])
            .err()
            .unwrap_or_default()
    };
    assert_eq!(with("{system: urn:fhirehose:codes:kind, code: one, display: One}"), Vec::<String>::new());
    for (coding, wanted) in [
        (
            "{system: \"http://hl7.org/fhir/sid/icd-10-cm\", code: e11}",
            "18:84: `e11` of http://hl7.org/fhir/sid/icd-10-cm: not the shape of a code of this system",
        ),
        (
            "{system: urn:fhirehose:codes:kind, code: two}",
            "18:73: urn:fhirehose:codes:kind has no code `two`; the concept maps have one",
        ),
        (
            "{system: urn:fhirehose:codes:kind, code: one, display: Uno}",
            "18:87: `one` of urn:fhirehose:codes:kind is displayed as `Uno` here and as `One` in maps/kind.csv",
        ),
    ] {
        let told = with(coding);
        assert_eq!(told, [format!("cdc/db/people.yaml:{wanted}")], "{coding}");
    }
    let npi = |value: &str| {
        let identifier =
            format!("      identifier: [{{system: \"http://hl7.org/fhir/sid/us-npi\", value: \"{value}\"}}]");
        let text = GOOD.replace("      gender:", &format!("{identifier}\n      gender:"));
        load(&[("maps/sex.csv", MAP), ("cdc/db/people.yaml", &text)]).err().unwrap_or_default()
    };
    assert_eq!(npi("1234567893"), Vec::<String>::new());
    assert!(
        npi("1234567890")[0].ends_with("`1234567890` of http://hl7.org/fhir/sid/us-npi: wrong check digit")
    );
    let twice = format!("{own}b,urn:fhirehose:codes:kind,one,Eins\n");
    let told = load(&[("maps/sex.csv", MAP), ("maps/kind.csv", &twice), ("cdc/db/people.yaml", GOOD)])
        .err()
        .unwrap();
    assert!(told.len() == 1 && told[0].starts_with("maps/kind.csv:3:1: `one`"), "{told:?}");
}
