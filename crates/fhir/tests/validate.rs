//! One valid observation and what each mutation of it must be called; every Synthea resource we have tables for.

#![expect(clippy::unwrap_used, reason = "a test may fail")]

use fhirehose_fhir::terminology::CodeError;
use fhirehose_fhir::{Rule, Version, element_exists, findings, validate};
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
        (
            "/subject/reference",
            json!("urn:uuid:2ed6657d-e927-568b-95e1-2665a8aea6a2 b"),
            "Observation.subject.reference",
            Rule::Format,
        ),
        (
            "/subject/reference",
            json!("Patient?identifier=x|1 2"),
            "Observation.subject.reference",
            Rule::Format,
        ),
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
    let mut unsaid = change("/clinicalStatus", Value::Null);
    unsaid.as_object_mut().unwrap().remove("abatementDateTime");
    fails(&unsaid, "Condition", Rule::Invariant("con-3"));
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
        "name": [{"family": "Qanarywala", "given": ["Amna", null], "_given": [null, {"extension": [{"url": "http://x/y", "valueCode": "unknown"}]}]}],
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
    fails(&organization, "Organization.address", Rule::Invariant("org-2"));
    fails(&json!({"resourceType": "Organization", "active": true}), "Organization", Rule::Invariant("org-1"));
    fails(
        &json!({"resourceType": "Practitioner", "name": {"family": "x"}}),
        "Practitioner.name",
        Rule::Cardinality,
    );
}

/// Every rule that is told of a resource, with its path.
fn told(version: Version, resource: &Value) -> Vec<(String, Rule)> {
    let mut tape = Tape::new();
    tape.parse_json(resource.to_string().as_bytes()).unwrap();
    findings(version, tape.root()).into_iter().map(|invalid| (invalid.path, invalid.rule)).collect()
}

#[test]
fn what_stands_beside_primitives() {
    let absent = json!({"extension": [{"url": "http://x/y", "valueCode": "unknown"}]});
    let name = |name: Value| json!({"resourceType": "Patient", "name": [name]});
    for good in [
        json!({"_family": absent}),
        json!({"given": ["Amna", "Sara"], "_given": [{"id": "a"}, null]}),
        json!({"_given": [absent, absent]}),
        json!({"family": "x", "_family": {"id": "f"}}),
    ] {
        assert_eq!(told(Version::R4, &name(good.clone())), [], "{good}");
    }
    let wrong = |of: Value, path: &str, rule: Rule| {
        assert_eq!(told(Version::R4, &name(of.clone())), [(format!("Patient.name[0].{path}"), rule)], "{of}");
    };
    wrong(json!({"_family": {"id": "f"}}), "family", Rule::Invariant("ele-1"));
    wrong(json!({"given": ["a"], "_given": []}), "given", Rule::Empty);
    wrong(json!({"given": ["a"], "_given": [null, null]}), "given[1]", Rule::Empty);
    wrong(json!({"given": ["a", null]}), "given[1]", Rule::Kind);
    wrong(json!({"_given": {"id": "g"}}), "given", Rule::Cardinality);
    wrong(json!({"_family": [{"id": "f"}]}), "family", Rule::Cardinality);
    wrong(json!({"_family": {"value": "x"}}), "family.value", Rule::UnknownElement);
    wrong(json!({"id": "i", "_id": absent, "text": "x"}), "_id", Rule::UnknownElement);
    wrong(json!({"period": {"id": "p"}}), "period", Rule::Invariant("ele-1"));
    let choice = json!({"resourceType": "Patient", "deceasedBoolean": true, "_deceasedBoolean": absent});
    assert_eq!(told(Version::R4, &choice), [], "one choice in two parts");
    let choice = json!({"resourceType": "Patient", "deceasedBoolean": true, "_deceasedDateTime": absent});
    assert_eq!(told(Version::R4, &choice), [("Patient.deceased".to_owned(), Rule::Choice)]);
}

#[test]
fn contained_resources_and_extensions() {
    let resource = |contained: Value, subject: &str| {
        json!({
            "resourceType": "Observation", "status": "final", "code": {"text": "x"},
            "contained": [contained], "subject": {"reference": subject}
        })
    };
    let patient = json!({"resourceType": "Patient", "id": "p", "active": true});
    assert_eq!(told(Version::R4, &resource(patient.clone(), "#p")), []);
    let of = |contained: Value, subject: &str| {
        let found = told(Version::R4, &resource(contained, subject));
        found.into_iter().map(|(path, rule)| format!("{path}: {rule}")).collect::<Vec<_>>()
    };
    assert_eq!(of(patient.clone(), "#q")[0], "Observation.subject.reference: invariant ref-1");
    assert_eq!(of(patient.clone(), "Patient/p"), ["Observation: invariant dom-3"], "nobody refers to it");
    let identifier = json!({"system": "http://hl7.org/fhir/sid/us-npi", "value": "9999910829"});
    let warned = json!({"resourceType": "Practitioner", "identifier": [identifier], "contained": [patient]});
    let found = told(Version::R4, &warned);
    assert_eq!(found.len(), 2, "a warning below does not hide an error: {found:?}");
    let organization = json!({"resourceType": "Organization", "id": "p", "name": "x"});
    assert_eq!(of(organization, "#p"), ["Observation.subject: reference to a type that is not allowed here"]);
    let mut nested = patient.clone();
    nested["contained"] = json!([{"resourceType": "Patient", "id": "q"}]);
    assert_eq!(
        of(nested, "#p"),
        ["Observation.contained[0]: invariant dom-3"],
        "and dom-2, once that is right"
    );
    let mut versioned = patient.clone();
    versioned["meta"] = json!({"versionId": "1"});
    assert_eq!(of(versioned, "#p"), ["Observation: invariant dom-4"]);
    let mut spoilt = patient;
    spoilt["birthDate"] = json!("soon");
    assert_eq!(of(spoilt, "#p"), ["Observation.contained[0].birthDate: malformed value"]);

    let with =
        |extension: Value| told(Version::R4, &json!({"resourceType": "Patient", "extension": [extension]}));
    assert_eq!(with(json!({"url": "http://x/y", "valueQuantity": {"value": 1}})), []);
    assert_eq!(with(json!({"url": "http://x/y", "extension": [{"url": "z", "valueDate": "2026"}]})), []);
    let path = "Patient.extension[0]".to_owned();
    assert_eq!(with(json!({"url": "http://x/y"})), [(path.clone(), Rule::Invariant("ext-1"))]);
    let both = json!({"url": "http://x/y", "valueCode": "a", "valueString": "a"});
    assert_eq!(with(both), [(format!("{path}.value"), Rule::Choice)]);
    let relative = json!({"url": "y", "valueCode": "a"});
    assert_eq!(
        with(relative),
        [(format!("{path}.url"), Rule::Format)],
        "a name is enough inside of another only"
    );
    let of_no_type = json!({"url": "http://x/y", "valuePatient": {"id": "a"}});
    assert_eq!(with(of_no_type)[0], (format!("{path}.valuePatient"), Rule::UnknownElement));
    assert_eq!(with(json!({"valueCode": "a"})), [(format!("{path}.url"), Rule::Missing)]);
}

#[test]
fn warnings_are_told_and_refuse_nothing() {
    let doubtful = json!({
        "resourceType": "Practitioner",
        "identifier": [{"system": "http://hl7.org/fhir/sid/us-npi", "value": "1234567890"}]
    });
    assert_eq!(verdict(&doubtful), Ok(()));
    let [(path, rule)] = &told(Version::R4, &doubtful)[..] else { panic!("one finding") };
    assert_eq!((&**path, rule.is_warning()), ("Practitioner.identifier[0].value", true));
}

#[test]
fn the_releases_differ() {
    let encounter = json!({
        "resourceType": "Encounter", "status": "finished", "period": {"start": "2026"},
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"}
    });
    assert_eq!(told(Version::R4, &encounter), []);
    let rules: Vec<_> = told(Version::R5, &encounter).into_iter().map(|(_, rule)| rule).collect();
    assert_eq!(rules, [Rule::Code, Rule::UnknownElement, Rule::Cardinality]);
    let attached = |size: Value| json!({"resourceType": "Patient", "photo": [{"contentType": "image/png", "size": size}]});
    assert_eq!(told(Version::R5, &attached(json!("9007199254740993"))), [], "integer64 is a string in JSON");
    assert_eq!(told(Version::R4, &attached(json!(1))), []);
    assert_eq!(told(Version::R5, &attached(json!(1)))[0].1, Rule::Kind);
    let reason = |reference: &str| {
        json!({
            "resourceType": "Immunization", "status": "completed", "vaccineCode": {"text": "x"},
            "patient": {"reference": "Patient/1"}, "occurrenceDateTime": "2026",
            "reason": [{"reference": {"reference": reference}}]
        })
    };
    assert_eq!(told(Version::R5, &reason("Condition/1")), []);
    let wrong = ("Immunization.reason[0]".to_owned(), Rule::Target);
    assert_eq!(told(Version::R5, &reason("Patient/1")), [wrong], "targets of a CodeableReference");
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
        ("Spaceship", "id"),
    ] {
        assert!(!element_exists(ty, path), "{ty}.{path}");
    }
}

#[test]
fn an_identifier_of_the_system_of_uris_is_a_uri() {
    let identified = |system: &str, value: &str| {
        let identifier = json!({"system": system, "value": value});
        verdict(&json!({"resourceType": "Patient", "identifier": [identifier]}))
    };
    assert_eq!(identified("urn:ietf:rfc:3986", "urn:oid:1.2.840"), Ok(()));
    assert_eq!(identified("http://example.org/mrn", "17"), Ok(()));
    let wrong = Err(("Patient.identifier[0].value".to_owned(), Rule::Format));
    assert_eq!(identified("urn:ietf:rfc:3986", "17"), wrong);
    assert_eq!(identified("urn:ietf:rfc:3986", " "), wrong);
}
