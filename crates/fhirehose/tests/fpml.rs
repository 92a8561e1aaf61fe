//! The examples of `docs/fpml.md`, run as they stand there.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;

const PROGRAM: &str = env!("CARGO_BIN_EXE_fhirehose");

/// What a command writes, errors after the results they came with, and its exit code.
fn shell(dir: &Path, command: &str) -> (String, Option<i32>) {
    let bin = Path::new(PROGRAM).parent().unwrap().display().to_string();
    let path = format!("{bin}:{}", std::env::var("PATH").unwrap_or_default());
    let mut shell = Command::new("sh");
    let shell = shell.args(["-c", &format!("exec 2>&1\n{command}")]).env("PATH", path).current_dir(dir);
    let output = shell.output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.code())
}

#[test]
fn the_examples_of_the_page_do_what_it_says() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/fpml.md");
    let page = std::fs::read_to_string(page).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for file in page.split("```yaml file=").skip(1) {
        let (name, text) = file.split_once('\n').unwrap();
        std::fs::write(dir.path().join(name), text.split_once("```").unwrap().0).unwrap();
    }
    let mut commands = 0;
    for block in page.split("```console\n").skip(1) {
        for example in block.split_once("```").unwrap().0.split("$ ").skip(1) {
            let (command, wanted) = example.split_once('\n').unwrap();
            assert_eq!(shell(dir.path(), command).0, wanted, "{command}");
            commands += 1;
        }
    }
    assert!(commands >= 8, "{commands} examples");
}

#[test]
fn exit_codes_tell_what_was_wrong() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("t.json"), r#"{"a": "{{ x }}", "t": "{{ now().exists() }}"}"#).unwrap();
    let run = |args: &str| shell(dir.path(), &format!("echo '{{\"x\":36.50}}' | fhirehose fpml {args}"));
    assert_eq!(run("--template t.json --in -"), ("{\"a\":36.50,\"t\":true}\n".into(), Some(0)));
    let (said, code) = run("--template - --in -");
    assert!(code == Some(1) && said.contains("one of the files only"), "{said}");
    let (said, code) = run("--template none.json --in -");
    assert!(code == Some(1) && said.contains("none.json"), "{said}");
    std::fs::write(dir.path().join("bad.yaml"), "a: [1\n").unwrap();
    let (said, code) = run("--template bad.yaml --in -");
    assert!(code == Some(2) && said.starts_with("error: bad.yaml:2:"), "{said}");
    let (said, code) = run("--template t.json --in bad.yaml");
    assert!(code == Some(1) && said.contains("bad.yaml:2:"), "{said}");
    std::fs::write(dir.path().join("empty.yaml"), "a: \"{{ y }}\"\n").unwrap();
    assert_eq!(run("--template empty.yaml --in -"), ("null\n".into(), Some(0)));
}
