//! The processor over records as the runtime gives them, with the repository's own schemas.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests fail by panicking")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use enrich::{Enrich, PENDING, Saved, Snapshots};
use fhirehose_codec::{FhirEncoder, FhirEnvelope, MemorySchemas, decode};
use fhirehose_stream::{
    Assigned, Batch, HEADER_SOURCE_TS, HEADER_VERSION, Outputs, Processor, Reason, TopicPartition, Verdict,
};
use fhirehose_tape::Tape;
use fhirehose_topics::Registry;

const PATIENT: &str =
    r#"{"resourceType":"Patient","id":"p1","name":[{"family":"Osman","given":["Amna"]}],"gender":"female"}"#;
const HEART_RATE: &str = r#"{"resourceType":"Observation","id":"o1","status":"final",
    "code":{"coding":[{"system":"http://loinc.org","code":"8867-4"}]},"subject":{"reference":"Patient/p1"},
    "valueQuantity":{"value":72.50,"code":"/min"}}"#;

struct World {
    registry: Registry,
    schemas: Arc<MemorySchemas>,
}

/// One emitted record, read back.
#[derive(Debug, PartialEq)]
struct Emitted {
    topic: String,
    key: String,
    version: Option<i64>,
    columns: Option<serde_json::Value>,
}

impl World {
    fn new() -> World {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
        let registry = Registry::load(&root).unwrap_or_else(|problems| panic!("{problems:?}"));
        let mut schemas = MemorySchemas::default();
        for (id, topic) in registry.iter().enumerate() {
            if let Some(schema) = &topic.schema {
                schemas.insert(id as u32, &schema.json).unwrap();
            }
        }
        World { registry, schemas: Arc::new(schemas) }
    }

    fn version(&self, offset: i64, seq: u8) -> i64 {
        self.registry.topic("fhir.observation").unwrap().version(offset, seq)
    }

    fn id(&self, subject: &str) -> u32 {
        let of = |t: &fhirehose_topics::Topic| t.schema.as_ref().is_some_and(|s| s.subject == subject);
        self.registry.iter().position(of).unwrap() as u32
    }

    fn enrich(&self, snapshot: Option<&Path>) -> Enrich {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
        let snapshots = Snapshots::load(&root).unwrap();
        let saved = snapshot.map(|path| Saved { path: path.into(), now: || 1_000 });
        let mut enrich =
            Enrich::new(&self.registry, snapshots, self.schemas.clone(), &|s| Ok(self.id(s)), saved).unwrap();
        let at = |topic: &str| Assigned { at: partition(topic), next_offset: 0, metadata: None };
        enrich.assigned(&[at("fhir.observation"), at("fhir.patient")]).unwrap();
        enrich
    }

    fn value(&self, topic: &str, tenant: &str, id: &str, resource: &str) -> Vec<u8> {
        let schema = self.registry.schema(topic).unwrap();
        let envelope = FhirEnvelope {
            tenant,
            id,
            version_id: "1",
            last_updated: 1_700_000_000_000,
            source: "hospital_a",
            source_position: "1:2:3",
            mapping: "m",
            mapping_version: 1,
            flags: vec!["odd"],
            resource: resource.as_bytes(),
        };
        let mut value = Vec::new();
        FhirEncoder::new(schema, self.id(&schema.subject)).unwrap().encode(&envelope, &mut value);
        value
    }

    fn batch(&self, topic: &str, offset: i64, tenant: &str, id: &str, resource: Option<&str>) -> Batch {
        let value = resource.map(|resource| self.value(topic, tenant, id, resource));
        let mut batch = Batch::default();
        let key = format!("{tenant}/{id}");
        let headers = [(HEADER_SOURCE_TS, Some(&b"1700000000000"[..]))];
        let topic = Arc::from(topic);
        batch.push(&topic, 0, offset, 5, Some(key.as_bytes()), value.as_deref(), headers.into_iter());
        batch
    }

    fn read(&self, out: &Outputs) -> Vec<Emitted> {
        let read = |output: fhirehose_stream::Output<'_>| {
            let header = output.headers().find(|(name, _)| *name == HEADER_VERSION);
            let columns = output.value().filter(|_| &**output.topic() != PENDING).map(|value| {
                let mut tape = Tape::new();
                decode(value, &*self.schemas, &mut tape).unwrap();
                let mut json = Vec::new();
                tape.root().write_json(&mut json);
                serde_json::from_slice(&json).unwrap()
            });
            Emitted {
                topic: output.topic().to_string(),
                key: String::from_utf8(output.key().to_vec()).unwrap(),
                version: header.map(|(_, text)| std::str::from_utf8(text).unwrap().parse().unwrap()),
                columns,
            }
        };
        out.iter().map(read).collect()
    }
}

fn partition(topic: &str) -> TopicPartition {
    TopicPartition { topic: topic.into(), partition: 0 }
}

fn process(enrich: &mut Enrich, batch: &Batch) -> (Vec<Verdict>, Outputs) {
    let mut out = Outputs::default();
    let verdicts = enrich.process(batch, &mut out).unwrap();
    (verdicts.as_slice().to_vec(), out)
}

fn arrive(enrich: &mut Enrich, batch: &Batch) {
    batch.iter().for_each(|record| enrich.table(record).unwrap());
}

#[test]
fn a_known_target_is_copied_and_digits_are_kept() {
    let world = World::new();
    let mut enrich = world.enrich(None);
    arrive(&mut enrich, &world.batch("fhir.patient", 7, "a", "p1", Some(PATIENT)));
    let (verdicts, out) =
        process(&mut enrich, &world.batch("fhir.observation", 9, "a", "o1", Some(HEART_RATE)));
    assert_eq!(verdicts, [Verdict::Emit(1)]);
    let emitted = world.read(&out);
    assert_eq!(emitted.len(), 1, "{emitted:?}");
    let columns = emitted[0].columns.as_ref().unwrap();
    assert_eq!((&*emitted[0].topic, &*emitted[0].key), ("enriched.observation", "a/o1"));
    assert_eq!(columns["subject_name"], "Amna Osman");
    assert_eq!(columns["subject_id"], "p1");
    assert_eq!(columns["subject_resolved"], true);
    assert_eq!(columns["value"], "72.50");
    assert_eq!(columns["flags"][0], "odd");
    assert_eq!(emitted[0].version, Some(world.version(9, 0)));
    assert_eq!(columns["version"], world.version(9, 0));
}

#[test]
fn targets_stay_known_while_partitions_come_and_go() {
    let world = World::new();
    let mut enrich = world.enrich(None);
    arrive(&mut enrich, &world.batch("fhir.patient", 7, "a", "p1", Some(PATIENT)));
    let patients = partition("fhir.patient");
    enrich.revoked(std::slice::from_ref(&patients));
    enrich.assigned(&[Assigned { at: patients, next_offset: 8, metadata: None }]).unwrap();
    let (_, out) = process(&mut enrich, &world.batch("fhir.observation", 9, "a", "o1", Some(HEART_RATE)));
    assert_eq!(world.read(&out)[0].columns.as_ref().unwrap()["subject_resolved"], true);
}

#[test]
fn a_late_target_makes_the_record_come_again_once() {
    let world = World::new();
    let mut enrich = world.enrich(None);
    let fact = world.batch("fhir.observation", 9, "a", "o1", Some(HEART_RATE));
    let (_, out) = process(&mut enrich, &fact);
    let emitted = world.read(&out);
    assert_eq!(emitted[0].columns.as_ref().unwrap()["subject_resolved"], false);
    assert_eq!((&*emitted[1].topic, &*emitted[1].key), (PENDING, "a/Observation/o1"));
    enrich.committed();

    let mut again = Outputs::default();
    assert!(!enrich.wake(&mut again).unwrap() && again.is_empty(), "nothing arrived");
    enrich.committed();
    // The other tenant's patient of the same id is another.
    arrive(&mut enrich, &world.batch("fhir.patient", 1, "b", "p1", Some(PATIENT)));
    enrich.wake(&mut again).unwrap();
    assert!(again.is_empty());
    enrich.committed();

    arrive(&mut enrich, &world.batch("fhir.patient", 2, "a", "p1", Some(PATIENT)));
    enrich.wake(&mut again).unwrap();
    // Its transaction fails: the same is due again.
    enrich.aborted();
    again.clear();
    enrich.wake(&mut again).unwrap();
    enrich.committed();
    let emitted = world.read(&again);
    assert_eq!(emitted[0].version, Some(world.version(9, 1)));
    assert_eq!(emitted[0].columns.as_ref().unwrap()["subject_name"], "Amna Osman");
    assert_eq!((&*emitted[1].topic, emitted[1].columns.is_none()), (PENDING, true));
    again.clear();
    enrich.wake(&mut again).unwrap();
    assert!(again.is_empty(), "it comes again once");
}

#[test]
fn an_aborted_batch_leaves_nothing_waiting() {
    let world = World::new();
    let mut enrich = world.enrich(None);
    process(&mut enrich, &world.batch("fhir.observation", 9, "a", "o1", Some(HEART_RATE)));
    enrich.aborted();
    arrive(&mut enrich, &world.batch("fhir.patient", 2, "a", "p1", Some(PATIENT)));
    let mut out = Outputs::default();
    enrich.wake(&mut out).unwrap();
    assert!(out.is_empty());
}

#[test]
fn a_delete_is_a_tombstone_with_a_version_and_ends_the_wait() {
    let world = World::new();
    let mut enrich = world.enrich(None);
    process(&mut enrich, &world.batch("fhir.observation", 9, "a", "o1", Some(HEART_RATE)));
    enrich.committed();
    let (verdicts, out) = process(&mut enrich, &world.batch("fhir.observation", 12, "a", "o1", None));
    enrich.committed();
    assert_eq!(verdicts, [Verdict::Emit(1)]);
    let emitted = world.read(&out);
    assert_eq!(
        (&*emitted[0].topic, emitted[0].version),
        ("enriched.observation", Some(world.version(12, 0)))
    );
    assert!(emitted[0].columns.is_none());
    assert_eq!(&*emitted[1].topic, PENDING);
    arrive(&mut enrich, &world.batch("fhir.patient", 2, "a", "p1", Some(PATIENT)));
    let mut again = Outputs::default();
    enrich.wake(&mut again).unwrap();
    assert!(again.is_empty(), "a deleted record does not come again");
}

#[test]
fn what_waits_survives_in_the_changelog() {
    let world = World::new();
    let mut enrich = world.enrich(None);
    let (_, out) = process(&mut enrich, &world.batch("fhir.observation", 9, "a", "o1", Some(HEART_RATE)));
    let pending = out.iter().find(|output| &**output.topic() == PENDING).unwrap();
    assert_eq!(pending.partition(), Some(0));
    let mut changelog = Batch::default();
    let headers = pending.headers().map(|(name, value)| (name, Some(value)));
    changelog.push(&PENDING.into(), 0, 3, 5, Some(pending.key()), pending.value(), headers);

    let mut other = world.enrich(None);
    other.restore(changelog.get(0).unwrap()).unwrap();
    arrive(&mut other, &world.batch("fhir.patient", 2, "a", "p1", Some(PATIENT)));
    let at = Assigned { at: partition("fhir.observation"), next_offset: 10, metadata: None };
    other.assigned(&[at]).unwrap();
    let mut again = Outputs::default();
    other.wake(&mut again).unwrap();
    let emitted = world.read(&again);
    assert_eq!(emitted[0].version, Some(world.version(9, 1)));
    other.committed();
    other.revoked(&[partition("fhir.observation")]);
}

#[test]
fn a_deleted_target_keeps_its_values_and_the_store_survives_a_restart() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("references");
    let mut enrich = world.enrich(Some(&path));
    assert!(enrich.table_start().is_empty());
    arrive(&mut enrich, &world.batch("fhir.patient", 7, "a", "p1", Some(PATIENT)));
    arrive(&mut enrich, &world.batch("fhir.patient", 8, "a", "p1", None));
    enrich.checkpoint(&[(partition("fhir.patient"), 9)]).unwrap();

    let mut other = world.enrich(Some(&path));
    assert_eq!(other.table_start(), [(partition("fhir.patient"), 9)]);
    let (_, out) = process(&mut other, &world.batch("fhir.observation", 9, "a", "o1", Some(HEART_RATE)));
    let emitted = world.read(&out);
    assert_eq!(emitted[0].columns.as_ref().unwrap()["subject_name"], "Amna Osman");
}

#[test]
fn what_was_saved_of_a_topic_that_was_made_anew_is_not_read() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("references");
    let start = |id: &str| {
        let mut enrich = world.enrich(Some(&path));
        enrich.identify(HashMap::from([("fhir.patient".to_owned(), id.to_owned())]));
        let start = enrich.table_start();
        enrich.checkpoint(&[(partition("fhir.patient"), 9)]).unwrap();
        start
    };
    assert_eq!(start("one"), []);
    assert_eq!(start("one"), [(partition("fhir.patient"), 9)]);
    assert_eq!(start("another"), []);
    assert_eq!(start("another"), [(partition("fhir.patient"), 9)]);
}

#[test]
fn bad_records_are_rejected_alone() {
    let world = World::new();
    let mut enrich = world.enrich(None);
    let topic: Arc<str> = "fhir.observation".into();
    let good = world.value("fhir.observation", "a", "o1", HEART_RATE);
    let not_json = world.value("fhir.observation", "a", "o2", "{");
    let mut batch = Batch::default();
    let values: [(&[u8], &[u8]); 4] =
        [(b"nokey", &good), (b"a/o1", &good[..20]), (b"a/o2", &not_json), (b"a/o1", &good)];
    for (offset, (key, value)) in values.iter().enumerate() {
        batch.push(&topic, 0, offset as i64, 5, Some(key), Some(value), [].into_iter());
    }
    let (verdicts, out) = process(&mut enrich, &batch);
    let reasons: Vec<_> = verdicts
        .iter()
        .map(|verdict| match verdict {
            Verdict::Reject(rejection) => Some(rejection.reason),
            _ => None,
        })
        .collect();
    assert_eq!(
        reasons,
        [Some(Reason::MissingKey), Some(Reason::MalformedAvro), Some(Reason::MalformedJson), None]
    );
    assert_eq!(out.iter().filter(|output| &**output.topic() == "enriched.observation").count(), 1);
}
