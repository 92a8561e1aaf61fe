//! The project's own rules that no other tool checks. Which crate may use which library is in `deny.toml`.
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};
use serde_json::Value;

use crate::shell;
use crate::stack::layout;

const HELP: &str = "\
Checks the rules that are the project's own:
  - no file of Rust over 600 lines, no processor's lib.rs over 300
  - the first line of every lib.rs says what the crate does (//! …)
  - every crate takes the workspace's lints
  - no marks of unfinished work, no switched-off tests
  - no address of a package registry, no path of one machine
  - every field of schemas/avro has a doc

Usage: cargo xtask tidy";

const MAX_LINES: usize = 600;
const MAX_PROCESSOR_LINES: usize = 300;

/// Written in two halves, so that this file does not break its own rule.
const UNFINISHED: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("#[ig", "nore"),
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
];
const ADDRESSES: &[&str] = &[
    concat!("deb.deb", "ian.org"),
    concat!("index.cra", "tes.io"),
    concat!("static.cra", "tes.io"),
    concat!("repo1.ma", "ven.org"),
    concat!("repo.ma", "ven.apache.org"),
    concat!("py", "pi.org"),
    concat!("files.python", "hosted.org"),
    concat!("registry.np", "mjs.org"),
    concat!("proxy.go", "lang.org"),
    concat!("/wo", "rk/"),
];

pub fn main(arguments: &[String]) -> Result<()> {
    match arguments {
        [] => run(),
        [help] if help == "-h" || help == "--help" => {
            println!("{HELP}");
            Ok(())
        }
        [other, ..] => bail!("tidy takes no argument '{other}'"),
    }
}

pub fn run() -> Result<()> {
    let root = layout::repository()?;
    let mut git = Command::new("git");
    git.current_dir(&root).args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    let listed = shell::capture(&mut git)?;
    let mut problems = Vec::new();
    for path in listed.lines() {
        // Deleted but not yet committed, or not text: nothing to read.
        let Ok(text) = fs::read_to_string(root.join(path)) else { continue };
        problems.extend(check(path, &text));
    }
    if problems.is_empty() {
        println!("tidy: {} files, nothing to say", listed.lines().count());
        return Ok(());
    }
    bail!("tidy: {} problems\n{}", problems.len(), problems.join("\n"))
}

/// Every rule over one file; each problem starts with the place, as compilers write it.
fn check(path: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let name = Path::new(path).file_name().unwrap_or_default().to_string_lossy();
    let is_rust = path.ends_with(".rs");
    let lines = text.lines().count();
    let limit =
        if path.starts_with("processors/") && name == "lib.rs" { MAX_PROCESSOR_LINES } else { MAX_LINES };
    if is_rust && lines > limit && !text.starts_with("// @generated") {
        problems.push(format!("{path}:{lines}: longer than {limit} lines; it holds two things, part them"));
    }
    if is_rust && name == "lib.rs" && !text.starts_with("//! ") {
        problems.push(format!(
            "{path}:1: the first line must say what the crate reads, writes and promises (//! …)"
        ));
    }
    if name == "Cargo.toml" && text.contains("[package]") && path != "xtask/Cargo.toml" && !takes_lints(text)
    {
        problems.push(format!("{path}:1: lacks `[lints] workspace = true`"));
    }
    if path.starts_with("schemas/avro/") {
        problems.extend(undocumented(path, text));
    }
    if name != "Cargo.lock" && !path.starts_with("examples/") {
        problems.extend(forbidden(path, text, UNFINISHED, "a mark of unfinished work"));
        problems.extend(forbidden(path, text, ADDRESSES, "an address or path that other machines lack"));
    }
    problems
}

fn takes_lints(text: &str) -> bool {
    let after = text.split_once("[lints]").map(|(_, after)| after.trim_start());
    after.is_some_and(|after| after.starts_with("workspace = true"))
        || text.contains("lints.workspace = true")
}

fn forbidden(path: &str, text: &str, words: &[&str], what: &str) -> Vec<String> {
    let lines = text.lines().enumerate();
    let hits = lines.filter_map(|(n, line)| Some((n, words.iter().find(|word| line.contains(**word))?)));
    hits.map(|(n, word)| format!("{path}:{}: {what}: {word}", n + 1)).collect()
}

/// Fields of records at any depth that have no doc.
fn undocumented(path: &str, text: &str) -> Vec<String> {
    let schema: Value = match serde_json::from_str(text) {
        Ok(schema) => schema,
        Err(error) => return vec![format!("{path}:{}: not JSON: {error}", error.line())],
    };
    let mut found = Vec::new();
    walk(&schema, &mut found);
    found.into_iter().map(|field| format!("{path}:1: the field {field} has no doc")).collect()
}

fn walk(schema: &Value, found: &mut Vec<String>) {
    match schema {
        Value::Array(variants) => variants.iter().for_each(|variant| walk(variant, found)),
        Value::Object(object) => {
            for field in object.get("fields").and_then(Value::as_array).into_iter().flatten() {
                if field["doc"].as_str().is_none_or(|doc| doc.trim().is_empty()) {
                    found.push(field["name"].as_str().unwrap_or("?").to_owned());
                }
                walk(&field["type"], found);
            }
            for inner in ["type", "items", "values"] {
                object.get(inner).into_iter().for_each(|inner| walk(inner, found));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_documented_library_passes() {
        assert_eq!(check("crates/a/src/lib.rs", "//! Reads nothing.\n"), Vec::<String>::new());
    }

    #[test]
    fn long_files_are_named_with_their_length() {
        let text = format!("//! x\n{}", "\n".repeat(300));
        assert!(
            check("processors/a/src/lib.rs", &text)[0]
                .starts_with("processors/a/src/lib.rs:301: longer than 300")
        );
        assert!(check("crates/a/src/lib.rs", &text).is_empty());
        assert_eq!(check("crates/a/src/b.rs", &"\n".repeat(601)).len(), 1);
    }

    #[test]
    fn marks_addresses_and_bare_libraries_are_found() {
        assert_eq!(check("crates/a/src/lib.rs", "fn f() {}\n").len(), 1);
        let mark = format!("x\n// {}: later\n", UNFINISHED[0]);
        assert!(check("docs/a.md", &mark)[0].starts_with("docs/a.md:2:"));
        assert_eq!(check("a.toml", &format!("x = '{}main'", ADDRESSES[9])).len(), 1);
        assert_eq!(check("crates/a/Cargo.toml", "[package]\nname = 'a'\n").len(), 1);
        assert!(check("crates/a/Cargo.toml", "[package]\n[lints]\nworkspace = true\n").is_empty());
    }

    #[test]
    fn nested_avro_fields_need_a_doc() {
        let schema = r#"{"type":"record","name":"A","fields":[
            {"name":"ok","doc":"x","type":"string"},
            {"name":"outer","doc":"x","type":["null",{"type":"array","items":
                {"type":"record","name":"B","fields":[{"name":"inner","type":"long"}]}}]}]}"#;
        assert_eq!(
            check("schemas/avro/a.avsc", schema),
            ["schemas/avro/a.avsc:1: the field inner has no doc"]
        );
        assert!(check("schemas/avro/a.avsc", "{")[0].contains("not JSON"));
    }
}
