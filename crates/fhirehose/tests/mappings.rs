//! `fhirehose mappings test`, `explain` and `scaffold` from outside.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod page;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const MAPPING: &str = "mapping: cdc/clinical_data/patients\nversion: 1\ntable: clinical_data.patients\ncolumns:\n  \
    id: {type: string, class: none, key: true}\n  name: {type: string, class: direct}\n  \
    weight: {type: decimal, class: clinical}\noutputs:\n  - name: patient\n    to: fhir.patient\n    resource:\n      \
    resourceType: Patient\n      name: [{text: \"{{ name.trim() }}\"}]\n";

/// A folder of shapes with one mapping, and one example of it.
fn shapes() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    for name in ["topics", "schemas"] {
        std::os::unix::fs::symlink(root.join(name), dir.path().join(name)).unwrap();
    }
    let write = |path: &str, text: &str| {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("mappings/cdc/clinical_data/patients.yaml", MAPPING);
    let row = r#"{"key":{"id":"7"},"value":{"op":"c","after":{"id":"7","name":"Amna ","weight":36.50}},"timestamp":1772366550057}"#;
    write("examples/cdc.clinical_data.patients/create.json", row);
    dir
}

fn run(dir: &Path, args: &[&str]) -> (String, Option<i32>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fhirehose"));
    let output = command.arg("mappings").args(args).current_dir(dir).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (String::from_utf8(said).unwrap(), output.status.code())
}

#[test]
fn a_mapping_is_tested_against_what_was_accepted() {
    let dir = shapes();
    let (said, code) = run(dir.path(), &["test"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("nothing is accepted of it yet") && said.contains("+      \"text\": \"Amna\""),
        "{said}"
    );
    let (said, code) = run(dir.path(), &["test", "--update"]);
    assert_eq!((said.as_str(), code), ("1 examples, 1 accepted anew\n", Some(0)));
    let (said, code) = run(dir.path(), &["test", "patients"]);
    assert_eq!((said.as_str(), code), ("1 examples, 0 not as accepted\n", Some(0)));
    // The mistake is planted: the name is no longer trimmed.
    let file: PathBuf = dir.path().join("mappings/cdc/clinical_data/patients.yaml");
    fs::write(&file, MAPPING.replace(".trim()", "")).unwrap();
    let (said, code) = run(dir.path(), &["test"]);
    assert_eq!(code, Some(1), "{said}");
    let changed: Vec<&str> =
        said.lines().filter(|line| line.starts_with("-  ") || line.starts_with("+  ")).collect();
    assert_eq!(changed.len(), 2, "{said}");
    assert!(
        changed[0].contains("\"text\": \"Amna\"") && changed[1].contains("\"text\": \"Amna \""),
        "{said}"
    );
    let (said, code) = run(dir.path(), &["test", "kati"]);
    assert!(code == Some(1) && said.contains("no mapping is for a topic named so"), "{said}");
}

#[test]
fn explain_tells_why_a_hole_is_empty() {
    let dir = shapes();
    let file = dir.path().join("examples/cdc.clinical_data.patients/create.json");
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("\"Amna \"", "null")).unwrap();
    let (said, code) = run(dir.path(), &["explain", "--record", file.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("Patient.name.text (line 13): name.trim() = empty: name is null"), "{said}");
}

#[test]
fn a_table_of_a_server_is_scaffolded() {
    let (said, code) =
        run(Path::new("."), &["scaffold", "--from", "mysql://u:sesame@localhost:1", "--table", "t"]);
    assert!(code == Some(1) && said.contains("names no database") && !said.contains("sesame"), "{said}");
    let Ok(url) = std::env::var("STACK_HOSPITAL_A_URL") else {
        eprintln!("SKIPPED: no MariaDB; `cargo xtask stack up hospital-a` starts one");
        return;
    };
    let mut server = mysql::Conn::new(mysql::Opts::from_url(&url).unwrap()).unwrap();
    let db = format!("scaffold_{}", std::process::id());
    let make = [
        format!("CREATE DATABASE {db}"),
        format!(
            "CREATE TABLE {db}.allergies (id CHAR(36) PRIMARY KEY, patient_id CHAR(36) NOT NULL, noted_at DATETIME, \
             severity ENUM('mild','severe'), dose DECIMAL(6,2), shots BIGINT UNSIGNED, active TINYINT(1), \
             twice DECIMAL(8,2) AS (dose * 2) VIRTUAL, reset_token VARCHAR(64))"
        ),
    ];
    for statement in &make {
        mysql::prelude::Queryable::query_drop(&mut server, statement).unwrap();
    }
    let from = format!("{}/{db}", url.trim_end_matches('/'));
    let (text, code) = run(Path::new("."), &["scaffold", "--from", &from, "--table", "allergies"]);
    let (missing, failed) = run(Path::new("."), &["scaffold", "--from", &from, "--table", "nothing"]);
    mysql::prelude::Queryable::query_drop(&mut server, format!("DROP DATABASE {db}")).unwrap();
    assert_eq!(code, Some(0), "{text}");
    assert!(failed == Some(1) && missing.contains("shows no table"), "{missing}");
    for line in [
        "  id: {type: string, class: none, key: true}  # GUESS: class",
        "  noted_at: {type: datetime, class: none}  # GUESS: class",
        "  severity: {type: string, class: clinical}  # GUESS: class",
        "  shots: {type: decimal, class: clinical}  # GUESS: class",
        "  active: {type: boolean, class: clinical}  # GUESS: class",
        "  twice: {type: decimal, class: clinical, optional: true}  # GUESS: class",
        "  reset_token: {forbidden: true}  # GUESS: it looks like a secret",
        "    to: fhir.condition  # GUESS",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    let dir = shapes();
    fs::remove_dir_all(dir.path().join("mappings")).unwrap();
    let folder = dir.path().join("mappings/cdc").join(&db);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("allergies.yaml"), &text).unwrap();
    let (said, code) = run(dir.path(), &["check"]);
    assert_eq!((said.as_str(), code), ("all mappings are sound\n", Some(0)), "{text}");
}

#[test]
fn the_examples_of_the_page_do_what_it_says() {
    let commands = page::examples("mapping.md");
    assert!(commands >= 7, "{commands} examples");
}
