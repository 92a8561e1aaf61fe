//! Allocations and instructions per record once all buffers are filled, by the program that counts them.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use fhirehose_benches::work::VIEWS;
use serde_json::Value as Json;

use crate::figure::{Figure, Goal, Section, Spread, Unit};

const PASSES: u32 = 3;

pub fn measure(root: &Path) -> Result<Section> {
    let works = VIEWS.iter().map(|view| (*view, format!("view {view}, per resource"), Goal::AtMost(0.0)));
    let others = [
        ("mapping", "mapping of encounters, per row", Goal::AtMost(0.0)),
        ("by-hand", "the same by hand, per row", Goal::None),
        ("template", "plain template, per document", Goal::None),
        ("check", "check of a vital sign, per resource", Goal::AtMost(0.0)),
    ];
    let works = works.chain(others.map(|(work, what, goal)| (work, what.to_owned(), goal)));
    let has_valgrind = Command::new("valgrind").arg("--version").output().is_ok_and(|it| it.status.success());
    let mut figures = Vec::new();
    for (work, what, goal) in works {
        let told = run(steady(root, work, PASSES)?.arg("--allocations"))?.0;
        let number =
            |name: &str| told[name].as_f64().with_context(|| format!("{work} has not told its {name}"));
        let (records, allocations, bytes) = (number("records")?, number("allocations")?, number("bytes")?);
        figures.push(Figure {
            what: format!("allocations: {what}"),
            measured: format!("{allocations:.0} of {bytes:.0} bytes in {records:.0} records"),
            value: Spread::one(allocations / records),
            unit: Unit::Count,
            goal,
        });
        if has_valgrind {
            let (less, of) = instructions(root, work, PASSES)?;
            let (more, of_more) = instructions(root, work, 2 * PASSES)?;
            figures.push(Figure {
                what: format!("instructions: {what}"),
                measured: format!("{of_more:.0} records against {of:.0}, the difference"),
                value: Spread::one((more - less) / (of_more - of)),
                unit: Unit::Count,
                goal: Goal::None,
            });
        }
    }
    let instructions = match has_valgrind {
        true => {
            "Instructions are cachegrind's count of a run with twice the passes, less that of a run with them."
        }
        false => "**Instructions were not counted: there is no `valgrind` on this machine.**",
    };
    Ok(Section {
        title: "Allocations and instructions of shapes in steady state",
        how: format!(
            "`fhirehose-bench-steady`: after a first pass over all records, {PASSES} more; what they allocate is counted by the \
             program's allocator, from the bytes of a resource or a decoded row to the bytes made. {instructions}"
        ),
        figures,
    })
}

fn steady(root: &Path, work: &str, passes: u32) -> Result<Command> {
    let program = std::env::current_exe()?.with_file_name("fhirehose-bench-steady");
    let mut command = Command::new(program);
    arguments(&mut command, root, work, passes);
    Ok(command)
}

fn arguments(command: &mut Command, root: &Path, work: &str, passes: u32) {
    command.arg(work).args(["--passes", &passes.to_string()]).arg("--root").arg(root);
}

/// Instructions of a whole run, and its records.
fn instructions(root: &Path, work: &str, passes: u32) -> Result<(f64, f64)> {
    let program = std::env::current_exe()?.with_file_name("fhirehose-bench-steady");
    let mut command = Command::new("valgrind");
    command.args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]).arg(program);
    arguments(&mut command, root, work, passes);
    let (told, log) = run(&mut command)?;
    let counted = counted(&log).with_context(|| format!("cachegrind has not told its count: {log}"))?;
    Ok((counted, told["records"].as_f64().context("no count of records")?))
}

/// The count in `==1== I   refs:      1,234`.
fn counted(log: &str) -> Option<f64> {
    let line = log.lines().find(|line| line.contains("refs:") && line.contains("I "))?;
    line.rsplit(':').next()?.trim().replace(',', "").parse().ok()
}

/// What a program says as JSON, and what beside it.
fn run(command: &mut Command) -> Result<(Json, String)> {
    let output = command.output().with_context(|| format!("{:?}", command.get_program()))?;
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        bail!("{:?}: {}\n{log}", command.get_program(), output.status);
    }
    Ok((serde_json::from_slice(&output.stdout)?, log))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_of_cachegrind() {
        let log = "==7== Cachegrind, a profiler\n==7== \n==7== I   refs:      12,345,678\n";
        assert_eq!(counted(log), Some(12_345_678.0));
        assert_eq!(counted("==7== I refs:   9\n"), Some(9.0));
        assert_eq!(counted("==7== nothing\n"), None);
    }
}
