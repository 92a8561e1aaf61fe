//! `docs/generated` says what the code says. `UPDATE_DOCS=1` writes it anew.

use std::collections::BTreeMap;
use std::fs;

use fhirehose_stream::Reason;
use fhirehose_testkit::root;

use crate::fleet::{Process, say};

/// Compares a generated file with what it must hold, or writes it.
fn assert_current(name: &str, text: &str) {
    let path = root().join("docs/generated").join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, text).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == text,
        "docs/generated/{name} is old: run the tests of fhirehose-tests with UPDATE_DOCS=1"
    );
}

#[test]
fn generated_processors_are_current() {
    let mut text = String::from(
        "# Processors\n\nGenerated from `fhirehose processors`.\n\n| processor | does | |\n|---|---|---|\n",
    );
    let listed = say(&["processors"]);
    for block in listed.split("\n").collect::<Vec<_>>().chunk_by(|_, next| next.starts_with(' ')) {
        let [name, what, rest @ ..] = block else { continue };
        let rest: Vec<_> = rest.iter().filter_map(|line| line.trim().split_once(' ')).collect();
        let rest: Vec<_> = rest.iter().map(|(verb, what)| format!("{verb} {}", what.trim())).collect();
        text.push_str(&format!("| `{name}` | {} | {} |\n", what.trim(), rest.join("; ").replace('*', "\\*")));
    }
    assert_current("processors.md", &text);
}

#[test]
fn generated_reasons_are_current() {
    let mut text = String::from(
        "# Reasons\n\nGenerated from the one list in `crates/stream`. The label is the same in the dead letter's header, the \
         metric and the [runbook](../RUNBOOK.md), which says what to do.\n\n| reason | means |\n|---|---|\n",
    );
    for reason in Reason::ALL {
        text.push_str(&format!("| `{}` | {} |\n", reason.label(), reason.meaning()));
    }
    assert_current("reasons.md", &text);
}

#[test]
fn generated_warehouse_is_current() {
    let text = format!(
        "# Warehouse\n\nThe declared tables and their columns. Generated from `fhirehose migrate tables`.\n\n{}",
        say(&["migrate", "tables"])
    );
    assert_current("warehouse.md", &text);
}

/// Every metric that a process exports is documented, as what it is. Some are exported only once there is
/// something to tell, so the file may hold more.
pub fn metrics(process: &Process) {
    let exported = process.get("/metrics").unwrap();
    let (mut kinds, mut help) = (BTreeMap::new(), BTreeMap::new());
    for line in exported.lines() {
        let named = |prefix: &str| line.strip_prefix(prefix).and_then(|rest| rest.split_once(' '));
        if let Some((name, kind)) = named("# TYPE ") {
            kinds.insert(name, kind);
        } else if let Some((name, text)) = named("# HELP ") {
            help.insert(name, text);
        }
    }
    assert!(kinds.len() > 10, "{kinds:?}");
    let line = |name: &str, kind: &str| {
        let is = help.get(name).unwrap_or_else(|| panic!("{name} is not described"));
        format!("| `{name}` | {kind} | {is} |")
    };
    let exported = kinds.iter().map(|(name, kind)| line(name, kind));
    let written = fs::read_to_string(root().join("docs/generated/metrics.md")).unwrap_or_default();
    let written = written.lines().filter(|line| line.starts_with("| `")).map(str::to_owned);
    let name = |line: &String| line.split('`').nth(1).unwrap().to_owned();
    let mut lines: BTreeMap<_, _> = written.map(|line| (name(&line), line)).collect();
    lines.extend(exported.map(|line| (name(&line), line)));
    let lines: Vec<_> = lines.into_values().collect();
    let head = "# Metrics\n\nGenerated from what a process exports at `/metrics`; `processor` and, where there is one, `reason` are labels.";
    assert_current(
        "metrics.md",
        &format!("{head}\n\n| metric | kind | is |\n|---|---|---|\n{}\n", lines.join("\n")),
    );
}
