//! Seeded ways to spoil a resource, or to leave it valid: whatever comes of it, all judges must say the same.

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

type Change = fn(&mut Value, &str, &mut ChaCha8Rng) -> bool;

/// Name and deed; a deed gets an object and the name of one of its members, and tells whether it did anything.
const CHANGES: [(&str, Change); 31] = [
    ("member removed", |o, name, _| object(o).remove(name).is_some()),
    ("unknown member", |o, _, _| put(o, "unheardOf", json!("x"))),
    ("member renamed", |o, name, _| {
        let value = object(o).remove(name);
        put(o, &format!("{name}s"), value.unwrap_or_default())
    }),
    ("second of a choice", |o, name, _| {
        let base = ["value", "effective", "onset", "deceased", "performed", "occurrence", "multipleBirth"];
        let base = base.iter().find(|base| name.strip_prefix(**base).is_some_and(|rest| !rest.is_empty()));
        base.is_some_and(|base| put(o, &format!("{base}String"), json!("x")))
    }),
    ("empty string", |o, name, _| o[name].is_string() && put(o, name, json!(""))),
    ("blank string", |o, name, _| o[name].is_string() && put(o, name, json!("  "))),
    ("control character", |o, name, _| o[name].is_string() && put(o, name, json!("a\u{1}b"))),
    ("inner space", |o, name, _| with(o, name, |text| format!("{text} {text}"))),
    ("double space", |o, name, _| with(o, name, |text| format!("{text}  {text}"))),
    ("leading space", |o, name, _| with(o, name, |text| format!(" {text}"))),
    ("underscore", |o, name, _| with(o, name, |text| format!("{text}_"))),
    ("long", |o, name, _| with(o, name, |text| format!("{text}{}", "x".repeat(80)))),
    ("other code", |o, name, _| with(o, name, |_| "not-a-code".to_owned())),
    ("empty array", |o, name, _| put(o, name, json!([]))),
    ("empty object", |o, name, _| put(o, name, json!({}))),
    ("null", |o, name, _| put(o, name, Value::Null)),
    ("array around", |o, name, _| {
        let value = o[name].take();
        put(o, name, json!([value]))
    }),
    ("first of an array", |o, name, _| {
        let first = o[name].as_array().and_then(|array| array.first()).cloned();
        first.is_some_and(|first| put(o, name, first))
    }),
    ("array twice as long", |o, name, _| {
        let doubled = o[name].as_array().map(|array| [&array[..], &array[..]].concat());
        doubled.is_some_and(|doubled| put(o, name, Value::Array(doubled)))
    }),
    ("null in an array", |o, name, _| match o[name].as_array_mut() {
        Some(array) => {
            array.push(Value::Null);
            true
        }
        None => false,
    }),
    ("number for a string", |o, name, _| o[name].is_string() && put(o, name, json!(7))),
    ("string for a number", |o, name, _| {
        o[name].is_number() && {
            let text = o[name].to_string();
            put(o, name, json!(text))
        }
    }),
    ("string for a boolean", |o, name, _| o[name].is_boolean() && put(o, name, json!("true"))),
    ("object for a string", |o, name, _| o[name].is_string() && put(o, name, json!({"id": "x"}))),
    ("negative or broken number", |o, name, random| {
        o[name].is_number()
            && put(
                o,
                name,
                [json!(-3), json!(1.5), json!(3_000_000_000_i64)][random.random_range(0..3)].clone(),
            )
    }),
    ("date", |o, name, random| {
        const DATES: [&str; 12] = [
            "2026",
            "2026-02",
            "2026-02-28",
            "2026-02-30",
            "2026-13-01",
            "2026-1-2",
            "2026-01-02T03:04",
            "2026-01-02T03:04:05",
            "2026-01-02T03:04:05Z",
            "2026-01-02T25:04:05Z",
            "2026-01-02T03:04:05.123+02:00",
            "02/01/2026",
        ];
        is_date(&o[name]) && put(o, name, json!(DATES.choose(random)))
    }),
    ("reference", |o, name, random| {
        const REFERENCES: [&str; 8] = [
            "Patient/1",
            "Practitioner/1",
            "Organization/1/_history/2",
            "#nowhere",
            "http://example.org/fhir/Encounter/1",
            "urn:uuid:0f5b1d2e-3c4d-4e5f-8a9b-0c1d2e3f4a5b",
            "Location?identifier=x|1",
            "nothing at all",
        ];
        name == "reference" && put(o, name, json!(REFERENCES.choose(random)))
    }),
    ("beside a primitive", |o, name, random| {
        const BESIDE: [&str; 3] = [
            r#"{"id":"x"}"#,
            r#"{"extension":[{"url":"http://x.org/y","valueCode":"z"}]}"#,
            r#"{"extension":[{"url":"http://x.org/y"}]}"#,
        ];
        let beside: Value =
            BESIDE.choose(random).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        o[name].is_string() && name != "resourceType" && put(o, &format!("_{name}"), beside)
    }),
    ("extension", |o, _, random| {
        const EXTENSIONS: [&str; 5] = [
            r#"{"url":"http://x.org/y","valueDecimal":1.50}"#,
            r#"{"url":"http://x.org/y","valueDecimal":1.50,"extension":[{"url":"z","valueCode":"a"}]}"#,
            r#"{"url":"http://x.org/y"}"#,
            r#"{"valueString":"x"}"#,
            r#"{"url":"http://x.org/y","valueNothing":"x"}"#,
        ];
        let extension: Option<Value> =
            EXTENSIONS.choose(random).and_then(|text| serde_json::from_str(text).ok());
        put(o, "extension", json!([extension]))
    }),
    ("period", |o, name, _| {
        let ends = (o[name].get("start").cloned(), o[name].get("end").cloned());
        match ends {
            (Some(start), Some(end)) => put(o, name, json!({"start": end, "end": start})),
            _ => false,
        }
    }),
    ("contained", |o, _, random| {
        const CONTAINED: [&str; 3] = [
            r#"{"resourceType":"Patient","id":"c"}"#,
            r#"{"resourceType":"Nothing","id":"c"}"#,
            r#"{"resourceType":"Patient","id":"c","birthDate":"soon"}"#,
        ];
        let contained: Option<Value> =
            CONTAINED.choose(random).and_then(|text| serde_json::from_str(text).ok());
        o.get("resourceType").is_some() && put(o, "contained", json!([contained]))
    }),
];

fn object(value: &mut Value) -> &mut Map<String, Value> {
    value.as_object_mut().unwrap()
}

fn put(object: &mut Value, name: &str, value: Value) -> bool {
    object[name] = value;
    true
}

fn with(object: &mut Value, name: &str, change: fn(&str) -> String) -> bool {
    let changed = object[name].as_str().filter(|_| name != "resourceType").map(change);
    changed.is_some_and(|text| put(object, name, json!(text)))
}

fn is_date(value: &Value) -> bool {
    let text = value.as_str().unwrap_or_default();
    text.len() >= 4 && text.chars().next() < Some('3') && text[..4].bytes().all(|b| b.is_ascii_digit())
}

/// Places of all objects, as JSON pointers.
fn objects(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            found.push(at.to_owned());
            members.iter().for_each(|(name, value)| objects(value, &format!("{at}/{name}"), found));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| objects(item, &format!("{at}/{index}"), found));
        }
        _ => {}
    }
}

/// A changed copy, what was done to it, and where.
pub fn mutated(resource: &Value, random: &mut ChaCha8Rng) -> (Value, &'static str, String) {
    let mut places = Vec::new();
    objects(resource, "", &mut places);
    loop {
        let place = places.choose(random).unwrap();
        let (name, change) = CHANGES.choose(random).unwrap();
        let mut changed = resource.clone();
        let object = changed.pointer_mut(place).unwrap();
        let members: Vec<String> = object.as_object().unwrap().keys().cloned().collect();
        let Some(member) = members.choose(random) else { continue };
        if change(object, member, random) && changed["resourceType"] == resource["resourceType"] {
            return (changed, name, format!("{place}/{member}"));
        }
    }
}
