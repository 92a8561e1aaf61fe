//! Definitions by others are bounded: what would take too much is refused, or is an error of the one resource.

use fhirehose_fhirpath::Env;
use fhirehose_tape::Tape;
use fhirehose_views::{
    MAX_BYTES, MAX_CELLS, MAX_COLUMNS, MAX_DEFINITION, MAX_EXPRESSION, MAX_ITEMS, MAX_NESTING, MAX_REPEAT,
    MAX_STEPS, View,
};
use serde_json::{Value, json};

fn compile(select: Value) -> Result<View, String> {
    let json = json!({"resource": "Patient", "select": select}).to_string();
    View::compile(&json, &Env::fhir()).map_err(|error| error.to_string())
}

/// How many rows a Patient with that many names has, or the error.
fn rows(select: Value, names: usize) -> Result<usize, String> {
    let view = compile(select)?;
    let names: Vec<_> = (0..names).map(|i| json!({"family": i.to_string()})).collect();
    let mut tape = Tape::new();
    let patient = json!({"resourceType": "Patient", "name": names}).to_string();
    tape.parse_json(patient.as_bytes()).map_err(|error| error.to_string())?;
    let mut rows = 0;
    view.rows(tape.root(), &mut |_| rows += 1).map_err(|error| error.to_string())?;
    Ok(rows)
}

fn refused(select: Value) -> String {
    compile(select).err().unwrap_or_else(|| "it compiles".into())
}

#[test]
fn columns() {
    let columns =
        |n: usize| -> Value { (0..n).map(|i| json!({"name": format!("c{i}"), "path": "id"})).collect() };
    assert!(compile(json!([{"column": columns(MAX_COLUMNS)}])).is_ok());
    let error = refused(json!([{"column": columns(MAX_COLUMNS + 1)}]));
    assert_eq!(error, "select[0].column[1600]: more than 1600 columns");
}

#[test]
fn sizes() {
    let long = format!("'{}'", "x".repeat(MAX_EXPRESSION));
    let error = refused(json!([{"column": [{"name": "a", "path": long}]}]));
    assert_eq!(error, "select[0].column[0].path: an expression longer than 16384 bytes");
    let error = View::compile(&" ".repeat(MAX_DEFINITION + 1), &Env::fhir()).err().unwrap();
    assert_eq!(error.to_string(), "longer than 1048576 bytes");
}

#[test]
fn rows_of_one_resource() {
    let crossed = |levels: usize| -> Value {
        (0..levels)
            .map(|i| json!({"forEach": "name", "column": [{"name": format!("c{i}"), "path": "family"}]}))
            .collect()
    };
    assert_eq!(rows(crossed(3), 32), Ok(32 * 32 * 32));
    assert_eq!(rows(crossed(5), 32), Err("rows: more than 4194304 cells of one resource".into()));
}

#[test]
fn text_of_one_resource() {
    let long = format!("'{}'", "x".repeat(10_000));
    let select = |levels: usize| -> Value {
        let mut selects = vec![json!({"column": [{"name": "long", "path": long}]})];
        selects
            .extend((0..levels).map(
                |i| json!({"forEach": "name", "column": [{"name": format!("c{i}"), "path": "family"}]}),
            ));
        json!(selects)
    };
    assert_eq!(rows(select(2), 32), Ok(32 * 32));
    assert_eq!(rows(select(3), 32), Err("rows: more than 268435456 bytes of one resource".into()));
}

#[test]
fn work_that_leaves_no_rows() {
    let mut select = json!({"forEach": "contact", "column": [{"name": "a", "path": "gender"}]});
    for _ in 0..8 {
        select = json!({"forEach": "%resource.name", "select": [select]});
    }
    assert_eq!(rows(json!([select]), 2), Ok(0));
    let error = rows(json!([select]), 32).unwrap_err();
    assert_eq!(error, "forEach: comes by more than 1048576 items of one resource");
}

#[test]
fn work_of_all_columns_together() {
    // Each column takes a million steps and more, which one alone may.
    let column = |i: usize| {
        let path = format!("%resource.name.all(%resource.name.all({i} >= 0)) and name.count() < 2000");
        json!({"name": format!("c{i}"), "path": path})
    };
    let columns = |n: usize| -> Value { (0..n).map(column).collect() };
    assert_eq!(rows(json!([{"column": columns(2)}]), 1000), Ok(1));
    let error = rows(json!([{"column": columns(30)}]), 1000).unwrap_err();
    let (column, why) = error.split_once(": ").unwrap();
    assert!(column.starts_with('c'), "{error}");
    assert_eq!(why, "all that is evaluated takes more than 33554432 steps");
}

#[test]
fn repeats_that_come_back() {
    let column = json!([{"name": "a", "path": "id"}]);
    for path in ["$this", "%resource", "name | $this", "iif(true, $this)"] {
        let error = rows(json!([{"repeat": [path], "column": column}]), 2).unwrap_err();
        assert_eq!(error, "repeat: goes deeper than 128 levels; do its paths lead down?", "{path}");
    }
}

#[test]
fn the_docs_say_them() {
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/views.md");
    let text = std::fs::read_to_string(docs).unwrap();
    let (_, table) = text.split_once("\n## Limits\n").unwrap();
    let (table, _) = table.split_once("\n## ").unwrap();
    let said = table.lines().filter_map(|line| line.strip_suffix(" |")?.rsplit(' ').next()?.parse().ok());
    let limits = [
        MAX_DEFINITION,
        MAX_EXPRESSION,
        MAX_NESTING,
        MAX_COLUMNS,
        MAX_REPEAT,
        MAX_ITEMS,
        MAX_STEPS as usize,
        MAX_CELLS,
        MAX_BYTES,
    ];
    assert_eq!(said.collect::<Vec<usize>>(), limits);
}
