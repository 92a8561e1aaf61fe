//! What flows into stores share: a run whose inputs are read back and judged one by one, against tables in
//! PostgreSQL and dead letters in Kafka.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use postgres::{Client, IsolationLevel};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::flow::{Begin, Halt, Run};
use crate::ledger::load::{Input, Pace, Producer};
use crate::ledger::postgres as store;
use crate::ledger::state::{Books, Entry, Want, letters, print};
use crate::ledger::topics::{Group, Isolation, Offsets, Record, Tail, Topics};
use crate::ledger::{Breaches, Invariant, Violation};
use crate::world::World;

pub const SOURCE_TS: &str = "fhirehose-source-ts";
pub const VERSION: &str = "fhirehose-version";
/// The product's `runtime.record_max_bytes`: what is larger is rejected.
pub const RECORD_MAX_BYTES: usize = 1_000_000;
/// More than that, and less than a topic takes that says nothing of it.
pub const TOO_LARGE: usize = 1_010_000;
/// An id that no registry has given.
pub const UNKNOWN_SCHEMA: u32 = 0x7fff_ff01;

/// Letters and digits that do not compress.
pub fn long_text(random: &mut ChaCha8Rng, length: usize) -> String {
    (0..length).map(|_| char::from(random.sample(rand::distr::Alphanumeric))).collect()
}

/// What a dead letter must have in common with its record.
pub fn letter_print(record: &Record) -> u64 {
    print(&(&record.key, &record.value))
}

pub fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

pub fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says from an input's topic and bytes what the store must do with it.
pub type Judge = Box<dyn Fn(&str, &Record) -> Want + Send + Sync>;

/// The inputs of a run as they are read back from Kafka, and the dead letters of its group.
pub struct Inbox {
    world: World,
    group: &'static str,
    starts: Offsets,
    letters_from: Offsets,
    judge: Judge,
    tail: Mutex<Tail>,
    pub books: Mutex<Books>,
}

impl Inbox {
    /// Puts the group where the run begins; `idle` are inputs that the run does not write.
    pub fn open(
        world: &World,
        run: &Run,
        group: &'static str,
        inputs: &[&str],
        idle: &[&str],
        tables: usize,
        judge: Judge,
    ) -> Result<Inbox> {
        let topics = Topics::connect(world)?;
        let starts = topics.ends(inputs)?;
        if run.begin == Begin::AtEnds {
            let mut ends = topics.ends(idle)?;
            ends.extend(starts.clone());
            Group::connect(world, group)?.set(&ends)?;
        }
        let names = topics.names()?;
        let dead: Vec<String> = inputs.iter().map(|topic| dead_letters(topic, group)).collect();
        let letters_from = topics.ends(dead.iter().filter(|topic| names.contains(topic)))?;
        Ok(Inbox {
            world: world.clone(),
            group,
            letters_from,
            judge,
            tail: Mutex::new(Tail::begin(world, &starts)?),
            books: Mutex::new(Books::begin(&starts, tables)),
            starts,
        })
    }

    /// Where the run's inputs begin.
    pub fn starts(&self) -> &Offsets {
        &self.starts
    }

    /// Takes in what has arrived, up to these offsets if it is there.
    pub fn follow(&self, books: &mut Books, to: &Offsets) {
        let tail = locked(&self.tail);
        let behind =
            |books: &Books| books.read().iter().any(|(at, read)| to.get(at).is_some_and(|to| read < to));
        for _ in 0..10 {
            tail.arrived(|topic, record| self.add(books, topic, &record));
            if !behind(books) {
                return;
            }
        }
    }

    fn add(&self, books: &mut Books, topic: &str, record: &Record) {
        let want = (self.judge)(topic, record);
        books.add(&(topic.into(), record.partition), Entry { offset: record.offset, want });
    }

    /// Takes in all inputs; answers their ends.
    pub fn finish(&self, books: &mut Books) -> Result<Offsets> {
        let topics = Topics::connect(&self.world)?;
        let names: std::collections::BTreeSet<&str> = self.starts.keys().map(|(topic, _)| &**topic).collect();
        let mut ends = topics.ends(names)?;
        // Partitions that were added meanwhile hold nothing: the run writes to those it knows.
        ends.retain(|at, _| self.starts.contains_key(at));
        topics.read(Isolation::Committed, &books.read(), &ends, |topic, record| {
            self.add(books, topic, &record);
            Ok(())
        })?;
        ends.iter().for_each(|(at, end)| books.read_to(at, *end));
        Ok(ends)
    }

    /// The dead letters written since the run began, against the rejects among its inputs.
    pub fn check_letters(&self, books: &Books, found: &mut Breaches) -> Result<()> {
        let topics = Topics::connect(&self.world)?;
        let names: std::collections::BTreeSet<&str> = self.starts.keys().map(|(topic, _)| &**topic).collect();
        let known = topics.names()?;
        let dead = names.into_iter().map(|topic| dead_letters(topic, self.group));
        let ends = topics.ends(dead.filter(|topic| known.contains(topic)))?;
        let mut read = Vec::new();
        topics.read(Isolation::Committed, &self.letters_from, &ends, |_, letter| {
            let header = |name| letter.header(name).with_context(|| format!("a dead letter without {name}"));
            let topic = header("fhirehose-dlq-source-topic")?.into();
            let partition = header("fhirehose-dlq-source-partition")?.parse()?;
            let offset = header("fhirehose-dlq-source-offset")?.parse()?;
            read.push((((topic, partition), offset), letter_print(&letter)));
            Ok(())
        })?;
        letters(&books.rejects(), &read, found);
        Ok(())
    }
}

fn dead_letters(topic: &str, group: &str) -> String {
    format!("{topic}.{group}.dlq")
}

/// Every partition at its end, or not everything was read.
pub fn at_ends(offsets: &Offsets, ends: &Offsets, found: &mut Breaches) {
    for (at, end) in ends.iter().filter(|(at, end)| offsets.get(*at) != Some(end)) {
        let reached = offsets.get(at).map_or("nowhere".to_owned(), i64::to_string);
        found.add(Invariant::I1, "not read to the end", format!("{} [{}] at {reached} of {end}", at.0, at.1));
    }
}

/// Offsets by `topic/partition`.
pub fn by_name(offsets: Offsets) -> BTreeMap<String, i64> {
    offsets.into_iter().map(|((topic, partition), at)| (format!("{topic}/{partition}"), at)).collect()
}

/// Writes what `next` makes at the run's rate until told to stop.
pub fn load(world: &World, run: &Run, stop: &Halt, mut next: impl FnMut() -> Input) -> Result<u64> {
    let producer = Producer::connect(world)?;
    let mut pace = Pace::new(run.rate);
    while pace.next(stop) {
        producer.send(&next())?;
        pace.wrote(1);
    }
    producer.finish()
}

/// A table as the books number it.
pub struct Table {
    pub name: &'static str,
    /// The table, and which of its rows count.
    pub from: &'static str,
    /// Key, version and values of all rows of the tenant `$1`.
    pub rows: String,
}

/// A run into tables of PostgreSQL, whose rows carry the run's tag as their tenant.
pub struct PostgresRun {
    pub inbox: Inbox,
    pub tenant: String,
    url: String,
    tables: Vec<Table>,
    watching: Mutex<Option<Client>>,
    asking: Mutex<Option<Client>>,
}

/// Looks for more than rows and offsets, in the same snapshot.
pub type Also<'a> = &'a dyn Fn(&mut postgres::Transaction<'_>, &Books, &mut Breaches) -> Result<()>;

impl PostgresRun {
    pub fn open(
        inbox: Inbox,
        world: &World,
        run: &Run,
        idle: &[&str],
        tables: Vec<Table>,
    ) -> Result<PostgresRun> {
        let mut client = store::connect(&world.postgres)?;
        if run.begin == Begin::AtEnds {
            let mut ends = Topics::connect(world)?.ends(idle)?;
            ends.extend(inbox.starts().clone());
            store::put_offsets(&mut client, inbox.group, &ends)?;
        }
        store::note_steps_back(&mut client)?;
        Ok(PostgresRun {
            inbox,
            tenant: run.tag.clone(),
            url: world.postgres.clone(),
            tables,
            watching: Mutex::new(None),
            asking: Mutex::new(Some(client)),
        })
    }

    /// Runs something on a kept connection in one snapshot; after an error the next begins with a new one.
    fn snapshot<T>(
        &self,
        kept: &Mutex<Option<Client>>,
        run: impl FnOnce(&mut postgres::Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut kept = locked(kept);
        let mut client = match kept.take() {
            Some(client) if !client.is_closed() => client,
            _ => store::connect(&self.url)?,
        };
        let begun = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead);
        let mut transaction = begun.read_only(true).start()?;
        let result = run(&mut transaction)?;
        transaction.commit()?;
        *kept = Some(client);
        Ok(result)
    }

    fn offsets(&self, transaction: &mut postgres::Transaction<'_>) -> Result<Offsets> {
        let mut offsets = store::offsets(transaction, self.inbox.group)?;
        offsets.retain(|at, _| self.inbox.starts.contains_key(at));
        Ok(offsets)
    }

    pub fn progress(&self) -> Result<BTreeMap<String, i64>> {
        Ok(by_name(self.snapshot(&self.asking, |transaction| self.offsets(transaction))?))
    }

    /// I4: in one snapshot the rows are those of exactly the inputs before the offsets. Totals tell, and only
    /// where they differ every row is read.
    pub fn watch(&self, also: Also<'_>) -> Vec<Violation> {
        let mut found = Breaches::default();
        let looked = self.snapshot(&self.watching, |transaction| {
            let offsets = self.offsets(transaction)?;
            let mut books = locked(&self.inbox.books);
            self.inbox.follow(&mut books, &offsets);
            books.gone_back(&offsets, &mut found);
            if !books.fold_to(&offsets, |_, _| {}) {
                return Ok(());
            }
            for (at, table) in self.tables.iter().enumerate() {
                if store::totals(transaction, table.from, &self.tenant)? != books.totals(at) {
                    let rows = store::rows(transaction, &table.rows, &self.tenant)?;
                    books.differences(at, table.name, rows, Some(Invariant::I4), &mut found);
                }
            }
            also(transaction, &books, &mut found)
        });
        // A server that cannot be asked is no breach; what was seen before is.
        drop(looked);
        found.into_vec()
    }

    pub fn check(&self, also: Also<'_>) -> Result<Vec<Violation>> {
        let mut found = Breaches::default();
        let mut books = locked(&self.inbox.books);
        let ends = self.inbox.finish(&mut books)?;
        self.snapshot(&self.asking, |transaction| {
            at_ends(&self.offsets(transaction)?, &ends, &mut found);
            for step in store::steps_back(transaction, self.inbox.group)? {
                found.add(Invariant::I9, "an offset in the store moved back", step);
            }
            books.fold_to(&ends, |_, _| {});
            for (at, table) in self.tables.iter().enumerate() {
                let rows = store::rows(transaction, &table.rows, &self.tenant)?;
                books.differences(at, table.name, rows, None, &mut found);
            }
            also(transaction, &books, &mut found)
        })?;
        self.inbox.check_letters(&books, &mut found)?;
        Ok(found.into_vec())
    }
}
