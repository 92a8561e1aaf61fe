//! `cargo xtask chaos`: the binary with its fault points, a stack of three brokers, and the harness on both.
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::shell;
use crate::stack::layout::{self, Stack};
use crate::stack::{self, install};

const HELP: &str = "\
Breaks the product and its servers on purpose, at seeded moments, and accounts for every record afterwards.

Builds the product with its fault points (profile chaos: as fast as a release; with --quick the dev profile) and the
harness, brings up a stack with three brokers in .stack/chaos (or FHIREHOSE_STACK_DIR), runs the harness, and stops
the stack; its data is kept for the next time.

Usage: cargo xtask chaos [options]

Options:
  --keep               leave the stack running: the next call starts at once
  --runs <n>           how many runs (1)
  --seed <n>           seed of the first; each next has one more. The same seed makes the same schedule
  --seconds <n>        seconds of load in each run, at least
  --only <fault>       this fault alone, or one variant of it, as kill-at:transact.sent
  --processor <name>   this processor alone; `whole` is the whole product with Debezium and two hospitals
  --quick              a seventh of all faults, another each day of the week, with fixed seeds; what CI runs
  --long               three hours over all of it
  --planted [<bug>]    bugs planted into the product, until the harness has caught each
  --list               faults, processors and planted bugs
  --report             docs/generated/chaos.md from the runs kept
  everything else is the harness's own: target/chaos/fhirehose-chaos --help

Examples:
  cargo xtask chaos --runs 10 --keep
  cargo xtask chaos --runs 5 --only freeze --processor sink-timescale
  cargo xtask chaos --quick
  cargo xtask chaos --planted

Exit code: 0 nothing was violated (with --planted: every bug was caught), 1 otherwise.";

const BROKERS: u8 = 3;
const SERVICES: [&str; 7] = ["kafka", "kafka-2", "kafka-3", "registry", "postgres", "opensearch", "redis"];
/// What the flow `whole` needs beyond.
const SOURCES: [&str; 3] = ["connect", "hospital-a", "hospital-b"];
/// What a build without optimization keeps up with on two cores, unless said otherwise.
const QUICK: [(&str, &str); 2] = [("--rate", "500"), ("--seconds", "4")];
const CONFIG: &str = "crates/chaos/chaos.toml";

pub fn main(arguments: &[String]) -> Result<()> {
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if has("-h") || has("--help") {
        println!("{HELP}");
        return Ok(());
    }
    let own: Vec<String> = arguments.iter().filter(|argument| *argument != "--keep").cloned().collect();
    let root = layout::repository()?;
    install::build_prerequisites()?;
    if has("--list") || has("--report") {
        let built = build(&root, Profile::of(&own))?;
        return passed(run(&built, &root, &own, &[])?);
    }
    let mut stack = match std::env::var_os("FHIREHOSE_STACK_DIR") {
        Some(dir) if !dir.is_empty() => Stack::open()?,
        _ => Stack::open_at(root.join(".stack/chaos"))?,
    };
    let outcome = on(&mut stack, &own);
    if has("--keep") {
        println!(
            "the stack goes on running; FHIREHOSE_STACK_DIR={} cargo xtask stack down",
            stack.dir.display()
        );
    } else {
        stack::down_all(&stack)?;
    }
    passed(outcome?)
}

/// Runs the harness on this stack, which it brings up; whether everything was as it must be.
pub fn on(stack: &mut Stack, arguments: &[String]) -> Result<bool> {
    let root = stack.root.clone();
    let built = build(&root, Profile::of(arguments))?;
    stack.choose_brokers(BROKERS)?;
    let whole = arguments.iter().any(|argument| argument == "whole");
    let services: Vec<&str> = SERVICES.into_iter().chain(SOURCES.into_iter().filter(|_| whole)).collect();
    stack::up_named(stack, &services)?;
    // Under test is a copy: another build meanwhile must not change what runs.
    let binary = stack.dir.join("fhirehose");
    replace(&built.join("fhirehose"), &binary)?;
    let mut env = stack::env_lines(stack)?;
    let mut add =
        |name: &str, value: &OsStr| env.push((name.to_owned(), value.to_string_lossy().into_owned()));
    add("FHIREHOSE_BINARY", binary.as_os_str());
    add("FHIREHOSE_STACK_DIR", stack.dir.as_os_str());
    add("FHIREHOSE_XTASK", std::env::current_exe()?.as_os_str());
    for prepared in [["topics", "apply"], ["migrate", "apply"]] {
        let mut command = Command::new(&binary);
        command.current_dir(&root).args(["--config", CONFIG]).args(prepared).envs(env.iter().cloned());
        shell::capture(&mut command).with_context(|| {
            format!(
                "if a run was cut short, begin with an empty stack: FHIREHOSE_STACK_DIR={} cargo xtask stack reset",
                stack.dir.display()
            )
        })?;
    }
    run(&built, &root, &with_quick(arguments), &env)
}

/// The arguments, and what the quick runs have beyond.
fn with_quick(arguments: &[String]) -> Vec<String> {
    let mut all = arguments.to_vec();
    if Profile::of(arguments) == Profile::Dev {
        for (flag, value) in QUICK {
            if !arguments.iter().any(|argument| argument == flag) {
                all.extend([flag.to_owned(), value.to_owned()]);
            }
        }
    }
    all
}

fn passed(passed: bool) -> Result<()> {
    match passed {
        true => Ok(()),
        false => bail!("not everything was as it must be"),
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Profile {
    Chaos,
    Dev,
}

impl Profile {
    fn of(arguments: &[String]) -> Profile {
        match arguments.iter().any(|argument| argument == "--quick") {
            true => Profile::Dev,
            false => Profile::Chaos,
        }
    }
}

/// Builds product and harness; returns the folder they are in.
fn build(root: &Path, profile: Profile) -> Result<PathBuf> {
    let (name, folder) = match profile {
        Profile::Chaos => ("chaos", "chaos"),
        Profile::Dev => ("dev", "debug"),
    };
    println!("building with the profile {name}");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // One after the other: together they would share features, and so most crates be built anew.
    for package in [&["-p", "fhirehose", "--features", "chaos"][..], &["-p", "fhirehose-chaos"]] {
        let status = Command::new(&cargo)
            .current_dir(root)
            .args(["build", "--quiet", "--locked", "--profile", name])
            .args(package)
            .stdin(Stdio::null())
            .status()
            .context("cannot run cargo")?;
        if !status.success() {
            bail!("it does not build");
        }
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join(folder))
}

/// Under another name first: a binary that runs cannot be written over.
fn replace(from: &Path, to: &Path) -> Result<()> {
    let partial = to.with_extension("partial");
    fs::copy(from, &partial).with_context(|| format!("copying {}", from.display()))?;
    fs::rename(&partial, to).with_context(|| format!("cannot write {}", to.display()))
}

fn run(built: &Path, root: &Path, arguments: &[String], env: &[(String, String)]) -> Result<bool> {
    let status = Command::new(built.join("fhirehose-chaos"))
        .current_dir(root)
        .args(arguments)
        .envs(env.iter().cloned())
        .stdin(Stdio::null())
        .status()
        .context("cannot run the harness")?;
    Ok(status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quick_runs_are_of_the_quick_build() {
        let list = |words: &str| words.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(Profile::of(&list("--quick --slice 2")), Profile::Dev);
        assert_eq!(Profile::of(&list("--runs 2")), Profile::Chaos);
        assert_eq!(with_quick(&list("--quick --rate 9")), list("--quick --rate 9 --seconds 4"));
        assert_eq!(with_quick(&list("--runs 2")), list("--runs 2"));
    }

    #[test]
    fn a_binary_that_runs_can_be_replaced() {
        let dir = std::env::temp_dir().join(format!("xtask-replace-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let copy = dir.join("sleep");
        let sleep = shell::which("sleep").unwrap();
        replace(&sleep, &copy).unwrap();
        let mut running = Command::new(&copy).arg("60").spawn().unwrap();
        replace(&sleep, &copy).unwrap();
        running.kill().unwrap();
        running.wait().unwrap();
        fs::remove_dir_all(dir).unwrap();
    }
}
