#![allow(clippy::all, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#[path = "../../../crates/pgsink/tests/support/mod.rs"]
mod support;
use fhirehose_codec::{AvroEncoder, MemorySchemas, SchemaSource};
use fhirehose_pgsink::migrate;
use fhirehose_stream::*;
use fhirehose_tape::Tape;
use fhirehose_topics::Registry;
use serde_json::json;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;
use support::*;
#[test]
fn bench() {
    let database = TestDatabase::create("zzb");
    migrate::apply(&database.url, &repository().join("schemas/sql"), migrate::TIMESCALE, |_| {}).unwrap();
    let registry = Arc::new(Registry::load(&repository()).unwrap());
    let mut schemas = MemorySchemas::default();
    schemas.insert(1, &registry.schema("vitals.sample").unwrap().json).unwrap();
    let schemas: Arc<dyn SchemaSource + Send + Sync> = Arc::new(schemas);
    let mut sink =
        sink_timescale::new(&database.url, "t", &repository(), registry.clone(), schemas.clone(), 730)
            .unwrap();
    let at = TopicPartition { topic: "vitals.sample".into(), partition: 0 };
    sink.claim(&[at.clone()]).unwrap();
    sink.start(&[(at.clone(), 0)]).unwrap();
    let enc = AvroEncoder::new(registry.schema("vitals.sample").unwrap(), 1).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    const N: i64 = 200_000;
    const B: i64 = 5_000;
    let topic: Arc<str> = "vitals.sample".into();
    let mut batches = Vec::new();
    for b in 0..N / B {
        let mut batch = Batch::default();
        for i in 0..B {
            let n = b * B + i;
            let dev = format!("dev-{}", n % 500);
            let t = now - 3_600_000 + (n / 500) * 1000;
            let v = json!({"tenant":"t1","patient_id": format!("2ed6657d-e927-568b-95e1-{:012}", n%500),"device_id":dev,"observed_at":t,"source":"kati","source_event_id":format!("e{n}"),
              "heart_rate": 60.0 + (n%40) as f64, "temperature": 36.6, "systolic":120.0,"diastolic":80.0,"spo2":97.0,"respiratory_rate":16.0,"flags":[]});
            let mut tape = Tape::new();
            tape.parse_json(v.to_string().as_bytes()).unwrap();
            let mut bytes = Vec::new();
            enc.encode(tape.root(), &mut bytes).unwrap();
            batch.push(
                &topic,
                0,
                n,
                now,
                Some(format!("t1/{dev}/{t}").as_bytes()),
                Some(&bytes),
                std::iter::empty(),
            );
        }
        batches.push(batch);
    }
    let start = Instant::now();
    for batch in &batches {
        sink.stage(batch).unwrap();
        sink.commit().unwrap();
    }
    let s = start.elapsed().as_secs_f64();
    println!("straight {:.0} rows/s", N as f64 / s);
    let mut client = database.connect();
    // raw: binary copy out, copy in to an equal hypertable
    client.batch_execute("CREATE TABLE raw (LIKE vital_signs_timeseries INCLUDING ALL); SELECT create_hypertable('raw', by_range('observed_at', interval '1 day'), create_default_indexes=>false)").unwrap();
    let mut pieces = Vec::new();
    for b in 0..N / B {
        let mut r = client.copy_out(&format!("COPY (SELECT * FROM vital_signs_timeseries ORDER BY version OFFSET {} LIMIT {B}) TO STDOUT (FORMAT binary)", b*B)).unwrap();
        let mut buf = Vec::new();
        std::io::Read::read_to_end(&mut r, &mut buf).unwrap();
        drop(r);
        pieces.push(buf);
    }
    let start = Instant::now();
    for p in &pieces {
        client.batch_execute("BEGIN").unwrap();
        let mut w = client.copy_in("COPY raw FROM STDIN (FORMAT binary)").unwrap();
        for c in p.chunks(262144) {
            w.write_all(c).unwrap();
        }
        w.finish().unwrap();
        client.batch_execute("COMMIT").unwrap();
    }
    let r = start.elapsed().as_secs_f64();
    println!("raw {:.0} rows/s  ratio {:.2}", N as f64 / r, r / s);
    // merge path: replay under another pipeline
    let mut sink = sink_timescale::new(&database.url, "t2", &repository(), registry, schemas, 730).unwrap();
    sink.claim(&[at.clone()]).unwrap();
    sink.start(&[(at, 0)]).unwrap();
    let start = Instant::now();
    for batch in &batches {
        sink.stage(batch).unwrap();
        sink.commit().unwrap();
    }
    println!("merge (all there) {:.0} rows/s", N as f64 / start.elapsed().as_secs_f64());
}
