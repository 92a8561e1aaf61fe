//! `docs/generated/fhirpath.md`: figures, differences and the reference. `UPDATE_DOCS=1` writes it anew.

use std::fmt::Write;
use std::path::Path;

use fhirehose_fhirpath::{limits, reference};

use crate::Group;

/// Compares the page with what it must hold, or writes it.
pub fn assert_current(groups: &[Group], failed: &[(String, &str, &str)]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/generated/fhirpath.md");
    let text = page(groups, failed).unwrap();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == text,
        "docs/generated/fhirpath.md is old: UPDATE_DOCS=1 cargo test -p fhirehose-fhirpath --test official"
    );
}

fn page(groups: &[Group], failed: &[(String, &str, &str)]) -> Result<String, std::fmt::Error> {
    let mut out = String::from("# FHIRPath\n\nGenerated from the code's tables and the tests' results.\n\n");
    let (passed, total) = groups.iter().fold((0, 0), |(p, t), group| (p + group.passed, t + group.total));
    let percent = passed as f64 * 100.0 / total as f64;
    writeln!(out, "## The official R4 suite\n\n{passed} of {total} tests pass: {percent:.1} %.\n")?;
    writeln!(out, "| group | passed | of |\n|---|---|---|")?;
    for group in groups {
        writeln!(out, "| {} | {} | {} |", group.name, group.passed, group.total)?;
    }
    writeln!(out, "\nNot passed, and why:\n\n| test | expression | reason |\n|---|---|---|")?;
    for (name, expression, reason) in failed {
        writeln!(out, "| {name} | {} | {reason} |", code(expression))?;
    }
    differences(&mut out)?;
    writeln!(out, "\n## Functions")?;
    table(&mut out, &reference::functions())?;
    writeln!(
        out,
        "\n## Operators\n\nThose that bind most strongly first; `is` and `as` stand between comparison and equality."
    )?;
    table(&mut out, &reference::operators())?;
    writeln!(out, "\n## Refused\n\nA compile error, and what it says: the function")?;
    writeln!(out, "\n| function | why |\n|---|---|")?;
    for entry in reference::refused() {
        writeln!(out, "| {} | {} |", code(&entry.signature), entry.about)?;
    }
    writeln!(
        out,
        "\nThose of the clock are there where a time is given, as in `fhirehose fhirpath`; `resolve()` where \
         references can be looked up, as there too."
    )?;
    bounds(&mut out)?;
    Ok(out)
}

/// Kinds of differences from fhirpathpy, which the differential test knows.
fn differences(out: &mut String) -> std::fmt::Result {
    writeln!(
        out,
        "\n## Differences from fhirpathpy 2.2.4\n\nOn generated expressions over Synthea's resources \
         (`crates/fhirpath/tests/differential.rs`); any other difference fails the test.\n\n| whose | what |\n|---|---|"
    )?;
    let lines = include_str!("../differential-known.txt").lines();
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (_, reason) = line.split_once(" -- ").unwrap_or((line, line));
        let (whose, what) = reason.split_once(": ").unwrap_or(("", reason));
        writeln!(out, "| {whose} | {what} |")?;
    }
    Ok(())
}

fn table(out: &mut String, entries: &[reference::Entry]) -> std::fmt::Result {
    for group in entries.chunk_by(|a, b| a.group == b.group) {
        writeln!(out, "\n### {}\n\n| | gives |\n|---|---|", group[0].group)?;
        for entry in group {
            writeln!(out, "| {} | {} |", code(&entry.signature), entry.about.replace('|', "\\|"))?;
        }
    }
    Ok(())
}

fn bounds(out: &mut String) -> std::fmt::Result {
    writeln!(out, "\n## Limits\n\nWhat needs more is refused with an error.\n\n| | |\n|---|---|")?;
    for (what, limit) in [
        ("bytes of an expression", limits::MAX_SOURCE as u64),
        ("levels of parts in parts, of a path or of a chain of operators", limits::MAX_DEPTH as u64),
        ("steps of an evaluation: parts evaluated, items made, what is read and compared", limits::MAX_STEPS),
        ("items of a collection", limits::MAX_ITEMS as u64),
        ("bytes of a text that an expression makes", limits::MAX_TEXT as u64),
        ("items that functions on sets take", limits::MAX_SET as u64),
        ("items that `repeat` gathers", limits::MAX_REPEATED as u64),
    ] {
        writeln!(out, "| {what} | {limit} |")?;
    }
    Ok(())
}

fn code(text: &str) -> String {
    format!("`{}`", text.replace('|', "\\|"))
}
