//! The examples of `docs/fpml.md`, run as they stand there.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod page;

use page::{examples, shell};

#[test]
fn the_examples_of_the_page_do_what_it_says() {
    let commands = examples("fpml.md");
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
