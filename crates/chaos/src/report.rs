//! What came of each run: one line for eyes, one line of JSON to keep, and the report made of those.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::ledger::{Invariant, Violation};
use crate::planted::{BUGS, RUNS};
use crate::schedule::Plan;

/// One run, as kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// When it ended.
    pub at: String,
    pub seed: u64,
    pub flow: String,
    pub target: String,
    pub fault: String,
    pub variant: String,
    pub moment: String,
    /// The bug that was planted, if one was.
    pub planted: Option<String>,
    /// Input records.
    pub records: u64,
    pub seconds: f64,
    /// From healing until every partition had moved.
    pub recovery_ms: Option<u64>,
    /// Whether the blow fell: an engine may never pass the armed fault point.
    pub struck: bool,
    pub violations: Vec<Violation>,
    /// Why the run could not be brought to its end; it then says nothing about the product.
    pub error: Option<String>,
}

impl Outcome {
    pub fn of(plan: &Plan, planted: Option<&str>) -> Outcome {
        let cell = plan.cell;
        Outcome {
            at: String::new(),
            seed: plan.seed,
            flow: cell.subject.flow.into(),
            target: format!("{:?}", cell.subject.target).to_lowercase(),
            fault: cell.fault.name.into(),
            variant: cell.variant.into(),
            moment: plan.moment.to_string(),
            planted: planted.map(str::to_owned),
            records: 0,
            seconds: 0.0,
            recovery_ms: None,
            struck: false,
            violations: Vec::new(),
            error: None,
        }
    }

    pub fn invariants(&self) -> Vec<Invariant> {
        let mut found: Vec<_> = self.violations.iter().map(|violation| violation.invariant).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// For eyes.
    pub fn line(&self, number: u64) -> String {
        let fault = if self.variant.is_empty() {
            self.fault.clone()
        } else {
            format!("{}:{}", self.fault, self.variant)
        };
        let moved = self.recovery_ms.map_or_else(|| "-".into(), |ms| format!("{:.1} s", ms as f64 / 1000.0));
        let end = match (&self.error, self.violations.is_empty()) {
            (Some(error), _) => format!("NOT JUDGED: {error}"),
            (None, true) if !self.struck => "ok, but the fault was not met".into(),
            (None, true) => "ok".into(),
            (None, false) => format!("VIOLATED {}", named(&self.invariants())),
        };
        format!(
            "{number:>4}  seed {:<6} {:<17} {fault:<28} {:<9} {:>7} records in {:>3.0} s  moved after {moved:<7} {end}",
            self.seed, self.flow, self.moment, self.records, self.seconds
        )
    }

    /// Adds it to what is kept.
    pub fn keep(&self, file: &Path) -> Result<()> {
        let mut kept = File::options()
            .create(true)
            .append(true)
            .open(file)
            .with_context(|| format!("opening {}", file.display()))?;
        writeln!(kept, "{}", serde_json::to_string(self)?)?;
        Ok(())
    }
}

fn named(invariants: &[Invariant]) -> String {
    invariants.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

pub fn read(file: &Path) -> Result<Vec<Outcome>> {
    let kept = File::open(file).with_context(|| {
        format!("opening {}: nothing has run yet, or --results names another file", file.display())
    })?;
    let outcomes = BufReader::new(kept).lines().map(|line| Ok(serde_json::from_str(&line?)?));
    outcomes.collect()
}

/// `docs/generated/chaos.md`.
pub fn markdown(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write(&mut text, outcomes);
    text
}

/// Runs that say something about the product.
struct Row<'o> {
    runs: Vec<&'o Outcome>,
}

impl Row<'_> {
    fn records(&self) -> u64 {
        self.runs.iter().map(|run| run.records).sum()
    }

    fn violated(&self) -> Vec<&Outcome> {
        self.runs.iter().copied().filter(|run| !run.violations.is_empty()).collect()
    }

    fn seeds(&self) -> String {
        let seeds = self.violated().into_iter().map(|run| run.seed.to_string());
        let seeds: Vec<_> = seeds.collect();
        if seeds.is_empty() { "-".into() } else { seeds.join(", ") }
    }

    /// Median and longest time to move again, in seconds.
    fn recovery(&self) -> (String, String) {
        let mut times: Vec<u64> = self.runs.iter().filter_map(|run| run.recovery_ms).collect();
        times.sort_unstable();
        let seconds =
            |ms: Option<&u64>| ms.map_or_else(|| "-".into(), |ms| format!("{:.1}", *ms as f64 / 1000.0));
        (seconds(times.get(times.len() / 2)), seconds(times.last()))
    }
}

fn write(out: &mut String, outcomes: &[Outcome]) -> std::fmt::Result {
    let real: Vec<&Outcome> =
        outcomes.iter().filter(|run| run.planted.is_none() && run.error.is_none()).collect();
    let unjudged = outcomes.iter().filter(|run| run.planted.is_none() && run.error.is_some()).count();
    let all = Row { runs: real.clone() };
    let hours = real.iter().map(|run| run.seconds).sum::<f64>() / 3600.0;
    writeln!(
        out,
        "# What broke, and what came of it\n\n\
         Made by `cargo xtask chaos --report` from the runs it kept; not to be edited by hand. Each run: two real \
         processes of the product and the real servers (three brokers), a seeded load, a seeded fault, healing, \
         quiet, and then every input record accounted for by a reader that shares no code with the product. What is \
         checked: `crates/chaos/src/ledger/mod.rs`; what each fault does and expects: `crates/chaos/src/matrix.rs`; \
         what is promised: [GUARANTEES.md](../GUARANTEES.md).\n"
    )?;
    writeln!(out, "| | |\n|---|---|")?;
    writeln!(out, "| runs | {} |", real.len())?;
    writeln!(out, "| hours | {hours:.1} |")?;
    writeln!(out, "| input records | {} |", all.records())?;
    let violated = all.violated();
    let open = violated.iter().filter(|run| !since(&real, run)).count();
    writeln!(out, "| runs with a violation | {} |", violated.len())?;
    writeln!(out, "| of these, not run again since without one | {open} |")?;
    writeln!(
        out,
        "| runs whose fault point was never passed | {} |",
        real.iter().filter(|run| !run.struck).count()
    )?;
    writeln!(out, "| runs the harness could not judge | {unjudged} |")?;
    if let (Some(first), Some(last)) = (real.first(), real.last()) {
        writeln!(out, "| from, to | {}, {} |", first.at, last.at)?;
    }
    writeln!(out, "| machine | {} |", machine())?;
    writeln!(
        out,
        "| one run again | `cargo xtask chaos --runs 1 --seed SEED --only FAULT --processor P --moment M` |\n"
    )?;

    if !violated.is_empty() {
        writeln!(
            out,
            "## Violations\n\nAll there ever were, by the builds of their day, and whether the same run (seed, fault, \
             processor, moment) has passed since.\n\n\
             | ended | seed | processor | fault | moment | seen as | passed since |\n|---|---:|---|---|---|---|---|"
        )?;
        for run in &violated {
            let first = run.violations.first();
            let what = first.map(|found| format!("{}: {}", found.invariant, brief(&found.what)));
            let fault = format!("{} {}", run.fault, run.variant);
            writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} | {} |",
                run.at,
                run.seed,
                run.flow,
                fault.trim_end(),
                run.moment,
                what.unwrap_or_default(),
                if since(&real, run) { "yes" } else { "no" }
            )?;
        }
        writeln!(out)?;
    }
    writeln!(
        out,
        "## Faults and targets\n\nSeconds from healing until every input partition had moved again, two instances.\n"
    )?;
    writeln!(
        out,
        "| fault | target | moments | runs | records | runs violated | seeds of these | p50 s | max s |"
    )?;
    writeln!(out, "|---|---|---|---:|---:|---:|---|---:|---:|")?;
    for ((fault, target), row) in grouped(&real, |run| (run.fault.clone(), run.target.clone())) {
        let mut moments: Vec<&str> = row.runs.iter().map(|run| run.moment.as_str()).collect();
        moments.sort_unstable();
        moments.dedup();
        let (median, longest) = row.recovery();
        writeln!(
            out,
            "| {fault} | {target} | {} | {} | {} | {} | {} | {median} | {longest} |",
            moments.join(", "),
            row.runs.len(),
            row.records(),
            row.violated().len(),
            row.seeds()
        )?;
    }

    writeln!(out, "\n## Fault points and network legs\n")?;
    writeln!(
        out,
        "| fault | at | runs | met | records | runs violated | p50 s | max s |\n|---|---|---:|---:|---:|---:|---:|---:|"
    )?;
    let varied: Vec<&Outcome> = real.iter().copied().filter(|run| !run.variant.is_empty()).collect();
    for ((fault, variant), row) in grouped(&varied, |run| (run.fault.clone(), run.variant.clone())) {
        let (median, longest) = row.recovery();
        writeln!(
            out,
            "| {fault} | {variant} | {} | {} | {} | {} | {median} | {longest} |",
            row.runs.len(),
            row.runs.iter().filter(|run| run.struck).count(),
            row.records(),
            row.violated().len()
        )?;
    }

    writeln!(out, "\n## Processors\n\n| processor | runs | records | runs violated |\n|---|---:|---:|---:|")?;
    for ((flow, _), row) in grouped(&real, |run| (run.flow.clone(), String::new())) {
        writeln!(out, "| {flow} | {} | {} | {} |", row.runs.len(), row.records(), row.violated().len())?;
    }
    planted(out, outcomes)
}

/// Whether the same run has passed after this one.
fn since(runs: &[&Outcome], violated: &Outcome) -> bool {
    let same = |run: &&&Outcome| {
        run.seed == violated.seed
            && (&run.flow, &run.fault, &run.variant, &run.moment)
                == (&violated.flow, &violated.fault, &violated.variant, &violated.moment)
    };
    let last = runs.iter().rev().find(same);
    last.is_some_and(|last| last.at > violated.at && last.violations.is_empty())
}

/// What was found, without the records and logs that a cell of a table has no room for.
fn brief(what: &str) -> String {
    let line = what.lines().next().unwrap_or_default();
    let brief: String = line.chars().take(80).collect();
    let more = if brief.len() < what.len() { "…" } else { "" };
    brief.replace('|', "/") + more
}

/// Whether the harness can fail: each bug is built into the product by a feature that no release can carry.
fn planted(out: &mut String, outcomes: &[Outcome]) -> std::fmt::Result {
    writeln!(
        out,
        "\n## Planted bugs\n\n\
         Each is in the product behind a build feature no release can carry, one at a time: `cargo xtask chaos \
         --planted`. Runs: how many it took until a violation was seen, 50 at most.\n"
    )?;
    writeln!(
        out,
        "| bug | what it breaks | processor | runs | seen as | fault | seed |\n|---|---|---|---:|---|---|---:|"
    )?;
    for bug in BUGS {
        let runs: Vec<&Outcome> = outcomes
            .iter()
            .filter(|run| run.planted.as_deref() == Some(bug.name) && run.error.is_none())
            .collect();
        // The last time the bug was hunted is what counts.
        let last = runs.iter().rposition(|run| !run.violations.is_empty());
        let (count, seen, fault, seed) = match last {
            Some(caught) => {
                let before =
                    runs[..caught].iter().rposition(|run| !run.violations.is_empty()).map_or(0, |p| p + 1);
                let run = runs[caught];
                let fault = format!("{} {}", run.fault, run.variant);
                ((caught - before + 1).to_string(), named(&run.invariants()), fault, run.seed.to_string())
            }
            None if runs.is_empty() => ("not run".into(), "-".into(), "-".into(), "-".into()),
            None if (runs.len() as u64) < RUNS => {
                (runs.len().to_string(), "not seen yet".into(), "-".into(), "-".into())
            }
            None => (runs.len().to_string(), "NOT CAUGHT".into(), "-".into(), "-".into()),
        };
        writeln!(
            out,
            "| {} | {} | {} | {count} | {seen} | {} | {seed} |",
            bug.name,
            bug.breaks,
            bug.flow,
            fault.trim_end()
        )?;
    }
    Ok(())
}

fn grouped<'o>(
    runs: &[&'o Outcome],
    key: impl Fn(&Outcome) -> (String, String),
) -> BTreeMap<(String, String), Row<'o>> {
    let mut rows: BTreeMap<_, Row<'_>> = BTreeMap::new();
    for run in runs {
        rows.entry(key(run)).or_insert_with(|| Row { runs: Vec::new() }).runs.push(run);
    }
    rows
}

/// `2 cores (Xeon …), 24 GiB`.
fn machine() -> String {
    let value = |file: &str, name: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).map(str::to_owned);
        line.and_then(|line| line.split_once(':').map(|(_, value)| value.trim().to_owned()))
            .unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kib: u64 = value("/proc/meminfo", "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0);
    format!("{cores} cores ({}), {} GiB", value("/proc/cpuinfo", "model name"), kib.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(seed: u64, planted: Option<&str>, violated: bool) -> Outcome {
        let violation = Violation { invariant: Invariant::I2, what: "twice: t [0] 1".into(), count: 1 };
        Outcome {
            at: "2026-01-01T00:00:00Z".into(),
            seed,
            flow: "enrich".into(),
            target: "kafka".into(),
            fault: "kill".into(),
            variant: String::new(),
            moment: "load".into(),
            planted: planted.map(str::to_owned),
            records: 1000,
            seconds: 20.0,
            recovery_ms: Some(seed * 1000),
            struck: true,
            violations: if violated { vec![violation] } else { Vec::new() },
            error: None,
        }
    }

    #[test]
    fn a_violation_shows_with_its_seed_and_recovery_in_seconds() {
        let text = markdown(&[outcome(1, None, false), outcome(7, None, true), outcome(3, None, false)]);
        assert!(text.contains("| kill | kafka | load | 3 | 3000 | 1 | 7 | 3.0 | 7.0 |"), "{text}");
        assert!(text.contains("| runs with a violation | 1 |"));
    }

    #[test]
    fn a_violation_stays_in_the_report_and_is_closed_by_the_same_run() {
        let (violated, mut again) = (outcome(7, None, true), outcome(7, None, false));
        assert!(markdown(std::slice::from_ref(&violated)).contains("run again since without one | 1 |"));
        again.at = "2026-01-02T00:00:00Z".into();
        let text = markdown(&[violated.clone(), again.clone()]);
        assert!(text.contains("run again since without one | 0 |"), "{text}");
        assert!(text.contains("| 7 | enrich | kill | load | I2: twice: t [0] 1 | yes |"), "{text}");
        again.seed = 8;
        assert!(markdown(&[violated, again]).contains("run again since without one | 1 |"));
    }

    #[test]
    fn planted_runs_count_for_their_bug_alone() {
        let bug = BUGS[0].name;
        let text = markdown(&[outcome(1, Some(bug), false), outcome(2, Some(bug), true)]);
        assert!(text.contains("| runs | 0 |"), "{text}");
        let row = text.lines().find(|line| line.starts_with(&format!("| {bug} |"))).unwrap();
        assert!(row.ends_with("| 2 | I2 | kill | 2 |"), "{row}");
    }

    #[test]
    fn what_is_kept_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("results.jsonl");
        outcome(4, None, true).keep(&file).unwrap();
        outcome(5, None, false).keep(&file).unwrap();
        let read = read(&file).unwrap();
        assert_eq!((read.len(), read[0].seed, read[0].invariants()), (2, 4, vec![Invariant::I2]));
    }
}
