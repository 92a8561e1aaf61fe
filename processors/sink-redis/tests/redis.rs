//! Against a real Redis: who wins when fills and evictions meet in any order.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use fhirehose_codec::{AvroEncoder, MemorySchemas};
use fhirehose_stream::{Batch, FaultKind, Reason, Sink, Verdict};
use fhirehose_tape::Tape;
use fhirehose_topics::Registry;
use proptest::prelude::*;
use redis::Commands;
use sink_redis::{FILL_SCRIPT, Options, SinkRedis};

const CHANGED: i64 = 1_767_322_987_000;
const SETTLE: i64 = 5_000;

struct Bench {
    sink: SinkRedis,
    redis: redis::Connection,
    encoder: AvroEncoder,
    prefix: String,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let keys: Vec<String> = self.redis.keys(format!("{}*", self.prefix)).unwrap_or_default();
        for key in keys {
            let _: redis::RedisResult<()> = self.redis.del(key);
        }
    }
}

/// `None` only where the caller said that there is no stack.
fn bench(name: &str) -> Option<Bench> {
    let Ok(url) = std::env::var("FHIREHOSE__REDIS__URL") else {
        assert!(
            std::env::var_os("FHIREHOSE_TEST_SKIP_STACK").is_some(),
            "FHIREHOSE__REDIS__URL is not set: `cargo xtask stack up redis` and export .stack/env, or set \
             FHIREHOSE_TEST_SKIP_STACK=1"
        );
        eprintln!("skipped: no Redis");
        return None;
    };
    let topics = Registry::load(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))).unwrap();
    let schema = topics.schema("cache.invalidation").unwrap();
    let mut schemas = MemorySchemas::default();
    schemas.insert(1, &schema.json).unwrap();
    let prefix = format!("test-sink-redis-{name}-{}:", std::process::id());
    let options = Options { channel: format!("{prefix}channel"), ..Options::default() };
    Some(Bench {
        sink: SinkRedis::new(&url, Arc::new(schemas), options).unwrap(),
        redis: redis::Client::open(url).unwrap().get_connection().unwrap(),
        encoder: AvroEncoder::new(schema, 1).unwrap(),
        prefix,
    })
}

impl Bench {
    fn event(&self, key: &str, source_ts: i64) -> Vec<u8> {
        let json = format!(
            r#"{{"key":"{}{key}","tenant":"t","source":"s","table":"d.t","op":"u","source_ts":{source_ts},
            "source_position":"p"}}"#,
            self.prefix
        );
        let (mut tape, mut bytes) = (Tape::new(), Vec::new());
        tape.parse_json(json.as_bytes()).unwrap();
        self.encoder.encode(tape.root(), &mut bytes).unwrap();
        bytes
    }

    fn run(&mut self, values: &[Option<&[u8]>]) -> Vec<Verdict> {
        let mut batch = Batch::default();
        for (offset, value) in (0..).zip(values) {
            batch.push(&"cache.invalidation".into(), 0, offset, 0, Some(b"k"), *value, std::iter::empty());
        }
        let verdicts = self.sink.stage(&batch).unwrap().as_slice().to_vec();
        self.sink.commit().unwrap();
        verdicts
    }

    fn evict(&mut self, key: &str, source_ts: i64) -> Verdict {
        let event = self.event(key, source_ts);
        self.run(&[Some(&event)]).remove(0)
    }

    fn fill(&mut self, key: &str, value: &str, read_at: i64) -> bool {
        let script = redis::Script::new(FILL_SCRIPT);
        script
            .key(format!("{}{key}", self.prefix))
            .arg(value)
            .arg(read_at)
            .arg(60_000)
            .invoke(&mut self.redis)
            .unwrap()
    }

    fn cached(&mut self, key: &str) -> Option<String> {
        self.redis.hget(format!("{}{key}", self.prefix), "value").unwrap()
    }
}

const EVICTED: Verdict = Verdict::Emit(1);
const STALE: Verdict = Verdict::Drop(Reason::StaleVersion);

#[test]
fn a_change_evicts_what_was_read_before_it_and_nothing_newer() {
    let Some(mut bench) = bench("order") else { return };
    assert!(bench.fill("a", "old", CHANGED - 1));
    assert_eq!(bench.evict("a", CHANGED), EVICTED);
    assert_eq!(bench.cached("a"), None);

    assert!(bench.fill("a", "new", CHANGED + SETTLE));
    assert_eq!(bench.evict("a", CHANGED), STALE, "the event comes again");
    assert_eq!(bench.evict("a", CHANGED - 60_000), STALE, "an older event comes late");
    assert_eq!(bench.cached("a").as_deref(), Some("new"));
    assert_eq!(bench.evict("a", CHANGED + 60_000), EVICTED);
    assert_eq!(bench.cached("a"), None);
}

#[test]
fn a_filler_that_read_before_the_change_cannot_fill_after_it() {
    let Some(mut bench) = bench("late-fill") else { return };
    assert_eq!(bench.evict("a", CHANGED), EVICTED);
    assert_eq!(bench.evict("a", CHANGED), STALE);
    assert_eq!(bench.evict("a", CHANGED - 60_000), STALE, "an older event lowers no marker");
    assert!(!bench.fill("a", "old", CHANGED - 1));
    assert!(!bench.fill("a", "maybe old", CHANGED + SETTLE - 1), "the second's grain and open transactions");
    assert!(bench.fill("a", "new", CHANGED + SETTLE));
    assert!(!bench.fill("a", "older", CHANGED + SETTLE - 1), "the slower of two fillers does not win");
    assert_eq!(bench.cached("a").as_deref(), Some("new"));
}

/// A step of the world, and how many milliseconds after the one before it happens.
#[derive(Clone, Debug)]
enum Step {
    /// The value changes; its statement began this many ms before the commit.
    Change { began: i64 },
    /// A filler takes the time and reads the value.
    Read,
    /// The filler that has waited longest, or the latest, fills in what it read.
    Fill { latest: bool },
    /// The next event comes, or one that came before comes again.
    Event { again: Option<prop::sample::Index> },
}

fn steps() -> impl Strategy<Value = Vec<(i64, Step)>> {
    let step = prop_oneof![
        (0i64..=4_000).prop_map(|began| Step::Change { began }),
        Just(Step::Read),
        any::<bool>().prop_map(|latest| Step::Fill { latest }),
        prop::option::of(any::<prop::sample::Index>()).prop_map(|again| Step::Event { again }),
    ];
    prop::collection::vec((0i64..4_000, step), 1..40)
}

/// Whatever the order of changes, reads, fills and events: once all events came, nothing stale is cached.
#[test]
fn nothing_stale_stays() {
    let Some(mut bench) = bench("any-order") else { return };
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(150));
    let (bench, case) = (std::cell::RefCell::new(&mut bench), std::cell::Cell::new(0));
    let outcome = runner.run(&steps(), |steps| {
        let mut bench = bench.borrow_mut();
        case.set(case.get() + 1);
        let key = format!("k{}", case.get());
        let (mut now, mut value) = (CHANGED, 0);
        let mut fillers: VecDeque<(String, i64)> = VecDeque::new();
        let (mut events, mut came) = (Vec::new(), 0);
        for (passed, step) in steps {
            now += passed;
            match step {
                Step::Change { began } => {
                    value += 1;
                    events.push((now - began) / 1_000 * 1_000);
                }
                Step::Read => fillers.push_back((value.to_string(), now)),
                Step::Fill { latest } => {
                    let filler = if latest { fillers.pop_back() } else { fillers.pop_front() };
                    if let Some((read, read_at)) = filler {
                        bench.fill(&key, &read, read_at);
                    }
                }
                Step::Event { again: Some(index) } if came > 0 => {
                    bench.evict(&key, events[index.index(came)]);
                }
                Step::Event { .. } => {
                    if let Some(source_ts) = events.get(came) {
                        bench.evict(&key, *source_ts);
                        came += 1;
                    }
                }
            }
        }
        for source_ts in &events[came..] {
            bench.evict(&key, *source_ts);
        }
        for (read, read_at) in fillers {
            bench.fill(&key, &read, read_at);
        }
        let cached = bench.cached(&key);
        prop_assert!(cached.is_none() || cached == Some(value.to_string()), "{cached:?} of {value}");
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn markers_go_away_and_foreign_entries_are_evicted() {
    let Some(mut bench) = bench("life") else { return };
    let key = format!("{}a", bench.prefix);
    let _: () = bench.redis.set(&key, "a plain string").unwrap();
    assert_eq!(bench.evict("a", CHANGED), EVICTED);
    let left: i64 = bench.redis.pttl(&key).unwrap();
    assert!((1..=600_000).contains(&left), "{left}");
}

#[test]
fn evictions_are_published_once() {
    let Some(mut bench) = bench("channel") else { return };
    let url = std::env::var("FHIREHOSE__REDIS__URL").unwrap();
    let mut listener = redis::Client::open(url).unwrap().get_connection().unwrap();
    let mut channel = listener.as_pubsub();
    channel.subscribe(format!("{}channel", bench.prefix)).unwrap();
    channel.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let events = [bench.event("a", CHANGED), bench.event("a", CHANGED), bench.event("b", CHANGED)];
    let verdicts = bench.run(&[Some(&events[0]), Some(&events[1]), None, Some(&events[2])]);
    assert_eq!(verdicts, [EVICTED, STALE, Verdict::Drop(Reason::Tombstone), EVICTED]);
    for key in ["a", "b"] {
        let message: String = channel.get_message().unwrap().get_payload().unwrap();
        assert!(message.contains(&format!("\"key\":\"{}{key}\"", bench.prefix)), "{message}");
    }
    assert!(channel.get_message().is_err(), "nothing more is told");
}

#[test]
fn bad_records_are_rejected_beside_good_ones() {
    let Some(mut bench) = bench("bad") else { return };
    let good = bench.event("a", CHANGED);
    let verdicts = bench.run(&[Some(b"{"), Some(br#"{"key":"k"}"#), Some(&good), Some(&good[..9])]);
    let reasons: Vec<_> = verdicts
        .iter()
        .map(|verdict| match verdict {
            Verdict::Reject(rejection) => Some(rejection.reason),
            _ => None,
        })
        .collect();
    assert_eq!(
        reasons,
        [Some(Reason::MalformedJson), Some(Reason::MissingElement), None, Some(Reason::MalformedAvro)]
    );
}

/// Forwards one connection at a time to Redis; cuts it when told.
fn proxy(url: &str) -> (String, mpsc::Sender<()>) {
    let server = url.trim_start_matches("redis://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("redis://{}", listener.local_addr().unwrap());
    let (cut, cuts) = mpsc::channel();
    thread::spawn(move || {
        for client in listener.incoming().map(Result::unwrap) {
            let server = TcpStream::connect(&server).unwrap();
            for (from, to) in [(&client, &server), (&server, &client)] {
                let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                thread::spawn(move || io::copy(&mut from, &mut to));
            }
            if cuts.recv().is_err() {
                return;
            }
            client.shutdown(Shutdown::Both).unwrap();
            server.shutdown(Shutdown::Both).unwrap();
        }
    });
    (address, cut)
}

#[test]
fn a_lost_connection_is_transient_and_then_works_again() {
    let Some(mut bench) = bench("again") else { return };
    let (address, cut) = proxy(&std::env::var("FHIREHOSE__REDIS__URL").unwrap());
    let mut schemas = MemorySchemas::default();
    let topics = Registry::load(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))).unwrap();
    schemas.insert(1, &topics.schema("cache.invalidation").unwrap().json).unwrap();
    bench.sink = SinkRedis::new(&address, Arc::new(schemas), Options::default()).unwrap();
    assert_eq!(bench.evict("a", CHANGED), EVICTED);
    cut.send(()).unwrap();
    let event = bench.event("b", CHANGED);
    let mut batch = Batch::default();
    batch.push(&"cache.invalidation".into(), 0, 0, 0, None, Some(&event), std::iter::empty());
    // The cut may be noticed one batch late.
    let fault = (0..100).find_map(|_| {
        thread::sleep(Duration::from_millis(10));
        bench.sink.stage(&batch).err()
    });
    assert_eq!(fault.expect("the connection is gone").kind, FaultKind::Transient);
    let verdict = bench.sink.stage(&batch).unwrap().as_slice()[0].clone();
    assert!([EVICTED, STALE].contains(&verdict));
    assert_eq!(bench.evict("c", CHANGED), EVICTED);
}

#[test]
fn a_server_that_is_down_is_transient() {
    let schemas = Arc::new(MemorySchemas::default());
    let mut sink = SinkRedis::new("redis://127.0.0.1:1", schemas, Options::default()).unwrap();
    let mut batch = Batch::default();
    let event = br#"{"key":"k","source_ts":1}"#;
    batch.push(&"cache.invalidation".into(), 0, 0, 0, None, Some(event), std::iter::empty());
    assert_eq!(sink.stage(&batch).err().unwrap().kind, FaultKind::Transient);
}
