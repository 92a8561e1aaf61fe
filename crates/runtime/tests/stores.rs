//! Kafka to a store on a real broker: the store's own offsets, Kafka's offsets, dead letters, unknown outcomes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

mod kit;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fhirehose_runtime::{Config, Engine, Spec, StartError, Stop};
use fhirehose_stream::{
    Batch, Fault, Interrupter, OffsetsIn, Reason, Record, Rejection, Sink, TopicPartition, Verdict, Verdicts,
};
use kit::{Bench, number};
use rdkafka::Offset;

/// A database: rows and epoch-fenced offsets, changed together or not at all.
#[derive(Default)]
struct Database {
    rows: Vec<u64>,
    offsets: BTreeMap<TopicPartition, (u64, i64)>,
    /// What the next commits do.
    commits: Vec<Commit>,
    /// Stages that fail before anything is written.
    outages: u32,
    claims: u32,
    unreachable: bool,
    /// Stages take until they are interrupted.
    stuck: bool,
    /// Ids of the topics, as last told.
    topics: HashMap<String, String>,
}

#[derive(Clone, Copy, PartialEq)]
enum Commit {
    /// The answer is lost; it took effect.
    LostAfter,
    /// The answer is lost; it had no effect.
    LostBefore,
}

#[derive(Clone)]
struct Table {
    database: Arc<Mutex<Database>>,
    kind: OffsetsIn,
    mine: BTreeMap<TopicPartition, (u64, i64)>,
    staged: Vec<u64>,
    next: BTreeMap<TopicPartition, i64>,
}

impl Table {
    fn new(database: &Arc<Mutex<Database>>, kind: OffsetsIn) -> Self {
        let database = database.clone();
        Table { database, kind, mine: BTreeMap::new(), staged: Vec::new(), next: BTreeMap::new() }
    }
}

impl Sink for Table {
    fn offsets_in(&self) -> OffsetsIn {
        self.kind
    }

    fn identify(&mut self, topics: HashMap<String, String>) {
        self.database.lock().unwrap().topics = topics;
    }

    fn claim(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<i64>>, Fault> {
        let mut database = self.database.lock().unwrap();
        database.claims += 1;
        if database.unreachable {
            return Err(Fault::transient("the database is down"));
        }
        if self.kind == OffsetsIn::Kafka {
            return Ok(vec![None; partitions.len()]);
        }
        let mut claims = Vec::new();
        for at in partitions {
            let found = database.offsets.get_mut(at).map(|(epoch, next)| {
                *epoch += 1;
                (*epoch, *next)
            });
            self.mine.extend(found.map(|mine| (at.clone(), mine)));
            claims.push(found.map(|(_, next)| next));
        }
        Ok(claims)
    }

    fn start(&mut self, partitions: &[(TopicPartition, i64)]) -> Result<(), Fault> {
        let mut database = self.database.lock().unwrap();
        for (at, next) in partitions {
            database.offsets.insert(at.clone(), (1, *next));
            self.mine.insert(at.clone(), (1, *next));
        }
        Ok(())
    }

    fn stage(&mut self, batch: &Batch) -> Result<Verdicts, Fault> {
        let mut database = self.database.lock().unwrap();
        if database.outages > 0 {
            database.outages -= 1;
            return Err(Fault::transient("the database is down"));
        }
        drop(database);
        if self.database.lock().unwrap().stuck {
            while self.database.lock().unwrap().stuck {
                thread::sleep(Duration::from_millis(10));
            }
            return Err(Fault::transient("the statement was cancelled"));
        }
        thread::sleep(Duration::from_millis(5));
        (self.staged, self.next) = (Vec::new(), BTreeMap::new());
        batch.judge(|record| {
            self.next.insert(record.at().clone(), record.offset() + 1);
            let n = value(record);
            if n.is_multiple_of(100) {
                return Ok(Rejection::new(Reason::StoreRejected, "a_column").into());
            }
            self.staged.push(n);
            Ok(Verdict::Emit(1))
        })
    }

    fn commit(&mut self) -> Result<(), Fault> {
        let mut database = self.database.lock().unwrap();
        let commit = database.commits.pop();
        if commit == Some(Commit::LostBefore) {
            return Err(Fault::transient("the connection broke"));
        }
        if self.kind == OffsetsIn::Store {
            // As the UPDATE with epoch and previous offset: all rows or none.
            for at in self.next.keys() {
                if database.offsets.get(at) != self.mine.get(at) {
                    return Err(Fault::fenced("another owner"));
                }
            }
            for (at, next) in std::mem::take(&mut self.next) {
                let mine = self.mine.get_mut(&at).unwrap();
                mine.1 = next;
                database.offsets.insert(at, *mine);
            }
        }
        database.rows.append(&mut self.staged);
        if commit == Some(Commit::LostAfter) {
            return Err(Fault::transient("the connection broke"));
        }
        Ok(())
    }

    fn rollback(&mut self) {
        self.staged.clear();
        self.next.clear();
    }

    fn interrupter(&self) -> Option<Interrupter> {
        let database = self.database.clone();
        Some(Box::new(move || {
            database.lock().unwrap().stuck = false;
            Ok(())
        }))
    }
}

fn value(record: Record<'_>) -> u64 {
    std::str::from_utf8(record.value().unwrap()).unwrap().parse().unwrap()
}

type Running = (Stop, JoinHandle<Result<(), StartError>>);

fn start(config: Config, spec: Spec, database: &Arc<Mutex<Database>>, kind: OffsetsIn) -> Running {
    let mut engine = Engine::new(Arc::new(config)).unwrap();
    let database = database.clone();
    engine.store(spec, move |_| Ok(Box::new(Table::new(&database, kind))));
    let stop = engine.stop();
    (stop, thread::spawn(move || engine.run()))
}

fn end((stop, engine): Running) {
    stop.request();
    engine.join().unwrap().unwrap();
}

fn await_rows(database: &Arc<Mutex<Database>>, count: usize) {
    let until = Instant::now() + Duration::from_secs(60);
    while database.lock().unwrap().rows.len() < count && Instant::now() < until {
        thread::sleep(Duration::from_millis(50));
    }
}

fn sorted(mut numbers: Vec<u64>) -> Vec<u64> {
    numbers.sort_unstable();
    numbers
}

fn good(count: u64) -> Vec<u64> {
    (0..count).filter(|n| n % 100 != 0).collect()
}

fn bad(count: u64) -> Vec<u64> {
    (0..count).step_by(100).collect()
}

#[test]
fn rows_and_dead_letters_are_written_once_whatever_a_commit_answers() {
    let Some(mut bench) = Bench::new("store") else { return };
    let spec = bench.copier(4);
    bench.produce(&format!("{}-in", spec.group), 4, 0..10_000);
    let database = Arc::new(Mutex::new(Database::default()));
    database.lock().unwrap().commits = vec![
        Commit::LostBefore,
        Commit::LostAfter,
        Commit::LostAfter,
        Commit::LostBefore,
        Commit::LostBefore,
    ];
    database.lock().unwrap().outages = 3;
    let engine = start(bench.config(), spec.clone(), &database, OffsetsIn::Store);
    await_rows(&database, 9_900);
    end(engine);
    let found = database.lock().unwrap();
    assert!(found.commits.is_empty() && found.outages == 0 && found.claims >= 6, "{} claims", found.claims);
    assert_eq!(sorted(found.rows.clone()), good(10_000));
    assert_eq!(sorted(bench.numbers(&format!("{}-dlq", spec.group))), bad(10_000));
}

#[test]
fn two_owners_share_a_store_and_each_record_is_one_row() {
    let Some(mut bench) = Bench::new("owners") else { return };
    let spec = bench.copier(6);
    bench.produce(&format!("{}-in", spec.group), 6, 0..30_000);
    let database = Arc::new(Mutex::new(Database::default()));
    let config = |instance: &str| {
        let mut config = bench.config();
        config.runtime.instance = instance.into();
        config.runtime.batch_max_records = 100;
        config
    };
    let a = start(config("a"), spec.clone(), &database, OffsetsIn::Store);
    await_rows(&database, 1_000);
    let b = start(config("b"), spec.clone(), &database, OffsetsIn::Store);
    thread::sleep(Duration::from_secs(3));
    end(a);
    let c = start(config("a"), spec.clone(), &database, OffsetsIn::Store);
    await_rows(&database, 29_700);
    end(b);
    end(c);
    assert_eq!(sorted(database.lock().unwrap().rows.clone()), good(30_000));
    assert_eq!(sorted(bench.numbers(&format!("{}-dlq", spec.group))), bad(30_000));
}

#[test]
fn with_offsets_in_kafka_nothing_is_missing_and_dead_letters_are_written_once() {
    let Some(mut bench) = Bench::new("kafka") else { return };
    let spec = bench.copier(3);
    bench.produce(&format!("{}-in", spec.group), 3, 0..6_000);
    let database = Arc::new(Mutex::new(Database::default()));
    database.lock().unwrap().commits = vec![Commit::LostAfter, Commit::LostBefore];
    let engine = start(bench.config(), spec.clone(), &database, OffsetsIn::Kafka);
    await_rows(&database, 5_940);
    thread::sleep(Duration::from_secs(1));
    end(engine);
    let mut rows = sorted(database.lock().unwrap().rows.clone());
    // Writes are guarded by version in such a store: repeating them is harmless, losing them is not.
    rows.dedup();
    assert_eq!(rows, good(6_000));
    assert_eq!(sorted(bench.numbers(&format!("{}-dlq", spec.group))), bad(6_000));
    // It goes on where it ended.
    let again = start(bench.config(), spec.clone(), &database, OffsetsIn::Kafka);
    bench.produce(&format!("{}-in", spec.group), 3, 6_000..6_001);
    thread::sleep(Duration::from_secs(5));
    end(again);
    let letters = bench.read(&format!("{}-dlq", spec.group));
    assert_eq!(letters.iter().map(number).filter(|n| *n == 6_000).count(), 1);
    assert_eq!(letters.len(), 61);
}

#[test]
fn a_store_that_is_down_at_start_is_waited_for_within_the_group() {
    let Some(mut bench) = Bench::new("down") else { return };
    let spec = bench.copier(2);
    bench.produce(&format!("{}-in", spec.group), 2, 0..1_000);
    let database = Arc::new(Mutex::new(Database::default()));
    database.lock().unwrap().unreachable = true;
    let engine = start(bench.config(), spec.clone(), &database, OffsetsIn::Store);
    thread::sleep(Duration::from_secs(6));
    assert!(database.lock().unwrap().rows.is_empty() && !engine.1.is_finished());
    database.lock().unwrap().unreachable = false;
    await_rows(&database, 990);
    end(engine);
    assert_eq!(sorted(database.lock().unwrap().rows.clone()), good(1_000));
    assert_eq!(sorted(bench.numbers(&format!("{}-dlq", spec.group))), bad(1_000));
}

#[test]
fn a_batch_that_takes_too_long_is_given_up_at_a_stop() {
    let Some(mut bench) = Bench::new("stuck") else { return };
    let spec = bench.copier(2);
    bench.produce(&format!("{}-in", spec.group), 2, 0..1_000);
    let database = Arc::new(Mutex::new(Database { stuck: true, ..Database::default() }));
    let engine = start(bench.config(), spec.clone(), &database, OffsetsIn::Store);
    let until = Instant::now() + Duration::from_secs(60);
    while database.lock().unwrap().offsets.len() < 2 && Instant::now() < until {
        thread::sleep(Duration::from_millis(50));
    }
    thread::sleep(Duration::from_secs(2));
    // Without an error: `end` asks for that.
    end(engine);
    assert!(database.lock().unwrap().rows.is_empty());
    let engine = start(bench.config(), spec.clone(), &database, OffsetsIn::Store);
    await_rows(&database, 990);
    end(engine);
    assert_eq!(sorted(database.lock().unwrap().rows.clone()), good(1_000));
}

#[test]
fn a_topic_made_anew_is_told_by_its_id() {
    let Some(mut bench) = Bench::new("anew") else { return };
    let spec = bench.copier(2);
    let input = format!("{}-in", spec.group);
    let told = |bench: &Bench| {
        bench.produce(&input, 2, 1..51);
        let database = Arc::new(Mutex::new(Database::default()));
        let engine = start(bench.config(), spec.clone(), &database, OffsetsIn::Store);
        await_rows(&database, 50);
        end(engine);
        let database = database.lock().unwrap();
        assert_eq!(database.rows.len(), 50);
        assert_eq!(database.topics.len(), 1, "{:?}", database.topics);
        database.topics[&input].clone()
    };
    let first = told(&bench);
    bench.recreate(&input, 2);
    let second = told(&bench);
    assert!(first.len() >= 22 && second.len() >= 22 && first != second, "{first} {second}");
}

#[test]
fn retention_of_a_quiet_topic_that_was_stored_is_no_loss() {
    let Some(mut bench) = Bench::new("quiet") else { return };
    let spec = bench.copier(2);
    let input = format!("{}-in", spec.group);
    bench.produce_in_transaction(&input, 2, 0..100);
    let database = Arc::new(Mutex::new(Database::default()));
    let engine = start(bench.config(), spec.clone(), &database, OffsetsIn::Store);
    await_rows(&database, 99);
    thread::sleep(Duration::from_secs(8));
    end(engine);
    bench.delete_all(&input, 2);
    let mut config = bench.config();
    config.runtime.start_from = None;
    let engine = start(config, spec.clone(), &database, OffsetsIn::Store);
    bench.produce_in_transaction(&input, 2, 100..110);
    await_rows(&database, 108);
    end(engine);
    assert_eq!(sorted(database.lock().unwrap().rows.clone()), good(110));
}

/// Kafka is told of the lag every few seconds; a letter waits until that was answered.
#[test]
fn a_letter_goes_out_after_the_lag_was_told() {
    let Some(mut bench) = Bench::new("hinted") else { return };
    let spec = bench.copier(1);
    let input = format!("{}-in", spec.group);
    let database = Arc::new(Mutex::new(Database::default()));
    let engine = start(bench.config(), spec.clone(), &database, OffsetsIn::Store);
    // Hundreds are bad: none at first.
    bench.produce(&input, 1, 1..100);
    await_rows(&database, 99);
    thread::sleep(Duration::from_secs(6));
    bench.produce(&input, 1, 100..200);
    await_rows(&database, 198);
    end(engine);
    assert_eq!(
        sorted(database.lock().unwrap().rows.clone()),
        (1..200).filter(|n| n % 100 != 0).collect::<Vec<_>>()
    );
    assert_eq!(bench.numbers(&format!("{}-dlq", spec.group)), [100]);
}

#[test]
fn a_store_restored_from_an_old_backup_reads_all_that_is_kept() {
    let Some(mut bench) = Bench::new("restored") else { return };
    let spec = bench.copier(1);
    let input = format!("{}-in", spec.group);
    bench.produce(&input, 1, 0..500);
    let database = Arc::new(Mutex::new(Database::default()));
    let engine = start(bench.config(), spec.clone(), &database, OffsetsIn::Store);
    await_rows(&database, 495);
    end(engine);
    {
        let mut database = database.lock().unwrap();
        database.rows.retain(|n| *n < 50);
        database.offsets.values_mut().for_each(|(_, next)| *next = 50);
    }
    bench.delete_before(&input, 1, Offset::Offset(200));
    let mut config = bench.config();
    config.runtime.start_from = None;
    let engine = start(config, spec.clone(), &database, OffsetsIn::Store);
    await_rows(&database, 49 + 297);
    end(engine);
    let kept = good(500).into_iter().filter(|n| !(50..200).contains(n));
    assert_eq!(sorted(database.lock().unwrap().rows.clone()), kept.collect::<Vec<_>>());
    assert_eq!(sorted(bench.numbers(&format!("{}-dlq", spec.group))), bad(500));
}

#[test]
fn a_store_that_was_emptied_is_not_filled_from_the_middle() {
    let Some(mut bench) = Bench::new("emptied") else { return };
    let spec = bench.copier(1);
    bench.produce(&format!("{}-in", spec.group), 1, 0..500);
    let database = Arc::new(Mutex::new(Database::default()));
    let engine = start(bench.config(), spec.clone(), &database, OffsetsIn::Store);
    await_rows(&database, 495);
    end(engine);
    *database.lock().unwrap() = Database::default();
    let mut config = bench.config();
    config.runtime.start_from = None;
    let (_, engine) = start(config, spec.clone(), &database, OffsetsIn::Store);
    let error = engine.join().unwrap().unwrap_err().to_string();
    assert!(error.contains("--start-from") && error.contains("store"), "{error}");
    // Said where to begin, it is filled again; what was dead-lettered once is not again.
    let engine = start(bench.config(), spec.clone(), &database, OffsetsIn::Store);
    await_rows(&database, 495);
    end(engine);
    assert_eq!(sorted(database.lock().unwrap().rows.clone()), good(500));
    assert_eq!(sorted(bench.numbers(&format!("{}-dlq", spec.group))), bad(500));
}
