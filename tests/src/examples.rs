//! Every processor that writes to Kafka, over every example, to snapshots; every bad example to its reason;
//! every resource to the judges. What the normalizing processors and alerts make of single examples is in the
//! snapshots of their own crates; here are those that need others before them.

use std::collections::BTreeMap;

use fhirehose_codec::FhirEnvelope;
use fhirehose_stream::{Batch, Outputs, Verdict};
use fhirehose_testkit::{Example, canaries, examples, examples_of, run, schemas, shown};
use serde_json::Value;

use crate::chain::{PROCESSORS, consumed, processor};
use crate::oracles;

/// Which processor the records of a topic go to first.
fn normalizer(topic: &str) -> &'static str {
    if topic.starts_with("cdc.") { "normalize-cdc" } else { "normalize-device" }
}

fn good() -> Vec<Example> {
    let all = [examples_of("cdc."), examples_of("device.ava4"), examples_of("device.kati")].concat();
    assert!(all.len() > 50, "only {} examples", all.len());
    all
}

fn name(example: &Example) -> String {
    format!("{}.{}", example.logical_topic, example.name)
}

/// What the examples become on `fhir.*`, by example.
fn normalized() -> Vec<(String, Batch)> {
    let made = good().into_iter().map(|example| {
        let (verdict, out) = run(&mut *processor(normalizer(&example.logical_topic), &[]), &example);
        assert!(!matches!(verdict, Verdict::Reject(_)), "{}: {verdict:?}", name(&example));
        let mut batch = Batch::default();
        consumed(&out, "fhir.", &mut batch);
        (name(&example), batch)
    });
    made.collect()
}

#[test]
fn enriched_examples_are_what_their_snapshots_say() {
    let normalized = normalized();
    let mut enriched = 0;
    for (name, batch) in normalized.iter().filter(|(_, batch)| !batch.is_empty()) {
        // It has read every table: the rows as they were at the snapshot and after every creation.
        let mut enrich = processor("enrich", &[]);
        let states =
            normalized.iter().filter(|(name, _)| name.contains(".snapshot") || name.contains(".create"));
        states.flat_map(|(_, batch)| batch.iter()).for_each(|record| {
            if !record.topic().ends_with(".observation") {
                enrich.table(record).unwrap();
            }
        });
        let mut out = Outputs::default();
        let verdicts = enrich.process(batch, &mut out).unwrap();
        enrich.committed();
        assert!(verdicts.as_slice().iter().all(|verdict| matches!(verdict, Verdict::Emit(_))), "{name}");
        enriched += out.len();
        insta::assert_snapshot!(format!("enriched.{name}"), columns(&out));
    }
    assert!(enriched > 80, "only {enriched}");
}

/// The outputs without the resource, which is shown where it is made.
fn columns(out: &Outputs) -> String {
    let mut shown: Value = serde_json::from_str(&shown(&Verdict::Emit(0), out)).unwrap();
    for output in shown["outputs"].as_array_mut().unwrap() {
        if let Some(value) = output["value"].as_object_mut() {
            value.remove("resource");
        }
    }
    serde_json::to_string_pretty(&shown["outputs"]).unwrap()
}

#[test]
fn cache_keys_of_examples_are_what_their_snapshots_say() {
    for example in examples_of("cdc.") {
        let (verdict, out) = run(&mut *processor("invalidate-cache", &[]), &example);
        insta::assert_snapshot!(format!("cache.{}", name(&example)), shown(&verdict, &out));
    }
}

#[test]
fn every_bad_example_has_the_outcome_it_names_and_stops_nobody() {
    let bad = examples("bad");
    assert!(bad.len() > 25);
    for example in &bad {
        let facilities: &[_] =
            if example.json["needs"] == "facility_tenants" { &[("f1", "tenant-one")] } else { &[] };
        let mut normalizer = processor(normalizer(&example.logical_topic), facilities);
        let (verdict, out) = run(&mut *normalizer, example);
        let (reason, detail) = match verdict {
            Verdict::Reject(rejection) => {
                assert!(out.is_empty(), "{}: something of a rejected record was emitted", example.name);
                (rejection.reason, rejection.detail)
            }
            Verdict::Park(reason) => (reason, String::new()),
            // It is accepted, and marked: that is its outcome.
            Verdict::Emit(_) if example.json["expect"].as_str().is_some_and(|e| e.starts_with("flag ")) => {
                continue;
            }
            other => panic!("{}: {other:?}", example.name),
        };
        assert_eq!(example.json["expect"], reason.label(), "{}: {detail}", example.name);
        assert!(!canaries().iter().any(|canary| detail.contains(canary)), "{}: {detail}", example.name);
    }
    // The same records between good ones, in one batch: whatever is wrong stays with the record that has it.
    for first in ["normalize-cdc", "normalize-device"] {
        let mut batch = Batch::default();
        let all = bad.iter().filter(|e| normalizer(&e.logical_topic) == first && e.json["needs"].is_null());
        let all: Vec<_> = all.collect();
        let good = good().into_iter().find(|e| normalizer(&e.logical_topic) == first).unwrap();
        good.push(&mut batch);
        for example in &all {
            example.push(&mut batch);
        }
        let mut out = Outputs::default();
        let verdicts = processor(first, &[]).process(&batch, &mut out).unwrap();
        assert!(matches!(verdicts.as_slice()[0], Verdict::Emit(_)));
        // Some stand at the same place of the log as another, and count as sent twice.
        let rejected = verdicts.as_slice().iter().filter(|v| matches!(v, Verdict::Reject(_))).count();
        assert!(rejected > all.len() / 2, "{first}: {rejected} of {}", all.len());
    }
}

#[test]
fn processors_decide_the_same_every_time() {
    for processor_name in PROCESSORS.into_iter().filter(|name| *name != "enrich") {
        for example in good() {
            let of_cdc = example.logical_topic.starts_with("cdc.");
            if of_cdc != matches!(processor_name, "normalize-cdc" | "invalidate-cache") {
                continue;
            }
            let once = run(&mut *processor(processor_name, &[]), &example);
            let again = run(&mut *processor(processor_name, &[]), &example);
            assert_eq!(
                shown(&once.0, &once.1),
                shown(&again.0, &again.1),
                "{processor_name}: {}",
                name(&example)
            );
        }
    }
}

#[test]
fn every_resource_passes_both_judges() {
    let (schemas, mut resources) = (schemas(), Vec::new());
    let mut kinds = BTreeMap::<String, usize>::new();
    for (name, batch) in normalized() {
        for record in batch.iter().filter(|record| record.value().is_some()) {
            let envelope = FhirEnvelope::decode(record.value().unwrap(), &*schemas).unwrap();
            let json = String::from_utf8(envelope.resource.to_vec()).unwrap();
            assert!(!json.contains('\n'), "the judges read a resource a line");
            *kinds.entry(record.topic().to_owned()).or_default() += 1;
            resources.push((format!("{name} {}", record.topic()), json));
        }
    }
    assert_eq!(kinds.len(), 6, "{kinds:?}");
    assert!(resources.len() > 80, "only {}", resources.len());
    let found = oracles::findings(&resources);
    assert!(found.is_empty(), "{} findings:\n{}", found.len(), found.join("\n"));
}
