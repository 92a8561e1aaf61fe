//! The processor over the repository's mappings and examples.

use std::sync::{Arc, OnceLock};

use fhirehose_mapping::{Mappings, Problem, Source, Zone};
use fhirehose_stream::{Assigned, Batch, Outputs, Processor, Reason, TopicPartition, Verdict};
use fhirehose_testkit::{
    Example, canaries, examples, examples_of, keys, root, run, schema_id, schemas, shown, topics,
};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use crate::NormalizeCdc;

/// Outputs of a row of vital signs that has everything: eleven Observations and the sample.
const WHOLE: u32 = 12;

fn processor(facilities: &[(&str, &str)]) -> NormalizeCdc {
    static MAPPINGS: OnceLock<Arc<Mappings>> = OnceLock::new();
    let told = |problems: Vec<Problem>| problems.iter().map(|p| format!("{p}\n")).collect::<String>();
    let mappings =
        MAPPINGS.get_or_init(|| Arc::new(Mappings::load(&root(), topics()).map_err(told).unwrap()));
    let source = Source {
        name: "hospital_a".into(),
        tenant: "khartoum-teaching".into(),
        zone: Zone::named("Africa/Khartoum").unwrap(),
        facility_tenants: facilities
            .iter()
            .map(|(id, tenant)| ((*id).to_owned(), (*tenant).into()))
            .collect(),
    };
    NormalizeCdc::new(mappings.clone(), topics(), [source], schemas(), &schema_id).unwrap()
}

#[test]
fn every_example_becomes_what_its_snapshot_says() {
    let examples = examples_of("cdc.");
    assert!(examples.len() > 30);
    for example in examples {
        let (verdict, out) = run(&mut processor(&[]), &example);
        insta::assert_snapshot!(format!("{}.{}", example.logical_topic, example.name), shown(&verdict, &out));
    }
}

#[test]
fn every_bad_example_is_rejected_for_its_reason_and_leaves_no_trace() {
    let bad: Vec<_> = examples("bad").into_iter().filter(|e| e.logical_topic.starts_with("cdc.")).collect();
    assert!(bad.len() > 15);
    for example in bad {
        let several = example.json["needs"] == "facility_tenants";
        let facilities = if several { [("f1", "tenant-one")].to_vec() } else { Vec::new() };
        let (name, (verdict, out)) = (&example.name, run(&mut processor(&facilities), &example));
        let Verdict::Reject(rejection) = verdict else { panic!("{name}: {verdict:?}") };
        assert_eq!(rejection.reason.label(), example.json["expect"], "{name}: {}", rejection.detail);
        assert!(out.is_empty() && out.bytes() == 0, "{name}");
        let told = format!("{rejection:?}");
        assert!(!canaries().iter().any(|canary| told.contains(canary)), "{name}: {told}");
    }
}

/// A change of `clinical_data.vital_signs` at a place of the log.
fn change(op: &str, before: Option<Json>, after: Option<Json>, file: u64, pos: i64, ts_ms: i64) -> Example {
    let mut example = examples("cdc.clinical_data.vital_signs").swap_remove(0);
    assert_eq!(example.name, "create-all-columns");
    let json = &mut example.json;
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
    example
}

#[test]
fn what_a_delete_withdraws_is_what_the_create_made() {
    let mut processor = processor(&[]);
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
    let mut processor = processor(&[]);
    let moved = json!({"heart_rate": null, "observation_time": "2026-03-01T13:59:00Z"});
    let (_, out) = run(&mut processor, &change("u", Some(json!({})), Some(moved), 1, 2, 1000));
    let gone = keys(&out, true);
    assert_eq!(gone.len(), 2, "{gone:?}");
    assert!(gone[0].starts_with("fhir.observation ") && gone[1].starts_with("vitals.sample "), "{gone:?}");
}

#[test]
fn after_a_rejected_row_all_it_could_have_left_is_withdrawn() {
    // The row before was rejected, so what stands is of a row before that, which nothing tells.
    let mut processor = processor(&[]);
    let (before, after) = (json!({"heart_rate": 900}), json!({"heart_rate": null}));
    let (_, out) = run(&mut processor, &change("u", Some(before), Some(after), 1, 2, 1000));
    assert_eq!(keys(&out, true).len(), 1, "the heart rate, and only it: the rest is written anew");
}

#[test]
fn a_row_that_cannot_be_read_can_still_be_deleted() {
    let mut processor = processor(&[]);
    let unreadable = json!({"heart_rate": "many", "created_at": "0000-00-00"});
    let (verdict, out) = run(&mut processor, &change("d", Some(unreadable), None, 1, 2, 1000));
    assert_eq!((verdict, keys(&out, true).len()), (Verdict::Emit(WHOLE), WHOLE as usize));
}

#[test]
fn a_delete_without_the_row_is_told_by_its_key() {
    let mut processor = processor(&[]);
    let (verdict, out) = run(&mut processor, &change("d", None, None, 1, 2, 1000));
    assert_eq!(verdict, Verdict::Emit(WHOLE - 1), "all but the sample, whose key has the time");
    assert!(keys(&out, true).iter().all(|key| key.starts_with("fhir.observation ")));
}

#[test]
fn a_moved_primary_key_is_a_delete_and_a_create_of_one_row_event() {
    let mut processor = processor(&[]);
    let (first, _) = run(&mut processor, &change("d", Some(json!({})), None, 1, 7, 1000));
    let create = change("c", None, Some(json!({"id": "moved"})), 1, 7, 1000);
    let (second, _) = run(&mut processor, &create);
    assert_eq!((first, second), (Verdict::Emit(WHOLE), Verdict::Emit(WHOLE)));
    assert_eq!(run(&mut processor, &create).0, Verdict::Drop(Reason::Redelivered));
}

#[test]
fn a_log_begun_anew_is_not_taken_for_the_old_one() {
    let mut processor = processor(&[]);
    let verdicts = [(9, 500, 1000), (9, 500, 1000), (1, 4, 2000), (1, 4, 2000), (1, 3, 2000)]
        .map(|(file, pos, ts)| run(&mut processor, &change("c", None, Some(json!({})), file, pos, ts)).0);
    let (new, old) = (Verdict::Emit(WHOLE), Verdict::Drop(Reason::Redelivered));
    assert_eq!(verdicts, [new.clone(), old.clone(), new, old.clone(), old]);
}

#[test]
fn snapshots_are_never_redeliveries() {
    let mut processor = processor(&[]);
    run(&mut processor, &change("c", None, Some(json!({})), 9, 500, 1000));
    let mut snapshot = change("r", None, Some(json!({})), 1, 4, 900);
    snapshot.json["value"]["source"]["snapshot"] = "incremental".into();
    assert_eq!(run(&mut processor, &snapshot).0, Verdict::Emit(WHOLE));
}

#[test]
fn a_tombstone_and_hostile_bytes() {
    let mut processor = processor(&[]);
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
    let mut examples = examples("cdc.clinical_data.encounters").into_iter();
    let example = examples.find(|example| example.name.contains("create")).unwrap();
    let facility = example.json["value"]["after"]["facility_id"].as_str().unwrap().to_owned();
    let mut processor = processor(&[(&facility, "tenant-one"), ("other", "tenant-two")]);
    let (_, out) = run(&mut processor, &example);
    assert!(keys(&out, false)[0].starts_with("fhir.encounter tenant-one/"), "{:?}", keys(&out, false));
    // Moved to the other facility: gone from the one tenant, there in the other.
    let mut moved = example.clone();
    moved.json["value"]["op"] = "u".into();
    moved.json["value"]["before"] = example.json["value"]["after"].clone();
    moved.json["value"]["after"]["facility_id"] = "other".into();
    moved.json["value"]["source"]["pos"] = 99_999_999.into();
    let (_, out) = run(&mut processor, &moved);
    assert!(keys(&out, true)[0].starts_with("fhir.encounter tenant-one/"), "{:?}", keys(&out, true));
    assert!(keys(&out, false)[0].starts_with("fhir.encounter tenant-two/"));
    // A delete that tells no facility withdraws the row in every tenant it can have had.
    let mut gone = example;
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
        let at = TopicPartition { topic: log[0].topic(), partition: 0 };
        let mut processor = processor(&[]);
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
            sent[next..end].iter().for_each(|index| log[*index].push(&mut batch));
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
            let fresh = &mut self::processor(&[]);
            log.iter().flat_map(|one| keys(&run(fresh, one).1, false)).filter(|key| key.starts_with("vitals.sample")).collect()
        };
        prop_assert_eq!(made, expected);
    }
}
