//! The processor over the repository's mappings and examples.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use fhirehose_codec::{FhirEnvelope, MemorySchemas, decode};
use fhirehose_mapping::{Mappings, Problem, Source, Zone};
use fhirehose_stream::{Assigned, Batch, Outputs, Processor, Reason, TopicPartition, Verdict};
use fhirehose_tape::Tape;
use fhirehose_topics::Registry;
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use crate::NormalizeCdc;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Outputs of a row of vital signs that has everything: eleven Observations and the sample.
const WHOLE: u32 = 12;

/// The processor, and the schemas its outputs are read with.
fn processor(facilities: &[(&str, &str)]) -> (NormalizeCdc, Arc<MemorySchemas>) {
    static SHAPES: OnceLock<(Registry, Arc<Mappings>)> = OnceLock::new();
    let (topics, mappings) = SHAPES.get_or_init(|| {
        let topics = Registry::load(&root()).unwrap();
        let told = |problems: Vec<Problem>| problems.iter().map(|p| format!("{p}\n")).collect::<String>();
        let mappings = Mappings::load(&root(), &topics).map_err(told).unwrap();
        (topics, Arc::new(mappings))
    });
    let mut schemas = MemorySchemas::default();
    let subjects: Vec<_> = topics.iter().filter_map(|topic| topic.schema.clone()).collect();
    for (id, schema) in (1..).zip(&subjects) {
        schemas.insert(id, &schema.json).unwrap();
    }
    let schemas = Arc::new(schemas);
    let source = Source {
        name: "hospital_a".into(),
        tenant: "khartoum-teaching".into(),
        zone: Zone::named("Africa/Khartoum").unwrap(),
        facility_tenants: facilities
            .iter()
            .map(|(id, tenant)| ((*id).to_owned(), (*tenant).into()))
            .collect(),
    };
    let id = |subject: &str| {
        let at = subjects.iter().position(|schema| schema.subject == subject).unwrap();
        Ok(u32::try_from(at + 1).unwrap())
    };
    let made = NormalizeCdc::new(mappings.clone(), topics, [source], schemas.clone(), &id);
    (made.unwrap(), schemas)
}

struct Example {
    topic: String,
    json: Json,
}

fn examples(folder: &str) -> Vec<(String, Example)> {
    let folder = root().join("examples").join(folder);
    let mut paths: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: &PathBuf| {
        let json: Json = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let logical = match &json["topic"] {
            Json::String(topic) => topic.clone(),
            _ => folder.file_name().unwrap().to_string_lossy().into_owned(),
        };
        let topic = logical.replacen("cdc.", "cdc.hospital_a.", 1);
        (path.file_stem().unwrap().to_string_lossy().into_owned(), Example { topic, json })
    };
    paths.iter().map(read).collect()
}

fn bytes(value: &Json) -> Option<Vec<u8>> {
    (!value.is_null()).then(|| value.to_string().into_bytes())
}

fn push(batch: &mut Batch, example: &Example) {
    let (key, value) = (bytes(&example.json["key"]), bytes(&example.json["value"]));
    let (offset, timestamp) =
        (i64::try_from(batch.len()).unwrap(), example.json["timestamp"].as_i64().unwrap());
    let topic = Arc::from(example.topic.as_str());
    batch.push(&topic, 0, offset, timestamp, key.as_deref(), value.as_deref(), std::iter::empty());
}

fn run(processor: &mut NormalizeCdc, example: &Example) -> (Verdict, Outputs) {
    let (mut batch, mut out) = (Batch::default(), Outputs::default());
    push(&mut batch, example);
    let verdicts = processor.process(&batch, &mut out).unwrap();
    processor.committed();
    (verdicts.as_slice()[0].clone(), out)
}

/// Outputs as JSON, for people to read in snapshots.
fn shown(out: &Outputs, schemas: &MemorySchemas) -> Json {
    let one = |output: fhirehose_stream::Output<'_>| {
        let value = output.value().map(|value| match FhirEnvelope::decode(value, schemas) {
            Ok(envelope) => json!({
                "version_id": envelope.version_id,
                "position": envelope.source_position,
                "mapping": format!("{}@{}", envelope.mapping, envelope.mapping_version),
                "flags": envelope.flags,
                "resource": serde_json::from_slice::<Json>(envelope.resource).unwrap(),
            }),
            Err(_) => {
                let (mut tape, mut json) = (Tape::new(), Vec::new());
                decode(value, schemas, &mut tape).unwrap();
                tape.root().write_json(&mut json);
                let Json::Object(fields) = serde_json::from_slice(&json).unwrap() else { panic!("a record") };
                fields.into_iter().filter(|(_, value)| !value.is_null()).collect()
            }
        });
        json!({
            "topic": &**output.topic(),
            "key": String::from_utf8_lossy(output.key()),
            "source_ts": output.headers().map(|(_, v)| String::from_utf8_lossy(v).into_owned()).collect::<Vec<_>>(),
            "value": value,
        })
    };
    out.iter().map(one).collect()
}

#[test]
fn every_example_becomes_what_its_snapshot_says() {
    let folders = std::fs::read_dir(root().join("examples")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut folders: Vec<_> = folders.map(|name| name.to_string_lossy().into_owned()).collect();
    folders.retain(|name| name.starts_with("cdc."));
    folders.sort();
    assert_eq!(folders.len(), 6, "{folders:?}");
    for folder in folders {
        for (name, example) in examples(&folder) {
            let (mut processor, schemas) = processor(&[]);
            let (verdict, out) = run(&mut processor, &example);
            let outputs = shown(&out, &schemas);
            let verdict = format!("{verdict:?}");
            insta::assert_json_snapshot!(
                format!("{folder}.{name}"),
                json!({"verdict": verdict, "outputs": outputs})
            );
        }
    }
}

#[test]
fn every_bad_example_is_rejected_for_its_reason_and_leaves_no_trace() {
    let canaries = std::fs::read_to_string(root().join("examples/canaries.txt")).unwrap();
    let bad: Vec<_> = examples("bad").into_iter().filter(|(_, e)| e.topic.starts_with("cdc.")).collect();
    assert!(bad.len() > 15);
    for (name, example) in bad {
        let several = example.json["needs"] == "facility_tenants";
        let facilities = if several { [("f1", "tenant-one")].to_vec() } else { Vec::new() };
        let (verdict, out) = run(&mut processor(&facilities).0, &example);
        let Verdict::Reject(rejection) = verdict else { panic!("{name}: {verdict:?}") };
        assert_eq!(rejection.reason.label(), example.json["expect"], "{name}: {}", rejection.detail);
        assert!(out.is_empty() && out.bytes() == 0, "{name}");
        let told = format!("{rejection:?}");
        assert!(!canaries.lines().any(|canary| told.contains(canary)), "{name}: {told}");
    }
}

/// A change of `clinical_data.vital_signs` at a place of the log.
fn change(op: &str, before: Option<Json>, after: Option<Json>, file: u64, pos: i64, ts_ms: i64) -> Example {
    let (name, example) = examples("cdc.clinical_data.vital_signs").swap_remove(0);
    assert_eq!(name, "create-all-columns");
    let mut json = example.json;
    let row = json["value"]["after"].clone();
    let with = |changes: Json| {
        let mut row = row.clone();
        changes.as_object().unwrap().iter().for_each(|(key, value)| row[key] = value.clone());
        row
    };
    json["value"]["op"] = op.into();
    json["value"]["before"] = before.map_or(Json::Null, with);
    json["value"]["after"] = after.map_or(Json::Null, with);
    let source = &mut json["value"]["source"];
    (source["file"], source["pos"], source["ts_ms"]) =
        (format!("b.{file:06}").into(), pos.into(), ts_ms.into());
    Example { topic: example.topic, json }
}

fn keys(out: &Outputs, tombstones: bool) -> Vec<String> {
    let wanted = out.iter().filter(|output| output.value().is_none() == tombstones);
    wanted.map(|output| format!("{} {}", output.topic(), String::from_utf8_lossy(output.key()))).collect()
}

#[test]
fn what_a_delete_withdraws_is_what_the_create_made() {
    let (mut processor, _) = processor(&[]);
    let (_, made) = run(&mut processor, &change("c", None, Some(json!({})), 1, 1, 1000));
    let (verdict, withdrawn) = run(&mut processor, &change("d", Some(json!({})), None, 1, 2, 1000));
    let (mut made, mut gone) = (keys(&made, false), keys(&withdrawn, true));
    made.sort();
    gone.sort();
    assert_eq!((made.len(), verdict), (12, Verdict::Emit(WHOLE)));
    assert_eq!(made, gone);
    assert!(withdrawn.iter().all(|output| output.headers().eq([("fhirehose-source-ts", &b"1000"[..])])));
}

#[test]
fn an_update_withdraws_what_the_row_no_longer_makes() {
    let (mut processor, _) = processor(&[]);
    let moved = json!({"heart_rate": null, "observation_time": "2026-03-01T13:59:00Z"});
    let (_, out) = run(&mut processor, &change("u", Some(json!({})), Some(moved), 1, 2, 1000));
    let gone = keys(&out, true);
    assert_eq!(gone.len(), 2, "{gone:?}");
    assert!(gone[0].starts_with("fhir.observation ") && gone[1].starts_with("vitals.sample "), "{gone:?}");
}

#[test]
fn after_a_rejected_row_all_it_could_have_left_is_withdrawn() {
    // The row before was rejected, so what stands is of a row before that, which nothing tells.
    let (mut processor, _) = processor(&[]);
    let (before, after) = (json!({"heart_rate": 900}), json!({"heart_rate": null}));
    let (_, out) = run(&mut processor, &change("u", Some(before), Some(after), 1, 2, 1000));
    assert_eq!(keys(&out, true).len(), 1, "the heart rate, and only it: the rest is written anew");
}

#[test]
fn a_delete_without_the_row_is_told_by_its_key() {
    let (mut processor, _) = processor(&[]);
    let (verdict, out) = run(&mut processor, &change("d", None, None, 1, 2, 1000));
    assert_eq!(verdict, Verdict::Emit(WHOLE - 1), "all but the sample, whose key has the time");
    assert!(keys(&out, true).iter().all(|key| key.starts_with("fhir.observation ")));
}

#[test]
fn a_moved_primary_key_is_a_delete_and_a_create_of_one_row_event() {
    let (mut processor, _) = processor(&[]);
    let (first, _) = run(&mut processor, &change("d", Some(json!({})), None, 1, 7, 1000));
    let create = change("c", None, Some(json!({"id": "moved"})), 1, 7, 1000);
    let (second, _) = run(&mut processor, &create);
    assert_eq!((first, second), (Verdict::Emit(WHOLE), Verdict::Emit(WHOLE)));
    assert_eq!(run(&mut processor, &create).0, Verdict::Drop(Reason::Redelivered));
}

#[test]
fn a_log_begun_anew_is_not_taken_for_the_old_one() {
    let (mut processor, _) = processor(&[]);
    let verdicts = [(9, 500, 1000), (9, 500, 1000), (1, 4, 2000), (1, 4, 2000), (1, 3, 2000)]
        .map(|(file, pos, ts)| run(&mut processor, &change("c", None, Some(json!({})), file, pos, ts)).0);
    let (new, old) = (Verdict::Emit(WHOLE), Verdict::Drop(Reason::Redelivered));
    assert_eq!(verdicts, [new.clone(), old.clone(), new, old.clone(), old]);
}

#[test]
fn snapshots_are_never_redeliveries() {
    let (mut processor, _) = processor(&[]);
    run(&mut processor, &change("c", None, Some(json!({})), 9, 500, 1000));
    let mut snapshot = change("r", None, Some(json!({})), 1, 4, 900);
    snapshot.json["value"]["source"]["snapshot"] = "incremental".into();
    assert_eq!(run(&mut processor, &snapshot).0, Verdict::Emit(WHOLE));
}

#[test]
fn a_tombstone_and_hostile_bytes() {
    let (mut processor, _) = processor(&[]);
    let topic: Arc<str> = "cdc.hospital_a.clinical_data.patients".into();
    let deep = "[".repeat(1000);
    let judged: Vec<_> = [None, Some("{"), Some(&*deep), Some("\u{0}\u{0}\u{0}\u{0}\u{63}xx"), Some("NaN")]
        .into_iter()
        .map(|value| {
            let (mut batch, mut out) = (Batch::default(), Outputs::default());
            batch.push(&topic, 0, 0, 0, Some(b"{}"), value.map(str::as_bytes), std::iter::empty());
            match processor.process(&batch, &mut out).unwrap().as_slice() {
                [Verdict::Reject(rejection)] => rejection.reason,
                [Verdict::Drop(reason)] => *reason,
                other => panic!("{other:?}"),
            }
        })
        .collect();
    use Reason::{MalformedJson, Tombstone, TooDeep, UnknownSchema};
    assert_eq!(judged, [Tombstone, MalformedJson, TooDeep, UnknownSchema, MalformedJson]);
}

#[test]
fn a_server_of_several_tenants_gives_each_row_its_own() {
    let (_, example) =
        examples("cdc.clinical_data.encounters").into_iter().find(|(n, _)| n.contains("create")).unwrap();
    let facility = example.json["value"]["after"]["facility_id"].as_str().unwrap().to_owned();
    let (mut processor, _) = processor(&[(&facility, "tenant-one"), ("other", "tenant-two")]);
    let (_, out) = run(&mut processor, &example);
    assert!(keys(&out, false)[0].starts_with("fhir.encounter tenant-one/"), "{:?}", keys(&out, false));
    // Moved to the other facility: gone from the one tenant, there in the other.
    let mut moved = Example { topic: example.topic.clone(), json: example.json.clone() };
    moved.json["value"]["op"] = "u".into();
    moved.json["value"]["before"] = example.json["value"]["after"].clone();
    moved.json["value"]["after"]["facility_id"] = "other".into();
    moved.json["value"]["source"]["pos"] = 99_999_999.into();
    let (_, out) = run(&mut processor, &moved);
    assert!(keys(&out, true)[0].starts_with("fhir.encounter tenant-one/"), "{:?}", keys(&out, true));
    assert!(keys(&out, false)[0].starts_with("fhir.encounter tenant-two/"));
    // A delete that tells no facility withdraws the row in every tenant it can have had.
    let mut gone = Example { topic: example.topic, json: example.json };
    (gone.json["value"]["op"], gone.json["value"]["after"]) = ("d".into(), Json::Null);
    gone.json["value"]["source"]["pos"] = 99_999_999_999_i64.into();
    let (_, out) = run(&mut processor, &gone);
    assert_eq!(keys(&out, true).len(), 2, "{:?}", keys(&out, true));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever is sent again, in whatever batches, with whatever aborts and restarts: every change makes its
    /// outputs once, in order.
    #[test]
    fn redelivered_changes_change_nothing(
        rows in prop::collection::vec(1i64..4, 1..12),
        restarts in prop::collection::vec((0usize..12, 0usize..12), 0..4),
        batches in prop::collection::vec((1usize..5, any::<bool>(), any::<bool>()), 1..40),
    ) {
        // Changes in the order of the log; some share a position and differ in the row.
        let mut log = Vec::new();
        for (event, count) in (1i64..).zip(&rows) {
            for row in 0..*count {
                let mut one = change("c", None, Some(json!({"id": format!("{event}-{row}")})), 3, event * 100, 1000 + event);
                one.json["value"]["source"]["row"] = row.into();
                log.push(one);
            }
        }
        // What Kafka holds: the log, with stretches sent again by a connector that restarted.
        let mut sent: Vec<usize> = (0..log.len()).collect();
        for (at, back) in restarts {
            let at = at.min(sent.len());
            let upto = sent.get(at.wrapping_sub(1)).copied().unwrap_or(0);
            let again: Vec<usize> = (upto.saturating_sub(back)..=upto.min(log.len() - 1)).collect();
            sent.splice(at..at, again);
        }
        let at = TopicPartition { topic: log[0].topic.as_str().into(), partition: 0 };
        let mut processor = processor(&[]).0;
        let (mut next, mut made, mut metadata) = (0, Vec::new(), None);
        let mut plan = batches.iter().cycle();
        let mut aborts = 40;
        while next < sent.len() {
            let Some((size, abort, restart)) = plan.next() else { break };
            if *restart {
                processor.revoked(std::slice::from_ref(&at));
                let assigned = Assigned { at: at.clone(), next_offset: 0, metadata: metadata.clone() };
                processor.assigned(&[assigned]).unwrap();
            }
            let (mut batch, mut out) = (Batch::default(), Outputs::default());
            let end = sent.len().min(next + size);
            sent[next..end].iter().for_each(|index| push(&mut batch, &log[*index]));
            processor.process(&batch, &mut out).unwrap();
            if *abort && aborts > 0 {
                aborts -= 1;
                processor.aborted();
                continue;
            }
            metadata = processor.offset_metadata(&at);
            processor.committed();
            made.extend(keys(&out, false).into_iter().filter(|key| key.starts_with("vitals.sample")));
            next = end;
        }
        let expected: Vec<String> = {
            let fresh = &mut self::processor(&[]).0;
            log.iter().flat_map(|one| keys(&run(fresh, one).1, false)).filter(|key| key.starts_with("vitals.sample")).collect()
        };
        prop_assert_eq!(made, expected);
    }
}
