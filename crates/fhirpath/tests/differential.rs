//! Our results against those of fhirpathpy, on generated expressions over Synthea's resources. Every difference
//! is of a kind that `differential-known.txt` explains, or the test fails. Runs where `FHIREHOSE_TEST_ORACLES`
//! says where the package is; `FHIREHOSE_DIFFERENTIAL` is the number of pairs of expression and resource,
//! `FHIREHOSE_SEED` the seed.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "differential/generate.rs"]
mod generate;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use fhirehose_fhirpath::{Ctx, Env, Expr, NoFunctions};
use fhirehose_tape::Tape;
use fhirehose_testkit::conformance;
use fhirehose_testkit::differential::{Known, ask, oracles, same, setting, synthea};
use generate::Generator;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

const PAIRS: usize = 4000;
/// Resources that an expression is evaluated on.
const EACH: usize = 20;
const RESOURCES: usize = 1500;

/// Resources of all types in the bundles, as even as there are.
fn resources(random: &mut ChaCha8Rng) -> Vec<Value> {
    let mut by_type = synthea();
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

fn theirs(oracles: &Path, resources: &[Value], cases: &[Case]) -> Vec<Vec<Value>> {
    let mut process = Command::new(oracles.join("py/bin/python"));
    process.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/fhirpathpy_eval.py"));
    let asked = cases.iter().map(|case| json!({"expr": case.expr, "on": case.on}));
    let answers = ask(process, std::iter::once(json!(resources)).chain(asked));
    answers.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
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

/// Numbers to 8 digits: fhirpathpy computes in binary floating point in places.
fn agree(ours: &Value, theirs: &Value) -> bool {
    match (ours.get("items"), theirs.get("items")) {
        (Some(ours), Some(theirs)) => same(ours, theirs, 1e-8),
        (None, None) => true,
        _ => false,
    }
}

#[test]
fn differences_from_fhirpathpy_are_explained() {
    let Some(oracles) = oracles() else { return };
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
    let known = Known::read(include_str!("differential-known.txt"));
    let (mut compared, mut explained, mut unexplained) = (0, BTreeMap::new(), BTreeMap::new());
    let (mut failed, mut empty) = (0, 0);
    for (case, theirs) in cases.iter().zip(theirs(&oracles, &resources, &cases)) {
        for ((ours, theirs), on) in ours(case, &tapes).iter().zip(&theirs).zip(&case.on) {
            compared += 1;
            failed += usize::from(ours.get("error").is_some());
            empty += usize::from(ours["items"].as_array().is_some_and(Vec::is_empty));
            if agree(ours, theirs) {
                continue;
            }
            let what = format!("{} => {ours} | {theirs}", case.expr);
            match known.reason(&what) {
                Some(reason) => *explained.entry(reason).or_insert(0) += 1,
                None => drop(unexplained.entry(&case.expr).or_insert((what, *on))),
            }
        }
    }
    println!(
        "seed {seed}: {compared} pairs, {} expressions; we refuse {failed}, give nothing for {empty}",
        cases.len()
    );
    explained.iter().for_each(|(reason, count)| println!("{count:6} {reason}"));
    assert!(compared >= pairs, "{compared} pairs of {pairs}");
    let shown: Vec<String> = unexplained
        .values()
        .take(100)
        .map(|(what, on)| {
            what.chars().take(600).collect::<String>() + &format!(" [{}]", resources[*on]["resourceType"])
        })
        .collect();
    assert!(unexplained.is_empty(), "{} expressions differ:\n{}", unexplained.len(), shown.join("\n"));
    let known: usize = explained.values().sum();
    conformance::assert_current(
        &format!(
            "FHIRPath: fhirpathpy 2.2.4, {pairs} pairs of generated expression and resource, seed {seed}"
        ),
        &format!("{} equal, {known} differ with [reasons](fhirpath.md), none without", compared - known),
        "fhirehose-fhirpath",
        "--test differential",
    );
}
