//! What the loss of one of two instances costs: from `kill -9` until every partition moves again, and how long
//! a rolling restart holds a partition up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use fhirehose_pgsink::Connector;

use crate::admin::{is_ready, status};
use crate::changes::{Changes, Format, Table};
use crate::figure::{Figure, Goal, Section, Spread, Unit};
use crate::kafka::{Group, Writer};
use crate::shapes::{Shapes, batch, outputs_of, process};
use crate::stack::{Running, Stack};

const KILLS: usize = 5;
const ROLLS: usize = 3;
/// Records per second in every partition.
const RATE: f64 = 20.0;
/// Beyond the numbers of rows that other figures write to the same topics.
const FIRST: u64 = 3_000_000;
const FIRST_PORT: u16 = 9482;
/// A session cannot time out sooner: whoever was killed held other partitions than those looked at.
const AT_ONCE: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(20);
/// With both instances at work, before something is done to one.
const STEADY: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(240);

/// A record and where it goes.
struct Entry {
    topic: Arc<str>,
    partition: i32,
    key: Vec<u8>,
    value: Vec<u8>,
}

/// A processor, how it is loaded, and how far it is.
struct Subject<'a> {
    processor: &'static str,
    /// One record for every partition, made of rows with numbers from this one on.
    records: Box<dyn FnMut(u64) -> Result<Vec<Entry>> + Send + 'a>,
    partitions: usize,
    /// The next offset of every partition.
    progress: Box<dyn FnMut() -> Result<Vec<i64>> + 'a>,
}

pub fn measure(stack: &Stack, shapes: &Shapes) -> Result<Section> {
    let changes = stack.changes()?;
    let mut figures = Vec::new();
    for subject in [normalize_cdc(stack, &changes)?, sink_timescale(stack, shapes, &changes)?] {
        figures.extend(subject.measure(stack)?);
    }
    Ok(Section {
        title: "Recovery of a group of two",
        how: format!(
            "Two processes with one worker each share the partitions; {RATE} records per second go into every one. A \
             process is killed with `kill -9` and not started again until every partition has moved; the dead member is \
             counted in until its session times out (`runtime.session_timeout_ms`, 15 s), which is most of it; a kill that hit \
             none of the partitions looked at is not counted. In a rolling \
             restart each process in turn is asked to end, started again and waited for; a standstill is the longest time \
             a partition's committed offset did not move, of which {:.0} ms are the load's own. Offsets are looked at every \
             {} ms: the group's in Kafka, or those in the sink's database.",
            1000.0 / RATE,
            LOOK.as_millis()
        ),
        figures,
    })
}

fn normalize_cdc<'a>(stack: &Stack, changes: &'a Changes) -> Result<Subject<'a>> {
    let prefix = format!("cdc.{}.clinical_data.", Format::Json.source());
    let of_a_table = |topic: &str| Table::ALL.iter().find(|table| topic.ends_with(table.name())).copied();
    let group = Group::of(&stack.brokers, "normalize-cdc", |topic| {
        topic.starts_with(&prefix) && of_a_table(topic).is_some()
    })?;
    let partitions: Vec<_> = group.partitions().map(|(topic, at)| (of_a_table(topic), at)).collect();
    Ok(Subject {
        processor: "normalize-cdc",
        partitions: partitions.len(),
        records: Box::new(move |first| {
            let now = jiff::Timestamp::now().as_millisecond();
            let entry = |(number, (table, partition)): (u64, &(Option<Table>, i32))| {
                let table = table.context("a topic of no table")?;
                let change = changes.change(table, Format::Json, number, now)?;
                Ok(Entry { topic: change.topic, partition: *partition, key: change.key, value: change.value })
            };
            (first..).zip(&partitions).map(entry).collect()
        }),
        progress: Box::new(move || group.offsets()),
    })
}

fn sink_timescale<'a>(stack: &Stack, shapes: &'a Shapes, changes: &'a Changes) -> Result<Subject<'a>> {
    let group = Group::of(&stack.brokers, "sink-timescale", |topic| topic == "vitals.sample")?;
    let partitions = group.partitions().count();
    let mut normalize = shapes.normalize_cdc_with(&stack.schema_ids(&shapes.topics)?)?;
    let mut store = Connector::new(&stack.postgres, "bench")?.connect()?;
    Ok(Subject {
        processor: "sink-timescale",
        partitions,
        records: Box::new(move |first| {
            let now = jiff::Timestamp::now().as_millisecond();
            let row = |number| changes.change(Table::VitalSigns, Format::Json, number, now);
            let rows = (first..first + partitions as u64).map(row).collect::<Result<Vec<_>>>()?;
            let mut out = Default::default();
            process(&mut normalize, &batch(&rows), &mut out)?;
            let samples = outputs_of("vitals.sample", &out, 0);
            let entry = |(partition, record): (i32, fhirehose_stream::Record<'_>)| Entry {
                topic: record.at().topic.clone(),
                partition,
                key: record.key().unwrap_or_default().to_vec(),
                value: record.value().unwrap_or_default().to_vec(),
            };
            Ok((0..).zip(samples.iter()).map(entry).collect())
        }),
        progress: Box::new(move || {
            let rows = store.query(
                "SELECT next_off FROM fhirehose.sink_offsets \
                 WHERE pipeline = 'sink-timescale' AND topic = 'vitals.sample' ORDER BY part",
                &[],
            )?;
            rows.iter().map(|row| Ok(row.try_get::<_, Option<i64>>(0)?.unwrap_or(0))).collect()
        }),
    })
}

impl Subject<'_> {
    fn measure(self, stack: &Stack) -> Result<[Figure; 2]> {
        let Subject { processor, partitions, mut records, mut progress } = self;
        let writer = Writer::connect(&stack.brokers)?;
        let ended = AtomicBool::new(false);
        let measured = thread::scope(|scope| {
            let mut pair = Pair::start(stack, processor)?;
            let load = scope.spawn(|| load(&writer, &mut *records, &ended));
            let measured = pair.measure(partitions, &mut *progress);
            ended.store(true, Ordering::SeqCst);
            load.join().map_err(|_| anyhow!("the load has panicked"))?.context("writing the load")?;
            measured
        });
        let (recovered, stood) = measured.with_context(|| processor.to_owned())?;
        let figure = |what: String, measured, rounds: &[f64]| Figure {
            what,
            measured,
            value: Spread::of(rounds),
            unit: Unit::Seconds,
            goal: Goal::None,
        };
        Ok([
            figure(
                format!("{processor}: kill -9 until every partition moves"),
                format!("{KILLS} kills, {partitions} partitions"),
                &recovered,
            ),
            figure(
                format!("{processor}: standstill of a partition in a rolling restart"),
                format!("{ROLLS} restarts of both, {partitions} partitions each time"),
                &stood,
            ),
        ])
    }
}

/// Writes until told to end, a record per partition at a time.
fn load(
    writer: &Writer,
    records: &mut dyn FnMut(u64) -> Result<Vec<Entry>>,
    ended: &AtomicBool,
) -> Result<()> {
    let begun = Instant::now();
    let (mut number, mut rounds) = (FIRST, 0.0);
    while !ended.load(Ordering::SeqCst) {
        if begun.elapsed().as_secs_f64() * RATE < rounds {
            sleep(Duration::from_millis(2));
            continue;
        }
        for entry in records(number)? {
            writer.send_to(&entry.topic, entry.partition, &entry.key, &entry.value)?;
            number += 1;
        }
        rounds += 1.0;
    }
    writer.flush()
}

/// Two instances of a processor.
struct Pair<'a> {
    stack: &'a Stack,
    processor: &'static str,
    instances: [Running; 2],
}

impl<'a> Pair<'a> {
    fn start(stack: &'a Stack, processor: &'static str) -> Result<Pair<'a>> {
        let one = |at| stack.run_as(processor, &name(processor, at), port(at), &[]);
        Ok(Pair { stack, processor, instances: [one(0)?, one(1)?] })
    }

    fn start_again(&mut self, at: usize) -> Result<()> {
        let name = name(self.processor, at);
        self.instances[at] = self.stack.run_as(self.processor, &name, port(at), &[])?;
        Ok(())
    }

    /// Seconds until every partition moved after each kill, and of every standstill of a partition.
    fn measure(
        &mut self,
        partitions: usize,
        progress: &mut dyn FnMut() -> Result<Vec<i64>>,
    ) -> Result<(Vec<f64>, Vec<f64>)> {
        let (mut recovered, mut stood) = (Vec::new(), Vec::new());
        let mut kills = 0;
        while recovered.len() < KILLS {
            if kills == 3 * KILLS {
                bail!("of {kills} kills {} hit a partition that is looked at", recovered.len());
            }
            self.settle(partitions, progress)?;
            let killed = Instant::now();
            self.instances[kills % 2].kill()?;
            // What it had sent before may still take effect.
            sleep(LOOK * 5);
            let before = progress()?;
            until(|| Ok(progress()?.iter().zip(&before).all(|(now, before)| now > before)))?;
            let moved = killed.elapsed();
            self.start_again(kills % 2)?;
            kills += 1;
            if moved > AT_ONCE {
                recovered.push(moved.as_secs_f64());
            }
        }
        for _ in 0..ROLLS {
            self.settle(partitions, progress)?;
            let mut watch = Watch::new(progress()?);
            for at in 0..2 {
                self.instances[at].ask_to_end()?;
                until(|| watch.look(progress()?).and_then(|()| self.instances[at].has_ended()))?;
                self.start_again(at)?;
                until(|| watch.look(progress()?).and_then(|()| self.shared()))?;
            }
            let steady = Instant::now();
            until(|| watch.look(progress()?).map(|()| steady.elapsed() > STEADY))?;
            stood.extend(watch.longest);
        }
        Ok((recovered, stood))
    }

    /// Waits until both have partitions and have nothing left to read.
    fn settle(&self, partitions: usize, progress: &mut dyn FnMut() -> Result<Vec<i64>>) -> Result<()> {
        until(|| {
            let lag =
                |at| Ok::<_, anyhow::Error>(status(port(at))?["lag_records"].as_i64().unwrap_or(i64::MAX));
            Ok(self.shared()? && lag(0)?.saturating_add(lag(1)?) < (RATE * partitions as f64) as i64)
        })?;
        // An offset row or commit of every partition.
        until(|| Ok(progress()?.len() == partitions))?;
        sleep(STEADY);
        Ok(())
    }

    fn shared(&self) -> Result<bool> {
        let has =
            |at| is_ready(port(at)) && status(port(at)).is_ok_and(|s| s["partitions"].as_u64() > Some(0));
        Ok(has(0) && has(1))
    }
}

fn port(at: usize) -> u16 {
    FIRST_PORT + at as u16
}

fn name(processor: &str, at: usize) -> String {
    format!("{processor}-{at}")
}

fn until(mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !done()? {
        if begun.elapsed() > PATIENCE {
            bail!("it did not come to pass in {} s", PATIENCE.as_secs());
        }
        sleep(LOOK);
    }
    Ok(())
}

/// How long partitions stand still.
struct Watch {
    at: Vec<(i64, Instant)>,
    /// Seconds.
    longest: Vec<f64>,
}

impl Watch {
    fn new(progress: Vec<i64>) -> Watch {
        let longest = vec![0.0; progress.len()];
        Watch { at: progress.into_iter().map(|offset| (offset, Instant::now())).collect(), longest }
    }

    fn look(&mut self, progress: Vec<i64>) -> Result<()> {
        if progress.len() != self.at.len() {
            bail!("there are {} partitions, and there were {}", progress.len(), self.at.len());
        }
        let now = Instant::now();
        for ((seen, longest), offset) in self.at.iter_mut().zip(&mut self.longest).zip(progress) {
            *longest = longest.max((now - seen.1).as_secs_f64());
            if offset != seen.0 {
                *seen = (offset, now);
            }
        }
        Ok(())
    }
}
