//! Hostile templates and documents end with an error, soon and with their place.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so")]

use std::path::Path;

use fhirehose_mapping::limits::{MAX_DEPTH, MAX_FILE, MAX_NODES};
use fhirehose_mapping::{Fpml, FpmlOptions, read_document};
use fhirehose_tape::Tape;
use serde_json::json;

fn compile(template: &str) -> Result<Fpml, String> {
    let compiled = Fpml::compile(Path::new("t.yaml"), template, &FpmlOptions::default());
    compiled.map_err(|problems| problems.iter().map(|problem| format!("{problem}\n")).collect())
}

/// A text of a MiB, and a thousand numbers.
fn resolve(template: &str) -> Result<usize, String> {
    let document = json!({"t": "x".repeat(1 << 20), "xs": (0..1000).collect::<Vec<_>>()}).to_string();
    let mut tape = Tape::new();
    tape.parse_json(document.as_bytes()).unwrap();
    let made = compile(template)?.resolve(tape.root(), &[]);
    made.map(|json| json.unwrap_or_default().len()).map_err(|r| format!("{}: {}", r.reason.label(), r.detail))
}

#[test]
fn what_a_document_becomes_is_limited() {
    assert!(resolve("{a: '{{ t }}', b: '{{ t }}{{ t }}'}").unwrap() > 3 << 20);
    for template in [
        r#"{"{% for x in xs %}": "{{ %context.t }}"}"#,
        r#"{a: {"{{ xs }}": {b: ["{{ %context.t }}"]}}}"#,
        &format!("\"{}\"", "{{ t }}".repeat(20)),
        r#""{[ xs.select(%context.t) ]}""#,
        r#"{"{% merge %}": [{"{% for x in xs %}": "{{ %context.t }}"}]}"#,
    ] {
        let told = resolve(template).unwrap_err();
        assert!(told.starts_with("too_large: an output of more than 16777216 bytes"), "{template}: {told}");
    }
}

#[test]
fn variables_and_steps_are_limited() {
    let told =
        resolve(r#"{"{% for x in xs %}": {"{% assign %}": {v: {w: "{{ %context.t }}"}}, a: "{{ %x }}"}}"#);
    assert_eq!(told, Err("too_large: variables of more than 16777216 bytes".into()));
    let told = resolve(r#"{"{% for x in xs %}": {"{% if (%context.t & %context.t).length() < 0 %}": 1}}"#);
    assert_eq!(told, Err("too_large: more than 20000000 steps".into()));
}

#[test]
fn what_is_read_is_limited() {
    let nested = |depth: usize| format!("a: {}1{}", "[".repeat(depth), "]".repeat(depth));
    assert!(compile(&nested(MAX_DEPTH - 1)).is_ok());
    let wide = format!("[{}]", vec!["1"; MAX_NODES].join(", "));
    for (template, wanted) in [
        (nested(MAX_DEPTH), "t.yaml:1:67: nested deeper than 64 levels"),
        (wide, "more than 100000 values"),
        (" ".repeat(MAX_FILE + 1), "t.yaml:1:1: a file of more than 1048576 bytes"),
        (format!("a: \"{{{{ {} }}}}\"", "(".repeat(100)), "t.yaml:1:"),
    ] {
        let told = compile(&template).err().unwrap();
        assert!(told.contains(wanted), "{told}");
    }
    let read =
        |text: &str| read_document(Path::new("d.yaml"), text, &mut Tape::new()).map_err(|p| p.to_string());
    assert_eq!(read(&nested(MAX_DEPTH)), Err("d.yaml:1:67: nested deeper than 64 levels".into()));
    assert_eq!(read(&json!(vec![1; MAX_NODES]).to_string()), Ok(()), "JSON may be of any length");
    let told = read("{\"a\": [1, }").unwrap_err();
    assert!(told.starts_with("d.yaml:1:") && told.contains("no JSON") && told.contains("no YAML"), "{told}");
}
