//! `cargo xtask demo`: stack and build side by side, then the demo program, then everything down again.
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};

use crate::stack::layout::Stack;
use crate::stack::{self, install};

const HELP: &str = "\
Two synthetic hospitals and their devices through the whole pipeline, every store compared with the sources.

Builds the product, brings up the stack, loads the hospitals, runs a minute of changes and readings with a live
view, then prints for every store the rows expected, found and different, latencies and three sample queries.
The stack's data is reset first. Afterwards everything is stopped, unless --keep is given; data is kept.

Usage: cargo xtask demo [options]

Options:
  --keep              leave fhirehose and the stack running to look around
  --seconds <n>       seconds of changes and readings (60)
  --rate <n>          row changes per second (50)
  --messages <n>      device messages per second (30)
  --patients <n>      patients of each hospital (500)
  --seed <n>          the same seed makes the same hospitals and devices (1)
  --bad-share <x>     share of impossible vital signs, which must end in a dead-letter topic (0.01)
  --json <file>       write the report as JSON

Examples:
  cargo xtask demo
  cargo xtask demo --keep --seconds 20
  FHIREHOSE_STACK_DIR=/tmp/demo cargo xtask demo       on a stack of its own

Exit code: 0 every store is right, 1 a difference was found or something failed.";

pub fn main(arguments: &[String]) -> Result<()> {
    if arguments.iter().any(|argument| argument == "-h" || argument == "--help") {
        println!("{HELP}");
        return Ok(());
    }
    let begin = Instant::now();
    let mut stack = Stack::open()?;
    install::build_prerequisites()?;
    println!("a fresh stack, and the product in release mode (side by side)");
    let root = stack.root.clone();
    let build = thread::spawn(move || build(&root));
    let up = stack::reset_all(&stack).and_then(|()| stack::up_all(&mut stack));
    build.join().map_err(|_| anyhow!("the build's thread failed"))??;
    up?;
    println!("ready after {:.0} s\n", begin.elapsed().as_secs_f64());

    let demo = demo(&stack, arguments);
    let keep = arguments.iter().any(|argument| argument == "--keep");
    if keep {
        println!("\nthe stack goes on running; `cargo xtask stack down` stops it");
    } else {
        stack::down_all(&stack)?;
    }
    println!("{:.0} s in all", begin.elapsed().as_secs_f64());
    if !demo? {
        bail!("the demo failed; the product's log: {}", stack.log("fhirehose").display());
    }
    Ok(())
}

fn build(root: &std::path::Path) -> Result<()> {
    let begin = Instant::now();
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(root)
        .args(["build", "--quiet", "--release", "--locked", "-p", "fhirehose", "-p", "fhirehose-demo"])
        .stdin(Stdio::null())
        .status()
        .context("cannot run cargo")?;
    if !status.success() {
        bail!("the product does not build");
    }
    println!("  fhirehose … built in {:.0} s", begin.elapsed().as_secs_f64());
    Ok(())
}

/// Runs the demo program; `false` when it ended with a difference or an error, which it has told by itself.
fn demo(stack: &Stack, arguments: &[String]) -> Result<bool> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| stack.root.join("target"), Into::into);
    let status = Command::new(target.join("release/fhirehose-demo"))
        .current_dir(&stack.root)
        .args(arguments)
        .arg("--logs")
        .arg(stack.dir.join("logs"))
        .envs(stack::env_lines(stack)?)
        .env("FHIREHOSE_XTASK", std::env::current_exe()?)
        .status()
        .context("cannot run the demo program")?;
    Ok(status.success())
}
