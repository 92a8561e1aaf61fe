//! normalize-cdc on Kafka against the copier, and the copier with transactions against itself without.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::changes::{Changes, Table};
use crate::figure::{Figure, Goal, Section, Spread, Unit};
use crate::kafka::{Group, Writer};
use crate::machine::process_cpu;
use crate::stack::{Running, Stack};

const RECORDS: u64 = 50_000;
/// Beyond the numbers of rows that other figures write to the same topics.
const FIRST: u64 = 1_000_000;
const ROUNDS: usize = 5;
/// A round is measured from here on: joining the group and the first batch are no part of it.
const FROM: f64 = 0.1;
const PATIENCE: Duration = Duration::from_secs(180);
const PORT: u16 = 9471;

#[derive(Clone, Copy, PartialEq)]
enum Contestant {
    Product,
    Transactional,
    Plain,
}

/// What a round of one contestant came to.
#[derive(Clone, Copy)]
struct Round {
    per_second: f64,
    /// CPU µs of the process per record read.
    cpu: f64,
}

impl Contestant {
    const ALL: [Contestant; 3] = [Contestant::Product, Contestant::Transactional, Contestant::Plain];

    fn group(self) -> &'static str {
        match self {
            Contestant::Product => "normalize-cdc",
            Contestant::Transactional => "bench-copier-transactional",
            Contestant::Plain => "bench-copier-plain",
        }
    }

    fn start(self, stack: &Stack) -> Result<Running> {
        match self {
            Contestant::Product => stack.run("normalize-cdc", PORT),
            Contestant::Transactional => stack.run_copier(self.group(), true),
            Contestant::Plain => stack.run_copier(self.group(), false),
        }
    }
}

pub fn measure(stack: &Stack) -> Result<Section> {
    let changes = stack.changes()?;
    fill(stack, &changes)?;
    let groups =
        Contestant::ALL.map(|contestant| Group::of(&stack.brokers, contestant.group(), is_of_a_table));
    let total = Group::of(&stack.brokers, "bench", is_of_a_table)?.total();
    let mut rounds: [Vec<Round>; 3] = Default::default();
    for _ in 0..ROUNDS {
        for ((contestant, group), rounds) in Contestant::ALL.iter().zip(&groups).zip(&mut rounds) {
            let group = group.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))?;
            let name = contestant.group();
            rounds.push(
                round(stack, *contestant, group)
                    .with_context(|| format!("{name}; its log ends:\n{}", stack.log(name)))?,
            );
        }
    }
    let [product, transactional, plain] = &rounds;
    let read =
        |rounds: &[Round], of: fn(&Round) -> f64| Spread::of(&rounds.iter().map(of).collect::<Vec<_>>());
    let ratio = |a: &[Round], b: &[Round], of: fn(&Round, &Round) -> f64| {
        Spread::of(&a.iter().zip(b).map(|(a, b)| of(a, b)).collect::<Vec<_>>())
    };
    let rate = |rounds: &[Round]| format!("{:.0} records/s", read(rounds, |r| r.per_second).median);
    let cpu = |rounds: &[Round]| format!("{:.0} µs", read(rounds, |r| r.cpu).median);
    let figure = |what: &str, measured, value, goal| Figure {
        what: what.into(),
        measured,
        value,
        unit: Unit::Share,
        goal,
    };
    Ok(Section {
        title: "normalize-cdc on Kafka, and what exactly once costs",
        how: format!(
            "{total} new rows in Kafka (four in ten of vital signs, half JSON, half Avro) are read from the beginning by \
             `fhirehose run normalize-cdc`; by a copier that writes ready-made records of the same keys and sizes, as \
             many, in transactions of the same size; and by the copier without transactions (idempotent producer, \
             offsets committed after each batch). {ROUNDS} rounds, contestants in turn, each a process with one worker; \
             broker, registry and contestant share the machine's cores. A rate is taken from one tenth of the records to \
             the last, by committed offsets; CPU is that of the contestant's process. What exactly once costs is the \
             copier's figure: the product has no other mode."
        ),
        figures: vec![
            figure(
                "normalize-cdc / copier, records/s",
                format!("{} against {}", rate(product), rate(transactional)),
                ratio(product, transactional, |a, b| a.per_second / b.per_second),
                Goal::AtLeast(0.6),
            ),
            figure(
                "copier / normalize-cdc, CPU per record read",
                format!("{} against {}", cpu(transactional), cpu(product)),
                ratio(product, transactional, |a, b| b.cpu / a.cpu),
                Goal::None,
            ),
            figure(
                "cost of transactions, records/s",
                format!("copier: {} with, {} without", rate(transactional), rate(plain)),
                ratio(transactional, plain, |a, b| 1.0 - a.per_second / b.per_second),
                Goal::AtMost(0.07),
            ),
            figure(
                "cost of transactions, CPU",
                format!("copier: {} with, {} without, per record read", cpu(transactional), cpu(plain)),
                ratio(transactional, plain, |a, b| a.cpu / b.cpu - 1.0),
                Goal::None,
            ),
        ],
    })
}

/// Leaves out the few rows that others refer to, which the copier does not read.
fn is_of_a_table(topic: &str) -> bool {
    topic.starts_with("cdc.") && Table::ALL.iter().any(|table| topic.ends_with(table.name()))
}

/// Writes the input, unless an earlier run has.
fn fill(stack: &Stack, changes: &Changes) -> Result<()> {
    let there = Group::of(&stack.brokers, "bench", is_of_a_table)?.total();
    if there >= RECORDS as i64 {
        return Ok(());
    }
    let writer = Writer::connect(&stack.brokers)?;
    for number in FIRST..FIRST + RECORDS {
        let change = changes.mixed(number, 1_790_812_800_000)?;
        writer.send(&change.topic, &change.key, &change.value, None)?;
    }
    writer.flush()
}

fn round(stack: &Stack, contestant: Contestant, group: &Group) -> Result<Round> {
    group.rewind()?;
    let total = group.total();
    let mut running = contestant.start(stack)?;
    let begun = Instant::now();
    let mut first = None;
    loop {
        let (committed, cpu) = (group.committed()?, process_cpu(running.pid())?);
        let now = Instant::now();
        if first.is_none() && committed as f64 > FROM * total as f64 {
            first = Some((committed, cpu, now));
        }
        if let Some((from, cpu_before, since)) = first.filter(|_| committed >= total) {
            let records = (committed - from) as f64;
            return Ok(Round {
                per_second: records / now.duration_since(since).as_secs_f64(),
                cpu: (cpu - cpu_before) * 1e6 / records,
            });
        }
        running.check()?;
        if begun.elapsed() > PATIENCE {
            bail!("{committed} of {total} records after {} s", PATIENCE.as_secs());
        }
        sleep(Duration::from_millis(25));
    }
}
