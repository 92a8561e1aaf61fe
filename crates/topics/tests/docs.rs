//! `docs/generated/topics.md` says what the declarations say. `UPDATE_DOCS=1` writes it anew.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write;
use std::fs;
use std::path::Path;

use fhirehose_topics::{Format, Registry};

#[test]
fn generated_topics_are_current() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let registry = Registry::load(root).unwrap();
    let mut text = String::from(
        "# Topics\n\nGenerated from `topics/*.yaml` and `schemas/avro/*.avsc`; how to declare one is told in \
         [topics.md](../topics.md).\n\n| topic | key | value | partitions | keeps | from | to |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for topic in registry.iter() {
        let value = match &topic.schema {
            Some(schema) => format!("[Avro](#{})", schema.subject.replace('.', "")),
            None if topic.format == Format::Debezium => "Debezium, Avro or JSON".into(),
            None => format!("{:?}", topic.format).to_lowercase(),
        };
        let days = topic.configs["retention.ms"].parse::<i64>().unwrap() / 86_400_000;
        let keeps = match topic.configs["cleanup.policy"].as_str() {
            "compact" => "the last of each key".into(),
            _ => format!("{days} days"),
        };
        let (from, to) = (topic.producers.join(", "), topic.consumers.join(", "));
        let (name, key, partitions) = (&topic.name, &topic.key, topic.partitions);
        writeln!(
            text,
            "| `{name}` | {} | {value} | {partitions} | {keeps} | {from} | {to} |",
            key.replace('<', "\\<")
        )
        .unwrap();
    }
    for topic in registry.iter().filter(|topic| topic.schema.is_some()) {
        let schema = topic.schema.as_ref().unwrap();
        let record: serde_json::Value = serde_json::from_str(&schema.json).unwrap();
        let about = record["doc"].as_str().unwrap();
        write!(
            text,
            "\n## {}\n{}\n\n| column | type | meaning |\n|---|---|---|\n",
            schema.subject,
            escape(about)
        )
        .unwrap();
        for (field, json) in schema.fields.iter().zip(record["fields"].as_array().unwrap()) {
            let kind = kind(&json["type"]);
            writeln!(text, "| `{}` | {kind} | {} |", field.name, escape(&field.doc)).unwrap();
        }
    }
    let path = root.join("docs/generated/topics.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &text).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == text,
        "docs/generated/topics.md is old: run UPDATE_DOCS=1 cargo test -p fhirehose-topics"
    );
}

fn escape(text: &str) -> String {
    text.replace('<', "\\<").replace('|', "\\|")
}

fn kind(schema: &serde_json::Value) -> String {
    match schema {
        serde_json::Value::Array(branches) => {
            let kinds: Vec<_> = branches.iter().filter(|branch| *branch != "null").map(kind).collect();
            format!("{}, optional", kinds.join(" or "))
        }
        serde_json::Value::Object(object) => match object.get("logicalType").or(object.get("items")) {
            Some(inner) if object["type"] == "array" => format!("list of {}", kind(inner)),
            Some(logical) => logical.as_str().unwrap().to_owned(),
            None => kind(&object["type"]),
        },
        name => name.as_str().unwrap().to_owned(),
    }
}
