//! Our results against those of the reference implementation of FPML, on generated templates with every directive in
//! every other. Every difference is of a kind that `fpml/differences.txt` explains, or the test fails. Runs where
//! `FHIREHOSE_TEST_ORACLES` says where the package is; `FHIREHOSE_DIFFERENTIAL` is the number of cases,
//! `FHIREHOSE_SEED` the seed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "fpml/generate.rs"]
mod generate;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fhirehose_mapping::{Fpml, FpmlOptions};
use fhirehose_tape::Tape;
use generate::{FORMS, Generator};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use regex::Regex;
use serde_json::{Value, json};

/// Each pair of forms twice.
const CASES: usize = 2 * FORMS.len() * FORMS.len();

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}: {text}")))
}

/// The Python that has the package; none if it was not installed.
fn oracle() -> Option<PathBuf> {
    let python = PathBuf::from(std::env::var_os("FHIREHOSE_TEST_ORACLES")?).join("py/bin/python");
    let has = Command::new(&python).args(["-c", "import fpml"]).stderr(Stdio::null()).status();
    has.is_ok_and(|status| status.success()).then_some(python)
}

struct Case {
    template: Value,
    document: Value,
}

fn cases(seed: u64, count: usize) -> Vec<Case> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut generator = Generator::new(&mut random);
    let forms = FORMS.len();
    (0..count)
        .map(|number| Case {
            template: generator.template(number % forms, number / forms % forms),
            document: generator.document(),
        })
        .collect()
}

fn theirs(python: &Path, cases: &[Case]) -> Vec<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fpml/reference.py");
    let mut process = Command::new(python);
    let mut process =
        process.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("fpml starts");
    let mut input = process.stdin.take().unwrap();
    let line = |case: &Case| {
        let case = json!({"template": case.template, "document": case.document, "variables": {}});
        format!("{case}\n")
    };
    let lines: String = cases.iter().map(line).collect();
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = BufReader::new(process.stdout.take().unwrap());
    let answers = output.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    writer.join().unwrap().unwrap();
    assert!(process.wait().unwrap().success());
    answers
}

fn ours(case: &Case) -> Value {
    let (file, text) = (Path::new("case.json"), case.template.to_string());
    let compiled = match Fpml::compile(file, &text, &FpmlOptions::default()) {
        Ok(compiled) => compiled,
        Err(problems) => return json!({"error": format!("compile {}", problems[0])}),
    };
    let mut document = Tape::new();
    document.parse_json(case.document.to_string().as_bytes()).unwrap();
    match compiled.resolve(document.root(), &[]) {
        Ok(made) => json!({"value": made.map_or(Value::Null, |json| serde_json::from_slice(&json).unwrap())}),
        Err(rejection) => json!({"error": format!("{}: {}", rejection.reason.label(), rejection.detail)}),
    }
}

/// The same; numbers by value.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

fn agree(ours: &Value, theirs: &Value) -> bool {
    match (ours.get("value"), theirs.get("value")) {
        (Some(ours), Some(theirs)) => same(ours, theirs),
        (None, None) => true,
        _ => false,
    }
}

/// A kind of difference: what "template on document => ours | theirs" looks like, and why it is.
struct Known {
    pattern: Regex,
    line: &'static str,
}

fn known() -> Vec<Known> {
    let lines = include_str!("fpml/differences.txt").lines();
    let kind = |line: &'static str| {
        let (pattern, _) = line.split_once(" -- ").expect("pattern -- whose: reason");
        Known { pattern: Regex::new(pattern).expect(pattern), line }
    };
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(kind).collect()
}

#[test]
fn differences_from_the_reference_are_explained() {
    let Some(python) = oracle() else {
        eprintln!("SKIPPED: no fpml; `cargo xtask test` installs it and sets FHIREHOSE_TEST_ORACLES");
        return;
    };
    let (count, seed) = (setting("FHIREHOSE_DIFFERENTIAL", CASES), setting("FHIREHOSE_SEED", 1) as u64);
    let (cases, known) = (cases(seed, count), known());
    let (mut compared, mut values, mut empty, mut failed) = (0, 0, 0, 0);
    let (mut explained, mut unexplained) = (BTreeMap::new(), Vec::new());
    for (case, theirs) in cases.iter().zip(theirs(&python, &cases)) {
        let ours = ours(case);
        compared += 1;
        match ours.get("value") {
            Some(Value::Null) => empty += 1,
            Some(_) => values += 1,
            None => failed += 1,
        }
        if agree(&ours, &theirs) {
            continue;
        }
        let what = format!("{} on {} => {ours} | {theirs}", case.template, case.document);
        match known.iter().find(|kind| kind.pattern.is_match(&what)) {
            Some(kind) => *explained.entry(kind.line).or_insert(0) += 1,
            None => unexplained.push(what),
        }
    }
    println!(
        "seed {seed}: {compared} templates, {values} make something, {empty} nothing, {failed} are refused"
    );
    explained.iter().for_each(|(line, count)| println!("{count:6} {line}"));
    assert_eq!(compared, count, "the reference answered all");
    assert!(count < CASES || values * 2 > count, "most make something");
    unexplained.sort_by_key(String::len);
    let shown: Vec<&str> = unexplained.iter().take(25).map(String::as_str).collect();
    assert!(unexplained.is_empty(), "{} templates differ:\n{}", unexplained.len(), shown.join("\n\n"));
}
