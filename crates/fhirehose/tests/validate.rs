//! The examples of `docs/validation.md`, run as they stand there, and what a script relies on.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod page;

use std::io::Write;

use page::{examples, shell};

#[test]
fn the_examples_of_the_page_do_what_it_says() {
    let commands = examples("validation.md");
    assert!(commands >= 4, "{commands} examples");
}

#[test]
fn all_kinds_of_input_and_exit_codes() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
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
    let run = |args: &str| shell(dir, args);
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
