//! The sink on a real TimescaleDB: once each, newest wins, deletes, late data, retention.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, or says that it is skipped"
)]

#[path = "../../../crates/pgsink/tests/support/mod.rs"]
mod support;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use fhirehose_codec::{AvroEncoder, MemorySchemas, SchemaSource};
use fhirehose_pgsink::migrate;
use fhirehose_stream::{Batch, Reason, Sink, TopicPartition, Verdict};
use fhirehose_tape::Tape;
use fhirehose_topics::Registry;
use postgres::Client;
use serde_json::{Value, json};
use support::TestDatabase;

const RETENTION_DAYS: u32 = 30;
const DAY_MS: i64 = 86_400_000;
const REFRESH: &str = "policy_refresh_continuous_aggregate";
const TOPICS: [&str; 3] = ["vitals.sample", "device.metrics", "alert.emergency"];

/// A sink on a database of its own, fed record by record.
struct Bench {
    database: TestDatabase,
    registry: Arc<Registry>,
    schemas: Arc<dyn SchemaSource + Send + Sync>,
    sink: Box<dyn Sink>,
    batch: Batch,
    next: i64,
}

fn root() -> PathBuf {
    support::repository()
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

impl Bench {
    fn new(name: &str) -> Bench {
        Bench::on(TestDatabase::create(name))
    }

    fn on(database: TestDatabase) -> Bench {
        migrate::apply(&database.url, &root().join("schemas/sql"), migrate::TIMESCALE, |_| {}).unwrap();
        let registry = Arc::new(Registry::load(&root()).unwrap());
        let mut schemas = MemorySchemas::default();
        for (id, topic) in (1..).zip(TOPICS) {
            schemas.insert(id, &registry.schema(topic).unwrap().json).unwrap();
        }
        let schemas: Arc<dyn SchemaSource + Send + Sync> = Arc::new(schemas);
        let sink = sink(&database, &registry, &schemas);
        let mut bench = Bench { database, registry, schemas, sink, batch: Batch::default(), next: 0 };
        bench.claim();
        bench
    }

    fn claim(&mut self) {
        let partitions: Vec<_> =
            TOPICS.iter().map(|topic| TopicPartition { topic: (*topic).into(), partition: 0 }).collect();
        let offsets = self.sink.claim(&partitions).unwrap();
        let first: Vec<_> = partitions
            .into_iter()
            .zip(offsets)
            .filter(|(_, next)| next.is_none())
            .map(|(at, _)| (at, 0))
            .collect();
        if !first.is_empty() {
            self.sink.start(&first).unwrap();
        }
    }

    fn push(&mut self, topic: &str, key: &str, value: Option<&Value>) {
        let id = 1 + TOPICS.iter().position(|name| *name == topic).unwrap() as u32;
        let bytes = value.map(|value| {
            let mut tape = Tape::new();
            tape.parse_json(value.to_string().as_bytes()).unwrap();
            let mut bytes = Vec::new();
            let encoder = AvroEncoder::new(self.registry.schema(topic).unwrap(), id).unwrap();
            encoder.encode(tape.root(), &mut bytes).unwrap();
            bytes
        });
        self.next += 1;
        self.batch.push(
            &topic.into(),
            0,
            self.next,
            now_ms(),
            Some(key.as_bytes()),
            bytes.as_deref(),
            std::iter::empty(),
        );
    }

    fn sample(&mut self, device: &str, at_ms: i64, heart_rate: f64) {
        let key = format!("t1/{device}/{at_ms}");
        self.push("vitals.sample", &key, Some(&sample(device, at_ms, heart_rate)));
    }

    fn flush(&mut self) -> Vec<Verdict> {
        let verdicts = self.sink.stage(&self.batch).unwrap();
        self.sink.commit().unwrap();
        self.batch.clear();
        verdicts.as_slice().to_vec()
    }

    fn client(&self) -> Client {
        self.database.connect()
    }

    /// Runs the policies of that kind, as their schedule would; the Apache edition has none.
    fn run_policies(&self, kind: &str) {
        let mut client = self.client();
        let jobs = "SELECT job_id FROM timescaledb_information.jobs WHERE proc_name = $1 ORDER BY 1";
        for job in client.query(jobs, &[&kind]).unwrap() {
            client.batch_execute(&format!("CALL run_job({})", job.get::<_, i32>(0))).unwrap();
        }
    }

    fn count(&self, of: &str) -> i64 {
        self.client().query_one(&format!("SELECT count(*) FROM {of}"), &[]).unwrap().get(0)
    }

    fn rollup(&self) -> Vec<(i64, f64, f64)> {
        let sql = "SELECT samples, heart_rate_avg, heart_rate_max FROM vital_signs_hourly WHERE tenant_id = 't1' ORDER BY bucket";
        let rows = self.client().query(sql, &[]).unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
    }

    fn rates(&self) -> Vec<(String, f64)> {
        let rows = self
            .client()
            .query("SELECT device_id, heart_rate FROM vital_signs_timeseries ORDER BY 1, observed_at", &[])
            .unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }
}

fn sink(
    database: &TestDatabase,
    registry: &Arc<Registry>,
    schemas: &Arc<dyn SchemaSource + Send + Sync>,
) -> Box<dyn Sink> {
    Box::new(
        sink_timescale::new(
            &database.url,
            "t-timescale",
            &root(),
            registry.clone(),
            schemas.clone(),
            RETENTION_DAYS,
        )
        .unwrap(),
    )
}

fn sample(device: &str, at_ms: i64, heart_rate: f64) -> Value {
    json!({
        "tenant": "t1", "patient_id": "2ed6657d-e927-568b-95e1-2665a8aea6a2", "device_id": device,
        "observed_at": at_ms, "source": "hospital_a", "source_event_id": "e1", "heart_rate": heart_rate,
        "temperature": 36.6, "flags": ["clock-skew"],
    })
}

#[test]
fn rows_of_all_three_topics_arrive_with_every_field() {
    let mut bench = Bench::new("ts_all");
    let at = now_ms();
    bench.sample("d1", at, 72.0);
    let metrics = json!({"tenant": "t1", "device_id": "d1", "observed_at": at, "vendor": "kati", "battery": 80, "flags": []});
    bench.push("device.metrics", &format!("t1/d1/{at}"), Some(&metrics));
    let alert = json!({"device_id": "d1", "kind": "sos", "observed_at": at, "vendor": "kati", "flags": []});
    bench.push("alert.emergency", &format!("d1/sos/{at}"), Some(&alert));
    assert_eq!(bench.flush(), vec![Verdict::Emit(1); 3]);

    let mut client = bench.client();
    let row: String = client
        .query_one(
            "SELECT concat_ws(' ', tenant_id, patient_id, device_id, heart_rate, temperature, flags, systolic, \
             (extract(epoch FROM observed_at) * 1000)::bigint) FROM vital_signs_timeseries",
            &[],
        )
        .unwrap()
        .get(0);
    assert_eq!(row, format!("t1 2ed6657d-e927-568b-95e1-2665a8aea6a2 d1 72 36.6 {{clock-skew}} {at}"));
    let battery: i32 = client.query_one("SELECT battery FROM device_metrics", &[]).unwrap().get(0);
    let tenant: Option<String> = client.query_one("SELECT tenant_id FROM device_alerts", &[]).unwrap().get(0);
    assert_eq!((battery, tenant), (80, None));
}

#[test]
fn the_newest_version_wins_in_a_batch_and_across_batches() {
    let mut bench = Bench::new("ts_newest");
    let at = now_ms();
    bench.sample("d1", at, 60.0);
    bench.sample("d1", at, 61.0);
    bench.sample("d2", at, 50.0);
    bench.flush();
    assert_eq!(bench.rates(), [("d1".into(), 61.0), ("d2".into(), 50.0)]);
    bench.sample("d3", at, 40.0);
    bench.sample("d2", at, 51.0);
    bench.flush();
    bench.sample("d2", at, 52.0);
    bench.flush();
    assert_eq!(bench.rates(), [("d1".into(), 61.0), ("d2".into(), 52.0), ("d3".into(), 40.0)]);
}

#[test]
fn a_tombstone_deletes_its_row_and_only_that() {
    let mut bench = Bench::new("ts_delete");
    let at = now_ms();
    bench.sample("a/b", at, 60.0);
    bench.sample("d2", at, 50.0);
    bench.sample("d2", at - 1, 49.0);
    bench.flush();
    bench.push("vitals.sample", &format!("t1/a/b/{at}"), None);
    bench.push("vitals.sample", &format!("t1/d2/{at}"), None);
    bench.sample("d2", at, 53.0);
    bench.push("vitals.sample", "t1", None);
    let verdicts = bench.flush();
    assert!(matches!(&verdicts[3], Verdict::Reject(rejection) if rejection.reason == Reason::MissingKey));
    assert_eq!(bench.rates(), [("d2".into(), 49.0), ("d2".into(), 53.0)], "made again after its delete");
}

#[test]
fn what_a_crash_left_uncommitted_is_read_again_and_takes_effect_once() {
    let mut bench = Bench::new("ts_crash");
    let at = now_ms();
    bench.sample("d1", at, 60.0);
    bench.flush();
    bench.sample("d2", at, 61.0);
    bench.sink.stage(&bench.batch).unwrap();
    // The worker dies here; another takes over and reads the same records.
    bench.sink = sink(&bench.database, &bench.registry, &bench.schemas);
    bench.claim();
    bench.flush();
    assert_eq!(bench.rates(), [("d1".into(), 60.0), ("d2".into(), 61.0)]);
}

#[test]
fn late_readings_enter_the_rollups_of_their_own_hour() {
    let mut bench = Bench::new("ts_late");
    let hour = now_ms() / 3_600_000 * 3_600_000;
    bench.sample("d1", hour, 60.0);
    bench.flush();
    bench.sample("d1", hour - 9 * DAY_MS, 80.0);
    bench.sample("d1", hour - 9 * DAY_MS + 60_000, 90.0);
    bench.flush();
    bench.run_policies(REFRESH);
    assert_eq!(bench.rollup(), [(2, 85.0, 90.0), (1, 60.0, 60.0)]);
    assert_eq!(bench.count("vital_signs_daily"), 2);
}

#[test]
fn a_reading_older_than_the_retention_is_dropped_and_no_chunk_comes_back() {
    let mut bench = Bench::new("ts_retention");
    let old = now_ms() - (i64::from(RETENTION_DAYS) - 1) * DAY_MS;
    bench.sample("d1", old, 60.0);
    assert_eq!(bench.flush(), [Verdict::Emit(1)]);
    let chunks = |bench: &Bench| bench.count("show_chunks('vital_signs_timeseries')");
    assert_eq!(chunks(&bench), 1);
    bench.sink.maintain().unwrap();
    bench.run_policies("policy_retention");
    assert_eq!(chunks(&bench), 1, "within the retention nothing is dropped");

    // A month on, as the database sees it: a chunk past the retention.
    let inserted = bench
        .client()
        .execute(
            "INSERT INTO vital_signs_timeseries (observed_at, tenant_id, patient_id, device_id, source, source_event_id, \
             flags, version, source_ts) SELECT now() - make_interval(days => 40), 't1', gen_random_uuid(), 'd', 's', 'e', '{}', 1, now()",
            &[],
        )
        .unwrap();
    assert_eq!(inserted, 1);
    bench.sink.maintain().unwrap();
    bench.run_policies("policy_retention");
    assert_eq!(chunks(&bench), 1, "dropped");
    bench.sample("d1", now_ms() - 40 * DAY_MS, 61.0);
    bench.sample("d1", now_ms(), 62.0);
    assert_eq!(bench.flush(), [Verdict::Drop(Reason::PastRetention), Verdict::Emit(1)]);
    assert_eq!(chunks(&bench), 2, "only today's is new");
}

#[test]
fn bad_records_are_rejected_by_field_and_the_rest_is_written() {
    let mut bench = Bench::new("ts_bad");
    let at = now_ms();
    let mut wrong = sample("d1", at, 60.0);
    wrong["patient_id"] = json!("Qanarywala");
    bench.push("vitals.sample", &format!("t1/d1/{at}"), Some(&wrong));
    bench.batch.push(
        &"vitals.sample".into(),
        0,
        100,
        at,
        Some(b"t1/d9/1"),
        Some(b"\0\0\0\0\x01\xff"),
        std::iter::empty(),
    );
    bench.next = 100;
    bench.sample("d2", at, 61.0);
    let verdicts = bench.flush();
    assert!(
        matches!(&verdicts[0], Verdict::Reject(rejection) if rejection.reason == Reason::WrongType && rejection.detail == "patient_id")
    );
    assert!(matches!(&verdicts[1], Verdict::Reject(rejection) if rejection.reason == Reason::MalformedAvro));
    assert_eq!(verdicts[2], Verdict::Emit(1));
    assert_eq!(bench.rates(), [("d2".into(), 61.0)]);
}

#[test]
fn it_refuses_to_start_while_migrations_are_pending() {
    let database = TestDatabase::create("ts_pending");
    let registry = Arc::new(Registry::load(&root()).unwrap());
    let schemas: Arc<dyn SchemaSource + Send + Sync> = Arc::new(MemorySchemas::default());
    let fault = sink(&database, &registry, &schemas).claim(&[]).map(|_| ()).expect_err("refused");
    assert!(
        fault.what.contains("timescale/0001_hypertables") && fault.what.contains("migrate apply"),
        "{fault}"
    );
}

#[test]
fn a_field_without_a_column_is_refused_by_name() {
    let bench = Bench::new("ts_shape");
    bench.client().batch_execute("ALTER TABLE vital_signs_timeseries DROP COLUMN impedance").unwrap();
    let fault =
        sink(&bench.database, &bench.registry, &bench.schemas).claim(&[]).map(|_| ()).expect_err("refused");
    assert!(fault.what.contains("impedance"), "{fault}");
}

/// A database on the server with the Timescale-licensed edition, which alone has continuous aggregates, compression
/// and policies and which the stack does not have: `FHIREHOSE_TEST_TIMESCALE_URL` names it, as an administrator.
fn licensed(name: &str) -> Option<Bench> {
    let Ok(url) = std::env::var("FHIREHOSE_TEST_TIMESCALE_URL") else {
        eprintln!(
            "SKIPPED: FHIREHOSE_TEST_TIMESCALE_URL is not set, the Timescale-licensed edition is not tested"
        );
        return None;
    };
    Some(Bench::on(TestDatabase::create_on(&url, name)))
}

#[test]
fn policies_follow_the_configured_retention() {
    let Some(bench) = licensed("ts_policies") else { return };
    let mut client = bench.client();
    for days in [30, 30, 60] {
        client.execute("SELECT fhirehose.apply_retention($1)", &[&days]).unwrap();
        let rows = client
            .query(
                "SELECT proc_name::text, coalesce(config ->> 'drop_after', config ->> 'start_offset', config ->> 'compress_after') \
                 FROM timescaledb_information.jobs WHERE proc_name LIKE 'policy_%' AND job_id >= 1000 ORDER BY 1",
                &[],
            )
            .unwrap();
        let found: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let wanted = [("policy_compression", 7), (REFRESH, days), ("policy_retention", days)]
            .into_iter()
            .zip([3, 2, 3])
            .flat_map(|((kind, days), times)| vec![(kind.to_owned(), format!("{days} days")); times]);
        assert_eq!(found, wanted.collect::<Vec<_>>());
    }
}

#[test]
fn late_readings_corrections_and_deletes_reach_compressed_chunks_and_their_rollups() {
    let Some(mut bench) = licensed("ts_compressed") else { return };
    let day = (now_ms() / DAY_MS - 9) * DAY_MS;
    for minute in 0..3 {
        bench.sample("d1", day + minute * 60_000, 60.0);
        bench.sample("d2", day + DAY_MS + minute * 60_000, 70.0);
    }
    bench.flush();
    assert_eq!(bench.rollup(), [(3, 60.0, 60.0), (3, 70.0, 70.0)], "not materialized yet, and seen");
    bench.run_policies("policy_compression");
    bench.run_policies(REFRESH);
    let compressed = "timescaledb_information.chunks WHERE is_compressed";
    assert_eq!(bench.count(compressed), 2);

    // New, corrected, sent again and deleted, beside what is compressed.
    bench.sample("d1", day + 5 * 60_000, 90.0);
    bench.flush();
    bench.sample("d1", day + 60_000, 75.0);
    bench.push("vitals.sample", &format!("t1/d1/{day}"), None);
    bench.push("vitals.sample", &format!("t1/d2/{}", day + DAY_MS), None);
    bench.push("vitals.sample", &format!("t1/d1/{}", day + DAY_MS), None);
    bench.sample("d2", day + DAY_MS + 60_000, 70.0);
    bench.sample("d2", day + DAY_MS + 60_000, 40.0);
    bench.flush();
    let rates = [60.0, 75.0, 90.0].map(|rate| ("d1".to_owned(), rate));
    let mut seen = bench.rates();
    seen.sort_by(|one, other| one.partial_cmp(other).unwrap());
    assert_eq!(seen, [&rates[..], &[("d2".into(), 40.0), ("d2".into(), 70.0)]].concat());
    let wanted = [(3, 75.0, 90.0), (2, 55.0, 70.0)];
    bench.run_policies(REFRESH);
    assert_eq!(bench.rollup(), wanted);
    bench.run_policies("policy_compression");
    assert_eq!(bench.rollup(), wanted, "compressed again");
}

#[test]
fn a_late_batch_may_decompress_more_than_the_database_allows_by_default() {
    let Some(mut bench) = licensed("ts_decompress") else { return };
    let day = (now_ms() / DAY_MS - 9) * DAY_MS;
    bench
        .client()
        .execute(
            "INSERT INTO vital_signs_timeseries (observed_at, tenant_id, patient_id, device_id, source, source_event_id, \
             flags, version, source_ts) SELECT to_timestamp($1::int8 / 1000.0) + i * interval '500 ms', 't1', \
             gen_random_uuid(), 'd' || d, 's', 'e', '{}', 0, now() FROM generate_series(0, 59999) i, generate_series(1, 2) d",
            &[&day],
        )
        .unwrap();
    bench.run_policies("policy_compression");
    for step in 0..120 {
        for device in ["d1", "d2"] {
            bench.sample(device, day + step * 250_000, 61.0);
        }
    }
    assert_eq!(bench.flush().len(), 240);
    for step in 0..120 {
        bench.push("vitals.sample", &format!("t1/d1/{}", day + step * 250_000), None);
    }
    bench.flush();
    assert_eq!(bench.count("vital_signs_timeseries WHERE device_id = 'd1'"), 60_000 - 120);
    assert_eq!(bench.count("vital_signs_timeseries WHERE heart_rate = 61"), 120);
}

#[test]
fn rollups_outlive_the_chunks_that_retention_drops() {
    let Some(mut bench) = licensed("ts_outlive") else { return };
    let old = now_ms() - (i64::from(RETENTION_DAYS) - 2) * DAY_MS;
    bench.sample("d1", old, 60.0);
    bench.flush();
    bench.run_policies(REFRESH);
    // Days later, as a shorter retention.
    bench.client().execute("SELECT fhirehose.apply_retention($1)", &[&20]).unwrap();
    bench.run_policies("policy_retention");
    bench.run_policies(REFRESH);
    assert_eq!(bench.count("show_chunks('vital_signs_timeseries')"), 0);
    assert_eq!(bench.rollup(), [(1, 60.0, 60.0)]);
}
