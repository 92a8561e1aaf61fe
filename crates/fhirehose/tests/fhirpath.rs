//! The examples of `docs/fhirpath.md`, run as they stand there.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAM: &str = env!("CARGO_BIN_EXE_fhirehose");

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/fhirpath.md");
    std::fs::read_to_string(path).unwrap()
}

/// An empty folder for a test.
fn folder(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    drop(std::fs::remove_dir_all(&dir));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// What a command writes, errors after the results they came with, and its exit code.
fn shell(dir: &Path, command: &str) -> (String, Option<i32>) {
    let bin = Path::new(PROGRAM).parent().unwrap().display().to_string();
    let path = format!("{bin}:{}", std::env::var("PATH").unwrap_or_default());
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{command} 2>&1")]).env("PATH", path).current_dir(dir);
    let output = shell.output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.code())
}

#[test]
fn the_examples_of_the_page_do_what_it_says() {
    let (page, dir) = (page(), folder("fhirpath-page"));
    let (mut commands, mut files) = (0, page.as_str());
    while let Some((_, after)) = files.split_once("```json file=") {
        let (name, after) = after.split_once('\n').unwrap();
        let (text, after) = after.split_once("```").unwrap();
        std::fs::write(dir.join(name), text).unwrap();
        files = after;
    }
    for block in page.split("```console\n").skip(1) {
        let block = block.split_once("```").unwrap().0;
        for example in block.split("$ ").skip(1) {
            let (command, wanted) = example.split_once('\n').unwrap();
            assert_eq!(shell(&dir, command).0, wanted, "{command}");
            commands += 1;
        }
    }
    assert!(commands > 8, "{commands} examples");
}

#[test]
fn exit_codes_tell_what_was_wrong() {
    let dir = folder("fhirpath-codes");
    std::fs::write(dir.join("a.json"), "{\n \"resourceType\": \"Basic\", \"id\": \"1\"\n}\n").unwrap();
    std::fs::write(dir.join("b.ndjson"), "{\"resourceType\":\"Basic\",\"id\":\"2\"}\nnone\n\n{}\n").unwrap();
    let run = |args: &str| shell(&dir, &format!("fhirehose fhirpath {args}"));
    assert_eq!(run("id --in a.json"), ("[\"1\"]\n".into(), Some(0)));
    assert_eq!(run("'id &' --in a.json").1, Some(2));
    assert_eq!(run("id --in none.json").1, Some(1));
    let (said, code) = run("id --in b.ndjson a.json");
    assert_eq!(code, Some(1));
    assert!(said.contains("b.ndjson:2: ") && said.contains("b.ndjson:4: no resource"), "{said}");
    assert!(said.ends_with("[\"2\"]\n[\"1\"]\n"), "{said}");
    assert_eq!(run("'%x.a + %y' --var 'x={\"a\":1}' --var y=2 --in a.json"), ("[3]\n".into(), Some(0)));
    let (said, code) = run("id --in - < a.json");
    assert_eq!((said.as_str(), code), ("[\"1\"]\n", Some(0)));
    shell(&dir, "gzip -k a.json");
    assert_eq!(run("id --in a.json.gz"), ("[\"1\"]\n".into(), Some(0)));
}
