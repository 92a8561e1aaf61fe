//! The demo: two synthetic hospitals and their devices through the whole product, then every store compared
//! with what the sources say. Reads addresses of the stack from the environment, writes to that stack alone,
//! runs the product as a user would, and calls none of its code to decide what is right.

pub mod checks;
pub mod compare;
pub mod ids;
pub mod live;
pub mod postgres_rows;
pub mod probe;
pub mod product;
pub mod report;
pub mod samples;
pub mod stack;
pub mod steps;
pub mod topics;
pub mod truth;
pub mod workload;

use std::path::PathBuf;

use clap::Parser;

/// Shows the pipeline alive and checks every store against the sources
#[derive(Parser, Clone, Debug)]
#[command(
    name = "fhirehose-demo",
    after_help = "\
Needs a running, empty stack and its addresses in the environment: `cargo xtask demo` sees to both.

Examples:
  cargo xtask demo
  cargo xtask demo --keep                          leave everything running to look around
  cargo xtask demo --seconds 20 --rate 200         shorter and busier
  cargo xtask demo --json report.json              the report for a machine

Exit code: 0 every store is right, 1 a difference was found or something failed."
)]
pub struct Args {
    /// Patients of each hospital
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(20..=100_000))]
    pub patients: u32,
    /// The same seed makes the same hospitals and devices
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Seconds of changes and readings
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(5..=86_400))]
    pub seconds: u64,
    /// Row changes per second, of both hospitals together
    #[arg(long, default_value_t = 50.0)]
    pub rate: f64,
    /// Device messages per second, of both hospitals together
    #[arg(long, default_value_t = 30.0)]
    pub messages: f64,
    /// Share of new vital signs that are impossible and must end in a dead-letter topic
    #[arg(long, default_value_t = 0.01)]
    pub bad_share: f64,
    /// Leave fhirehose and the stack running at the end
    #[arg(long)]
    pub keep: bool,
    /// Write the report to this file as JSON
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Directory that holds topics/, schemas/, mappings/, views/ and deploy/
    #[arg(long, default_value = ".")]
    pub shapes: PathBuf,
    /// The product; by default the binary beside this one
    #[arg(long)]
    pub binary: Option<PathBuf>,
    /// Where the product's log goes
    #[arg(long, default_value = ".stack/logs")]
    pub logs: PathBuf,
}
