//! Our verdicts against those of other validators, on Synthea's resources and on mutated ones. Every disagreement is of a
//! kind that `differential-known.txt` explains, or the test fails. Runs where `FHIREHOSE_TEST_ORACLES` says where
//! the judges are. `FHIREHOSE_DIFFERENTIAL` is the number of mutated resources, `FHIREHOSE_DIFFERENTIAL_OFFICIAL` of
//! those the official validator gets, `FHIREHOSE_SEED` the seed; `UPDATE_DOCS=1` writes the page of what was seen.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "differential/judges.rs"]
mod judges;
#[path = "differential/mutate.rs"]
mod mutate;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use fhirehose_fhir::{Version, findings};
use fhirehose_tape::Tape;
use flate2::read::GzDecoder;
use judges::Judge;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use regex::Regex;
use serde_json::Value;

const MUTATED: usize = 4000;
const OFFICIAL: usize = 300;
/// Resources given to a judge at once.
const BATCH: usize = 20_000;
/// Of each type, so that the rare ones are mutated as often as the others.
const SHARE: usize = 150;

fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}: {text}")))
}

/// All resources of the bundles by type.
fn synthea() -> BTreeMap<String, Vec<Value>> {
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
            let mut resource = entry["resource"].take();
            // Of profiles that no judge has, the official validator only says that it has none.
            if let Some(meta) = resource.get_mut("meta").and_then(Value::as_object_mut) {
                meta.remove("profile");
                if meta.is_empty() {
                    resource.as_object_mut().unwrap().remove("meta");
                }
            }
            let of = resource["resourceType"].as_str().unwrap_or_default().to_owned();
            by_type.entry(of).or_default().push(resource);
        }
    }
    by_type
}

struct Case {
    json: String,
    what: String,
    ours: [Vec<String>; 2],
}

impl Case {
    fn new(resource: &Value, what: String) -> Case {
        let json = resource.to_string();
        let mut tape = Tape::new();
        tape.parse_json(json.as_bytes()).unwrap();
        let of = |version| {
            let found =
                findings(version, tape.root()).into_iter().filter(|invalid| !invalid.rule.is_warning());
            found.map(|invalid| invalid.to_string()).collect()
        };
        Case { ours: [of(Version::R4), of(Version::R5)], json, what }
    }

    fn ours(&self, version: Version) -> &[String] {
        &self.ours[usize::from(version == Version::R5)]
    }
}

/// A kind of disagreement: what "judge | who refuses | finding" looks like, and why it is.
struct Known {
    pattern: Regex,
    reason: &'static str,
}

fn known() -> Vec<Known> {
    let lines = include_str!("differential-known.txt").lines();
    let kind = |line: &'static str| {
        let (pattern, reason) = line.split_once(" -- ").expect("pattern -- reason");
        Known { pattern: Regex::new(pattern).expect(pattern), reason }
    };
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(kind).collect()
}

#[derive(Default)]
struct Seen {
    compared: usize,
    both_refuse: usize,
    both_accept: usize,
    /// By who refuses and the reason.
    explained: BTreeMap<(&'static str, &'static str), usize>,
}

/// Compares a judge's verdicts with ours; gives those that nothing explains.
fn compare(judge: &Judge, cases: &[Case], known: &[Known], seen: &mut Seen) -> Vec<String> {
    let resources: Vec<String> = cases.iter().map(|case| case.json.clone()).collect();
    let theirs = judge.findings(&resources);
    let mut unexplained = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        let (ours, theirs) = (case.ours(judge.version), theirs.get(&index).map_or(&[][..], |found| found));
        seen.compared += 1;
        let (who, findings) = match (ours.is_empty(), theirs.is_empty()) {
            (true, true) => {
                seen.both_accept += 1;
                continue;
            }
            (false, false) => {
                seen.both_refuse += 1;
                continue;
            }
            (false, true) => ("we", ours),
            (true, false) => ("they", theirs),
        };
        let reason = |finding: &String| {
            let what = format!("{} | {who} refuse | {finding}", judge.name);
            known.iter().find(|kind| kind.pattern.is_match(&what)).map(|kind| kind.reason).ok_or(what)
        };
        match findings.iter().map(reason).collect::<Result<Vec<_>, _>>() {
            Ok(reasons) => *seen.explained.entry((who, reasons[0])).or_default() += 1,
            Err(what) => unexplained.push(format!("{what} [{}]", case.what)),
        }
    }
    unexplained
}

#[test]
fn disagreements_with_other_validators_are_explained() {
    let judges = judges::installed(setting("FHIREHOSE_DIFFERENTIAL_OFFICIAL", OFFICIAL));
    if judges.is_empty() {
        eprintln!(
            "SKIPPED: no other validators; `cargo xtask test` installs them and sets FHIREHOSE_TEST_ORACLES"
        );
        return;
    }
    let (mutated, seed) = (setting("FHIREHOSE_DIFFERENTIAL", MUTATED), setting("FHIREHOSE_SEED", 1) as u64);
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let by_type = synthea();
    let whole: usize = by_type.values().map(Vec::len).sum();
    let mut cases: Vec<Case> = by_type
        .values()
        .flatten()
        .map(|resource| Case::new(resource, "as Synthea made it".to_owned()))
        .collect();
    let mut pool = Vec::new();
    for mut of in by_type.into_values() {
        of.shuffle(&mut random);
        of.truncate(SHARE);
        pool.extend(of);
    }
    for _ in 0..mutated {
        let resource = &pool[random.random_range(0..pool.len())];
        let (changed, what) = mutate::mutated(resource, &mut random);
        cases.push(Case::new(&changed, what));
    }
    let valid = cases[..whole].iter().filter(|case| case.ours(Version::R4).is_empty()).count();
    assert!(valid * 100 > whole * 95, "what Synthea made is valid in the main: {valid} of {whole}");
    cases.shuffle(&mut random);
    let known = known();
    let (mut table, mut failures) = (String::new(), Vec::new());
    for judge in &judges {
        let (mut seen, mut unexplained) = (Seen::default(), Vec::new());
        for batch in cases[..cases.len().min(judge.limit)].chunks(BATCH) {
            unexplained.extend(compare(judge, batch, &known, &mut seen));
        }
        table += &row(judge, &seen, unexplained.len());
        failures.append(&mut unexplained);
    }
    let page = page(whole, mutated, seed, &table);
    println!("{page}");
    let mut kinds = BTreeMap::<String, (usize, &String)>::new();
    let particular = Regex::new(
        r"\[\d+\]| at /[^\]]*|we refuse \| [^ ]*: |\d+ validation errors? for|[A-Z][a-z]+[A-Z]?[a-z]+",
    )
    .unwrap();
    for what in &failures {
        let kind = particular.replace_all(what, "").into_owned();
        kinds.entry(kind).or_insert((0, what)).0 += 1;
    }
    let shown = kinds.values().take(300).map(|(count, what)| format!("{count:5} {:.500}\n", what));
    assert!(failures.is_empty(), "{} disagreements:\n{}", failures.len(), shown.collect::<String>());
    if std::env::var_os("UPDATE_DOCS").is_some() && judges.len() == 4 {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/generated/conformance-validator.md");
        std::fs::write(path, page).unwrap();
    }
}

fn row(judge: &Judge, seen: &Seen, unexplained: usize) -> String {
    let head = format!(
        "## {} ({:?})\n\n{} resources: both accept {}, both refuse {}, {unexplained} disagreements without a reason.\n\n",
        judge.name, judge.version, seen.compared, seen.both_accept, seen.both_refuse
    );
    let lines =
        seen.explained.iter().map(|((who, reason), count)| format!("| {who} | {count} | {reason} |\n"));
    head + "| only … refuse | resources | why |\n|---|---|---|\n" + &lines.collect::<String>() + "\n"
}

fn page(whole: usize, mutated: usize, seed: u64, table: &str) -> String {
    format!(
        "# The validator against others\n\nGenerated by `FHIREHOSE_DIFFERENTIAL={mutated} UPDATE_DOCS=1 cargo test -p fhirehose-fhir \
         --test differential`: {whole} resources as Synthea made them and {mutated} mutated ones (seed {seed}), shuffled; the official \
         validator, which is slow, gets the first of them. A verdict is valid or not; where we refuse, every \
         finding of ours has its reason, where they do, every one of theirs.\n\n{}\n",
        table.trim_end()
    )
}
