//! One valid observation and what each mutation of it must be called; every Synthea resource we have tables for.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use fhirehose_fhir::terminology::CodeError;
use fhirehose_fhir::{Rule, element_exists, validate};
use fhirehose_tape::Tape;
use serde_json::{Value, json};

fn verdict(resource: &Value) -> Result<(), (String, Rule)> {
    let mut tape = Tape::new();
    tape.parse_json(resource.to_string().as_bytes()).unwrap();
    validate(tape.root()).map_err(|invalid| (invalid.path, invalid.rule))
}

fn blood_pressure() -> Value {
    let component = |loinc: &str, value: Value| {
        json!({
            "code": {"coding": [{"system": "http://loinc.org", "code": loinc}]},
            "valueQuantity": {
                "value": value, "unit": "mmHg", "system": "http://unitsofmeasure.org", "code": "mm[Hg]"
            }
        })
    };
    json!({
        "resourceType": "Observation",
        "id": "f5bdad98-12c6-556f-9a54-a540bd577ae9",
        "meta": {"lastUpdated": "2026-01-02T03:04:05.123Z", "profile": ["http://hl7.org/fhir/StructureDefinition/bp"]},
        "status": "final",
        "category": [{"coding": [{
            "system": "http://terminology.hl7.org/CodeSystem/observation-category", "code": "vital-signs"
        }]}],
        "code": {"coding": [{"system": "http://loinc.org", "code": "85354-9"}], "text": "Blood pressure"},
        "subject": {"reference": "Patient/p-1"},
        "effectiveDateTime": "2026-01-02T03:04:05+02:00",
        "component": [component("8480-6", json!(120)), component("8462-4", json!(80))]
    })
}

fn heart_rate() -> Value {
    let mut resource = blood_pressure();
    resource["meta"] = json!({"profile": ["http://hl7.org/fhir/StructureDefinition/heartrate"]});
    resource["code"]["coding"][0]["code"] = json!("8867-4");
    resource.as_object_mut().unwrap().remove("component");
    resource["valueQuantity"] =
        json!({"value": 72, "unit": "beats/minute", "system": "http://unitsofmeasure.org", "code": "/min"});
    resource
}

/// Sets (or with null removes) what stands at a JSON pointer.
fn mutate(mut resource: Value, pointer: &str, to: Value) -> Value {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = resource.pointer_mut(parent).unwrap();
    match parent.as_array_mut() {
        Some(array) => array[name.parse::<usize>().unwrap()] = to,
        None if to.is_null() => drop(parent.as_object_mut().unwrap().remove(name)),
        None => parent[name] = to,
    }
    resource
}

#[test]
fn the_valid_ones_are_valid() {
    assert_eq!(verdict(&blood_pressure()), Ok(()));
    assert_eq!(verdict(&heart_rate()), Ok(()));
}

#[test]
fn mutations_of_blood_pressure() {
    let absent = json!({"coding": [{"system": "http://terminology.hl7.org/CodeSystem/data-absent-reason", "code": "unknown"}]});
    let cases: Vec<(&str, Value, &str, Rule)> = vec![
        ("/status", Value::Null, "Observation.status", Rule::Missing),
        ("/status", json!("done"), "Observation.status", Rule::Code),
        ("/statuss", json!("final"), "Observation.*", Rule::UnknownElement),
        ("/effectivePeriod", json!({"start": "2026"}), "Observation.effective", Rule::Choice),
        ("/effectiveDateTime", json!("2026-02-30"), "Observation.effectiveDateTime", Rule::Format),
        ("/effectiveDateTime", json!("2026-01-02T03:04:05"), "Observation.effectiveDateTime", Rule::Format),
        ("/id", json!("a_b"), "Observation.id", Rule::Format),
        ("/code", json!([{"text": "x"}]), "Observation.code", Rule::Cardinality),
        ("/category", json!({"text": "x"}), "Observation.category", Rule::Cardinality),
        ("/component/1/code", Value::Null, "Observation.component[1].code", Rule::Missing),
        (
            "/component/0/valueQuantity/value",
            json!("120"),
            "Observation.component[0].valueQuantity.value",
            Rule::Kind,
        ),
        ("/code/text", json!(""), "Observation.code.text", Rule::Empty),
        ("/code/text", Value::Object(Default::default()), "Observation.code.text", Rule::Kind),
        ("/method", json!({}), "Observation.method", Rule::Empty),
        ("/subject/reference", json!("Practitioner/p-1"), "Observation.subject", Rule::Target),
        ("/subject/reference", json!("patient p-1"), "Observation.subject.reference", Rule::Format),
        ("/subject/reference", json!("#p"), "Observation.subject.reference", Rule::Invariant("ref-1")),
        ("/note", json!([]), "Observation.note", Rule::Empty),
        (
            "/code/coding/0/code",
            json!("85354-8"),
            "Observation.code.coding[0].code",
            Rule::Terminology(CodeError::CheckDigit),
        ),
        (
            "/component/0/valueQuantity/code",
            json!("mmHg"),
            "Observation.component[0].valueQuantity.code",
            Rule::Unit,
        ),
        (
            "/component/0/valueQuantity/system",
            Value::Null,
            "Observation.component[0].valueQuantity",
            Rule::Invariant("qty-3"),
        ),
        ("/component/1/valueQuantity", Value::Null, "Observation", Rule::Invariant("vs-3")),
        ("/component/1/code/coding/0/code", json!("8480-6"), "Observation.component", Rule::Invariant("bp")),
        ("/valueString", json!("120/80"), "Observation.value", Rule::Invariant("bp")),
        ("/subject", Value::Null, "Observation.subject", Rule::Missing),
        ("/category", Value::Null, "Observation.category", Rule::Missing),
        ("/effectiveDateTime", Value::Null, "Observation.effective", Rule::Missing),
        ("/effectiveDateTime", json!("2026-01"), "Observation", Rule::Invariant("vs-1")),
        ("/meta/profile/0", json!("bp"), "Observation.meta.profile[0]", Rule::Format),
        ("/code/coding/0/system", json!("loinc.org"), "Observation.code.coding[0].system", Rule::Format),
        ("/code/coding/0/code", json!("55284-4"), "Observation", Rule::Invariant("bp")),
        ("/resourceType", json!("Observatoin"), "resourceType", Rule::UnknownResource),
        ("/_status", json!({"extension": []}), "Observation.status.extension", Rule::Empty),
        ("/_code", json!({"id": "x"}), "Observation.*", Rule::UnknownElement),
        ("/extension", json!([{"url": "http://x"}]), "Observation.extension[0]", Rule::Invariant("ext-1")),
        (
            "/component/1/valueQuantity/comparator",
            json!("=<"),
            "Observation.component[1].valueQuantity.comparator",
            Rule::Code,
        ),
        (
            "/contained",
            json!([{"resourceType": "Nonsense"}]),
            "Observation.contained[0]",
            Rule::UnknownResource,
        ),
    ];
    for (pointer, to, path, rule) in cases {
        let case = format!("{pointer} = {to}");
        assert_eq!(verdict(&mutate(blood_pressure(), pointer, to)), Err((path.to_owned(), rule)), "{case}");
    }
    let mut with_reason = mutate(blood_pressure(), "/component/1/valueQuantity", Value::Null);
    with_reason["component"][1]["dataAbsentReason"] = absent.clone();
    assert_eq!(verdict(&with_reason), Ok(()), "a missing half is said to be missing");
    let flow = json!([{
        "code": {"coding": [{"system": "http://loinc.org", "code": "3151-8"}]},
        "valueQuantity": {"value": 2, "system": "http://unitsofmeasure.org", "code": "L/min"}
    }]);
    let flow = mutate(heart_rate(), "/component", flow);
    assert_eq!(
        verdict(&flow),
        Err(("Observation.component[0].value".to_owned(), Rule::Unit)),
        "ucum-vitals-common"
    );
    let obs_6 = mutate(heart_rate(), "/dataAbsentReason", absent);
    assert_eq!(verdict(&obs_6), Err(("Observation".to_owned(), Rule::Invariant("obs-6"))));
    let obs_7 = mutate(heart_rate(), "/component", blood_pressure()["component"].clone());
    let obs_7 = mutate(obs_7, "/component/0/code/coding/0/code", json!("8867-4"));
    let obs_7 = mutate(obs_7, "/component/0/valueQuantity/code", json!("/min"));
    assert_eq!(verdict(&obs_7), Err(("Observation".to_owned(), Rule::Invariant("obs-7"))));
    let two_values = mutate(heart_rate(), "/valueString", json!("72"));
    assert_eq!(verdict(&two_values), Err(("Observation.value".to_owned(), Rule::Choice)));
    let no_unit = mutate(heart_rate(), "/valueQuantity/unit", Value::Null);
    assert_eq!(verdict(&no_unit), Err(("Observation.valueQuantity.unit".to_owned(), Rule::Missing)));
    let vs_2 = mutate(heart_rate(), "/valueQuantity", Value::Null);
    assert_eq!(verdict(&vs_2), Err(("Observation".to_owned(), Rule::Invariant("vs-2"))));
}

#[test]
fn invariants_of_the_others() {
    let coded = |system: &str, code: &str| json!({"coding": [{"system": format!("http://terminology.hl7.org/CodeSystem/{system}"), "code": code}]});
    let condition = json!({
        "resourceType": "Condition", "subject": {"reference": "Patient/1"},
        "clinicalStatus": coded("condition-clinical", "resolved"),
        "verificationStatus": coded("condition-ver-status", "confirmed"),
        "category": [coded("condition-category", "problem-list-item")],
        "abatementDateTime": "2026-01-02"
    });
    let fails = |resource: &Value, path: &str, rule: Rule| {
        assert_eq!(verdict(resource), Err((path.to_owned(), rule)), "{path}");
    };
    assert_eq!(verdict(&condition), Ok(()));
    let change = |pointer: &str, to: Value| mutate(condition.clone(), pointer, to);
    fails(&change("/clinicalStatus", Value::Null), "Condition", Rule::Invariant("con-3"));
    fails(
        &change("/clinicalStatus", coded("condition-clinical", "active")),
        "Condition",
        Rule::Invariant("con-4"),
    );
    fails(&change("/clinicalStatus", json!({"text": "active"})), "Condition.clinicalStatus", Rule::Code);
    let in_error = coded("condition-ver-status", "entered-in-error");
    fails(&change("/verificationStatus", in_error), "Condition", Rule::Invariant("con-5"));

    let patient = json!({
        "resourceType": "Patient", "gender": "female", "birthDate": "1979-01-02",
        "name": [{"family": "Qanarywala", "given": ["Amna", null], "_given": [null, {"id": "g"}]}],
        "telecom": [{"system": "phone", "value": "+249 91 000 0000"}],
        "contact": [{"name": {"text": "Qanarywala"}}],
        "generalPractitioner": [{"reference": "Practitioner?identifier=http://x|1"}],
    });
    assert_eq!(verdict(&patient), Ok(()));
    let change = |pointer: &str, to: Value| mutate(patient.clone(), pointer, to);
    fails(&change("/gender", json!("F")), "Patient.gender", Rule::Code);
    fails(&change("/name/0/_given", json!([null, null])), "Patient.name[0].given[1]", Rule::Kind);
    fails(&change("/telecom/0/system", Value::Null), "Patient.telecom[0]", Rule::Invariant("cpt-2"));
    fails(&change("/contact/0", json!({"gender": "male"})), "Patient.contact[0]", Rule::Invariant("pat-1"));
    fails(&change("/birthDate", json!("1979-01-02T00:00:00Z")), "Patient.birthDate", Rule::Format);
    fails(&change("/active", json!("true")), "Patient.active", Rule::Kind);
    fails(&change("/multipleBirthInteger", json!(1.5)), "Patient.multipleBirthInteger", Rule::Format);
    let conditional = json!([{"reference": "Patient?identifier=x|1"}]);
    fails(&change("/generalPractitioner", conditional), "Patient.generalPractitioner[0]", Rule::Target);

    let encounter = json!({
        "resourceType": "Encounter", "status": "finished",
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
        "period": {"start": "2026-01-02T03:00:00+02:00", "end": "2026-01-02T02:00:00Z"},
    });
    assert_eq!(verdict(&encounter), Ok(()));
    let backwards = mutate(encounter, "/period/end", json!("2026-01-02T00:59:59Z"));
    fails(&backwards, "Encounter.period", Rule::Invariant("per-1"));

    let organization =
        json!({"resourceType": "Organization", "name": "x", "address": [{"use": "home", "city": "y"}]});
    fails(&organization, "Organization", Rule::Invariant("org-2"));
    fails(&json!({"resourceType": "Organization", "active": true}), "Organization", Rule::Invariant("org-1"));
    fails(
        &json!({"resourceType": "Practitioner", "name": {"family": "x"}}),
        "Practitioner.name",
        Rule::Cardinality,
    );
}

#[test]
fn elements_by_path() {
    for (ty, path) in [
        ("Observation", "component.valueQuantity.code"),
        ("Observation", "resourceType"),
        ("Patient", "name.given"),
        ("Patient", "_birthDate.extension.valueDateTime"),
        ("Patient", "contained.anything"),
        ("Encounter", "hospitalization.dischargeDisposition.coding.display"),
    ] {
        assert!(element_exists(ty, path), "{ty}.{path}");
    }
    for (ty, path) in [
        ("Observation", "value"),
        ("Observation", "component.valueQuantity.units"),
        ("Patient", "name.given.length"),
        ("Patient", "_name"),
        ("Patient", ""),
        ("Claim", "id"),
    ] {
        assert!(!element_exists(ty, path), "{ty}.{path}");
    }
}
