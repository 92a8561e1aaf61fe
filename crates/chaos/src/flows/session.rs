//! What every flow from topics to topics has in common: a group put at the end of its inputs, a reader that
//! watches the outputs, and both read back in the end.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::flow::{Begin, Halt, Live, Run};
use crate::ledger::accounts::{Sightings, done, letters, origin_of_letter};
use crate::ledger::avro::Decoder;
use crate::ledger::load::{Aborted, Input, Pace, Producer};
use crate::ledger::topics::{At, Group, Isolation, Offsets, Record, Tail, Topics, compact_soon};
use crate::ledger::{Breaches, Invariant, Violation};
use crate::world::World;

/// How long outputs must stand still when the inputs are done.
const QUIET: Duration = Duration::from_secs(2);
/// How long a group that is behind may stand still before it counts as stuck.
const STALLED: Duration = Duration::from_secs(8);

/// Makes the inputs of a run, one step at a time.
pub(super) trait Source {
    /// What is written next.
    fn step(&mut self) -> Result<Vec<Input>>;
    /// The first input topic has so many partitions now.
    fn partitions(&mut self, _count: i32) {}
    /// Records for a transaction that is aborted.
    fn unseen(&mut self) -> Result<Vec<Input>>;
    /// What is written in the end.
    fn last(&mut self) -> Result<Vec<Input>> {
        Ok(Vec::new())
    }
}

/// A run of one group.
pub(super) struct Session {
    world: World,
    tag: String,
    topics: Topics,
    group: Group,
    inputs: Offsets,
    tables: Offsets,
    changelog: Offsets,
    outputs: Offsets,
    tail: Tail,
    sightings: Mutex<Sightings>,
    decoder: Mutex<Decoder>,
}

/// A run of such a flow: its session, what makes its inputs, and the account of its own.
pub(super) struct Driven<S, C> {
    session: Session,
    source: Mutex<S>,
    rate: f64,
    /// Topics whose partitions are sure to move.
    moving: Vec<String>,
    check: C,
}

impl<S, C> Driven<S, C>
where
    S: Source + Send + 'static,
    C: Fn(&Session) -> Result<Vec<Violation>> + Send + Sync + 'static,
{
    pub fn open(
        world: &World,
        run: &Run,
        moving: Vec<String>,
        ends: Ends<'_>,
        source: S,
        check: C,
    ) -> Result<Box<dyn Live>> {
        let session = Session::open(world, run, ends)?;
        Ok(Box::new(Driven { session, source: Mutex::new(source), rate: run.rate, moving, check }))
    }
}

impl<S, C> Live for Driven<S, C>
where
    S: Source + Send,
    C: Fn(&Session) -> Result<Vec<Violation>> + Send + Sync,
{
    fn load(&self, stop: &Halt) -> Result<u64> {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        self.session.load(self.rate, &mut *source, stop)
    }

    fn watch(&self) -> Vec<Violation> {
        self.session.watch();
        Vec::new()
    }

    fn progress(&self) -> Result<BTreeMap<String, i64>> {
        self.session.progress()
    }

    fn moves(&self, topic: &str) -> bool {
        self.moving.iter().any(|moving| moving == topic)
    }

    fn check(&self) -> Result<Vec<Violation>> {
        (self.check)(&self.session)
    }
}

/// Which topics a group has to do with.
pub(super) struct Ends<'e> {
    pub group: &'e str,
    /// All it reads.
    pub subscribed: Vec<String>,
    /// Those the run writes to.
    pub inputs: Vec<String>,
    /// Those the run writes to and every instance reads whole.
    pub tables: Vec<String>,
    /// Where it keeps its state.
    pub changelog: Option<&'e str>,
    /// Those it writes, dead letters included.
    pub outputs: Vec<String>,
}

/// What was read back of the inputs, a record at a time.
pub(super) struct Seen {
    pub record: Record,
    /// Of a transaction that was aborted.
    pub aborted: bool,
}

impl Session {
    pub fn open(world: &World, run: &Run, ends: Ends<'_>) -> Result<Session> {
        let topics = Topics::connect(world)?;
        let group = Group::connect(world, ends.group)?;
        if run.begin == Begin::AtEnds {
            group.set(&topics.ends(&ends.subscribed)?)?;
        }
        if let Some(changelog) = ends.changelog {
            compact_soon(world, changelog)?;
        }
        let outputs = topics.ends(&ends.outputs)?;
        Ok(Session {
            tail: Tail::begin(world, &outputs)?,
            world: world.clone(),
            tag: run.tag.clone(),
            inputs: topics.ends(&ends.inputs)?,
            tables: topics.ends(&ends.tables)?,
            changelog: topics.ends(ends.changelog)?,
            topics,
            group,
            outputs,
            sightings: Mutex::default(),
            decoder: Mutex::new(Decoder::new(&world.registry)),
        })
    }

    /// Writes what the source makes at that rate, with now and then a transaction that is aborted.
    pub fn load(&self, rate: f64, source: &mut dyn Source, stop: &Halt) -> Result<u64> {
        let producer = Producer::connect(&self.world)?;
        let mut aborted = Aborted::new(&self.world, &self.tag);
        let mut pace = Pace::new(rate);
        while pace.next(stop) {
            let inputs = source.step()?;
            for input in &inputs {
                producer.send(input)?;
            }
            pace.wrote(inputs.len());
            if pace.every(3) {
                // A topic may get more while the load goes on; brokers that are down tell next time.
                let topic = self.inputs.keys().next().map(|(topic, _)| topic);
                if let Some(Ok(count)) = topic.map(|topic| self.topics.partitions(topic)) {
                    source.partitions(count);
                }
                aborted.write(&source.unseen()?);
            }
        }
        for input in source.last()? {
            producer.send(&input)?;
        }
        producer.finish()
    }

    pub fn watch(&self) {
        let mut sightings = self.sightings.lock().unwrap_or_else(PoisonError::into_inner);
        self.tail.arrived(|topic, record| sightings.saw(topic, &record));
    }

    pub fn progress(&self) -> Result<BTreeMap<String, i64>> {
        let mut partitions: BTreeSet<At> = self.inputs.keys().cloned().collect();
        for topic in names(&self.inputs) {
            partitions
                .extend((0..self.topics.partitions(&topic)?).map(|partition| (topic.clone(), partition)));
        }
        self.group.progress(&partitions)
    }

    pub fn decoder(&self) -> MutexGuard<'_, Decoder> {
        self.decoder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands out the inputs of the run and what was written to tables, committed records in order and then the
    /// aborted ones, and checks that the group has done all inputs.
    pub fn read_inputs(&self, breaches: &mut Breaches, mut each: impl FnMut(&str, Seen)) -> Result<()> {
        let mut from = self.inputs.clone();
        from.extend(self.tables.clone());
        let to = self.topics.ends(names(&from))?;
        let (mut last, mut there) = (Offsets::new(), HashSet::new());
        self.topics.read(Isolation::Committed, &from, &to, |topic, record| {
            let at: At = (topic.into(), record.partition);
            there.insert((at.clone(), record.offset));
            if !self.tables.contains_key(&at) {
                last.insert(at, record.offset);
            }
            each(topic, Seen { record, aborted: false });
            Ok(())
        })?;
        self.topics.read(Isolation::Uncommitted, &from, &to, |topic, record| {
            let aborted = !there.contains(&((topic.into(), record.partition), record.offset));
            if aborted {
                each(topic, Seen { record, aborted });
            }
            Ok(())
        })?;
        done(&self.finished(&last)?, &last, breaches);
        Ok(())
    }

    /// What the group has committed once all is done and nothing is written any more, or nothing has moved for
    /// a while: what a table's change has made due comes after the inputs.
    fn finished(&self, last: &Offsets) -> Result<Offsets> {
        let outputs = names(&self.outputs);
        let (mut seen, mut since) = (None, Instant::now());
        loop {
            let now = (self.group.committed(last.keys())?, self.topics.ends(&outputs)?);
            let behind = last.iter().any(|(at, last)| now.0.get(at).is_none_or(|next| next <= last));
            let patience = if behind { STALLED } else { QUIET };
            if seen.as_ref() != Some(&now) {
                (seen, since) = (Some(now), Instant::now());
            } else if since.elapsed() > patience {
                return Ok(now.0);
            }
            sleep(Duration::from_millis(300));
        }
    }

    /// Hands out the outputs of the run in order, and checks that whatever was seen meanwhile is among them.
    pub fn read_outputs(
        &self,
        breaches: &mut Breaches,
        mut each: impl FnMut(&str, Record, &mut Breaches),
    ) -> Result<()> {
        let to = self.topics.ends(names(&self.outputs))?;
        let mut sightings = self.sightings.lock().unwrap_or_else(PoisonError::into_inner);
        self.topics.read(Isolation::Committed, &self.outputs, &to, |topic, record| {
            if !sightings.confirm(topic, &record) {
                let place = format!("{topic} [{}] {}", record.partition, record.offset);
                breaches.add(Invariant::I5, "record seen before is another now", place);
            }
            each(topic, record, breaches);
            Ok(())
        })?;
        for ((topic, partition), end) in &to {
            for offset in sightings.vanished(topic, *partition, *end) {
                breaches.add(
                    Invariant::I5,
                    "record seen before is gone",
                    format!("{topic} [{partition}] {offset}"),
                );
            }
        }
        Ok(())
    }

    /// Hands out what was written to the changelog, in order.
    pub fn read_changelog(&self, mut each: impl FnMut(Record)) -> Result<()> {
        let to = self.topics.ends(names(&self.changelog))?;
        self.topics.read(Isolation::Committed, &self.changelog, &to, |_, record| {
            each(record);
            Ok(())
        })
    }
}

fn names(offsets: &Offsets) -> BTreeSet<Arc<str>> {
    offsets.keys().map(|(topic, _)| topic.clone()).collect()
}

/// Inputs that had to be refused, and the dead letters there are.
#[derive(Default)]
pub(super) struct Refusals {
    pub expected: BTreeSet<(At, i64)>,
    found: Vec<(At, i64)>,
}

impl Refusals {
    pub fn expect(&mut self, topic: &str, record: &Record) {
        self.expected.insert(((topic.into(), record.partition), record.offset));
    }

    /// Takes a dead letter; one that does not say where it is from is a breach.
    pub fn found(&mut self, topic: &str, letter: &Record, breaches: &mut Breaches) {
        match origin_of_letter(letter) {
            Some(origin) => self.found.push(origin),
            None => {
                let place = format!("{topic} [{}] {}", letter.partition, letter.offset);
                breaches.add(Invariant::I1, "dead letter without origin", place);
            }
        }
    }

    pub fn check(&self, breaches: &mut Breaches) {
        letters(&self.expected, &self.found, breaches);
    }
}
