//! Our verdicts against those of other validators, on Synthea's resources and on mutated ones. Every disagreement is of a
//! kind that `differential-known.txt` explains, or the test fails. Runs where `FHIREHOSE_TEST_ORACLES` says where the
//! judges are. `FHIREHOSE_DIFFERENTIAL` is the number of mutated resources, `FHIREHOSE_DIFFERENTIAL_OFFICIAL` of all those
//! that the official validator gets, `FHIREHOSE_SEED` the seed.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking and tells what it saw"
)]

#[path = "differential/judges.rs"]
mod judges;
#[path = "differential/mutate.rs"]
mod mutate;

use std::collections::BTreeMap;
use std::path::Path;

use fhirehose_fhir::{Version, findings};
use fhirehose_tape::Tape;
use fhirehose_testkit::differential::{Known, oracles, setting, synthea};
use fhirehose_testkit::{conformance, root};
use judges::Judge;
use rand::SeedableRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

const MUTATED: usize = 4000;
const OFFICIAL: usize = 300;
/// Resources given to a judge at once.
const BATCH: usize = 10_000;
/// Of each type, so that the rare ones are mutated as often as the others.
const SHARE: usize = 150;
/// From here on all of Synthea's resources are judged, not only those that are mutated.
const LONG: usize = 100_000;

/// Of profiles that no judge has, the official validator only says that it has none.
fn without_profile(mut resource: Value) -> Value {
    if let Some(meta) = resource.get_mut("meta").and_then(Value::as_object_mut) {
        meta.remove("profile");
        if meta.is_empty() {
            resource.as_object_mut().unwrap().remove("meta");
        }
    }
    resource
}

struct Case {
    json: String,
    /// What was done to the resource, and to what of it.
    change: &'static str,
    place: String,
    ours: [Vec<String>; 2],
}

impl Case {
    fn new(resource: &Value, change: &'static str, place: String) -> Case {
        let json = resource.to_string();
        let mut tape = Tape::new();
        tape.parse_json(json.as_bytes()).unwrap();
        let of = |version| {
            let found = findings(version, tape.root()).into_iter();
            found.filter(|invalid| !invalid.rule.is_warning()).map(|invalid| invalid.to_string()).collect()
        };
        Case { ours: [of(Version::R4), of(Version::R5)], json, change, place }
    }

    fn ours(&self, version: Version) -> &[String] {
        &self.ours[usize::from(version == Version::R5)]
    }
}

#[derive(Default)]
struct Seen {
    compared: usize,
    accepted: usize,
    refused: usize,
    explained: BTreeMap<&'static str, usize>,
    /// The first of each kind.
    unexplained: BTreeMap<String, (usize, String)>,
}

impl Seen {
    /// Compares a judge's verdicts with ours.
    fn compare(&mut self, judge: &Judge, cases: &[Case], known: &Known) {
        let cases = &cases[..cases.len().min(judge.limit - self.compared)];
        if cases.is_empty() {
            return;
        }
        let theirs = judge.findings(&cases.iter().map(|case| &*case.json).collect::<Vec<_>>());
        self.compared += cases.len();
        for (index, case) in cases.iter().enumerate() {
            let (ours, theirs) =
                (case.ours(judge.version), theirs.get(&index).map_or(&[][..], Vec::as_slice));
            let (who, found) = match (ours.is_empty(), theirs.is_empty()) {
                (true, true) => {
                    self.accepted += 1;
                    continue;
                }
                (false, false) => {
                    self.refused += 1;
                    continue;
                }
                (false, true) => ("we", ours),
                (true, false) => ("they", theirs),
            };
            let difference = |finding: &str| {
                format!("{} {:?} | {who} refuse | {finding} | {}", judge.name, judge.version, case.change)
            };
            let reasons: Vec<_> = found.iter().map(|finding| known.reason(&difference(finding))).collect();
            match reasons.iter().position(Option::is_none) {
                None => *self.explained.entry(reasons[0].unwrap()).or_default() += 1,
                Some(at) => {
                    let rule = found[at].split_once(": ").map_or(&*found[at], |(_, rule)| rule);
                    let first =
                        || (0, format!("{} of {} in {}", difference(&found[at]), case.place, case.json));
                    self.unexplained.entry(difference(rule)).or_insert_with(first).0 += 1;
                }
            }
        }
    }
}

#[test]
fn disagreements_with_other_validators_are_explained() {
    let Some(dir) = oracles() else { return };
    let judges = judges::all(&dir, setting("FHIREHOSE_DIFFERENTIAL_OFFICIAL", OFFICIAL));
    let (mutated, seed) = (setting("FHIREHOSE_DIFFERENTIAL", MUTATED), setting("FHIREHOSE_SEED", 1) as u64);
    let known = Known::read(include_str!("differential-known.txt"));
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let (mut pool, mut rest) = (Vec::new(), Vec::new());
    for mut of in synthea().into_values() {
        of.shuffle(&mut random);
        let mut of: Vec<Value> = of.into_iter().map(without_profile).collect();
        rest.extend(of.split_off(of.len().min(SHARE)));
        pool.append(&mut of);
    }
    if mutated < LONG {
        rest.clear();
    }
    let whole = pool.len() + rest.len();
    let mut all: Vec<Option<&Value>> = pool.iter().chain(&rest).map(Some).collect();
    all.resize(whole + mutated, None);
    all.shuffle(&mut random);
    let mut seen: Vec<Seen> = judges.iter().map(|_| Seen::default()).collect();
    let mut valid = 0;
    for batch in all.chunks(BATCH) {
        let mut case = |resource: &Option<&Value>| match resource {
            Some(resource) => {
                let case = Case::new(resource, "as Synthea made it", String::new());
                valid += usize::from(case.ours(Version::R4).is_empty());
                case
            }
            None => {
                let resource = pool.choose(&mut random).unwrap();
                let (changed, change, place) = mutate::mutated(resource, &mut random);
                Case::new(&changed, change, place)
            }
        };
        let cases: Vec<Case> = batch.iter().map(&mut case).collect();
        std::thread::scope(|scope| {
            for (judge, seen) in judges.iter().zip(&mut seen) {
                let (cases, known) = (&cases, &known);
                scope.spawn(move || seen.compare(judge, cases, known));
            }
        });
    }
    assert!(valid * 100 > whole * 95, "what Synthea made is valid in the main: {valid} of {whole}");
    report(&judges, &seen, &format!("{mutated} mutated resources and {whole} of Synthea, seed {seed}"));
}

/// Prints what was seen, fails on what nothing explains, and writes or compares the rows of the page.
fn report(judges: &[Judge], seen: &[Seen], of: &str) {
    let mut unexplained = String::new();
    for (judge, seen) in judges.iter().zip(seen) {
        let known: usize = seen.explained.values().sum();
        println!(
            "{} {:?}: {} resources, both accept {}, both refuse {}, {known} explained",
            judge.name, judge.version, seen.compared, seen.accepted, seen.refused
        );
        seen.explained.iter().for_each(|(reason, count)| println!("{count:6} {reason}"));
        let firsts = seen.unexplained.values().map(|(count, first)| format!("{count:5} {first:.700}\n"));
        unexplained.extend(firsts.take(100));
    }
    assert!(unexplained.is_empty(), "disagreements without a reason, the first of each kind:\n{unexplained}");
    for (judge, seen) in judges.iter().zip(seen) {
        let known: usize = seen.explained.values().sum();
        let result = format!(
            "of {} resources the same verdict on {} ({} refused), {known} disagreements with [reasons](conformance-validator.md), none without",
            seen.compared,
            seen.accepted + seen.refused,
            seen.refused
        );
        let suite = format!("Validator {:?}: {}, {of}", judge.version, judge.name);
        conformance::assert_current(&suite, &result, "fhirehose-fhir", "--test differential");
    }
}

#[test]
fn the_page_of_kinds_is_current() {
    let mut page = String::from(
        "# Where other validators disagree\n\nThe kinds of disagreement that the differential test knows \
         (`crates/fhir/tests/differential-known.txt`), as it reads them: the judge, who refuses, what is found, on which mutation. \
         The first that matches counts; what none matches fails the test. Figures are in [conformance](conformance.md).\n\n\
         | why | of |\n|---|---|\n",
    );
    for (pattern, reason) in Known::read(include_str!("differential-known.txt")).kinds() {
        page += &format!("| {} | `{}` |\n", reason.replace('|', "\\|"), pattern.replace('|', "\\|"));
    }
    let path = root().join("docs/generated/conformance-validator.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    assert_page(&path, &page);
}

fn assert_page(path: &Path, page: &str) {
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == page,
        "{} is old: UPDATE_DOCS=1 cargo test -p fhirehose-fhir --test differential",
        path.display()
    );
}
