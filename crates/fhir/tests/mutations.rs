//! The seventeen ways to spoil a valid Observation that no other validator finds all of, each in R4 and R5.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use fhirehose_fhir::terminology::CodeError;
use fhirehose_fhir::{Rule, Version, findings, validate};
use fhirehose_tape::Tape;
use fhirehose_testkit::conformance;
use serde_json::{Value, json};

fn heart_rate() -> Value {
    json!({
        "resourceType": "Observation",
        "id": "hr-1",
        "status": "final",
        "category": [{"coding": [{
            "system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "vital-signs"
        }]}],
        "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4", "display": "Heart rate"}]},
        "subject": {"reference": "Patient/p-1"},
        "effectiveDateTime": "2026-01-02T03:04:05+02:00",
        "valueQuantity": {
            "value": 72, "unit": "beats/minute", "system": "http://unitsofmeasure.org", "code": "/min"
        },
        "component": [{
            "code": {"coding": [{"system": "http://loinc.org", "code": "8480-6"}]},
            "valueQuantity": {
                "value": 120, "unit": "mmHg", "system": "http://unitsofmeasure.org", "code": "mm[Hg]"
            }
        }]
    })
}

/// Every rule that is found broken, in both releases, and where.
fn found(resource: &Value) -> Vec<(String, Rule)> {
    let mut tape = Tape::new();
    tape.parse_json(resource.to_string().as_bytes()).unwrap();
    let of = |version| -> Vec<(String, Rule)> {
        findings(version, tape.root()).into_iter().map(|invalid| (invalid.path, invalid.rule)).collect()
    };
    let (r4, r5) = (of(Version::R4), of(Version::R5));
    assert_eq!(r4, r5, "R4 and R5");
    let first = validate(tape.root()).err().map(|invalid| invalid.rule);
    assert_eq!(first, r4.first().map(|(_, rule)| *rule), "the short verdict and the long");
    r4
}

/// Where which rule is broken after a mutation.
fn after(spoil: fn(&mut Value)) -> Vec<(String, Rule)> {
    let mut resource = heart_rate();
    spoil(&mut resource);
    found(&resource)
}

/// A test of each mutation: what is done to the observation, and where which rule is broken then.
macro_rules! mutations {
    ($($name:ident: $spoil:expr, $path:literal, $rule:expr;)+) => {
        $(#[test]
        fn $name() {
            assert_eq!(after($spoil), [($path.to_owned(), $rule)]);
        })+

        /// Whether each is caught where and as it must be.
        fn caught() -> Vec<bool> {
            vec![$(after($spoil) == [($path.to_owned(), $rule)]),+]
        }
    };
}

fn remove(value: &mut Value, name: &str) {
    value.as_object_mut().unwrap().remove(name).unwrap();
}

#[test]
fn the_observation_is_valid() {
    assert_eq!(found(&heart_rate()), []);
}

mutations! {
    missing_status: |o| remove(o, "status"), "Observation.status", Rule::Missing;
    status_outside_its_binding: |o| o["status"] = json!("done"), "Observation.status", Rule::Code;
    unknown_element: |o| o["statuss"] = json!("final"), "Observation.statuss", Rule::UnknownElement;
    two_values: |o| o["valueString"] = json!("72"), "Observation.value", Rule::Choice;
    date_that_no_calendar_has: |o| o["effectiveDateTime"] = json!("2026-02-30"),
        "Observation.effectiveDateTime", Rule::Format;
    date_time_without_zone: |o| o["effectiveDateTime"] = json!("2026-01-02T03:04:05"),
        "Observation.effectiveDateTime", Rule::Format;
    bad_id: |o| o["id"] = json!("hr_1"), "Observation.id", Rule::Format;
    array_where_an_object_belongs: |o| o["code"] = json!([o["code"]]),
        "Observation.code", Rule::Cardinality;
    component_without_code: |o| remove(&mut o["component"][0], "code"),
        "Observation.component[0].code", Rule::Missing;
    number_as_string: |o| o["valueQuantity"]["value"] = json!("72"),
        "Observation.valueQuantity.value", Rule::Kind;
    empty_string: |o| o["code"]["text"] = json!(""), "Observation.code.text", Rule::Empty;
    reference_to_a_wrong_type: |o| o["subject"]["reference"] = json!("RelatedPerson/p-1"),
        "Observation.subject", Rule::Target;
    empty_array: |o| o["note"] = json!([]), "Observation.note", Rule::Empty;
    obs_6_value_and_reason_for_none: |o| o["dataAbsentReason"] = json!({"text": "unknown"}),
        "Observation", Rule::Invariant("obs-6");
    obs_7_value_and_component_of_one_code: |o| {
        o["component"][0]["code"] = o["code"].clone();
        o["component"][0]["valueQuantity"] = o["valueQuantity"].clone();
    }, "Observation", Rule::Invariant("obs-7");
    loinc_with_a_wrong_check_digit: |o| o["code"]["coding"][0]["code"] = json!("8867-5"),
        "Observation.code.coding[0].code", Rule::Terminology(CodeError::CheckDigit);
    unit_that_is_not_the_ucum_of_its_code: |o| o["component"][0]["valueQuantity"]["code"] = json!("mmHg"),
        "Observation.component[0].valueQuantity.code", Rule::Unit;
}

#[test]
fn the_page_counts_what_is_caught() {
    let caught = caught();
    let result = format!(
        "{} of {} caught at their path and by their rule, in R4 and R5",
        caught.iter().filter(|is| **is).count(),
        caught.len()
    );
    let suite = "Validator: ways to spoil a vital sign";
    conformance::assert_current(suite, &result, "fhirehose-fhir", "--test mutations");
}
