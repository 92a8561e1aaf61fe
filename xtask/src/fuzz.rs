//! `cargo xtask fuzz`: the targets of `fuzz/`, one after the other, and what became of them.
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::shell;
use crate::stack::install::step;
use crate::stack::layout;

const VERSION: &str = "0.13.2";
const PAGE: &str = "docs/generated/fuzz.md";

/// A target and its dictionary.
const TARGETS: [(&str, &str); 6] = [
    ("json", "fhir"),
    ("fhirpath_parse", "fhirpath"),
    ("fhirpath_eval", "fhirpath"),
    ("fpml", "fpml"),
    ("view", "view"),
    ("validator", "fhir"),
];

/// No input needs more: bytes of an input, seconds with it, MiB of memory.
const LIMITS: [&str; 3] = ["-max_len=4096", "-timeout=30", "-rss_limit_mb=3000"];

const HELP: &str = "\
Looks for input that breaks what the targets in fuzz/src promise, one target after the other.

Builds them with the fuzzer's instrumentation (cargo-fuzz, installed into the cache, on the stable compiler), starts
from fuzz/corpus and what earlier runs have found in target/fuzz/corpus, and adds a line per target to
docs/generated/fuzz.md. Input that breaks something is left in target/fuzz/findings; copied to
fuzz/findings/<target>/ it is a test.

Usage: cargo xtask fuzz [target…] [--minutes <n>]

Options:
  --minutes <n>   how long each target runs (2)

Targets:
  json            the JSON tape, against serde_json
  fhirpath_parse  expressions are compiled, or refused at a place
  fhirpath_eval   a line with an expression, then the document it is evaluated on
  fpml            a line with a template, then the document it is filled from
  view            a line with a ViewDefinition, then the resource it makes rows of
  validator       a resource, checked

Examples:
  cargo xtask fuzz
  cargo xtask fuzz view --minutes 30

Exit code: 0 nothing was found, 1 otherwise.";

pub fn main(arguments: &[String]) -> Result<()> {
    let (mut wanted, mut minutes) = (Vec::new(), 2_u64);
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "-h" | "--help" => {
                println!("{HELP}");
                return Ok(());
            }
            "--minutes" => {
                let given = arguments.next().and_then(|text| text.parse().ok()).filter(|n| *n > 0);
                minutes = given.context("--minutes takes a number from 1 on")?;
            }
            name => match TARGETS.iter().find(|(target, _)| *target == name) {
                Some(target) => wanted.push(*target),
                None => bail!("no target '{name}'; `cargo xtask fuzz --help` lists them"),
            },
        }
    }
    if wanted.is_empty() {
        wanted.extend(TARGETS);
    }
    let root = layout::repository()?;
    let fuzzer = Fuzzer { program: installed(&layout::cache_dir()?)?, root };
    fuzzer.build()?;
    let mut findings = 0;
    for (target, dictionary) in wanted {
        let ran = fuzzer.run(target, dictionary, Duration::from_secs(minutes * 60))?;
        record(&fuzzer.root, &ran.row(target, &fuzzer.commit()))?;
        findings += ran.findings.len();
        for finding in &ran.findings {
            println!("{target}: found {}", finding.display());
        }
    }
    match findings {
        0 => Ok(()),
        _ => bail!("{findings} findings: copy each to fuzz/findings/<target>/, and mend what it breaks"),
    }
}

struct Fuzzer {
    program: PathBuf,
    root: PathBuf,
}

/// What one run has seen, as the fuzzer says at its end.
#[derive(Default)]
struct Ran {
    seconds: u64,
    executions: u64,
    /// Edges of the program that were passed.
    edges: u64,
    /// Inputs that each do something of their own.
    inputs: u64,
    /// Of the longest input in seconds.
    slowest: u64,
    mebibytes: u64,
    findings: Vec<PathBuf>,
}

impl Fuzzer {
    /// `cargo fuzz` with what goes for all of its commands. Our code has no unsafe part, so there is nothing for
    /// the address sanitizer to see, and without it twice as many inputs are tried.
    fn cargo_fuzz(&self, command: &str) -> Command {
        let mut cargo = Command::new(&self.program);
        cargo.current_dir(&self.root).args(["fuzz", command, "--sanitizer", "none"]);
        cargo.args(["--fuzz-dir", "fuzz/libfuzzer", "--target-dir", "target/fuzz/build"]);
        cargo.stdin(Stdio::null());
        cargo
    }

    fn build(&self) -> Result<()> {
        println!("building the targets");
        shell::capture(&mut self.cargo_fuzz("build")).map(drop)
    }

    fn commit(&self) -> String {
        let mut git = Command::new("git");
        git.current_dir(&self.root).args(["rev-parse", "--short", "HEAD"]);
        shell::capture(&mut git).map_or_else(|_| "?".into(), |commit| commit.trim().into())
    }

    fn run(&self, target: &str, dictionary: &str, time: Duration) -> Result<Ran> {
        let kept = format!("target/fuzz/corpus/{target}");
        let found = self.root.join(format!("target/fuzz/findings/{target}"));
        for dir in [&self.root.join(&kept), &found] {
            fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        let before = files(&found)?;
        let mut command = self.cargo_fuzz("run");
        command.args([target, &kept, &format!("fuzz/corpus/{target}"), "--"]).args(LIMITS);
        command.arg(format!("-max_total_time={}", time.as_secs()));
        command.arg(format!("-dict=fuzz/libfuzzer/dictionaries/{dictionary}.dict"));
        command.arg(format!("-artifact_prefix={}/", found.display())).arg("-print_final_stats=1");
        println!("{target}: {} minutes", time.as_secs() / 60);
        let begin = Instant::now();
        let mut fuzzer = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        let mut ran = Ran::default();
        let mut told = Instant::now();
        for line in fuzzer.stderr.take().into_iter().flat_map(|stderr| BufReader::new(stderr).split(b'\n')) {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            ran.read(&line);
            if line.contains("panicked") || line.contains("ERROR: libFuzzer") || told.elapsed().as_secs() > 30
            {
                told = Instant::now();
                println!("  {line}");
            }
        }
        let status = fuzzer.wait()?;
        ran.seconds = begin.elapsed().as_secs();
        ran.findings = files(&found)?.into_iter().filter(|file| !before.contains(file)).collect();
        if !status.success() && ran.findings.is_empty() {
            bail!("the fuzzer failed without a finding ({status})");
        }
        Ok(ran)
    }
}

impl Ran {
    /// Takes what a line of the fuzzer says: `#7 NEW cov: 12 ft: 13 corp: 2/4b …`, `stat::peak_rss_mb: 34`.
    fn read(&mut self, line: &str) {
        let after = |name: &str| {
            let rest = line.split_once(name)?.1.trim_start();
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        };
        let take = |name, into: &mut u64| {
            if let Some(number) = after(name) {
                *into = number;
            }
        };
        take(" cov:", &mut self.edges);
        take(" corp:", &mut self.inputs);
        take("stat::number_of_executed_units:", &mut self.executions);
        take("stat::slowest_unit_time_sec:", &mut self.slowest);
        take("stat::peak_rss_mb:", &mut self.mebibytes);
    }

    fn row(&self, target: &str, commit: &str) -> String {
        let date = shell::capture(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M"])).unwrap_or_default();
        format!(
            "| {target} | {} UTC | {commit} | {:.1} | {} | {} | {} | {} s | {} MiB | {} |",
            date.trim(),
            self.seconds as f64 / 60.0,
            self.executions,
            self.edges,
            self.inputs,
            self.slowest,
            self.mebibytes,
            self.findings.len()
        )
    }
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect()
}

const HEADING: &str = "\
# What the fuzzer has tried

A line per run, added by `cargo xtask fuzz`. Edges are those of the target with all it calls; inputs are those kept, \
each of which passes edges that no other does as often. A finding ends a run; each has become a file in \
`fuzz/findings`, which the tests of `fuzz/` read.

| target | end | commit | minutes | executions | edges | inputs | slowest | memory | findings |
|---|---|---|---:|---:|---:|---:|---:|---:|---:|
";

/// Adds a line to the page.
fn record(root: &Path, row: &str) -> Result<()> {
    println!("{row}");
    let file = root.join(PAGE);
    let page = fs::read_to_string(&file).unwrap_or_else(|_| HEADING.to_owned());
    fs::write(&file, format!("{page}{row}\n")).with_context(|| format!("cannot write {}", file.display()))
}

/// From the cache, else built from source, which takes a minute.
fn installed(cache: &Path) -> Result<PathBuf> {
    let dir = cache.join(format!("cargo-fuzz-{VERSION}"));
    let program = dir.join("bin/cargo-fuzz");
    if !program.is_file() {
        step(&format!("cargo-fuzz {VERSION}"), || {
            let mut cargo = Command::new("cargo");
            cargo
                .args(["install", "-q", "--locked", "--version", VERSION, "--root"])
                .arg(&dir)
                .arg("cargo-fuzz");
            shell::capture(&mut cargo)
        })?;
    }
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_fuzzer_says() {
        let mut ran = Ran::default();
        for line in [
            "#1048576\tpulse  cov: 1404 ft: 7108 corp: 1665/352Kb lim: 4096 exec/s: 76527 rss: 34Mb",
            "stat::number_of_executed_units: 123456",
            "stat::slowest_unit_time_sec:       2",
            "stat::peak_rss_mb:                 71",
        ] {
            ran.read(line);
        }
        let seen = [ran.edges, ran.inputs, ran.executions, ran.slowest, ran.mebibytes];
        assert_eq!(seen, [1404, 1665, 123_456, 2, 71]);
    }

    #[test]
    fn every_target_has_its_seeds_and_dictionary() {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
        for (target, dictionary) in TARGETS {
            assert!(fuzz.join("corpus").join(target).is_dir(), "{target}");
            assert!(fuzz.join(format!("libfuzzer/dictionaries/{dictionary}.dict")).is_file(), "{dictionary}");
        }
        let programs = fs::read_dir(fuzz.join("libfuzzer/fuzz_targets")).unwrap();
        assert_eq!(programs.count(), TARGETS.len());
    }
}
