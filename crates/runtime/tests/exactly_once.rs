//! Kafka to Kafka on a real broker, with things breaking: every record's effect exactly once.
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
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fhirehose_stream::{Batch, Fault, Outputs, Processor, Reason, Record, TopicPartition, Verdict, Verdicts};
use kit::copier::{Copier, assert_exactly_once, copier, start, topic, value, write};
use kit::{Bench, number, spec};

#[test]
fn every_record_is_copied_once_and_rejects_are_dead_letters() {
    let Some(mut bench) = Bench::new("copy") else { return };
    let spec = bench.copier(4);
    let (input, output) = (topic(&spec, "in"), topic(&spec, "out"));
    bench.produce(&input, 4, 0..20_000);
    let mut config = bench.config();
    config.runtime.workers = 2;
    let (stop, engine) = start(config, spec.clone(), copier(&output, 1_000));
    assert_eq!(bench.await_count(&output, 19_980, Duration::from_secs(60)), 19_980);
    let asked = Instant::now();
    stop.request();
    engine.join().unwrap().unwrap();
    assert!(asked.elapsed() < Duration::from_secs(10), "it stopped in {:?}", asked.elapsed());
    assert_exactly_once(&bench, &output, 4, (0..20_000).filter(|n| n % 1_000 != 0));

    let letters = bench.read(&topic(&spec, "dlq"));
    let mut dead: Vec<_> = letters.iter().map(number).collect();
    dead.sort_unstable();
    assert_eq!(dead, (0..20_000).step_by(1_000).collect::<Vec<_>>());
    let original = bench.read(&input);
    for letter in &letters {
        let header = |name: &str| String::from_utf8(letter.headers[name].clone()).unwrap();
        assert_eq!(header("fhirehose-dlq-reason"), "unknown_code");
        assert_eq!(header("fhirehose-dlq-source-topic"), input);
        let (partition, offset) =
            (header("fhirehose-dlq-source-partition"), header("fhirehose-dlq-source-offset"));
        let source = original
            .iter()
            .find(|o| o.partition.to_string() == partition && o.offset.to_string() == offset)
            .unwrap();
        assert_eq!(
            (&source.key, &source.value, source.timestamp_ms),
            (&letter.key, &letter.value, letter.timestamp_ms)
        );
    }
}

#[test]
fn what_a_fault_undid_is_never_seen() {
    let Some(mut bench) = Bench::new("fault") else { return };
    let spec = bench.copier(1);
    let (input, output) = (topic(&spec, "in"), topic(&spec, "out"));
    bench.produce(&input, 1, 0..2_000);
    let faults = Arc::new(AtomicU32::new(4));
    let make = {
        let (output, faults): (Arc<str>, _) = (output.as_str().into(), faults.clone());
        move || -> Box<dyn Processor> {
            Box::new(Copier {
                output: output.clone(),
                reject: 0,
                nap: Duration::ZERO,
                faults: faults.clone(),
            })
        }
    };
    let (stop, engine) = start(bench.config(), spec.clone(), make);
    bench.await_count(&output, 2_000, Duration::from_secs(30));
    stop.request();
    engine.join().unwrap().unwrap();
    assert_eq!(faults.load(Ordering::SeqCst), 0, "every fault was met");
    assert_exactly_once(&bench, &output, 1, 0..2_000);
}

#[test]
fn commits_whose_outcome_is_unknown_are_looked_up() {
    let Some(mut bench) = Bench::new("unknown") else { return };
    let spec = bench.copier(2);
    let (input, output) = (topic(&spec, "in"), topic(&spec, "out"));
    bench.produce(&input, 2, 0..4_000);
    let mut config = bench.config();
    config.runtime.batch_max_records = 400;
    // Too short for an answer on a busy machine: librdkafka gives up while its request is under way.
    config.runtime.commit_timeout_ms = 1;
    let idle = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let busy: Vec<_> = (0..8)
        .map(|_| {
            let idle = idle.clone();
            thread::spawn(move || while !idle.load(Ordering::Relaxed) {})
        })
        .collect();
    let address = free_address();
    config.admin.listen = address;
    let (stop, engine) = start(config, spec.clone(), copier(&output, 0));
    bench.await_count(&output, 4_000, Duration::from_secs(90));
    let metrics = http(address, "GET", "/metrics").1;
    stop.request();
    engine.join().unwrap().unwrap();
    idle.store(true, Ordering::Relaxed);
    busy.into_iter().for_each(|thread| thread.join().unwrap());
    let line = metrics.lines().find(|line| line.starts_with("fhirehose_unknown_commits_total"));
    assert!(line.is_some_and(|line| !line.ends_with(" 0")), "no commit was left without an answer");
    assert_exactly_once(&bench, &output, 2, 0..4_000);
}

#[test]
fn two_processes_under_one_name_hinder_each_other_and_write_nothing_twice() {
    let Some(mut bench) = Bench::new("name") else { return };
    let spec = bench.copier(2);
    let (input, output) = (topic(&spec, "in"), topic(&spec, "out"));
    let mut config = bench.config();
    config.runtime.instance = "same".into();
    config.runtime.batch_max_records = 50;
    let one = start(config.clone(), spec.clone(), copier(&output, 0));
    let other = start(config, spec.clone(), copier(&output, 0));
    thread::sleep(Duration::from_secs(4));
    for part in 0..10 {
        bench.produce(&input, 2, part * 100..(part + 1) * 100);
        thread::sleep(Duration::from_millis(100));
    }
    bench.await_count(&output, 1_000, Duration::from_secs(60));
    for (stop, engine) in [one, other] {
        stop.request();
        engine.join().unwrap().unwrap();
    }
    assert_exactly_once(&bench, &output, 2, 0..1_000);
}

#[test]
fn a_group_without_a_past_refuses_to_guess() {
    let Some(mut bench) = Bench::new("start") else { return };
    let spec = bench.copier(1);
    let (input, output) = (topic(&spec, "in"), topic(&spec, "out"));
    bench.produce(&input, 1, 0..10);
    let mut config = bench.config();
    config.runtime.start_from = None;
    let (_, engine) = start(config.clone(), spec.clone(), copier(&output, 0));
    let error = engine.join().unwrap().unwrap_err().to_string();
    assert!(error.contains("--start-from") && error.contains(&input), "{error}");
    // With a word it starts; from then on it needs none.
    config.runtime.start_from = Some(fhirehose_runtime::StartFrom::Latest);
    let (stop, engine) = start(config.clone(), spec.clone(), copier(&output, 0));
    thread::sleep(Duration::from_secs(4));
    stop.request();
    engine.join().unwrap().unwrap();
    bench.produce(&input, 1, 10..20);
    config.runtime.start_from = None;
    let (stop, engine) = start(config, spec.clone(), copier(&output, 0));
    bench.await_count(&output, 10, Duration::from_secs(30));
    stop.request();
    engine.join().unwrap().unwrap();
    assert_eq!(bench.numbers(&output), (10..20).collect::<Vec<_>>());
}

#[test]
fn without_a_broker_it_waits_and_can_be_stopped() {
    let config = kit::config("127.0.0.1:9");
    let (stop, engine) = start(config, spec("nobody", "in", "out", "dlq"), copier("out", 0));
    thread::sleep(Duration::from_secs(2));
    assert!(!engine.is_finished(), "a broker that is down is no reason to give up");
    let asked = Instant::now();
    stop.request();
    engine.join().unwrap().unwrap();
    assert!(asked.elapsed() < Duration::from_secs(10), "it stopped in {:?}", asked.elapsed());
}

#[test]
fn retention_of_a_quiet_topic_that_was_read_is_no_loss() {
    let Some(mut bench) = Bench::new("quiet") else { return };
    let spec = bench.copier(2);
    let (input, output) = (topic(&spec, "in"), topic(&spec, "out"));
    bench.produce_in_transaction(&input, 2, 0..100);
    let (stop, engine) = start(bench.config(), spec.clone(), copier(&output, 0));
    bench.await_count(&output, 100, Duration::from_secs(30));
    thread::sleep(Duration::from_secs(8));
    stop.request();
    engine.join().unwrap().unwrap();
    // The end is behind a marker; the next offset to read must be there too.
    bench.delete_all(&input, 2);
    let mut config = bench.config();
    config.runtime.start_from = None;
    let (stop, engine) = start(config, spec.clone(), copier(&output, 0));
    bench.produce_in_transaction(&input, 2, 100..110);
    bench.await_count(&output, 110, Duration::from_secs(30));
    stop.request();
    engine.join().unwrap().unwrap();
    assert_exactly_once(&bench, &output, 2, 0..110);
}

#[test]
fn records_deleted_unread_are_not_passed_over() {
    let Some(mut bench) = Bench::new("deleted") else { return };
    let spec = bench.copier(1);
    let (input, output) = (topic(&spec, "in"), topic(&spec, "out"));
    bench.produce(&input, 1, 0..10);
    let (stop, engine) = start(bench.config(), spec.clone(), copier(&output, 0));
    bench.await_count(&output, 10, Duration::from_secs(30));
    stop.request();
    engine.join().unwrap().unwrap();
    bench.produce(&input, 1, 10..20);
    bench.delete_all(&input, 1);
    let (_, engine) = start(bench.config(), spec.clone(), copier(&output, 0));
    let error = engine.join().unwrap().unwrap_err().to_string();
    assert!(error.contains(&input) && error.contains("deleted unread"), "{error}");
}

#[test]
fn missing_topics_are_named() {
    let Some(mut bench) = Bench::new("missing") else { return };
    let mut spec = bench.copier(1);
    spec.outputs.push("t-runtime-not-there".into());
    let (_, engine) = start(bench.config(), spec, copier("x", 0));
    let error = engine.join().unwrap().unwrap_err().to_string();
    assert!(error.contains("t-runtime-not-there") && error.contains("topics apply"), "{error}");
}

#[test]
fn an_output_that_is_too_large_is_a_reject_and_the_rest_flows() {
    struct Blower(Arc<str>);
    impl Processor for Blower {
        fn process(&mut self, batch: &Batch, out: &mut Outputs) -> Result<Verdicts, Fault> {
            batch.judge(|record| {
                let large = value(record) == 7;
                out.to(&self.0, record.key().unwrap_or_default()).value(|bytes| {
                    bytes.extend_from_slice(record.value().unwrap_or_default());
                    bytes.resize(if large { 1_500_000 } else { bytes.len() }, b' ');
                    Ok::<_, Fault>(())
                })?;
                Ok(Verdict::Emit(1))
            })
        }
    }
    let Some(mut bench) = Bench::new("large") else { return };
    let spec = bench.copier(1);
    let (input, output) = (topic(&spec, "in"), topic(&spec, "out"));
    bench.produce(&input, 1, 0..50);
    let out: Arc<str> = output.as_str().into();
    let (stop, engine) = start(bench.config(), spec.clone(), move || Box::new(Blower(out.clone())));
    bench.await_count(&output, 49, Duration::from_secs(30));
    stop.request();
    engine.join().unwrap().unwrap();
    assert_exactly_once(&bench, &output, 1, (0..50).filter(|n| *n != 7));
    let letters = bench.read(&topic(&spec, "dlq"));
    assert_eq!(letters.len(), 1);
    assert_eq!((number(&letters[0]), &*letters[0].headers["fhirehose-dlq-reason"]), (7, &b"too_large"[..]));
}

/// Keeps records until the table knows their key, then lets them out.
struct Waiter {
    output: Arc<str>,
    changelog: Arc<str>,
    known: Vec<Vec<u8>>,
    waiting: BTreeMap<Vec<u8>, i32>,
    staged: Vec<(Vec<u8>, Option<i32>)>,
}

impl Waiter {
    fn stage(&mut self, key: &[u8], partition: i32, keep: bool, out: &mut Outputs) {
        let to = out.to(&self.changelog, key).partition(partition);
        match keep {
            true => to.value(|bytes| write(bytes, b"waits")).unwrap(),
            false => to.tombstone(),
        }
        self.staged.push((key.to_vec(), keep.then_some(partition)));
    }

    fn emit(&self, key: &[u8], partition: i32, out: &mut Outputs) {
        let number = &key[1..];
        out.to(&self.output, key).partition(partition).value(|bytes| write(bytes, number)).unwrap();
    }
}

impl Processor for Waiter {
    fn process(&mut self, batch: &Batch, out: &mut Outputs) -> Result<Verdicts, Fault> {
        batch.judge(|record| {
            let key = record.key().unwrap().to_vec();
            if self.known.contains(&key) {
                self.emit(&key, record.partition(), out);
                return Ok(Verdict::Emit(1));
            }
            self.stage(&key, record.partition(), true, out);
            Ok(Verdict::Park(Reason::UnassignedDevice))
        })
    }

    fn wake(&mut self, out: &mut Outputs) -> Result<bool, Fault> {
        let due: Vec<_> = self
            .waiting
            .iter()
            .filter(|(key, _)| self.known.contains(key))
            .map(|(k, p)| (k.clone(), *p))
            .collect();
        for (key, partition) in due.iter().take(10) {
            self.emit(key, *partition, out);
            self.stage(key, *partition, false, out);
        }
        Ok(due.len() > 10)
    }

    fn committed(&mut self) {
        for (key, keep) in self.staged.drain(..) {
            match keep {
                Some(partition) => drop(self.waiting.insert(key, partition)),
                None => drop(self.waiting.remove(&key)),
            }
        }
    }

    fn aborted(&mut self) {
        self.staged.clear();
    }

    fn table(&mut self, record: Record<'_>) -> Result<(), Fault> {
        self.known.push(record.key().unwrap().to_vec());
        Ok(())
    }

    fn restore(&mut self, record: Record<'_>) -> Result<(), Fault> {
        let key = record.key().unwrap().to_vec();
        match record.value() {
            Some(_) => drop(self.waiting.insert(key, record.partition())),
            None => drop(self.waiting.remove(&key)),
        }
        Ok(())
    }

    fn revoked(&mut self, partitions: &[TopicPartition]) {
        self.waiting.retain(|_, partition| !partitions.iter().any(|at| at.partition == *partition));
    }
}

#[test]
fn parked_records_flow_once_when_what_they_wait_for_arrives() {
    let Some(mut bench) = Bench::new("wake") else { return };
    let mut spec = bench.copier(3);
    let (input, output) = (topic(&spec, "in"), topic(&spec, "out"));
    let changelog: Arc<str> = bench.topic("changelog", 3, &[("cleanup.policy", "compact")]).into();
    let table = bench.topic("table", 2, &[("cleanup.policy", "compact")]);
    spec.changelog = Some(changelog.clone());
    spec.tables = vec![table.as_str().into()];
    bench.produce(&table, 2, 0..50);
    bench.produce(&input, 3, 0..200);
    let make = {
        let output: Arc<str> = output.as_str().into();
        move || -> Box<dyn Processor> {
            Box::new(Waiter {
                output: output.clone(),
                changelog: changelog.clone(),
                known: Vec::new(),
                waiting: BTreeMap::new(),
                staged: Vec::new(),
            })
        }
    };
    // Known before the start: never parked.
    let (stop, engine) = start(bench.config(), spec.clone(), make.clone());
    assert_eq!(bench.await_count(&output, 50, Duration::from_secs(30)), 50);
    // Known while it runs: let out.
    bench.produce(&table, 2, 50..100);
    assert_eq!(bench.await_count(&output, 100, Duration::from_secs(30)), 100);
    stop.request();
    engine.join().unwrap().unwrap();
    // Known while nobody runs: let out of what the changelog kept, by two workers.
    bench.produce(&table, 2, 100..150);
    let mut config = bench.config();
    config.runtime.workers = 2;
    let (stop, engine) = start(config, spec.clone(), make);
    assert_eq!(bench.await_count(&output, 150, Duration::from_secs(30)), 150);
    bench.produce(&table, 2, 150..200);
    bench.await_count(&output, 200, Duration::from_secs(30));
    thread::sleep(Duration::from_secs(1));
    stop.request();
    engine.join().unwrap().unwrap();
    let mut numbers = bench.numbers(&output);
    numbers.sort_unstable();
    assert_eq!(numbers, (0..200).collect::<Vec<_>>());
}

#[test]
fn a_record_of_ten_megabytes_is_a_dead_letter_whole_where_it_fits() {
    for (limit, whole) in [("25165824", true), ("1048588", false)] {
        let Some(mut bench) = Bench::new(&format!("huge-{whole}")) else { return };
        let mut spec = bench.copier(1);
        let (input, output) =
            (bench.topic("huge", 1, &[("max.message.bytes", "16777216")]), topic(&spec, "out"));
        let dead = bench.topic("dead", 1, &[("max.message.bytes", limit)]);
        spec.inputs = fhirehose_runtime::Inputs::Topics(vec![input.as_str().into()]);
        let letters: Arc<str> = dead.as_str().into();
        spec.dead_letters = Arc::new(move |_| letters.clone());
        bench.produce(&input, 1, 0..10);
        // As random as text can be, so that it stays large when it is compressed.
        let mut state = 1_u64;
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        });
        let huge: Vec<u8> = noise.take(10_000_000).collect();
        bench.produce_one(&input, b"huge", &huge);
        bench.produce(&input, 1, 10..20);
        let (stop, engine) = start(bench.config(), spec, copier(&output, 0));
        assert_eq!(bench.await_count(&output, 20, Duration::from_secs(40)), 20);
        stop.request();
        engine.join().unwrap().unwrap();
        assert_exactly_once(&bench, &output, 1, 0..20);
        let letters = bench.read(&dead);
        assert_eq!(letters.len(), 1);
        assert_eq!(&*letters[0].headers["fhirehose-dlq-reason"], b"too_large");
        assert_eq!(letters[0].key.as_deref(), Some(&b"huge"[..]));
        let (value, omitted) =
            (letters[0].value.as_ref(), letters[0].headers.get("fhirehose-dlq-value-omitted"));
        match whole {
            true => assert!(value == Some(&huge) && omitted.is_none()),
            false => assert_eq!((value, omitted.map(Vec::as_slice)), (None, Some(&b"10000000 bytes"[..]))),
        }
    }
}

#[test]
fn the_breaker_stops_before_the_topic_is_drained_into_dead_letters() {
    let Some(mut bench) = Bench::new("breaker") else { return };
    let spec = bench.copier(1);
    let (input, output) = (topic(&spec, "in"), topic(&spec, "out"));
    bench.produce(&input, 1, 0..3_000);
    let mut config = bench.config();
    config.breaker.consecutive = 1_000;
    let address = free_address();
    config.admin.listen = address;
    // Everything is rejected.
    let (stop, engine) = start(config, spec.clone(), copier(&output, 1));
    let until = Instant::now() + Duration::from_secs(20);
    while !http(address, "GET", "/admin/status").1.contains("tripped") && Instant::now() < until {
        thread::sleep(Duration::from_millis(100));
    }
    let dead = || bench.read(&topic(&spec, "dlq")).len();
    let before = dead();
    assert!(
        before < 1_000,
        "{before} dead letters: the breaking batch and what follows may not be committed"
    );
    let (status, ready) = http(address, "GET", "/readyz");
    assert!(status == 503 && ready.contains("unknown_code"), "{status} {ready}");
    assert_eq!(http(address, "GET", "/livez").0, 200);
    // An operator lets the batch pass; it trips again later, for nothing got better.
    assert_eq!(http(address, "POST", "/admin/resume?processor=other").0, 404);
    assert_eq!(http(address, "POST", "/admin/resume").0, 200);
    thread::sleep(Duration::from_secs(3));
    let after = dead();
    assert!(before < after && after < 3_000, "{before} dead letters before, {after} after");
    let metrics = http(address, "GET", "/metrics").1;
    for line in [
        "fhirehose_violations_total{processor=\"copier\",kind=\"offset_regression\"} 0".to_owned(),
        "fhirehose_build_info".to_owned(),
        "fhirehose_commit_seconds_bucket{processor=\"copier\",le=\"0.001\"}".to_owned(),
    ] {
        assert!(metrics.contains(&line), "{line} is not in the metrics");
    }
    let page = http(address, "GET", "/").1;
    assert!(page.contains("<svg") && page.contains("breaker tripped") && page.contains("stuck"), "{page}");
    stop.request();
    engine.join().unwrap().unwrap();
}

fn free_address() -> std::net::SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Status and body.
fn http(address: std::net::SocketAddr, method: &str, path: &str) -> (u16, String) {
    use std::io::{Read, Write};
    let Ok(mut stream) = std::net::TcpStream::connect(address) else { return (0, String::new()) };
    write!(stream, "{method} {path} HTTP/1.0\r\nhost: x\r\ncontent-length: 0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, answer)
}
