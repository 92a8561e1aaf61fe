use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use fhirehose_runtime::{Backfilled, backfill, first_offsets, init_logging};
use fhirehose_stream::{FaultKind, TopicPartition};
use sink_warehouse::{Rebuild, Swap};

use super::say;
use crate::app::App;
use crate::cli::RebuildArgs;
use crate::processors::named;

/// Tries without a record in between after which a rebuild gives up; it can be taken up again.
const TRIES: u32 = 10;

/// Builds a table of the warehouse anew and swaps it in.
pub fn run(app: App, args: &RebuildArgs) -> anyhow::Result<ExitCode> {
    let app = app.checked()?;
    init_logging(&app.config().log).map_err(anyhow::Error::msg)?;
    app.clients()?;
    let url = app.warehouse_url().context("set postgres.url or warehouse.url")?;
    let (topics, schemas) = (app.topics()?, app.registry()?);
    let config = Arc::new(app.config().clone());
    let group = named(&["sink-warehouse".to_owned()])?[0].spec(&app, &topics)?.group;
    let table = args.table.as_str();
    let mut rebuild = Rebuild::begin(url, &group, app.shapes(), &topics, table, args.anew)?;
    let mut ends = rebuild.ends()?;
    if rebuild.resumed {
        say(format_args!("{table}: goes on where an earlier run ended; --anew begins anew"));
    } else if !args.without_lost {
        complain_of_lost(&config, &ends)?;
    }
    let mut sink = rebuild.sink(topics, schemas)?;
    let (mut told, mut waits) = (Told::new(table), false);
    loop {
        let filled = fill(&config, &mut sink, &ends, &mut told)?;
        told.end(&filled);
        match rebuild.swap(&ends)? {
            Swap::Done => break,
            Swap::Behind => {}
            Swap::SinkRuns => {
                if !waits {
                    say(format_args!(
                        "{table}: as far as sink-warehouse, which runs: stop it, and the tables are swapped; it would \
                         go on with the declaration it began with"
                    ));
                    waits = true;
                }
                sleep(Duration::from_secs(1));
            }
        }
        ends = rebuild.ends()?;
    }
    say(format_args!("{table}: swapped, {} records; sink-warehouse can be started", told.records));
    for (reason, count) in &told.rejected {
        say(format_args!("{table}: {count} records gave no row: {reason}"));
    }
    Ok(ExitCode::SUCCESS)
}

fn complain_of_lost(
    config: &Arc<fhirehose_runtime::Config>,
    ends: &[(TopicPartition, i64)],
) -> anyhow::Result<()> {
    let partitions: Vec<TopicPartition> = ends.iter().map(|(at, _)| at.clone()).collect();
    let lost: i64 = first_offsets(config, &partitions)?.iter().sum();
    if lost > 0 {
        bail!(
            "kafka no longer holds the first {lost} records of {}: their rows would be missing in the new table; \
             --without-lost builds it nevertheless",
            partitions[0].topic
        );
    }
    Ok(())
}

/// Fills the table up to these offsets; what passes is tried again.
fn fill(
    config: &Arc<fhirehose_runtime::Config>,
    sink: &mut impl fhirehose_stream::Sink,
    ends: &[(TopicPartition, i64)],
    told: &mut Told,
) -> anyhow::Result<Backfilled> {
    let mut tries = 0;
    loop {
        let mut any = false;
        let result = backfill(config, sink, ends, &mut |now| {
            any |= now.records > 0;
            told.now(now);
        });
        match result {
            Err(fault) if fault.kind == FaultKind::Transient => {
                tries = if any { 0 } else { tries + 1 };
                if tries == TRIES {
                    bail!("{}: run the command again to go on", fault.what);
                }
                tracing::warn!(why = fault.what, "the rebuild is tried again");
                sleep(Duration::from_secs(1 << tries.min(5)));
            }
            other => return Ok(other?),
        }
    }
}

/// Progress on standard error, once a second.
struct Told<'t> {
    table: &'t str,
    /// Of the fills that are done.
    records: u64,
    rejected: std::collections::BTreeMap<&'static str, u64>,
    begun: Instant,
    last: Instant,
}

impl<'t> Told<'t> {
    fn new(table: &'t str) -> Self {
        let (begun, last) = (Instant::now(), Instant::now());
        Told { table, records: 0, rejected: std::collections::BTreeMap::new(), begun, last }
    }

    fn now(&mut self, now: &Backfilled) {
        if self.last.elapsed() < Duration::from_secs(1) {
            return;
        }
        self.last = Instant::now();
        let records = self.records + now.records;
        let rate = records as f64 / self.begun.elapsed().as_secs_f64();
        let left = if rate > 0.0 { format!(", {:.0} s left", now.left as f64 / rate) } else { String::new() };
        let line = format!("{}: {records} records, {} left, {rate:.0}/s{left}", self.table, now.left);
        drop(writeln!(std::io::stderr(), "{line}"));
    }

    fn end(&mut self, filled: &Backfilled) {
        self.records += filled.records;
        for (reason, count) in &filled.rejected {
            *self.rejected.entry(reason).or_default() += count;
        }
    }
}
