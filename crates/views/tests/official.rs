//! The official SQL-on-FHIR v2 tests: every view of every file gives the expected rows, or the expected error.

use std::path::Path;

use fhirehose_fhirpath::Env;
use fhirehose_tape::Tape;
use fhirehose_views::{Cell, View};
use serde_json::{Value, json};

fn cell(cell: &Cell<'_>) -> Value {
    match cell {
        Cell::Null => Value::Null,
        Cell::Bool(value) => json!(value),
        Cell::Integer(value) => json!(value),
        Cell::Decimal(text) => serde_json::from_str(text).unwrap_or(Value::Null),
        Cell::Text(text) | Cell::Date(text) | Cell::DateTime(text) | Cell::Time(text) => json!(text),
        Cell::Json(json) => serde_json::from_slice(json).unwrap_or(Value::Null),
    }
}

fn rows(view: &View, resources: &[Value]) -> Result<Vec<Value>, String> {
    let mut found = Vec::new();
    for resource in resources {
        let mut tape = Tape::new();
        tape.parse_json(resource.to_string().as_bytes()).map_err(|error| error.to_string())?;
        let emit = &mut |cells: &[Cell<'_>]| {
            let names = view.columns().iter().map(|column| column.name.to_string());
            found.push(Value::Object(names.zip(cells.iter().map(cell)).collect()));
        };
        view.rows(tape.root(), emit).map_err(|error| error.to_string())?;
    }
    Ok(found)
}

/// What is wrong with one test, if anything.
fn run(test: &Value, resources: &[Value]) -> Option<String> {
    let view = View::compile(&test["view"].to_string(), &Env::fhir()).map_err(|error| error.to_string());
    let found = view.as_ref().map_err(Clone::clone).and_then(|view| rows(view, resources));
    if test["expectError"] == json!(true) {
        return found.is_ok().then(|| "no error".into());
    }
    let mut found = match found {
        Ok(found) => found,
        Err(error) => return Some(error),
    };
    if let (Ok(view), Some(expected)) = (&view, test["expectColumns"].as_array()) {
        let names: Vec<_> = view.columns().iter().map(|column| json!(*column.name)).collect();
        if names != *expected {
            return Some(format!("columns {names:?}"));
        }
    }
    let mut expected = test["expect"].as_array().cloned().unwrap_or_default();
    found.sort_by_key(sortable);
    expected.sort_by_key(sortable);
    (found.iter().map(sortable).ne(expected.iter().map(sortable))).then(|| format!("{found:?}"))
}

/// Rows are a set: columns by name, in any order.
fn sortable(row: &Value) -> String {
    let mut members: Vec<_> =
        row.as_object().into_iter().flatten().map(|(k, v)| format!("{k}={v}")).collect();
    members.sort();
    members.join(" ")
}

#[test]
fn every_official_test_passes() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/sql-on-fhir");
    assert!(dir.is_dir(), "the official tests are missing: {}", dir.display());
    let (mut files, mut passed, mut failures) = (0, 0, Vec::new());
    for entry in std::fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        let file: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let Some(tests) = file["tests"].as_array() else { continue };
        files += 1;
        for test in tests {
            match run(test, file["resources"].as_array().unwrap()) {
                None => passed += 1,
                Some(why) => failures.push(format!("{}: {}: {why}", file["title"], test["title"])),
            }
        }
    }
    println!("SQL-on-FHIR: {passed} pass in {files} files");
    assert_eq!(files, 12);
    assert!(failures.is_empty(), "{passed} pass\n{}", failures.join("\n"));
}
