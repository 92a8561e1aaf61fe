//! The examples of `docs/tables.md`, run as they stand there over a database of their own.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "not all of what tests share is used here")]

#[path = "../../pgsink/tests/support/mod.rs"]
mod database;
mod shapes;

use std::fs;
use std::path::Path;
use std::process::Command;

use database::{TestDatabase, repository};
use shapes::own_shapes;

/// What a command says of the warehouse on both its outputs, and its exit code where it is asked for.
fn shell(database: &TestDatabase, shapes: &Path, command: &str) -> String {
    let bin = Path::new(env!("CARGO_BIN_EXE_fhirehose")).parent().unwrap().display().to_string();
    let output = Command::new("sh")
        .args(["-c", &format!("exec 2>&1\n{command}")])
        .current_dir(shapes.join("views/warehouse"))
        .env("PATH", format!("{bin}:{}", std::env::var("PATH").unwrap()))
        .env("FHIREHOSE__SHAPES__DIR", shapes)
        .env("FHIREHOSE__WAREHOUSE__URL", &database.url)
        .env_remove("FHIREHOSE__POSTGRES__URL")
        .env_remove("FHIREHOSE__SEARCH__URL")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let of_others = |line: &&str| !line.starts_with("timescale: ") && !line.starts_with("search: ");
    said.lines().filter(of_others).map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_examples_of_the_docs_are_true() {
    let (database, dir) = (TestDatabase::create("docs_tables"), own_shapes(&repository()));
    let views = dir.path().join("views/warehouse");
    shell(&database, dir.path(), "fhirehose migrate apply");
    let page = fs::read_to_string(repository().join("docs/tables.md")).unwrap();
    let mut commands = 0;
    for block in page.split("\n```").skip(1).step_by(2) {
        let (head, body) = block.split_once('\n').unwrap();
        if let Some(file) = head.strip_prefix("json ").or(head.strip_prefix("yaml ")) {
            fs::write(views.join(file), body).unwrap();
        } else if head == "console" {
            for example in format!("\n{body}\n").split("\n$ ").skip(1) {
                let (command, expected) = example.split_once('\n').unwrap_or((example, ""));
                assert_eq!(shell(&database, dir.path(), command).trim(), expected.trim(), "{command}");
                commands += 1;
            }
        }
    }
    assert_eq!(commands, 4);
    let told = shell(&database, dir.path(), "fhirehose migrate tables");
    let row = "| `since_date_key` | integer | `dim.date_key(since)` |  |";
    assert!(told.contains("## fact.patient_contact\n") && told.contains(row), "{told}");
}
