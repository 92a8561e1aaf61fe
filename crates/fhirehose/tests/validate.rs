//! The examples of `docs/validation.md`, run as they stand there, and what a script relies on.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAM: &str = env!("CARGO_BIN_EXE_fhirehose");

/// An empty folder for a test.
fn folder(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    drop(std::fs::remove_dir_all(&dir));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// What a command writes, the summary after the findings, and its exit code.
fn shell(dir: &Path, command: &str) -> (String, Option<i32>) {
    let bin = Path::new(PROGRAM).parent().unwrap().display().to_string();
    let path = format!("{bin}:{}", std::env::var("PATH").unwrap_or_default());
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("exec 2>&1\n{command}")]).env("PATH", path).current_dir(dir);
    let output = shell.output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.code())
}

#[test]
fn the_examples_of_the_page_do_what_it_says() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/validation.md");
    let (page, dir) = (std::fs::read_to_string(page).unwrap(), folder("validate-page"));
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
    assert!(commands >= 4, "{commands} examples");
}

#[test]
fn all_kinds_of_input_and_exit_codes() {
    let dir = folder("validate-input");
    let good = r#"{"resourceType":"Basic","id":"1","code":{"text":"x"}}"#;
    let bad = r#"{"resourceType":"Basic","id":"b_1","code":{"text":"x"}}"#;
    std::fs::write(dir.join("good.json"), good).unwrap();
    std::fs::write(dir.join("lines.ndjson"), format!("{good}\n\n{bad}\nnone\n")).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let bundle = format!(
        "{{\"resourceType\": \"Bundle\", \"type\": \"collection\", \"entry\": [\n{{\"resource\": {good}}},\n{{\"resource\": {bad}}}]}}"
    );
    gzip.write_all(bundle.as_bytes()).unwrap();
    std::fs::write(dir.join("bundle.json.gz"), gzip.finish().unwrap()).unwrap();
    let run = |args: &str| shell(&dir, args);
    assert_eq!(
        run("fhirehose validate good.json"),
        ("resources: 1, invalid: 0, errors: 0, warnings: 0\n".into(), Some(0))
    );
    let (told, code) = run("fhirehose validate lines.ndjson");
    let told: Vec<&str> = told.lines().collect();
    assert_eq!(told[0], "lines.ndjson:3: error: Basic.id: malformed value");
    assert!(told[1].starts_with("lines.ndjson:4: error: "), "{told:?}");
    assert_eq!(told[2..], ["resources: 2, invalid: 1, errors: 1, warnings: 0, not read: 1"]);
    assert_eq!(code, Some(1));
    let (told, code) = run("fhirehose validate bundle.json.gz");
    let first = told.lines().next().unwrap();
    assert_eq!(
        (first, code),
        ("bundle.json.gz:3: error: Bundle.entry[1].resource.id: malformed value", Some(1))
    );
    assert_eq!(run("gzip -dc bundle.json.gz | fhirehose validate - --version r5").1, Some(1));
    assert_eq!(run("fhirehose validate - < good.json").1, Some(0));
    assert_eq!(run("fhirehose validate missing.json").1, Some(1));
    assert_eq!(run("fhirehose validate --version r3 good.json").1, Some(2));
    // The pipe's reader ends first.
    assert!(
        !run("yes \"$(cat lines.ndjson)\" | head -50000 | fhirehose validate - | head -1")
            .0
            .contains("panic")
    );
}
