//! Our results against those of fhirpathpy, on generated expressions over Synthea's resources. Every difference
//! is of a kind that `differential-known.txt` explains, or the test fails. Runs where `FHIREHOSE_TEST_ORACLES`
//! says where the package is; `FHIREHOSE_DIFFERENTIAL` is the number of pairs of expression and resource,
//! `FHIREHOSE_SEED` the seed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "differential/generate.rs"]
mod generate;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fhirehose_fhirpath::{Ctx, Env, Expr, NoFunctions};
use fhirehose_tape::Tape;
use flate2::read::GzDecoder;
use generate::Generator;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use regex::Regex;
use serde_json::{Value, json};

const PAIRS: usize = 4000;
/// Resources that an expression is evaluated on.
const EACH: usize = 20;
const RESOURCES: usize = 1500;

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}: {text}")))
}

/// The Python that has the package; none if it was not installed.
fn oracle() -> Option<PathBuf> {
    let python = PathBuf::from(std::env::var_os("FHIREHOSE_TEST_ORACLES")?).join("py/bin/python");
    let has = Command::new(&python).args(["-c", "import fhirpathpy"]).stderr(Stdio::null()).status();
    has.is_ok_and(|status| status.success()).then_some(python)
}

/// Resources of all types in the bundles, as even as there are.
fn resources(random: &mut ChaCha8Rng) -> Vec<Value> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/synthea");
    assert!(dir.is_dir(), "Synthea's bundles are missing: {}", dir.display());
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "gz"));
    files.sort();
    let mut by_type: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for file in files {
        let mut text = String::new();
        GzDecoder::new(std::fs::File::open(file).unwrap()).read_to_string(&mut text).unwrap();
        let mut bundle: Value = serde_json::from_str(&text).unwrap();
        for entry in bundle["entry"].as_array_mut().into_iter().flatten() {
            let resource = entry["resource"].take();
            let of = resource["resourceType"].as_str().unwrap_or_default().to_owned();
            by_type.entry(of).or_default().push(resource);
        }
    }
    let share = RESOURCES / by_type.len();
    by_type.values_mut().for_each(|of| of.shuffle(random));
    by_type.into_values().flat_map(|of| of.into_iter().take(share)).collect()
}

struct Case {
    expr: String,
    on: Vec<usize>,
}

fn cases(random: &mut ChaCha8Rng, resources: &[Value], pairs: usize) -> Vec<Case> {
    let all: Vec<usize> = (0..resources.len()).collect();
    let of = |at: usize| &resources[at]["resourceType"];
    (0..pairs.div_ceil(EACH))
        .map(|_| {
            let sample = random.random_range(0..resources.len());
            let expr = Generator { random, resource: &resources[sample] }.expression();
            let same: Vec<usize> = all.iter().copied().filter(|at| of(*at) == of(sample)).collect();
            let mut on: Vec<usize> = same.choose_multiple(random, EACH * 4 / 5).copied().collect();
            on.extend(all.choose_multiple(random, EACH - on.len()));
            Case { expr, on }
        })
        .collect()
}

fn theirs(python: &Path, resources: &[Value], cases: &[Case]) -> Vec<Vec<Value>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/fhirpathpy_eval.py");
    let mut process = Command::new(python);
    let mut process =
        process.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("fhirpathpy starts");
    let mut input = process.stdin.take().unwrap();
    let mut lines = json!(resources).to_string() + "\n";
    cases.iter().for_each(|case| lines += &format!("{}\n", json!({"expr": case.expr, "on": case.on})));
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let output = BufReader::new(process.stdout.take().unwrap());
    let answers = output.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    writer.join().unwrap().unwrap();
    assert!(process.wait().unwrap().success());
    answers
}

fn ours(case: &Case, tapes: &[Tape]) -> Vec<Value> {
    let expr = match Expr::compile(&case.expr, &Env::fhir()) {
        Ok(expr) => expr,
        Err(error) => return vec![json!({"error": format!("compile {error}")}); case.on.len()],
    };
    let one = |tape: &Tape| match expr.eval(&Ctx::new(tape.root(), &NoFunctions)) {
        Ok(items) => {
            let mut all = Vec::new();
            for item in items {
                let mut json = Vec::new();
                item.write_json(&mut json);
                all.push(serde_json::from_slice::<Value>(&json).unwrap());
            }
            json!({"items": all})
        }
        Err(error) => json!({"error": error.to_string()}),
    };
    case.on.iter().map(|at| one(&tapes[*at])).collect()
}

/// The same, numbers by value to 8 digits: fhirpathpy computes in binary floating point in places.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b): (f64, f64) = (a.to_string().parse().unwrap(), b.to_string().parse().unwrap());
            (a - b).abs() <= 1e-8 * a.abs().max(1.0)
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

fn agree(ours: &Value, theirs: &Value) -> bool {
    match (ours.get("items"), theirs.get("items")) {
        (Some(ours), Some(theirs)) => same(ours, theirs),
        (None, None) => true,
        _ => false,
    }
}

/// A kind of difference: what "expression => ours | theirs" looks like, and why it is.
struct Known {
    pattern: Regex,
    line: &'static str,
}

fn known() -> Vec<Known> {
    let lines = include_str!("differential-known.txt").lines();
    let kind = |line: &'static str| {
        let (pattern, _) = line.split_once(" -- ").expect("pattern -- whose: reason");
        Known { pattern: Regex::new(pattern).expect(pattern), line }
    };
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(kind).collect()
}

#[test]
fn differences_from_fhirpathpy_are_explained() {
    let Some(python) = oracle() else {
        eprintln!("SKIPPED: no fhirpathpy; `cargo xtask test` installs it and sets FHIREHOSE_TEST_ORACLES");
        return;
    };
    let (pairs, seed) = (setting("FHIREHOSE_DIFFERENTIAL", PAIRS), setting("FHIREHOSE_SEED", 1) as u64);
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let resources = resources(&mut random);
    let cases = cases(&mut random, &resources, pairs);
    let tapes: Vec<Tape> = resources
        .iter()
        .map(|resource| {
            let mut tape = Tape::new();
            tape.parse_json(resource.to_string().as_bytes()).unwrap();
            tape
        })
        .collect();
    let known = known();
    let (mut compared, mut explained, mut unexplained) = (0, BTreeMap::new(), BTreeMap::new());
    let (mut failed, mut empty) = (0, 0);
    for (case, theirs) in cases.iter().zip(theirs(&python, &resources, &cases)) {
        for ((ours, theirs), on) in ours(case, &tapes).iter().zip(&theirs).zip(&case.on) {
            compared += 1;
            failed += usize::from(ours.get("error").is_some());
            empty += usize::from(ours["items"].as_array().is_some_and(Vec::is_empty));
            if agree(ours, theirs) {
                continue;
            }
            let what = format!("{} => {ours} | {theirs}", case.expr);
            match known.iter().find(|kind| kind.pattern.is_match(&what)) {
                Some(kind) => *explained.entry(kind.line).or_insert(0) += 1,
                None => drop(unexplained.entry(&case.expr).or_insert((what, *on))),
            }
        }
    }
    println!(
        "seed {seed}: {compared} pairs, {} expressions; we refuse {failed}, give nothing for {empty}",
        cases.len()
    );
    explained.iter().for_each(|(line, count)| println!("{count:6} {line}"));
    assert!(compared >= pairs, "{compared} pairs of {pairs}");
    let shown: Vec<String> = unexplained
        .values()
        .take(100)
        .map(|(what, on)| {
            what.chars().take(600).collect::<String>() + &format!(" [{}]", resources[*on]["resourceType"])
        })
        .collect();
    assert!(unexplained.is_empty(), "{} expressions differ:\n{}", unexplained.len(), shown.join("\n"));
}
