//! `cargo xtask test`: everything a change must pass, from a clean machine, with the time each phase took.
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};

use crate::stack::layout::{self, Stack};
use crate::stack::{self, install};
use crate::{chaos, deny, oracles, tidy};

const HELP: &str = "\
Everything a change must pass. Phases, in this order:
  fmt          rustfmt changes nothing
  tidy         the project's own rules (cargo xtask tidy --help)
  deny         licences, sources, and who may use which client library (deny.toml)
  clippy       no warning in any target
  unit         the tests that need no server; only when named, since integration runs them too
  integration  all tests, against a stack of its own that is started before and removed after, with the FHIR
               validators that judge what is emitted
  chaos        cargo xtask chaos --quick: today's seventh of all faults, ten minutes at most, on a stack of its own
               with three brokers

Usage: cargo xtask test [--only PHASE,…] [-- ARGUMENTS OF cargo test]

Examples:
  cargo xtask test
  cargo xtask test --only fmt,clippy,unit
  cargo xtask test --only integration -- -p fhirehose-runtime

Cargo.lock must be up to date (--locked). Advisories are not part of it: `cargo deny check advisories` fetches their database.";

const PHASES: [&str; 7] = ["fmt", "tidy", "deny", "clippy", "unit", "integration", "chaos"];

pub fn main(arguments: &[String]) -> Result<()> {
    let Some((phases, extra)) = parse(arguments)? else {
        println!("{HELP}");
        return Ok(());
    };
    let begin = Instant::now();
    let mut report = Vec::new();
    if phases.iter().any(|phase| ["clippy", "unit", "integration", "chaos"].contains(phase)) {
        install::build_prerequisites()?;
    }
    for phase in phases {
        println!("\n=== {phase}");
        let start = Instant::now();
        let result = run(phase, &extra);
        if let Err(error) = &result {
            println!("{phase} failed: {error:#}");
        }
        report.push((phase, start.elapsed(), result.is_ok()));
    }
    println!();
    for (phase, time, passed) in &report {
        println!("{phase:<12} {:>7.1} s  {}", time.as_secs_f64(), if *passed { "passed" } else { "FAILED" });
    }
    println!("{:<12} {:>7.1} s", "all", begin.elapsed().as_secs_f64());
    match report.iter().all(|(.., passed)| *passed) {
        true => Ok(()),
        false => bail!("not everything passed"),
    }
}

/// The phases to run and what is passed on to cargo test; nothing when help is asked for.
fn parse(arguments: &[String]) -> Result<Option<(Vec<&'static str>, Vec<String>)>> {
    use lexopt::prelude::*;
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut phases: Vec<&str> = PHASES.into_iter().filter(|phase| *phase != "unit").collect();
    let mut extra = Vec::new();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(None),
            Long("only") => {
                let list = parser.value()?.string()?;
                let named = list.split(',').map(|name| {
                    let phase = PHASES.into_iter().find(|phase| *phase == name);
                    phase.with_context(|| format!("no phase '{name}'; there are: {}", PHASES.join(",")))
                });
                phases = named.collect::<Result<_>>()?;
            }
            Value(value) => extra.push(value.string()?),
            _ => return Err(argument.unexpected().into()),
        }
    }
    Ok(Some((phases, extra)))
}

fn run(phase: &str, extra: &[String]) -> Result<()> {
    let root = layout::repository()?;
    match phase {
        "fmt" => cargo(&["fmt", "--all", "--check"]),
        "tidy" => tidy::run(),
        "deny" => deny::check(&root, &layout::cache_dir()?),
        "clippy" => {
            cargo(&["clippy", "--quiet", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"])
        }
        "unit" => {
            let skip = ("FHIREHOSE_TEST_SKIP_STACK".to_owned(), "1".to_owned());
            cargo_test(&["--lib", "--bins"], extra, vec![skip])
        }
        "chaos" => {
            let mut private = PrivateStack::new("chaos")?;
            let results = private.dir.join("results.jsonl").display().to_string();
            match chaos::on(&mut private.stack, &["--quick".into(), "--results".into(), results])? {
                true => Ok(()),
                false => bail!("not everything was as it must be"),
            }
        }
        _ => {
            oracles::prerequisites()?;
            let cache = layout::cache_dir()?;
            let judges = thread::spawn(move || oracles::install(&root, &cache));
            let stack = PrivateStack::new("test").and_then(|mut private| {
                stack::up_all(&mut private.stack)?;
                Ok(private)
            });
            let judges = judges.join().map_err(|_| anyhow!("the judges' thread failed"))??;
            let stack = stack?;
            let mut env = stack::env_lines(&stack.stack)?;
            let mut add = |name: &str, path: &Path| env.push((name.into(), path.display().to_string()));
            add("FHIREHOSE_TEST_ORACLES", &judges);
            add("FHIREHOSE_STACK_DIR", &stack.dir);
            add("FHIREHOSE_XTASK", &std::env::current_exe()?);
            cargo_test(&[], extra, env)
        }
    }
}

fn cargo(arguments: &[&str]) -> Result<()> {
    let status = Command::new("cargo").current_dir(layout::repository()?).args(arguments).status()?;
    if !status.success() {
        bail!("cargo {} failed ({status})", arguments[0]);
    }
    Ok(())
}

/// Passes cargo test's output through and adds up its closing lines, one per test program.
fn cargo_test(targets: &[&str], extra: &[String], env: Vec<(String, String)>) -> Result<()> {
    let whole = if extra.is_empty() { &["--workspace"][..] } else { &[] };
    let mut child = Command::new("cargo")
        .current_dir(layout::repository()?)
        .args(["test", "--quiet", "--locked", "--no-fail-fast"])
        .args(whole)
        .args(targets)
        .args(extra)
        .envs(env)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut totals = Totals::default();
    for line in BufReader::new(child.stdout.take().context("cargo test has no output")?).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        println!("{line}");
        totals.add(&line);
    }
    let status = child.wait()?;
    println!("{} passed, {} failed, {} skipped", totals.passed, totals.failed, totals.skipped);
    if !status.success() {
        bail!("cargo test failed ({status})");
    }
    if totals.passed == 0 {
        bail!("no test ran");
    }
    Ok(())
}

#[derive(Default, Debug, PartialEq)]
struct Totals {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Totals {
    /// Counts a line such as `test result: ok. 4 passed; 0 failed; 0 ignored; …`, and no other.
    fn add(&mut self, line: &str) {
        let Some(rest) = line.strip_prefix("test result: ") else { return };
        let numbers = rest.split([';', '.']).filter_map(|part| part.trim().split_once(' '));
        for (number, what) in numbers {
            let number = number.parse().unwrap_or(0);
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }
}

/// A stack for this run alone. Whatever happens to this process, its servers stop and its data goes.
struct PrivateStack {
    stack: Stack,
    dir: PathBuf,
    watchdog: Child,
}

impl PrivateStack {
    fn new(name: &str) -> Result<PrivateStack> {
        let dir = layout::repository()?.join(".stack").join(format!("{name}-{}", std::process::id()));
        let stack = Stack::open_at(dir.clone())?;
        Ok(PrivateStack { watchdog: watchdog(&dir)?, stack, dir })
    }
}

impl Drop for PrivateStack {
    fn drop(&mut self) {
        // First the watchdog, which would do the same a second later.
        let _ = self.watchdog.kill();
        let _ = self.watchdog.wait();
        match stack::reset_all(&self.stack) {
            Ok(()) => drop(fs::remove_dir_all(&self.dir)),
            Err(error) => {
                eprintln!("the test stack in {} could not be removed: {error:#}", self.dir.display())
            }
        }
    }
}

/// Removes the stack when this process is gone: after ^C, a kill, a CI time-out.
fn watchdog(dir: &Path) -> Result<Child> {
    let script = "while kill -0 \"$1\" 2>/dev/null; do sleep 1; done; \"$0\" stack reset && rm -rf \"$FHIREHOSE_STACK_DIR\"";
    let child = Command::new("setsid")
        .args(["sh", "-c", script])
        .arg(std::env::current_exe()?)
        .arg(std::process::id().to_string())
        .env("FHIREHOSE_STACK_DIR", dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok(child)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_closing_lines_are_added_up() {
        let mut totals = Totals::default();
        totals.add(
            "test result: ok. 4 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.00s",
        );
        totals.add("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.20s");
        totals.add("9 passed and not a closing line");
        assert_eq!(totals, Totals { passed: 7, failed: 2, skipped: 1 });
    }

    #[test]
    fn phases_are_chosen_by_name_and_unknown_ones_refused() {
        let parsed = |list: &[&str]| parse(&list.iter().map(|s| s.to_string()).collect::<Vec<_>>());
        assert_eq!(parsed(&["--only", "fmt,unit"]).unwrap().unwrap().0, ["fmt", "unit"]);
        assert_eq!(
            parsed(&[]).unwrap().unwrap().0,
            ["fmt", "tidy", "deny", "clippy", "integration", "chaos"]
        );
        assert_eq!(parsed(&["--", "-p", "x"]).unwrap().unwrap().1, ["-p", "x"]);
        assert!(parsed(&["--only", "fmt,nonsense"]).is_err());
        assert!(parsed(&["--nonsense"]).is_err());
        assert!(parsed(&["-h"]).unwrap().is_none());
    }
}
