//! The whole flow with every processor in a process of its own: the rate it sustains, and at half of it how
//! old changes are when each store has them, and how much memory each processor takes.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use fhirehose_pgsink::Connector;
use postgres::Client;

use crate::admin::{is_ready, status};
use crate::changes::Changes;
use crate::devices::Watches;
use crate::figure::{Figure, Goal, Section, Spread, Unit};
use crate::kafka::Writer;
use crate::machine::memory;
use crate::stack::{Running, Stack};

const PROCESSORS: [&str; 9] = [
    "normalize-cdc",
    "normalize-device",
    "alert-emergency",
    "enrich",
    "sink-timescale",
    "sink-search",
    "sink-warehouse",
    "invalidate-cache",
    "sink-redis",
];
const FIRST_PORT: u16 = 9472;
/// Changes written at once to find the rate.
const BURST: u64 = 20_000;
/// One device message per so many changes.
const PER_MESSAGE: u64 = 10;
const STEADY: Duration = Duration::from_secs(30);
/// Looks at the lag, a quarter of a second apart, that must find none: it is told once a second.
const QUIET: u32 = 8;
const LOOK: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(240);

struct Flow {
    processors: Vec<(&'static str, u16, Running)>,
}

struct Source<'a> {
    changes: Changes,
    watches: Watches,
    writer: &'a Writer,
    sent: u64,
}

pub fn measure(stack: &Stack) -> Result<Vec<Section>> {
    let writer = Writer::connect(&stack.brokers)?;
    let changes = stack.changes()?;
    for row in changes.base() {
        writer.send(&row.topic, &row.key, &row.value, None)?;
    }
    let watches = Watches::assign(stack, &writer)?;
    let mut source = Source { changes, watches, writer: &writer, sent: 0 };
    let mut store = Connector::new(&stack.postgres, "bench")?.connect()?;

    let mut flow = Flow::start(stack)?;
    source.send(BURST)?;
    writer.flush()?;
    let begun = Instant::now();
    flow.wait_for(stack, &mut store, source.sent)?;
    let stored = BURST as f64 / begun.elapsed().as_secs_f64();
    flow.drain()?;
    // The lag was none for a while before that was certain.
    let sustained = BURST as f64 / (begun.elapsed() - LOOK * QUIET).as_secs_f64();
    let burst = flow.memory()?;
    drop(flow);

    // Anew, so that ages and memory are of this load alone.
    let flow = Flow::start(stack)?;
    let half = sustained / 2.0;
    let (begun, before) = (Instant::now(), source.sent);
    while begun.elapsed() < STEADY {
        let due = (begun.elapsed().as_secs_f64() * half) as u64 + before;
        source.send(due.saturating_sub(source.sent))?;
        sleep(Duration::from_millis(2));
    }
    sleep(Duration::from_secs(2));
    let ages = flow.ages()?;
    let steady = flow.memory()?;
    Ok(vec![latency((stored, sustained), half, &ages), memories(half, &burst, &steady)])
}

fn latency((stored, sustained): (f64, f64), half: f64, ages: &[(&'static str, f64, f64, u64)]) -> Section {
    let rate = |what: &str, until, value| Figure {
        what: what.into(),
        measured: format!("{BURST} changes at once, until {until}"),
        value: Spread::one(value),
        unit: Unit::PerSecond,
        goal: Goal::None,
    };
    let mut figures = vec![
        rate("changes the whole flow sustains", "no processor has anything left to read", sustained),
        rate("changes stored", "both PostgreSQL stores hold all their rows", stored),
    ];
    for (name, p50, p99, count) in ages.iter().filter(|(name, ..)| name.starts_with("sink-")) {
        for (which, value) in [("p50", p50), ("p99", p99)] {
            figures.push(Figure {
                what: format!("change at the source to {name}'s commit, {which}"),
                measured: format!("{count} records at {half:.0} changes/s"),
                value: Spread::one(*value),
                unit: Unit::Milliseconds,
                goal: Goal::None,
            });
        }
    }
    Section {
        title: "End to end at half load",
        how: format!(
            "All nine processors, each a process of its own, on one machine with Kafka and the stores. First {BURST} new \
             rows at once give the rate the flow sustains; then new rows come at half of it for {} s, with a watch's \
             message for every {PER_MESSAGE} rows. Ages are the processors' own (`/admin/status`, right to nine per cent), \
             from the time of the change at its source.",
            STEADY.as_secs()
        ),
        figures,
    }
}

fn memories(half: f64, burst: &[(&'static str, f64, f64)], steady: &[(&'static str, f64, f64)]) -> Section {
    let figures = steady.iter().zip(burst).map(|((name, now, peak), (_, _, burst))| Figure {
        what: (*name).into(),
        measured: format!("peak {peak:.0} MiB; {burst:.0} MiB while {BURST} changes came at once"),
        value: Spread::one(*now),
        unit: Unit::Mebibytes,
        goal: Goal::None,
    });
    Section {
        title: "Memory per processor",
        how: format!(
            "Resident memory of each process at the end of {half:.0} changes/s for {} s.",
            STEADY.as_secs()
        ),
        figures: figures.collect(),
    }
}

impl Source<'_> {
    fn send(&mut self, count: u64) -> Result<()> {
        for _ in 0..count {
            let now = jiff::Timestamp::now();
            let change = self.changes.mixed(self.sent, now.as_millisecond())?;
            self.writer.send(&change.topic, &change.key, &change.value, None)?;
            if self.sent.is_multiple_of(PER_MESSAGE) {
                self.watches.send(self.writer, self.sent / PER_MESSAGE, now)?;
            }
            self.sent += 1;
        }
        Ok(())
    }
}

impl Flow {
    /// Starts every processor and waits until all are ready.
    fn start(stack: &Stack) -> Result<Flow> {
        let mut processors = Vec::new();
        for (port, name) in (FIRST_PORT..).zip(PROCESSORS) {
            processors.push((name, port, stack.run(name, port)?));
        }
        let begun = Instant::now();
        for (name, port, running) in &mut processors {
            while !is_ready(*port) {
                running.check().with_context(|| format!("{name}: {}", stack.log(name)))?;
                if begun.elapsed() > PATIENCE {
                    bail!("{name} is not ready: {}", stack.log(name));
                }
                sleep(Duration::from_millis(50));
            }
        }
        Ok(Flow { processors })
    }

    /// Waits until the stores hold what this many changes become.
    fn wait_for(&mut self, stack: &Stack, store: &mut Client, changes: u64) -> Result<()> {
        // Of ten changes four are of vital signs and two of encounters.
        let wanted = (changes as i64 * 4 / 10, changes as i64 * 2 / 10);
        let begun = Instant::now();
        loop {
            let row = store.query_one(
                "SELECT (SELECT count(*) FROM vital_signs_timeseries WHERE device_id LIKE 'row:%'), \
                 (SELECT count(*) FROM fact.vital_signs_fact WHERE device_id LIKE 'row:%'), \
                 (SELECT count(*) FROM fact.encounter_fact)",
                &[],
            )?;
            let found: (i64, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            if found == (wanted.0, wanted.0, wanted.1) {
                return Ok(());
            }
            for (name, _, running) in &mut self.processors {
                running.check().with_context(|| format!("{name}: {}", stack.log(name)))?;
            }
            if begun.elapsed() > PATIENCE {
                bail!("the stores hold {found:?} of {wanted:?} rows after {} s", PATIENCE.as_secs());
            }
            sleep(Duration::from_millis(200));
        }
    }

    /// Waits until no processor has anything left to read.
    fn drain(&self) -> Result<()> {
        let begun = Instant::now();
        let mut quiet = 0;
        while quiet < QUIET {
            let mut left = 0;
            for (_, port, _) in &self.processors {
                left += status(*port)?["lag_records"].as_i64().context("no lag in the status")?;
            }
            quiet = if left == 0 { quiet + 1 } else { 0 };
            if begun.elapsed() > PATIENCE {
                bail!("{left} records are left after {} s", PATIENCE.as_secs());
            }
            sleep(LOOK);
        }
        Ok(())
    }

    /// Resident memory of each process, and its peak, in MiB.
    fn memory(&self) -> Result<Vec<(&'static str, f64, f64)>> {
        let one = |(name, _, running): &(&'static str, u16, Running)| {
            memory(running.pid()).map(|(now, peak)| (*name, now, peak))
        };
        self.processors.iter().map(one).collect()
    }

    /// p50 and p99 of what each processor has done, in milliseconds, and how many records that was.
    fn ages(&self) -> Result<Vec<(&'static str, f64, f64, u64)>> {
        let one = |(name, port, _): &(&'static str, u16, Running)| {
            let status = status(*port)?;
            let age = &status["age"];
            let number = |name: &str| age[name].as_u64().with_context(|| format!("no {name} in the status"));
            Ok((*name, number("p50_ms")? as f64, number("p99_ms")? as f64, number("count")?))
        };
        self.processors.iter().map(one).collect()
    }
}
