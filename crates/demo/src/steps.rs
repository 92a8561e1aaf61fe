//! The demo from top to bottom.

use std::iter;
use std::process::Command;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use fhirehose_simulate::DevicesArgs;
use fhirehose_simulate::devices::Sent;
use fhirehose_simulate::hospital::Hospital as Simulated;

use crate::Args;
use crate::checks::{self, Cache};
use crate::compare::Check;
use crate::live::{Progress, Screen};
use crate::probe::{Latency, Probe};
use crate::product::{Product, Running};
use crate::report::Report;
use crate::samples;
use crate::stack::{Site, Stack, ZONE};
use crate::topics::Topics;
use crate::truth::Hospital;
use crate::workload::{Counters, Inserted, Load, Slots, change_rows, join, send_readings};

/// Returns the number of differences found.
pub fn run(args: &Args, screen: &mut Screen) -> Result<usize> {
    let stack = Stack::from_env()?;
    let product = Product::new(binary(args)?, args.shapes.clone(), args.logs.clone(), args.keep)?;
    let topics = Topics::connect(&stack.brokers, &stack.registry)?;
    if topics.names()?.iter().any(|name| name.starts_with("fhir.")) {
        bail!(
            "this stack holds data already; the demo needs an empty one: `cargo xtask demo` resets it first"
        );
    }

    step(screen, "topics, schemas, tables and indices", || {
        product.run(&["topics", "apply"])?;
        product.run(&["migrate", "apply"])
    })?;
    let loads = step(screen, "two hospitals", || load(args, &stack.sites))?;
    let rows: i64 = loads.iter().sum();
    screen.say(&format!("    {} patients and {rows} rows in all, two tenants", 2 * args.patients))?;
    step(screen, "Debezium connectors", || register_connectors(&stack.sites))?;
    let mut running = step(screen, "fhirehose run all", || product.start())?;
    screen.say(&format!(
        "    status page {}/   log {}",
        running.admin,
        args.logs.join("fhirehose.log").display()
    ))?;
    let loaded = Instant::now();
    let before = step(screen, "the initial load through the pipeline", || {
        let wanted =
            stack.sites.iter().map(|site| format!("cdc.{}.", site.source)).zip(loads).collect::<Vec<_>>();
        quiet(&topics, &product, &mut running, &wanted, 300)?;
        let before = read(&stack.sites, iter::repeat_with(Default::default))?;
        arrive(&stack, &before, 120)?;
        Ok(before)
    })?;
    screen.say(&format!(
        "    {rows} rows in {:.1} s, snapshot by Debezium included",
        loaded.elapsed().as_secs_f64()
    ))?;
    let cache = step(screen, "filling the cache", || Cache::fill(&stack, &args.shapes, before))?;
    screen.say(&format!("\n{} seconds of changes and readings", args.seconds))?;
    let work = minute(args, &stack, &product, &mut running, screen)?;
    step(screen, "waiting until nothing flows any more", || {
        quiet(&topics, &product, &mut running, &[], 180)
    })?;

    let hospitals = read(&stack.sites, work.done)?;
    let checks =
        step(screen, "comparing every store with the sources", || compare(&stack, &hospitals, &cache))?;
    let status = running.status().unwrap_or_default();
    let samples = samples::take(&stack);
    let report = Report {
        args,
        stack: &stack,
        checks: &checks,
        latencies: &work.latencies,
        counters: &work.counters,
        samples: &samples,
        status: &status,
        restarts: work.restarts,
        admin: &running.admin,
    };
    screen.say(&report.text())?;
    if let Some(file) = &args.json {
        std::fs::write(file, report.json().to_string())
            .with_context(|| format!("writing {}", file.display()))?;
    }
    let differences = report.differences();
    if args.keep {
        screen.say(&format!("fhirehose goes on running as process {}", running.pid()))?;
        running.leave();
    }
    Ok(differences)
}

fn read(sites: &[Site], done: impl IntoIterator<Item = (Inserted, Vec<Sent>)>) -> Result<Vec<Hospital>> {
    sites.iter().zip(done).map(|(site, (inserted, sent))| Hospital::read(site, sent, inserted)).collect()
}

/// Waits until the last stores hold as many rows as the sources.
fn arrive(stack: &Stack, hospitals: &[Hospital], seconds: u64) -> Result<()> {
    let begun = Instant::now();
    loop {
        match checks::missing(stack, hospitals)? {
            0 => return Ok(()),
            rows if begun.elapsed() > Duration::from_secs(seconds) => {
                bail!("{rows} rows are missing in the stores {seconds} s after the topics went quiet")
            }
            _ => sleep(Duration::from_millis(500)),
        }
    }
}

/// Compares, and does so again for as long as differences become fewer, or a server that was restarted does
/// not answer yet.
fn compare(stack: &Stack, hospitals: &[Hospital], cache: &Cache) -> Result<Vec<Check>> {
    let (mut last, begun) = (usize::MAX, Instant::now());
    loop {
        match checks::all(stack, hospitals, cache) {
            Ok(checks) => {
                let differences = checks.iter().map(|check| check.compare().total()).sum();
                if differences == 0 || differences >= last {
                    return Ok(checks);
                }
                last = differences;
            }
            Err(error) if begun.elapsed() > Duration::from_secs(60) => return Err(error),
            Err(_) => {}
        }
        sleep(Duration::from_secs(5));
    }
}

fn binary(args: &Args) -> Result<std::path::PathBuf> {
    match &args.binary {
        Some(binary) => Ok(binary.clone()),
        None => Ok(std::env::current_exe()?.with_file_name("fhirehose")),
    }
}

fn step<T>(screen: &mut Screen, what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let begun = Instant::now();
    let done = work().with_context(|| what.to_owned())?;
    screen.say(&format!("  {what} … {:.1} s", begun.elapsed().as_secs_f64()))?;
    Ok(done)
}

/// Both hospitals at once. They share their row ids and nothing else: whoever mixed up tenants would show.
fn load(args: &Args, sites: &[Site]) -> Result<Vec<i64>> {
    let loads: Vec<_> = (0_u64..)
        .zip(sites.iter().cloned())
        .map(|(number, site)| {
            let (patients, seed) = (args.patients, args.seed);
            thread::spawn(move || -> Result<i64> {
                let mut hospital = Simulated::open(&site.url, ZONE)?;
                hospital.drop()?;
                hospital.create()?;
                Ok(i64::try_from(hospital.load(patients, seed + number, seed)?)?)
            })
        })
        .collect();
    loads.into_iter().map(join).collect()
}

/// As a user would by hand; the stack knows its connectors' templates.
fn register_connectors(sites: &[Site]) -> Result<()> {
    let mut command = match std::env::var_os("FHIREHOSE_XTASK") {
        Some(xtask) => Command::new(xtask),
        None => {
            let mut cargo = Command::new("cargo");
            cargo.arg("xtask");
            cargo
        }
    };
    let output = command
        .args(["stack", "connector"])
        .args(sites.iter().map(|site| site.service))
        .output()
        .context("running `cargo xtask stack connector`")?;
    if !output.status.success() {
        bail!("`cargo xtask stack connector` failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Waits until topics of each prefix hold so many records, no topic has grown for three seconds and no group
/// has anything left to read.
fn quiet(
    topics: &Topics,
    product: &Product,
    running: &mut Running,
    wanted: &[(String, i64)],
    seconds: u64,
) -> Result<()> {
    const STILL: Duration = Duration::from_secs(3);
    let begun = Instant::now();
    let (mut end, mut since) = (-1, Instant::now());
    loop {
        running.keep_up(product)?;
        let now = topics.end(is_of_the_flow).unwrap_or(-1);
        let status = running.status().ok();
        let lag = status.as_ref().map_or(i64::MAX, behind);
        let short = wanted.iter().any(|(prefix, records)| {
            topics.end(|name| name.starts_with(prefix)).is_ok_and(|end| end < *records)
        });
        if now != end || lag > 0 || short {
            (end, since) = (now, Instant::now());
        }
        if since.elapsed() > STILL {
            return Ok(());
        }
        if begun.elapsed() > Duration::from_secs(seconds) {
            bail!("still {lag} records behind after {seconds} s; see the log and {}/", running.admin);
        }
        sleep(Duration::from_millis(300));
    }
}

/// Records not done by groups whose workers all run; those of others cannot be known.
fn behind(status: &serde_json::Value) -> i64 {
    let processors = status["processors"].as_array().map(Vec::as_slice).unwrap_or_default();
    let runs = |worker: &serde_json::Value| worker["state"] == "running";
    let lag = |processor: &serde_json::Value| {
        let at_work = processor["workers"].as_array().is_some_and(|workers| workers.iter().all(runs));
        if at_work { processor["lag_records"].as_i64().unwrap_or(1) } else { 1 }
    };
    if processors.is_empty() { 1 } else { processors.iter().map(lag).sum() }
}

/// Not Kafka's and Connect's own topics: those never rest.
fn is_of_the_flow(topic: &str) -> bool {
    const FIRST: &[&str] = &["cdc.", "device.", "fhir.", "enriched.", "vitals.", "alert.", "cache."];
    FIRST.iter().any(|first| topic.starts_with(first)) || topic.ends_with(".dlq")
}

struct Work {
    /// What was inserted and sent, by hospital.
    done: Vec<(Inserted, Vec<Sent>)>,
    latencies: Vec<Latency>,
    counters: Counters,
    restarts: u32,
}

fn minute(
    args: &Args,
    stack: &Stack,
    product: &Product,
    running: &mut Running,
    screen: &mut Screen,
) -> Result<Work> {
    let (slots, counters) = (Slots::default(), Counters::default());
    let probes: Vec<Probe> = checks::probes(stack, &slots);
    let (mut rows, mut readings) = (Vec::new(), Vec::new());
    for (number, site) in (0_u64..).zip(&stack.sites) {
        let seed = args.seed + number;
        let load = Load { seed, rate: args.rate / 2.0, seconds: args.seconds, bad_share: args.bad_share };
        rows.push(change_rows(site.clone(), load, slots.clone(), counters.clone()));
        let devices = DevicesArgs {
            brokers: stack.brokers.clone(),
            registry: stack.registry.clone(),
            shapes: args.shapes.clone(),
            url: site.url.clone(),
            source: site.source.into(),
            tenant: site.tenant.into(),
            devices: 60.max(args.messages.ceil() as u32 * 2),
            seed,
            rate: args.messages / 2.0,
            seconds: args.seconds,
            zone: ZONE.into(),
        };
        readings.push(send_readings(site.clone(), devices, slots.clone(), counters.clone()));
    }
    let begun = Instant::now();
    let mut restarts = 0;
    while rows.iter().any(|thread| !thread.is_finished())
        || readings.iter().any(|thread| !thread.is_finished())
    {
        restarts += u32::from(running.keep_up(product)?);
        let progress = Progress {
            seconds: begun.elapsed().as_secs().min(args.seconds),
            of: args.seconds,
            rows: counters.rows(),
            messages: counters.messages(),
        };
        let latencies: Vec<Latency> = probes.iter().map(Probe::so_far).collect();
        screen.show(running.status().ok().as_ref(), &progress, &latencies)?;
        sleep(Duration::from_secs(1));
    }
    let inserted = rows.into_iter().map(join).collect::<Result<Vec<_>>>().context("changing rows")?;
    let sent = readings.into_iter().map(join).collect::<Result<Vec<_>>>().context("sending readings")?;
    // The last marks may still be on their way.
    sleep(Duration::from_secs(2));
    let latencies = probes.into_iter().map(Probe::finish).collect();
    Ok(Work { done: inserted.into_iter().zip(sent).collect(), latencies, counters, restarts })
}
