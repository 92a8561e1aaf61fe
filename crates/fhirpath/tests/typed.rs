//! Expressions checked against FHIR's definitions: what can never be meant is refused with its place, and what
//! can is let be.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Read;
use std::path::{Path, PathBuf};

use fhirehose_fhir::element_type;
use fhirehose_fhirpath::{Ctx, Env, EvalError, Expr, NoFunctions};
use fhirehose_tape::{Tape, Value};
use fhirehose_views::{Cell, View};
use flate2::read::GzDecoder;

fn env(of: &str) -> Env {
    let env = Env::fhir().definitions(element_type);
    if of.is_empty() { env } else { env.of(of) }
}

/// The message and place of a refusal.
fn refused(of: &str, source: &str) -> (usize, String) {
    match Expr::compile(source, &env(of)) {
        Err(error) => (error.offset, error.message),
        Ok(_) => panic!("{source} compiles"),
    }
}

#[test]
fn elements_that_do_not_exist_are_refused_at_any_depth() {
    for (of, source, at, message) in [
        ("Patient", "nam", 0, "Patient has no element nam"),
        ("Patient", "name.famly", 5, "Patient.name has no element famly"),
        ("", "Patient.name.where(use = 'x').select(famly)", 37, "Patient.name has no element famly"),
        ("Patient", "contact.name.period.strt", 20, "Patient.contact.name.period has no element strt"),
        ("Patient", "birth", 0, "Patient has no element birth"),
        ("Condition", "recorded", 0, "Condition has no element recorded"),
        ("Patient", "birthDate.year", 10, "Patient.birthDate has no element year"),
        ("Observation", "value.ofType(Quantity).unitt", 23, "Observation.value has no element unitt"),
        (
            "Observation",
            "component.value.ofType(Address)",
            23,
            "Observation.component.value is never of type Address",
        ),
        (
            "Observation",
            "value.ofType(Quantity).extension.valu",
            33,
            "Observation.value.extension has no element valu",
        ),
        ("Patient", "Observation.value", 0, "the resource is a Patient, not a Observation"),
        ("Patient", "contained.ofType(Patient).nam", 26, "Patient has no element nam"),
        ("Patient", "iif(active, name, name).famly", 24, "Patient.name has no element famly"),
        (
            "Observation",
            "valueQuantity.unit",
            0,
            "valueQuantity is its name in JSON; write value.ofType(Quantity)",
        ),
        ("Patient", "gender.as(date)", 10, "Patient.gender is never of type date"),
    ] {
        assert_eq!(refused(of, source), (at, message.to_owned()), "{source}");
    }
}

#[test]
fn comparisons_and_arithmetic_that_cannot_be_meant_are_refused() {
    for (source, at, message) in [
        ("active = 'true'", 7, "a boolean and a string are never equal"),
        ("name = 'Amna'", 5, "an object and a string are never equal"),
        ("name = address", 5, "HumanName and Address are never equal"),
        ("birthDate > 1980", 10, "a date and a number cannot be compared"),
        ("active > false", 7, "a boolean has no order"),
        ("gender in (1 | 2)", 7, "a string and a number are never equal"),
        ("birthDate + 1", 10, "+ does not go with a date and a number"),
        ("name.given.first() * 2", 19, "* does not go with a string and a number"),
        ("multipleBirth.ofType(integer) & 'x'", 30, "& does not go with a number and a string"),
        ("active.substring(1)", 7, "substring() takes a string, not a boolean"),
        ("name.upper()", 5, "upper() takes a string, not an object"),
        ("gender.round()", 7, "round() takes a number, not a string"),
    ] {
        assert_eq!(refused("Patient", source), (at, message.to_owned()), "{source}");
    }
    assert_eq!(refused("", "conformsTo('x')").0, 0);
    assert_eq!(
        refused("", "Observation.value > true").1,
        "a boolean has no order",
        "a choice may be anything, but true has no order"
    );
}

#[test]
fn what_can_be_meant_is_let_be() {
    for (of, source) in [
        ("Patient", "birthDate > '1980-01-01' and birthDate + 18 years < @2020-01-01"),
        ("Patient", "deceased.ofType(boolean) or deceased.ofType(dateTime) < @2020"),
        ("Patient", "extension('http://x').value.ofType(Coding).code = 'x'"),
        ("Patient", "birthDate.extension('http://x').value.exists() and birthDate.id.empty()"),
        ("Patient", "contact.relationship.coding.where(system = 'x').code.first()"),
        ("Patient", "generalPractitioner.reference.startsWith('Practitioner/')"),
        ("Patient", "name.first().given.join(' ') & ' ' & name.first().family"),
        ("Patient", "contained.ofType(Medication).code.text"),
        ("Patient", "descendants().where($this is string).count() > 3"),
        ("Observation", "value.ofType(Quantity) > 120 'mm[Hg]' or value.ofType(Quantity).value > 120"),
        ("Observation", "value = 'x' or value > 3"),
        ("Observation", "Resource.meta.lastUpdated > @2020-01-01T00:00:00Z"),
        ("Observation", "effective.ofType(Period).start <= effective.ofType(Period).end"),
        ("Observation", "component.where(code.coding.code = '8480-6').value.ofType(Quantity).value"),
        ("Spaceship", "anything.goes"),
        ("", "anything.goes"),
    ] {
        if let Err(error) = Expr::compile(source, &env(of)) {
            panic!("{source}: {error}");
        }
    }
}

#[test]
fn elements_are_of_the_types_they_are_defined_with() {
    let mut tape = Tape::new();
    let patient =
        r#"{"resourceType":"Patient","gender":"male","birthDate":"1980-05","name":[{"family":"A"}]}"#;
    tape.parse_json(patient.as_bytes()).unwrap();
    for (source, wanted) in [
        ("gender is code", true),
        ("gender is string", true),
        ("gender is date", false),
        ("name.family is code", false),
        ("name.family.type().name = 'string'", true),
        ("name is HumanName", true),
        ("birthDate is date", true),
        ("birthDate.highBoundary() = @1980-05-31", true),
    ] {
        let expr = Expr::compile(source, &env("Patient")).unwrap();
        let ctx = Ctx::new(tape.root(), &NoFunctions);
        assert_eq!(expr.test(&ctx), Ok(Some(wanted)), "{source}");
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A resource type, and a view or an expression about it.
type Shape = (String, String);

/// The product's views with their resource types, and the expressions in the schemas of what is enriched with
/// theirs, of the types that definitions are known of.
fn shapes() -> (Vec<Shape>, Vec<Shape>) {
    fn paths(value: &serde_json::Value, found: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(members) => {
                for (name, value) in members {
                    match (name.as_str(), value) {
                        ("fhirpath" | "reference", serde_json::Value::String(path)) => {
                            found.push(path.clone())
                        }
                        _ => paths(value, found),
                    }
                }
            }
            serde_json::Value::Array(elements) => elements.iter().for_each(|element| paths(element, found)),
            _ => {}
        }
    }
    let (mut views, mut columns) = (Vec::new(), Vec::new());
    for file in std::fs::read_dir(root().join("views/warehouse")).unwrap() {
        let file = file.unwrap().path();
        if file.extension().is_some_and(|extension| extension == "json") {
            let text = std::fs::read_to_string(&file).unwrap();
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            let of = json["resource"].as_str().unwrap_or_default().to_owned();
            if element_type(&of, "").is_some() {
                views.push((of, text));
            }
        }
    }
    for of in fhirehose_fhir::resource_types() {
        let file = root().join(format!("schemas/avro/enriched.{}-value.avsc", of.to_lowercase()));
        // Only some types of resources are enriched.
        let Ok(schema) = std::fs::read_to_string(file) else { continue };
        let mut found = Vec::new();
        paths(&serde_json::from_str(&schema).unwrap(), &mut found);
        columns.extend(found.into_iter().map(|path| (of.to_owned(), path)));
    }
    (views, columns)
}

#[test]
fn the_shapes_of_the_product_hold() {
    let (views, columns) = shapes();
    for (of, text) in &views {
        View::compile(text, &env("")).unwrap_or_else(|error| panic!("{of}: {error}"));
    }
    for (of, path) in &columns {
        Expr::compile(path, &env(of)).unwrap_or_else(|error| panic!("{of}: {path}: {error}"));
    }
    assert!(views.len() > 3 && columns.len() > 30, "{} views, {} columns", views.len(), columns.len());
}

/// What definitions tell of types is what the documents told, wherever the product asks.
#[test]
fn definitions_change_no_row_of_the_product() {
    let (views, columns) = shapes();
    let plain = Env::fhir();
    let view = |(_, text): &Shape, env: &Env| View::compile(text, env).unwrap();
    let views: Vec<_> = views.iter().map(|shape| (view(shape, &plain), view(shape, &env("")))).collect();
    let column = |(of, path): &Shape| {
        (of.clone(), Expr::compile(path, &plain).unwrap(), Expr::compile(path, &env(of)).unwrap())
    };
    let columns: Vec<_> = columns.iter().map(column).collect();
    let dir = root().join("../shared/data/synthea");
    assert!(dir.is_dir(), "Synthea's bundles are missing: {}", dir.display());
    let mut compared = 0;
    for file in ["synthea270-24d82e9b-4114-f230-4318-60474031ec4d", "synthea270-practitionerInformation"] {
        let mut text = String::new();
        let file = std::fs::File::open(dir.join(format!("{file}.json.gz"))).unwrap();
        GzDecoder::new(file).read_to_string(&mut text).unwrap();
        let mut tape = Tape::new();
        tape.parse_json(text.as_bytes()).unwrap();
        for entry in tape.root().get("entry").unwrap().elements() {
            let resource = entry.get("resource").unwrap();
            for (untyped, typed) in &views {
                let rows = |view: &View| {
                    let mut rows: Vec<u8> = Vec::new();
                    let made = view.rows(resource, &mut |cells| {
                        cells.iter().for_each(|cell| rows.extend_from_slice(written(cell).as_bytes()));
                    });
                    (rows, made)
                };
                assert!(rows(untyped) == rows(typed), "{}", untyped.resource());
                compared += 1;
            }
            let of = resource.get("resourceType").and_then(|of| of.as_str()).unwrap_or_default();
            for (_, untyped, typed) in columns.iter().filter(|(wanted, ..)| wanted == of) {
                assert!(json(untyped, resource) == json(typed, resource), "{}", untyped.source());
                compared += 1;
            }
        }
    }
    assert!(compared > 3000, "{compared}");
}

/// What an expression gives on a resource.
fn json(expr: &Expr, resource: Value<'_>) -> Result<Vec<u8>, EvalError> {
    let mut json = Vec::new();
    expr.eval(&Ctx::new(resource, &NoFunctions))?.iter().for_each(|item| item.write_json(&mut json));
    Ok(json)
}

fn written(cell: &Cell<'_>) -> String {
    match cell {
        Cell::Null => "null;".to_owned(),
        Cell::Bool(value) => format!("{value};"),
        Cell::Integer(value) => format!("{value};"),
        Cell::Json(json) => format!("{};", String::from_utf8_lossy(json)),
        Cell::Decimal(text) => format!("decimal {text};"),
        Cell::Text(text) => format!("text {text};"),
        Cell::Date(text) => format!("date {text};"),
        Cell::DateTime(text) => format!("time {text};"),
        Cell::Time(text) => format!("clock {text};"),
    }
}
