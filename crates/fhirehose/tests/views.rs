//! `fhirehose views` from outside: what the docs show, every kind of input and output, and what goes wrong.

#[cfg(test)]
mod support;

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::{Value, json};

use support::{dir, many, patient, shell, shown, stderr, stdout, views};

#[test]
fn the_examples_of_the_docs_are_true() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/views.md");
    let text = fs::read_to_string(docs).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../views");
    std::os::unix::fs::symlink(ours, dir.path().join("views")).unwrap();
    let mut commands = 0;
    for block in text.split("\n```").skip(1).step_by(2) {
        let (head, body) = block.split_once('\n').unwrap();
        if let Some(file) = head.strip_prefix("json ") {
            fs::write(dir.path().join(file), body).unwrap();
        } else if head == "console" {
            for example in format!("\n{body}").split("\n$ ").skip(1) {
                let (command, expected) = example.split_once('\n').unwrap();
                // Standard error has no place among the lines of standard output: it comes before or after.
                let mut found: Vec<_> = shell(dir.path(), command).lines().map(str::to_owned).collect();
                let mut expected: Vec<_> = expected.lines().map(str::to_owned).collect();
                found.sort();
                expected.sort();
                assert_eq!(found, expected, "{command}");
                commands += 1;
            }
        }
    }
    assert_eq!(commands, 8);
}

#[test]
fn every_kind_of_file_gives_the_same_rows() {
    let dir = dir();
    let patients: Vec<_> = (0..7).map(patient).collect();
    let lines: String = patients.iter().map(|patient| format!("{patient}\n")).collect();
    let entries: Vec<_> = patients.iter().map(|patient| json!({"resource": patient})).collect();
    let bundle = json!({"resourceType": "Bundle", "entry": entries});
    let late = json!({"entry": entries, "resourceType": "Bundle"});
    let gzipped = {
        let mut out = GzEncoder::new(Vec::new(), Compression::default());
        out.write_all(lines.as_bytes()).unwrap();
        out.finish().unwrap()
    };
    let files = [
        ("lines.ndjson", lines.clone().into_bytes()),
        ("lines", lines.clone().into_bytes()),
        ("gzipped", gzipped.clone()),
        ("lines.ndjson.gz", gzipped),
        ("array.json", json!(patients).to_string().into_bytes()),
        ("bundle.json", serde_json::to_vec_pretty(&bundle).unwrap()),
        ("bundle", bundle.to_string().into_bytes()),
        ("late.json", late.to_string().into_bytes()),
        ("bundles.ndjson", format!("\n{bundle}\n").into_bytes()),
    ];
    let expected = "id,born,given,twins,active,family\n\
        p1,1974-12-25,\"[\"\"a\"\",\"\"b\"\"]\",1,false,\"F0, \"\"1\"\"\"\n\
        p2,1974-12-25,\"[\"\"a\"\",\"\"b\"\",\"\"a\"\",\"\"b\"\"]\",2,true,\"F0, \"\"2\"\"\"\n";
    for (name, bytes) in files {
        fs::write(dir.path().join(name), &bytes).unwrap();
        let from_file = views(dir.path(), &["run", "view.json", "--in", name], b"");
        assert!(stdout(&from_file).starts_with(expected), "{name}: {}", stdout(&from_file));
        assert_eq!(
            stderr(&from_file),
            "rows: 6, resources: 7, of other types: 0, broken: 0, 0.0 s\n",
            "{name}"
        );
        assert!(from_file.status.success());
        let from_stdin = views(dir.path(), &["run", "view.json", "--in", "-"], &bytes);
        assert_eq!(stdout(&from_stdin), stdout(&from_file), "{name}");
    }
}

#[test]
fn a_view_of_bundles_takes_them_whole() {
    let dir = dir();
    let view = json!({"resource": "Bundle", "select": [
        {"forEach": "entry", "column": [{"name": "id", "path": "resource.id", "type": "id"}]}]});
    fs::write(dir.path().join("bundles.json"), view.to_string()).unwrap();
    let bundle =
        json!({"resourceType": "Bundle", "entry": [{"resource": patient(1)}, {"resource": patient(2)}]});
    let pretty = serde_json::to_vec_pretty(&bundle).unwrap();
    for input in [pretty, format!("{bundle}\n{bundle}\n").into_bytes()] {
        let output = views(dir.path(), &["run", "bundles.json", "--in", "-"], &input);
        assert!(stdout(&output).starts_with("id\np1\np2\n"), "{}", stdout(&output));
    }
}

#[test]
fn rows_keep_the_order_of_the_input() {
    let dir = dir();
    let (lines, rows) = many();
    let output = views(dir.path(), &["run", "view.json", "--in", "-", "--format", "ndjson"], &lines);
    let found: Vec<Value> = stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(found == rows);
    let summary = "rows: 7999, resources: 8000, of other types: 8000, broken: 0, 0.0 s\n";
    assert_eq!(stderr(&output), summary);
}

#[test]
fn parquet_holds_the_same_rows_and_the_same_bytes_each_time() {
    let dir = dir();
    let (lines, rows) = many();
    let parquet = |name: &str| {
        let arguments = ["run", "view.json", "--in", "-", "--format", "parquet", "--out", name];
        assert!(views(dir.path(), &arguments, &lines).status.success());
        fs::read(dir.path().join(name)).unwrap()
    };
    let bytes = parquet("a.parquet");
    assert!(bytes == parquet("b.parquet"));
    let reader = SerializedFileReader::new(bytes::Bytes::from(bytes)).unwrap();
    let mut schema = Vec::new();
    parquet::schema::printer::print_schema(&mut schema, reader.metadata().file_metadata().schema());
    let schema = String::from_utf8(schema).unwrap();
    for column in [
        "OPTIONAL BYTE_ARRAY id (STRING);",
        "OPTIONAL INT32 born (DATE);",
        "OPTIONAL BYTE_ARRAY given (JSON);",
        "OPTIONAL INT32 twins;",
        "OPTIONAL BOOLEAN active;",
        "OPTIONAL BYTE_ARRAY family (STRING);",
    ] {
        assert!(schema.contains(column), "{column} in {schema}");
    }
    let found = reader.get_row_iter(None).unwrap().map(|row| {
        let mut row = shown(&row.unwrap());
        row["given"] = serde_json::from_str(row["given"].as_str().unwrap()).unwrap();
        row
    });
    assert!(found.eq(rows));
}

#[test]
fn what_is_broken_is_told_and_the_rest_is_written() {
    let dir = dir();
    let bad = json!({"resourceType": "Patient", "id": "x", "birthDate": "1974", "name": [{"family": "Secret"}, {}]});
    let bundle = json!({"resourceType": "Bundle", "entry": [
        {"resource": patient(1)}, {"fullUrl": "urn:x"}, {"resource": bad}, {"resource": patient(4)}]});
    fs::write(dir.path().join("bundle.json"), bundle.to_string()).unwrap();
    fs::write(dir.path().join("cut.json"), format!("{}\n\n{{\"a\":", patient(1))).unwrap();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(format!("{}\n", patient(1)).as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    fs::write(dir.path().join("cut.ndjson.gz"), &gzip[..gzip.len() - 8]).unwrap();
    let arguments = [
        "run",
        "view.json",
        "--in",
        "bundle.json",
        "cut.json",
        "cut.ndjson.gz",
        "--format",
        "parquet",
        "--out",
        "out",
    ];
    let output = views(dir.path(), &arguments, b"");
    assert_eq!(output.status.code(), Some(1));
    let told = stderr(&output);
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(lines[0], "bundle.json:1: entry 2: born: not storable as DATE");
    assert_eq!(lines[1], "cut.json:3: value expected at byte 5");
    assert!(lines[2].starts_with("cut.ndjson.gz:"), "{told}");
    assert!(lines[2].ends_with("; the rest of the file is left out"), "{told}");
    assert!(lines[3].ends_with("of other types: 0, broken: 3, 0.0 s"), "{told}");
    assert!(!told.contains("Secret"));
    let out = bytes::Bytes::from(fs::read(dir.path().join("out")).unwrap());
    let ids: Vec<_> = SerializedFileReader::new(out)
        .unwrap()
        .get_row_iter(None)
        .unwrap()
        .map(|row| shown(&row.unwrap())["id"].clone())
        .collect();
    assert_eq!(ids[..3], ["p1", "p4", "p1"]);
}

#[test]
fn what_cannot_begin_is_an_error_before_anything_is_written() {
    let dir = dir();
    let fails = |arguments: &[&str], code: i32, expected: &str| {
        let output = views(dir.path(), arguments, b"");
        let found = stderr(&output);
        assert_eq!(
            (output.status.code(), found.contains(expected)),
            (Some(code), true),
            "{arguments:?}: {found}"
        );
        assert_eq!(stdout(&output), "", "{arguments:?}");
    };
    fs::write(
        dir.path().join("wrong.json"),
        r#"{"resource": "Patient", "select": [{"forEach": "name.where(\nuse = )"}]}"#,
    )
    .unwrap();
    let why = "wrong.json: select[0].forEach: an expression expected (at byte 18)\n  use = )\n        ^\n";
    let mixed = views(dir.path(), &["check", "wrong.json", "view.json", "none.json"], b"");
    assert_eq!(mixed.status.code(), Some(2));
    assert_eq!(stdout(&mixed), "view.json: sound, 6 columns of Patient\n");
    assert!(stderr(&mixed).contains("none.json: No such file"));
    fails(&["check", "wrong.json"], 2, why);
    fails(&["run", "wrong.json", "--in", "-"], 2, why);
    fails(&["run", "none.json", "--in", "-"], 2, "none.json: No such file");
    fails(&["run", "view.json", "--in", "none.ndjson"], 1, "none.ndjson: No such file");
    fails(&["run", "view.json", "--in", "."], 1, ".: is a directory");
    fails(&["run", "view.json", "--in", "-", "--out", "none/out"], 1, "none/out: No such file");
    let tagged = r#"{"resource": "Patient", "select": [{"column": [
        {"name": "a", "path": "id", "tag": [{"name": "ansi/type", "value": "MONEY"}]}]}]}"#;
    fs::write(dir.path().join("tagged.json"), tagged).unwrap();
    let why = "column a: ansi/type MONEY is not known";
    fails(&["run", "tagged.json", "--in", "-", "--format", "parquet"], 1, why);
}
