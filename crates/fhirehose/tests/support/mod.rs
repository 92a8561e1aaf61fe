//! The command from outside, a view, and resources for it.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use parquet::record::{Field, Row};
use serde_json::{Value, json};
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_fhirehose");

/// What a command says on both its outputs, in a directory, with the seconds it took as `0.0 s`.
pub fn shell(dir: &Path, command: &str) -> String {
    let path = Path::new(BINARY).parent().unwrap().display().to_string();
    let path = format!("{path}:{}", std::env::var("PATH").unwrap());
    let both = format!("exec 2>&1\n{command}");
    let output = Command::new("sh").args(["-c", &both]).current_dir(dir).env("PATH", path).output().unwrap();
    untimed(&String::from_utf8(output.stdout).unwrap())
}

fn untimed(text: &str) -> String {
    let line = |line: &str| match line.rsplit_once(", ") {
        Some((before, time)) if before.contains("broken: ") && time.ends_with(" s") => {
            format!("{before}, 0.0 s\n")
        }
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// Runs the command over files of a directory, with a standard input.
pub fn views(dir: &Path, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(BINARY)
        .arg("views")
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        // A command that does not read on is no error of this test.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().unwrap()
    })
}

pub fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

pub fn stderr(output: &Output) -> String {
    untimed(std::str::from_utf8(&output.stderr).unwrap())
}

/// A directory with a view of Patients: id, birth date, and the families one row each.
pub fn dir() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let view = json!({"resource": "Patient", "select": [
        {"column": [
            {"name": "id", "path": "id", "type": "id"},
            {"name": "born", "path": "birthDate", "type": "date", "tag": [{"name": "ansi/type", "value": "DATE"}]},
            {"name": "given", "path": "name.given", "type": "string", "collection": true},
            {"name": "twins", "path": "multipleBirth.ofType(integer)", "type": "integer"},
            {"name": "active", "path": "active", "type": "boolean"}]},
        {"forEach": "name", "column": [{"name": "family", "path": "family", "type": "string"}]}]});
    fs::write(dir.path().join("view.json"), view.to_string()).unwrap();
    dir
}

pub fn patient(i: usize) -> Value {
    let families = (0..i % 3).map(|n| json!({"family": format!("F{n}, \"{i}\""), "given": ["a", "b"]}));
    json!({"resourceType": "Patient", "id": format!("p{i}"), "birthDate": "1974-12-25", "active": i.is_multiple_of(2),
           "multipleBirthInteger": i, "name": families.collect::<Vec<_>>()})
}

/// Enough for many batches, with resources of other types between.
pub fn many() -> (Vec<u8>, Vec<Value>) {
    let (mut lines, mut rows) = (String::new(), Vec::new());
    for i in 0..8_000 {
        let patient = patient(i);
        lines.push_str(&format!("{patient}\n{}\n", json!({"resourceType": "Group", "id": "g"})));
        let given =
            patient["name"].as_array().unwrap().iter().flat_map(|name| name["given"].as_array().unwrap());
        let given = given.cloned().collect::<Vec<_>>();
        for name in patient["name"].as_array().unwrap() {
            rows.push(json!({"id": patient["id"], "born": patient["birthDate"], "given": given, "twins": i,
                             "active": patient["active"], "family": name["family"]}));
        }
    }
    (lines.into_bytes(), rows)
}

/// A row read back. Days are written as the one date there is.
pub fn shown(row: &Row) -> Value {
    let field = |field: &Field| match field {
        Field::Null => Value::Null,
        Field::Bool(value) => json!(value),
        Field::Int(value) => json!(value),
        Field::Str(text) => json!(text),
        Field::Date(1_819) => json!("1974-12-25"),
        other => panic!("{other} is not expected"),
    };
    row.get_column_iter().map(|(name, value)| (name.clone(), field(value))).collect()
}
