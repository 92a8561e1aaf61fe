//! `cargo xtask bench`: the product against plain peers, on a stack of its own that is removed after.
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::stack::layout::{self, Stack};
use crate::stack::{self, install};

const HELP: &str = "\
Measures the product against plain peers: a copier that reads and writes as much, plain COPY and upserts.

Builds in release mode, brings up a stack in .stack/bench with the servers the figures need, measures, prints tables,
and takes the stack down again with its data. Writes what was measured into docs/generated/bench.md.

Usage: cargo xtask bench [name…]

Names:
  mapping     CPU time of decode, map and encode (no server)
  stores      the PostgreSQL sinks against COPY and upsert
  end-to-end  latency and memory of every processor at half load
  copying     normalize-cdc against a copier, and the cost of transactions
  recovery    loss and restart of instances; a reference store of a million entries

Examples:
  cargo xtask bench
  cargo xtask bench mapping stores

Ratios are of contestants in turn; still, leave the machine alone meanwhile.";

const NAMES: [&str; 5] = ["mapping", "stores", "end-to-end", "copying", "recovery"];
const SERVICES: [&str; 5] = ["kafka", "registry", "postgres", "opensearch", "redis"];

pub fn main(arguments: &[String]) -> Result<()> {
    if arguments.iter().any(|argument| argument == "-h" || argument == "--help") {
        println!("{HELP}");
        return Ok(());
    }
    if let Some(other) = arguments.iter().find(|argument| !NAMES.contains(&argument.as_str())) {
        bail!("no figure '{other}'; there are: {}", NAMES.join(" "));
    }
    install::build_prerequisites()?;
    let root = layout::repository()?;
    build(&root)?;
    if arguments == ["mapping"] {
        return run(&root, arguments, &[]);
    }
    let mut stack = Stack::open_at(root.join(".stack/bench"))?;
    // What an interrupted run has left would be in the way.
    stack::reset_all(&stack)?;
    let measured = stack::up_named(&mut stack, &SERVICES)
        .and_then(|()| run(&root, arguments, &stack::env_lines(&stack)?));
    stack::reset_all(&stack)?;
    measured
}

fn build(root: &std::path::Path) -> Result<()> {
    println!("building in release mode");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(root)
        .args(["build", "--quiet", "--release", "--locked", "-p", "fhirehose", "-p", "fhirehose-benches"])
        .stdin(Stdio::null())
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!("the product does not build");
    }
    Ok(())
}

fn run(root: &std::path::Path, names: &[String], env: &[(String, String)]) -> Result<()> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), Into::into);
    let status = Command::new(target.join("release/fhirehose-bench"))
        .current_dir(root)
        .arg("run")
        .args(names)
        .envs(env.iter().cloned())
        .stdin(Stdio::null())
        .status()
        .context("cannot run the bench program")?;
    if !status.success() {
        bail!(
            "the bench failed; logs of the programs it ran: {}",
            target.join("release/bench-logs").display()
        );
    }
    Ok(())
}
