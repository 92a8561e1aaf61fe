//! The examples of `docs/fhirpath.md`, run as they stand there.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod page;

use page::{examples, shell};

#[test]
fn the_examples_of_the_page_do_what_it_says() {
    let commands = examples("fhirpath.md");
    assert!(commands > 8, "{commands} examples");
}

#[test]
fn exit_codes_tell_what_was_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    std::fs::write(dir.join("a.json"), "{\n \"resourceType\": \"Basic\", \"id\": \"1\"\n}\n").unwrap();
    std::fs::write(dir.join("b.ndjson"), "{\"resourceType\":\"Basic\",\"id\":\"2\"}\nnone\n\n{}\n").unwrap();
    let run = |args: &str| shell(dir, &format!("fhirehose fhirpath {args}"));
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
    shell(dir, "gzip -k a.json");
    assert_eq!(run("id --in a.json.gz"), ("[\"1\"]\n".into(), Some(0)));
}
