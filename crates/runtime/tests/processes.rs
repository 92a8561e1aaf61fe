//! Kafka to Kafka in processes that are killed, frozen, started and stopped: every record's effect exactly once.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

mod kit;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use fhirehose_runtime::{Engine, Spec};
use fhirehose_stream::{
    Assigned, Batch, Fault, Outputs, Processor, Record, TopicPartition, Verdict, Verdicts,
};
use kit::copier::{Copier, assert_exactly_once, topic, value, write};
use kit::{Bench, number, spawn, spec};

/// Counts records per key class in a changelog; emits the running count. Restored wrongly, counts would repeat
/// or jump.
struct Counter {
    output: Arc<str>,
    changelog: Arc<str>,
    counts: BTreeMap<i32, u64>,
    staged: BTreeMap<i32, u64>,
    owned: Vec<i32>,
    nap: Duration,
}

impl Processor for Counter {
    fn process(&mut self, batch: &Batch, out: &mut Outputs) -> Result<Verdicts, Fault> {
        thread::sleep(self.nap);
        self.staged = self.counts.clone();
        let verdicts = batch.judge(|record| {
            let partition = record.partition();
            assert!(self.owned.contains(&partition), "a record of a partition that is not assigned");
            let count = self.staged.entry(partition).or_default();
            *count += 1;
            let text = count.to_string();
            out.to(&self.output, b"count")
                .partition(partition)
                .value(|bytes| write(bytes, text.as_bytes()))?;
            Ok(Verdict::Emit(1))
        })?;
        for (partition, count) in &self.staged {
            let (key, text) = (partition.to_string(), count.to_string());
            out.to(&self.changelog, key.as_bytes())
                .partition(*partition)
                .value(|bytes| write(bytes, text.as_bytes()))?;
        }
        Ok(verdicts)
    }

    fn committed(&mut self) {
        if !self.staged.is_empty() {
            self.counts = std::mem::take(&mut self.staged);
        }
    }

    fn aborted(&mut self) {
        self.staged.clear();
    }

    fn restore(&mut self, record: Record<'_>) -> Result<(), Fault> {
        self.counts.insert(record.partition(), value(record));
        Ok(())
    }

    fn assigned(&mut self, partitions: &[Assigned]) -> Result<(), Fault> {
        self.owned.extend(partitions.iter().map(|a| a.at.partition));
        Ok(())
    }

    fn revoked(&mut self, partitions: &[TopicPartition]) {
        for at in partitions {
            self.owned.retain(|owned| *owned != at.partition);
            self.counts.remove(&at.partition);
            self.staged.remove(&at.partition);
        }
    }
}

/// Not a test: the process that others stop, freeze and kill.
#[test]
#[ignore = "run by other tests, in a process of its own"]
fn child() {
    let var = |name: &str| std::env::var(name).unwrap();
    let mut config = kit::config(&var("T_BROKERS"));
    config.runtime.instance = var("T_INSTANCE");
    config.runtime.batch_max_records = 200;
    config.log.format = fhirehose_runtime::LogFormat::Text;
    fhirehose_runtime::init_logging(&config.log).unwrap();
    let mut spec = spec(&var("T_GROUP"), &var("T_IN"), &var("T_OUT"), &var("T_DLQ"));
    let output: Arc<str> = var("T_OUT").into();
    let nap = Duration::from_millis(20);
    let mut engine = Engine::new(Arc::new(config)).unwrap();
    match std::env::var("T_CHANGELOG") {
        Ok(changelog) => {
            let changelog: Arc<str> = changelog.into();
            spec.changelog = Some(changelog.clone());
            engine.transact(spec, move |_| {
                Ok(Box::new(Counter {
                    output: output.clone(),
                    changelog: changelog.clone(),
                    counts: BTreeMap::new(),
                    staged: BTreeMap::new(),
                    owned: Vec::new(),
                    nap,
                }))
            });
        }
        Err(_) => engine.transact(spec, move |_| {
            Ok(Box::new(Copier { output: output.clone(), reject: 100, nap, faults: Arc::default() }))
        }),
    }
    engine.run().unwrap();
}

struct Children<'b> {
    bench: &'b Bench,
    spec: Spec,
}

impl Children<'_> {
    fn spawn(&self, instance: &str, more: &[(&str, &str)]) -> kit::Guarded {
        let of = |name| topic(&self.spec, name);
        let (input, output, dead) = (of("in"), of("out"), of("dlq"));
        let mut variables = vec![
            ("T_BROKERS", self.bench.brokers.as_str()),
            ("T_INSTANCE", instance),
            ("T_GROUP", &self.spec.group),
            ("T_IN", &input),
            ("T_OUT", &output),
            ("T_DLQ", &dead),
        ];
        variables.extend_from_slice(more);
        spawn("child", &variables)
    }

    /// Waits until the output has grown by some records since the last look.
    fn progress(&self, seen: &mut usize) {
        let output = topic(&self.spec, "out");
        *seen = self.bench.await_count(&output, *seen + 1_000, Duration::from_secs(60));
    }
}

#[test]
fn killed_in_mid_load_nothing_is_missing_or_doubled() {
    let Some(mut bench) = Bench::new("kill") else { return };
    let spec = bench.copier(4);
    let output = topic(&spec, "out");
    bench.produce(&topic(&spec, "in"), 4, 0..30_000);
    let children = Children { bench: &bench, spec: spec.clone() };
    let mut seen = 0;
    for _ in 0..3 {
        let child = children.spawn("a", &[]);
        children.progress(&mut seen);
        child.kill();
        assert!(seen < 29_700, "it was done before it was killed: give it more to do");
    }
    let last = children.spawn("a", &[]);
    bench.await_count(&output, 29_700, Duration::from_secs(90));
    let took = last.stop();
    assert!(took < Duration::from_secs(10), "it stopped in {took:?}");
    assert_exactly_once(&bench, &output, 4, (0..30_000).filter(|n| n % 100 != 0));
    let mut dead = bench.numbers(&topic(&spec, "dlq"));
    dead.sort_unstable();
    assert_eq!(dead, (0..30_000).step_by(100).collect::<Vec<_>>());
}

#[test]
fn instances_come_and_go_and_nothing_is_missing_or_doubled() {
    let Some(mut bench) = Bench::new("rebalance") else { return };
    let spec = bench.copier(6);
    let output = topic(&spec, "out");
    bench.produce(&topic(&spec, "in"), 6, 0..40_000);
    let children = Children { bench: &bench, spec: spec.clone() };
    let mut seen = 0;
    let a = children.spawn("a", &[]);
    children.progress(&mut seen);
    let b = children.spawn("b", &[]);
    children.progress(&mut seen);
    thread::sleep(Duration::from_secs(4));
    a.stop();
    children.progress(&mut seen);
    let c = children.spawn("c", &[]);
    thread::sleep(Duration::from_secs(4));
    b.kill();
    bench.await_count(&output, 39_600, Duration::from_secs(90));
    c.stop();
    assert_exactly_once(&bench, &output, 6, (0..40_000).filter(|n| n % 100 != 0));
}

#[test]
fn a_frozen_worker_that_wakes_up_writes_nothing_more() {
    let Some(mut bench) = Bench::new("zombie") else { return };
    let spec = bench.copier(4);
    let output = topic(&spec, "out");
    bench.produce(&topic(&spec, "in"), 4, 0..40_000);
    let children = Children { bench: &bench, spec: spec.clone() };
    let mut seen = 0;
    let frozen = children.spawn("a", &[]);
    children.progress(&mut seen);
    frozen.signal("-STOP");
    assert!(seen < 20_000, "it was nearly done before it was frozen: give it more to do");
    // Longer than its session: its partitions go to the other.
    let other = children.spawn("b", &[]);
    thread::sleep(Duration::from_secs(12));
    children.progress(&mut seen);
    frozen.signal("-CONT");
    bench.await_count(&output, 39_600, Duration::from_secs(90));
    frozen.stop();
    other.stop();
    assert_exactly_once(&bench, &output, 4, (0..40_000).filter(|n| n % 100 != 0));
}

#[test]
fn state_in_a_changelog_survives_kills_and_moves() {
    let Some(mut bench) = Bench::new("state") else { return };
    let spec = bench.copier(4);
    let output = topic(&spec, "out");
    let changelog = bench.topic("changelog", 4, &[("cleanup.policy", "compact")]);
    bench.produce(&topic(&spec, "in"), 4, 0..30_000);
    let children = Children { bench: &bench, spec: spec.clone() };
    let more = [("T_CHANGELOG", changelog.as_str())];
    let mut seen = 0;
    let a = children.spawn("a", &more);
    children.progress(&mut seen);
    let b = children.spawn("b", &more);
    children.progress(&mut seen);
    thread::sleep(Duration::from_secs(3));
    a.kill();
    children.progress(&mut seen);
    let c = children.spawn("a", &more);
    bench.await_count(&output, 30_000, Duration::from_secs(90));
    b.stop();
    c.stop();
    let found = bench.read(&output);
    for partition in 0..4 {
        let counts: Vec<_> = found.iter().filter(|f| f.partition == partition).map(number).collect();
        assert_eq!(counts, (1..=7_500).collect::<Vec<_>>(), "partition {partition}");
    }
}
