//! Runs files in the format of the official SQL-on-FHIR v2 tests. Ours may say `"error"` beside `"expectError"`:
//! the whole message.

use std::path::Path;

use fhirehose_fhirpath::Env;
use fhirehose_tape::Tape;
use fhirehose_views::{Cell, View};
use serde_json::{Value, json};

/// What came of the files of a directory.
pub struct Outcome {
    pub files: usize,
    pub passed: usize,
    pub failures: Vec<String>,
}

/// Runs every file of a directory.
pub fn run_dir(dir: &Path) -> Outcome {
    let mut outcome = Outcome { files: 0, passed: 0, failures: Vec::new() };
    let mut paths: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        let file: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let Some(tests) = file["tests"].as_array() else { continue };
        outcome.files += 1;
        for test in tests {
            match run(test, file["resources"].as_array().unwrap()) {
                None => outcome.passed += 1,
                Some(why) => outcome.failures.push(format!("{}: {}: {why}", file["title"], test["title"])),
            }
        }
    }
    outcome
}

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
    let env = Env::fhir().definitions(fhirehose_fhir::element_type);
    let view = View::compile(&test["view"].to_string(), &env).map_err(|error| error.to_string());
    let found = view.as_ref().map_err(Clone::clone).and_then(|view| rows(view, resources));
    if test["expectError"] == json!(true) {
        let Err(error) = found else { return Some("no error".into()) };
        let other = test["error"].as_str().is_some_and(|expected| expected != error);
        return other.then_some(error);
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

/// Rows are a set: columns by name, in any order. Numbers are their values, however many zeros they end with.
fn sortable(row: &Value) -> String {
    let value = |value: &Value| match value.as_f64().filter(|_| !value.is_i64()) {
        Some(number) => number.to_string(),
        None => value.to_string(),
    };
    let mut members: Vec<_> =
        row.as_object().into_iter().flatten().map(|(name, v)| format!("{name}={}", value(v))).collect();
    members.sort();
    members.join(" ")
}
