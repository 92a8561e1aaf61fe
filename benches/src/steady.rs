//! Works in steady state: counts what a pass allocates, or just passes for a tool that counts instructions.

use std::io::Write;
use std::path::PathBuf;

use allocation_counter::measure;
use anyhow::{Context, Result};
use clap::Parser;
use fhirehose_benches::work::steady;
use serde_json::json;

/// Pass over the records of a piece of work
#[derive(Parser)]
#[command(name = "fhirehose-bench-steady")]
struct Cli {
    /// `mapping`, `by-hand`, `template`, `check`, or a view of benches/views
    work: String,
    /// Passes, after a first one that fills every buffer
    #[arg(long, default_value_t = 1)]
    passes: u32,
    /// Count allocations
    #[arg(long)]
    allocations: bool,
    /// Root of the repository
    #[arg(long, default_value = ".")]
    root: PathBuf,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let mut work = steady(&cli.root, &cli.work)?;
    let mut out = Vec::new();
    work.pass(&mut out)?;
    let mut passes = || -> Result<()> {
        for _ in 0..cli.passes {
            out.clear();
            work.pass(&mut out)?;
        }
        Ok(())
    };
    let (mut done, mut counted) = (Ok(()), None);
    match cli.allocations {
        true => counted = Some(measure(|| done = passes())),
        false => done = passes(),
    }
    done.with_context(|| cli.work.clone())?;
    let told = json!({
        "records": work.records() * cli.passes as usize,
        "allocations": counted.as_ref().map(|counted| counted.count_total),
        "bytes": counted.as_ref().map(|counted| counted.bytes_total),
    });
    writeln!(std::io::stdout(), "{told}")?;
    Ok(())
}
