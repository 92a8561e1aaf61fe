//! A sink on a database of its own, fed record by record.
#![allow(dead_code, reason = "not every test uses every part")]

#[path = "../../../../crates/pgsink/tests/support/mod.rs"]
mod database;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fhirehose_codec::{AvroEncoder, MemorySchemas, SchemaSource};
use fhirehose_stream::{Batch, HEADER_SOURCE_TS, HEADER_VERSION, Sink, TopicPartition, Verdict};
use fhirehose_tape::Tape;
use fhirehose_topics::Registry;
use postgres::Client;
use serde_json::{Value, json};

pub use database::TestDatabase;

pub const TOPICS: [&str; 6] = [
    "enriched.patient",
    "enriched.practitioner",
    "enriched.organization",
    "enriched.encounter",
    "enriched.condition",
    "vitals.sample",
];

pub fn root() -> PathBuf {
    database::repository()
}

/// What sinks share.
#[derive(Clone)]
pub struct Shapes {
    pub registry: Arc<Registry>,
    pub schemas: Arc<dyn SchemaSource + Send + Sync>,
}

impl Shapes {
    pub fn load() -> Shapes {
        let registry = Arc::new(Registry::load(&root()).unwrap());
        let mut schemas = MemorySchemas::default();
        for (id, topic) in (1..).zip(TOPICS) {
            schemas.insert(id, &registry.schema(topic).unwrap().json).unwrap();
        }
        Shapes { registry, schemas: Arc::new(schemas) }
    }
}

pub fn migrated(name: &str) -> TestDatabase {
    let database = TestDatabase::create(name);
    sink_warehouse::apply(&database.url, &root(), &Registry::load(&root()).unwrap(), |_| {}).unwrap();
    database
}

/// One instance of the sink, owner of one partition of every topic.
pub struct Worker {
    shapes: Shapes,
    sink: Box<dyn Sink>,
    pub batch: Batch,
    partition: i32,
    next: i64,
}

impl Worker {
    pub fn new(database: &TestDatabase, pipeline: &str, partition: i32) -> Worker {
        Worker::over(database, pipeline, partition, &root())
    }

    /// With tables declared in another directory.
    pub fn over(database: &TestDatabase, pipeline: &str, partition: i32, dir: &Path) -> Worker {
        let shapes = Shapes::load();
        let sink = sink_warehouse::new(
            &database.url,
            pipeline,
            dir,
            shapes.registry.clone(),
            shapes.schemas.clone(),
        )
        .unwrap();
        let mut worker = Worker { shapes, sink: Box::new(sink), batch: Batch::default(), partition, next: 0 };
        let partitions: Vec<_> =
            TOPICS.iter().map(|topic| TopicPartition { topic: (*topic).into(), partition }).collect();
        worker.sink.claim(&partitions).unwrap();
        let first: Vec<_> = partitions.into_iter().map(|at| (at, 0)).collect();
        worker.sink.start(&first).unwrap();
        worker
    }

    pub fn push(&mut self, topic: &str, key: &str, value: Option<&Value>, headers: &[(&str, i64)]) {
        let id = 1 + TOPICS.iter().position(|name| *name == topic).unwrap() as u32;
        let bytes = value.map(|value| {
            let mut tape = Tape::new();
            tape.parse_json(value.to_string().as_bytes()).unwrap();
            let mut bytes = Vec::new();
            let encoder = AvroEncoder::new(self.shapes.registry.schema(topic).unwrap(), id).unwrap();
            encoder.encode(tape.root(), &mut bytes).unwrap();
            bytes
        });
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.to_string())).collect();
        self.next += 1;
        self.batch.push(
            &topic.into(),
            self.partition,
            self.next,
            1_000,
            Some(key.as_bytes()),
            bytes.as_deref(),
            headers.iter().map(|(name, value)| (*name, Some(value.as_bytes()))),
        );
    }

    /// A version of a resource, as enrich emits it.
    pub fn resource(&mut self, tenant: &str, version: i64, source_ts: i64, resource: &Value) {
        let kind = resource["resourceType"].as_str().unwrap().to_lowercase();
        let id = resource["id"].as_str().unwrap();
        let value = json!({
            "tenant": tenant, "id": id, "version": version, "version_id": format!("v{version}"),
            "last_updated": source_ts, "source": "hospital_a", "flags": [], "resource": resource.to_string(),
        });
        self.push(&format!("enriched.{kind}"), &format!("{tenant}/{id}"), Some(&value), &[]);
    }

    pub fn delete(&mut self, kind: &str, tenant: &str, id: &str, version: i64, source_ts: i64) {
        let headers = [(HEADER_VERSION, version), (HEADER_SOURCE_TS, source_ts)];
        self.push(&format!("enriched.{kind}"), &format!("{tenant}/{id}"), None, &headers);
    }

    pub fn flush(&mut self) -> Vec<Verdict> {
        let verdicts = self.sink.stage(&self.batch).unwrap();
        self.sink.commit().unwrap();
        self.batch.clear();
        verdicts.as_slice().to_vec()
    }

    /// Flushes, trying again as the runtime does on a transient fault such as a deadlock; says how often.
    pub fn flush_with_retries(&mut self) -> u32 {
        for tries in 0..20 {
            match self.sink.stage(&self.batch) {
                Ok(_) => {
                    self.sink.commit().unwrap();
                    self.batch.clear();
                    return tries;
                }
                Err(fault) => {
                    assert_eq!(fault.kind, fhirehose_stream::FaultKind::Transient, "{fault}");
                    self.sink.rollback();
                }
            }
        }
        panic!("still failing after 20 tries");
    }
}

/// The `n`th id of a kind.
pub fn id(kind: &str, n: u32) -> String {
    fhirehose_fhir::id("test", "test", kind, &[&n.to_string()], None).to_string()
}

pub fn patient(n: u32, city: &str) -> Value {
    json!({
        "resourceType": "Patient", "id": id("Patient", n), "active": true, "gender": "female", "birthDate": "1980-02-03",
        "identifier": [{"type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MR"}]},
                        "value": format!("MRN{n}")}],
        "name": [{"family": "Alhadi", "given": ["Amna", "Omer"]}], "address": [{"city": city}],
    })
}

pub fn encounter(n: u32, patient: u32, class: &str, start: &str, end: Option<&str>) -> Value {
    let mut encounter = json!({
        "resourceType": "Encounter", "id": id("Encounter", n), "status": "finished", "class": {"code": class},
        "type": [{"coding": [{"code": "inpatient"}]}],
        "subject": {"reference": format!("Patient/{}", id("Patient", patient))},
        "serviceProvider": {"reference": format!("Organization/{}", id("Organization", 1))},
        "participant": [{"type": [{"coding": [{"code": "ATND"}]}],
                         "individual": {"reference": format!("Practitioner/{}", id("Practitioner", 1))}}],
        "period": {"start": start},
    });
    if let Some(end) = end {
        encounter["period"]["end"] = json!(end);
        encounter["hospitalization"] = json!({"dischargeDisposition": {"coding": [{"code": "home"}]}});
    }
    encounter
}

/// The first column of every row as text.
pub fn texts(client: &mut Client, sql: &str) -> Vec<String> {
    let rows = client.query(sql, &[]).unwrap();
    rows.iter().map(|row| row.get::<_, Option<String>>(0).unwrap_or_else(|| "null".into())).collect()
}
