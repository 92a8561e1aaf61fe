//! `cargo xtask bench`: the product against plain peers, on a stack of its own that is removed after.
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::peers;
use crate::stack::layout::{self, Stack};
use crate::stack::{self, install};

const HELP: &str = "\
Measures the product against plain peers: a copier that reads and writes as much, plain COPY and upserts, other
engines of FHIRPath, mappings and views.

Builds in release mode, brings up a stack in .stack/bench with the servers the figures need, measures, prints tables,
and takes the stack down again with its data. Writes what was measured into docs/generated/bench.md.

Usage: cargo xtask bench [name…] [-- OPTIONS OF fhirehose-bench run]

Names:
  mapping     CPU time of decode, map and encode (no server)
  shapes      views, mappings and FHIRPath against open engines, which are installed into the cache (no server);
              benches/README.md says which, and how helios-sof takes part
  stores      the PostgreSQL sinks against COPY and upsert
  end-to-end  latency and memory of every processor at half load
  copying     normalize-cdc against a copier, and the cost of transactions
  recovery    loss and restart of instances; a reference store of a million entries

Examples:
  cargo xtask bench
  cargo xtask bench mapping stores
  cargo xtask bench shapes
  cargo xtask bench shapes -- --rounds 1 --seconds 0.05 --report target/tiny.md

Ratios are of contestants in turn; still, leave the machine alone meanwhile.";

const NAMES: [&str; 6] = ["mapping", "shapes", "stores", "end-to-end", "copying", "recovery"];
/// Those that need no server, nor the product's own program.
const ALONE: [&str; 2] = ["mapping", "shapes"];
const SERVICES: [&str; 5] = ["kafka", "registry", "postgres", "opensearch", "redis"];

pub fn main(arguments: &[String]) -> Result<()> {
    let (names, options) = split(arguments);
    if names.iter().any(|name| name == "-h" || name == "--help") {
        println!("{HELP}");
        return Ok(());
    }
    if let Some(other) = names.iter().find(|name| !NAMES.contains(&name.as_str())) {
        bail!("no figure '{other}'; there are: {}", NAMES.join(" "));
    }
    install::build_prerequisites()?;
    let root = layout::repository()?;
    let alone = !names.is_empty() && names.iter().all(|name| ALONE.contains(&name.as_str()));
    let mut env = Vec::new();
    if names.is_empty() || names.iter().any(|name| name == "shapes") {
        peers::prerequisites()?;
        let installed = peers::install(&layout::cache_dir()?)?;
        env.push(("FHIREHOSE_BENCH_PEERS".to_owned(), installed.display().to_string()));
    }
    if alone {
        build(&root, &["fhirehose-benches"])?;
        return run(&root, names, options, &env);
    }
    build(&root, &["fhirehose", "fhirehose-benches"])?;
    let mut stack = Stack::open_at(root.join(".stack/bench"))?;
    // What an interrupted run has left would be in the way.
    stack::reset_all(&stack)?;
    let measured = stack::up_named(&mut stack, &SERVICES).and_then(|()| {
        env.extend(stack::env_lines(&stack)?);
        run(&root, names, options, &env)
    });
    stack::reset_all(&stack)?;
    measured
}

/// Names, and what is passed on to the bench program.
fn split(arguments: &[String]) -> (&[String], &[String]) {
    match arguments.iter().position(|argument| argument == "--") {
        Some(at) => (&arguments[..at], &arguments[at + 1..]),
        None => (arguments, &[]),
    }
}

fn build(root: &Path, packages: &[&str]) -> Result<()> {
    println!("building in release mode");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(root)
        .args(["build", "--quiet", "--release", "--locked"])
        .args(packages.iter().flat_map(|package| ["-p", package]))
        .stdin(Stdio::null())
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!("the product does not build");
    }
    Ok(())
}

fn run(root: &Path, names: &[String], options: &[String], env: &[(String, String)]) -> Result<()> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), Into::into);
    let status = Command::new(target.join("release/fhirehose-bench"))
        .current_dir(root)
        .arg("run")
        .args(names)
        .args(options)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_two_dashes_is_passed_on() {
        let all = ["shapes", "--", "--rounds", "1"].map(str::to_owned);
        assert_eq!(split(&all), (&all[..1], &all[2..]));
        assert_eq!(split(&all[..1]), (&all[..1], &[][..]));
    }
}
