//! The command line of the chaos harness; `cargo xtask chaos` builds what it needs and runs it.
#![expect(clippy::print_stdout, reason = "a command line program")]

use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use fhirehose_chaos::matrix::{FAULTS, Moment};
use fhirehose_chaos::planted::{self, BUGS};
use fhirehose_chaos::product;
use fhirehose_chaos::proxy::Proxies;
use fhirehose_chaos::report::{self, Outcome};
use fhirehose_chaos::run::Harness;
use fhirehose_chaos::schedule::{self, Filter, Plan, SLICES, Subject};
use fhirehose_chaos::servers::Servers;
use fhirehose_chaos::world::World;
use fhirehose_chaos::{flows, health};

/// Breaks the product and its servers on purpose, and accounts for every record afterwards
#[derive(Parser, Clone, Debug)]
#[command(
    name = "fhirehose-chaos",
    after_help = "\
A seed decides the processor, the fault, the moment, and every number of both; the same seed decides the same. What
it cannot decide is the machine's: which batch is under way when the blow falls, how the scheduler runs threads. A run
that failed once may need some more of the same seed to fail again.

Examples:
  cargo xtask chaos --runs 10                        ten runs, seeds 1 to 10
  cargo xtask chaos --runs 5 --only freeze --processor sink-timescale
  cargo xtask chaos --runs 1 --seed 17 --only kill-at:transact.sent --processor enrich --moment load
  cargo xtask chaos --quick                          today's slice of the week, fixed seeds
  cargo xtask chaos --long                           three hours over the whole matrix
  cargo xtask chaos --planted                        every planted bug until it is caught
  cargo xtask chaos --planted fence-skipped
  cargo xtask chaos --list                           faults, processors, planted bugs
  cargo xtask chaos --report                         docs/generated/chaos.md from all runs kept

Exit code: 0 nothing was violated (with --planted: every bug was caught), 1 otherwise."
)]
struct Args {
    /// How many runs; 1 unless a profile says otherwise
    #[arg(long)]
    runs: Option<u64>,
    /// Seed of the first run; each next has one more
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds of load in each run, at least
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Input records per second
    #[arg(long, default_value_t = 3_000.0)]
    rate: f64,
    /// A fault, or one variant of it as kill-at:transact.sent
    #[arg(long, value_name = "FAULT")]
    only: Option<String>,
    #[arg(long)]
    processor: Option<String>,
    #[arg(long)]
    moment: Option<Moment>,
    /// A seventh of the faults, each target's, with shorter load
    #[arg(long, conflicts_with_all = ["long", "planted", "runs"])]
    quick: bool,
    /// Which seventh; today's unless said
    #[arg(long, requires = "quick", value_parser = clap::value_parser!(u64).range(0..SLICES))]
    slice: Option<u64>,
    /// Until three hours are over, or as many runs as --runs says
    #[arg(long, conflicts_with = "planted")]
    long: bool,
    /// Runs planted bugs, or one, until each is caught
    #[arg(long, value_name = "BUG", num_args = 0..=1, default_missing_value = "")]
    planted: Option<String>,
    /// Names all there is
    #[arg(long)]
    list: bool,
    /// Writes docs/generated/chaos.md from the runs kept, and runs nothing
    #[arg(long)]
    report: bool,
    /// Where runs are kept, a line of JSON each
    #[arg(long, default_value = ".stack/chaos/results.jsonl")]
    results: PathBuf,
    /// Where the logs of failed runs are
    #[arg(long, default_value = ".stack/chaos/runs")]
    logs: PathBuf,
    /// Keeps the logs of all runs
    #[arg(long)]
    keep_logs: bool,
    /// Directory that holds topics/, schemas/, mappings/, views/
    #[arg(long, default_value = ".")]
    root: PathBuf,
}

const LONG: Duration = Duration::from_secs(3 * 3_600);
/// After this time the quick profile begins no more runs: it is to end within ten minutes.
const QUICK: Duration = Duration::from_secs(9 * 60);
/// It runs unoptimized on whatever machine tests run on, where 30 seconds prove nothing about the product: there it
/// judges that partitions move and processes stop, and the long one when.
const QUICK_PATIENCE: u32 = 3;

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything was as it must be.
fn run(args: &Args) -> Result<bool> {
    let flows = flows::all();
    let all: Vec<Subject> =
        flows.iter().map(|flow| Subject { flow: flow.name(), target: flow.target() }).collect();
    if args.list {
        list(&all);
        return Ok(true);
    }
    if args.report {
        let file = args.root.join("docs/generated/chaos.md");
        std::fs::write(&file, report::markdown(&report::read(&args.results)?))
            .with_context(|| format!("writing {}", file.display()))?;
        println!("{}", file.display());
        return Ok(true);
    }
    let root = args.root.canonicalize().with_context(|| args.root.display().to_string())?;
    let world = World::from_env(root.clone())?;
    let servers = Servers::from_env()?;
    let _lock = alone(&servers)?;
    match product::end_leftovers()? {
        0 => {}
        left => println!("{left} processes that a harness cut short had left running are ended"),
    }
    let harness = Harness {
        proxies: Proxies::start(&world)?,
        servers,
        canaries: health::canaries(&root)?,
        flows,
        // Processes run in the repository, whatever the caller's directory.
        dir: std::path::absolute(&args.logs)?,
        rate: args.rate,
        seconds: args.seconds,
        patience: if args.quick { QUICK_PATIENCE } else { 1 },
        world,
    };
    // The whole product needs Debezium and the hospitals, which the stack has only when asked for.
    let asked = |subject: &&Subject| subject.flow != "whole" || args.processor.as_deref() == Some("whole");
    let subjects: Vec<Subject> = all.iter().filter(asked).copied().collect();
    match &args.planted {
        Some(bug) => hunt(args, &harness, &subjects, Some(bug.as_str()).filter(|bug| !bug.is_empty())),
        None => walk(args, &harness, &subjects),
    }
}

/// Two at once on one stack would take each other's doing for the product's.
fn alone(servers: &Servers) -> Result<File> {
    let lock =
        File::options().create(true).truncate(false).write(true).open(servers.dir().join("chaos.lock"))?;
    if lock.try_lock().is_err() {
        println!("somebody else works on this stack; waiting");
        lock.lock()?;
    }
    Ok(lock)
}

fn walk(args: &Args, harness: &Harness, subjects: &[Subject]) -> Result<bool> {
    let filter = Filter { fault: args.only.clone(), flow: args.processor.clone(), moment: args.moment };
    let cells = schedule::cells(subjects, &filter)?;
    let plans: Box<dyn Iterator<Item = Plan>> = if args.quick {
        let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
        let slice = args.slice.unwrap_or(today.weekday().to_monday_zero_offset() as u64);
        println!("slice {slice} of {SLICES}");
        let mut plans = schedule::quick(&cells, slice);
        // What a slow machine has no time for in one week is early in another.
        let begin = today.iso_week_date().week() as usize * plans.len() / 4 % plans.len().max(1);
        plans.rotate_left(begin);
        Box::new(plans.into_iter())
    } else {
        let runs = args.runs.unwrap_or(if args.long { u64::MAX } else { 1 });
        Box::new(
            (args.seed..args.seed.saturating_add(runs)).map(|seed| schedule::plan(seed, &cells, &filter)),
        )
    };
    let begun = Instant::now();
    let (mut runs, mut records, mut bad) = (0, 0, 0);
    for plan in plans {
        if args.long && args.runs.is_none() && begun.elapsed() > LONG {
            break;
        }
        if args.quick && begun.elapsed() > QUICK {
            println!("left out, for the time is over: {}", plan.again());
            continue;
        }
        runs += 1;
        let outcome = harness.run(&plan, None);
        records += outcome.records;
        bad += u64::from(!outcome.violations.is_empty() || outcome.error.is_some());
        told(args, harness, runs, &plan, &outcome)?;
    }
    println!("{runs} runs, {records} records, {bad} of the runs not as they must be");
    Ok(bad == 0)
}

fn hunt(args: &Args, harness: &Harness, subjects: &[Subject], bug: Option<&str>) -> Result<bool> {
    let mut missed = Vec::new();
    for bug in planted::chosen(bug)? {
        println!("{}: {}", bug.name, bug.breaks);
        let mut runs = 0;
        let caught = planted::catch(harness, bug, args.seed, subjects, |plan, outcome| {
            runs += 1;
            told(args, harness, runs, plan, outcome)
        })?;
        if !caught {
            missed.push(bug.name);
        }
    }
    match missed.as_slice() {
        [] => println!("every planted bug was caught"),
        missed => println!("NOT CAUGHT: {}", missed.join(", ")),
    }
    Ok(missed.is_empty())
}

/// Says and keeps what came of a run, with all one needs to look into a failure.
fn told(args: &Args, harness: &Harness, number: u64, plan: &Plan, outcome: &Outcome) -> Result<()> {
    println!("{}", outcome.line(number));
    let dir = harness.dir_of(plan, outcome.planted.as_deref());
    for violation in &outcome.violations {
        println!("        {} ({}): {}", violation.invariant, violation.count, violation.what);
    }
    if outcome.violations.is_empty() && outcome.error.is_none() && outcome.struck {
        if !args.keep_logs && dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
    } else {
        println!("        logs: {}", dir.display());
        if outcome.planted.is_none() {
            println!("        again: cargo xtask chaos {}", plan.again());
        }
    }
    outcome.keep(&args.results)
}

fn list(subjects: &[Subject]) {
    println!("faults:");
    for fault in FAULTS {
        let moments: Vec<_> = fault.at.iter().map(ToString::to_string).collect();
        println!("  {:<24} {} [{}]", fault.name, fault.what, moments.join(", "));
        let mut variants: Vec<_> = subjects.iter().flat_map(|subject| fault.variants(*subject)).collect();
        variants.sort_unstable();
        variants.dedup();
        for variant in variants.into_iter().filter(|variant| !variant.is_empty()) {
            println!("  {:<24}   {}:{variant}", "", fault.name);
        }
    }
    println!("processors:");
    for subject in subjects {
        println!("  {:<24} into {:?}", subject.flow, subject.target);
    }
    println!("planted bugs:");
    for bug in BUGS {
        println!("  {:<30} {} ({})", bug.name, bug.breaks, bug.flow);
    }
}
