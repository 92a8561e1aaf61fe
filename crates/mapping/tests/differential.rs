//! Our results against those of the reference implementation of FPML, on generated templates with every directive in
//! every other. Every difference is of a kind that `fpml/differences.txt` explains, or the test fails. Runs where
//! `FHIREHOSE_TEST_ORACLES` says where the package is; `FHIREHOSE_DIFFERENTIAL` is the number of cases,
//! `FHIREHOSE_SEED` the seed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "fpml/generate.rs"]
mod generate;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use fhirehose_mapping::{Fpml, FpmlOptions};
use fhirehose_tape::Tape;
use fhirehose_testkit::conformance;
use fhirehose_testkit::differential::{Known, ask, oracles, same, setting};
use generate::{FORMS, Generator};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

/// Each pair of forms twice.
const CASES: usize = 2 * FORMS.len() * FORMS.len();

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

fn theirs(oracles: &Path, cases: &[Case]) -> Vec<Value> {
    let mut process = Command::new(oracles.join("py/bin/python"));
    process.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fpml/reference.py"));
    let line = |case: &Case| json!({"template": case.template, "document": case.document, "variables": {}});
    let answers = ask(process, cases.iter().map(line));
    answers.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
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

fn agree(ours: &Value, theirs: &Value) -> bool {
    match (ours.get("value"), theirs.get("value")) {
        (Some(ours), Some(theirs)) => same(ours, theirs, 0.0),
        (None, None) => true,
        _ => false,
    }
}

#[test]
fn differences_from_the_reference_are_explained() {
    let Some(oracles) = oracles() else { return };
    let (count, seed) = (setting("FHIREHOSE_DIFFERENTIAL", CASES), setting("FHIREHOSE_SEED", 1) as u64);
    let (cases, known) = (cases(seed, count), Known::read(include_str!("fpml/differences.txt")));
    let (mut compared, mut values, mut empty, mut failed) = (0, 0, 0, 0);
    let (mut explained, mut unexplained) = (BTreeMap::new(), Vec::new());
    for (case, theirs) in cases.iter().zip(theirs(&oracles, &cases)) {
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
        match known.reason(&what) {
            Some(reason) => *explained.entry(reason).or_insert(0) += 1,
            None => unexplained.push(what),
        }
    }
    println!(
        "seed {seed}: {compared} templates, {values} make something, {empty} nothing, {failed} are refused"
    );
    explained.iter().for_each(|(reason, count)| println!("{count:6} {reason}"));
    assert_eq!(compared, count, "the reference answered all");
    assert!(count < CASES || values * 2 > count, "most make something");
    unexplained.sort_by_key(String::len);
    let shown: Vec<&str> = unexplained.iter().take(25).map(String::as_str).collect();
    assert!(unexplained.is_empty(), "{} templates differ:\n{}", unexplained.len(), shown.join("\n\n"));
    let known: usize = explained.values().sum();
    conformance::assert_current(
        &format!("FPML: the reference (PyPI fpml 1.0.0), {count} generated templates, seed {seed}"),
        &format!(
            "{} equal, {known} differ with [reasons](../mapping.md#templates), none without",
            count - known
        ),
        "fhirehose-mapping",
        "--test differential",
    );
}
