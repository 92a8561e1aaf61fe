//! The processor over the repository's mappings and examples, and its parking over time.

use std::sync::{Arc, OnceLock};

use fhirehose_mapping::{Mappings, Problem, Vendor, Zone};
use fhirehose_stream::{Assigned, Batch, Outputs, Processor, Reason, TopicPartition, Verdict};
use fhirehose_testkit::{
    Example, canaries, examples, examples_of, keys, root, run, schema_id, schemas, shown, topics,
};
use serde_json::json;

use crate::{NormalizeDevice, PARKED};

fn processor() -> NormalizeDevice {
    static MAPPINGS: OnceLock<Arc<Mappings>> = OnceLock::new();
    let told = |problems: Vec<Problem>| problems.iter().map(|p| format!("{p}\n")).collect::<String>();
    let mappings =
        MAPPINGS.get_or_init(|| Arc::new(Mappings::load(&root(), topics()).map_err(told).unwrap()));
    let zone = Zone::named("Africa/Khartoum").unwrap();
    let vendors = ["ava4", "kati"].map(|name| Vendor { name: name.into(), zone: zone.clone() });
    let mut made = NormalizeDevice::new(mappings.clone(), topics(), vendors, schemas(), &schema_id).unwrap();
    own(&mut made, &["device.ava4", "device.kati"]);
    made
}

fn own(processor: &mut NormalizeDevice, topics: &[&str]) {
    let assigned = |topic: &&str| Assigned { at: at(topic), next_offset: 0, metadata: None };
    processor.assigned(&topics.iter().map(assigned).collect::<Vec<_>>()).unwrap();
}

fn at(topic: &str) -> TopicPartition {
    TopicPartition { topic: topic.into(), partition: 0 }
}

fn assign(processor: &mut NormalizeDevice, device: &str, patient: &str, from: i64, to: Option<i64>) {
    let mut batch = Batch::default();
    let value = json!({"device_id": device, "tenant": "t", "patient_id": patient, "valid_from": from, "valid_to": to});
    let (key, value) = (format!("{device}/{from}"), value.to_string());
    let topic = "device.assignment".into();
    batch.push(&topic, 0, 0, 0, Some(key.as_bytes()), Some(value.as_bytes()), std::iter::empty());
    batch.iter().for_each(|record| processor.table(record).unwrap());
}

fn assign_examples(processor: &mut NormalizeDevice) {
    let mut batch = Batch::default();
    examples("device.assignment").iter().for_each(|example| example.push(&mut batch));
    batch.iter().for_each(|record| processor.table(record).unwrap());
}

const WATCH: &str = "861265061478047";
const PATIENT: &str = "7a0c1e9e-7a35-4d7c-9a42-1de0c35b1a01";
const HOUR: i64 = 3_600_000;
/// When the batch of readings below was received, and its readings were measured one and two hours before.
const NOW: i64 = 1_772_366_400_000;

/// An hourly batch of a watch: two readings, of one and two hours ago.
fn batch_of_two() -> Example {
    let mut example = examples("device.kati").into_iter().find(|e| e.name == "vital-sign-batch").unwrap();
    let reading = |hours: i64| {
        json!({"timestamp": (NOW - hours * HOUR) / 1000, "heartRate": 70 + hours, "spO2": 97,
            "bodyTemperature": 36.5, "bloodPressure": {"bp_sys": 120, "bp_dia": 80}})
    };
    example.json["value"]["IMEI"] = WATCH.into();
    example.json["value"]["data"] = json!([reading(2), reading(1)]);
    example.json["value"]["num_datas"] = 2.into();
    example.json["timestamp"] = NOW.into();
    example
}

fn samples(out: &Outputs) -> Vec<String> {
    keys(out, false).into_iter().filter(|key| key.starts_with("vitals.sample")).collect()
}

fn parked(out: &Outputs, tombstones: bool) -> Vec<String> {
    keys(out, tombstones).into_iter().filter(|key| key.starts_with(PARKED)).collect()
}

fn wake(processor: &mut NormalizeDevice) -> Outputs {
    let mut out = Outputs::default();
    assert!(!processor.wake(&mut out).unwrap());
    processor.committed();
    out
}

/// The changelog as it reads after these outputs.
fn changelog(outputs: &[&Outputs]) -> Batch {
    let (mut batch, topic) = (Batch::default(), PARKED.into());
    for output in outputs.iter().flat_map(|out| out.iter()).filter(|output| &**output.topic() == PARKED) {
        let headers = output.headers().map(|(name, value)| (name, Some(value)));
        let (offset, timestamp) = (i64::try_from(batch.len()).unwrap(), output.timestamp_ms().unwrap_or(0));
        batch.push(&topic, 0, offset, timestamp, Some(output.key()), output.value(), headers);
    }
    batch
}

#[test]
fn every_example_becomes_what_its_snapshot_says() {
    let examples: Vec<_> = examples_of("device.ava4").into_iter().chain(examples_of("device.kati")).collect();
    assert!(examples.len() >= 10);
    for example in examples {
        let mut processor = processor();
        assign_examples(&mut processor);
        let (verdict, out) = run(&mut processor, &example);
        assert!(!matches!(verdict, Verdict::Reject(_)), "{}: {verdict:?}", example.name);
        insta::assert_snapshot!(format!("{}.{}", example.logical_topic, example.name), shown(&verdict, &out));
    }
}

#[test]
fn every_bad_example_has_its_outcome() {
    let bad: Vec<_> =
        examples("bad").into_iter().filter(|e| e.logical_topic.starts_with("device.")).collect();
    assert!(bad.len() >= 5);
    for example in bad {
        let mut processor = processor();
        assign_examples(&mut processor);
        let (verdict, out) = run(&mut processor, &example);
        let told = format!("{verdict:?}");
        let reason = match verdict {
            Verdict::Reject(rejection) => {
                assert!(out.is_empty(), "{}", example.name);
                rejection.reason
            }
            Verdict::Park(reason) => {
                assert_eq!(out.len(), parked(&out, false).len(), "{}", example.name);
                reason
            }
            other => panic!("{}: {other:?}", example.name),
        };
        assert_eq!(reason.label(), example.json["expect"], "{}: {told}", example.name);
        assert!(!canaries().iter().any(|canary| told.contains(canary)), "{}: {told}", example.name);
    }
}

#[test]
fn readings_of_one_message_go_to_whom_the_device_was_assigned_at_their_own_time() {
    let mut processor = processor();
    let change = NOW - 90 * 60_000;
    assign(&mut processor, WATCH, "patient-a", NOW - 10 * HOUR, Some(change));
    assign(&mut processor, WATCH, "patient-b", change, None);
    let (verdict, out) = run(&mut processor, &batch_of_two());
    assert!(matches!(verdict, Verdict::Emit(_)), "{verdict:?}");
    let told = shown(&verdict, &out);
    assert_eq!(
        (told.matches("Patient/patient-a").count(), samples(&out).len()),
        (told.matches("Patient/patient-b").count(), 2)
    );
}

#[test]
fn readings_wait_one_by_one_and_flow_when_their_assignment_comes() {
    let mut processor = processor();
    assign(&mut processor, WATCH, PATIENT, NOW - 90 * 60_000, None);
    let (verdict, first) = run(&mut processor, &batch_of_two());
    assert_eq!(verdict, Verdict::Park(Reason::UnassignedDevice));
    assert_eq!((samples(&first).len(), parked(&first, false).len()), (1, 1));
    assert!(parked(&first, false)[0].ends_with("/device.kati/0/0/0"), "{:?}", parked(&first, false));
    assert!(wake(&mut processor).is_empty(), "nothing has changed");

    assign(&mut processor, WATCH, PATIENT, NOW - 5 * HOUR, Some(NOW - 90 * 60_000));
    let second = wake(&mut processor);
    assert_eq!((samples(&second).len(), parked(&second, true)), (1, parked(&first, false)));
    assert!(second.iter().filter(|o| &**o.topic() == PARKED).all(|o| o.partition() == Some(0)));
    assert!(wake(&mut processor).is_empty(), "and only once");

    // The same as if the assignments had been there from the start.
    let mut whole = self::processor();
    assign(&mut whole, WATCH, PATIENT, NOW - 5 * HOUR, None);
    let (_, expected) = run(&mut whole, &batch_of_two());
    let values = |outs: &[&Outputs]| {
        let outputs = outs.iter().flat_map(|out| out.iter()).filter(|output| &**output.topic() != PARKED);
        let mut all: Vec<_> = outputs.map(|o| (o.key().to_vec(), o.value().map(<[u8]>::to_vec))).collect();
        all.sort();
        all
    };
    assert!(values(&[&first, &second]) == values(&[&expected]), "byte for byte");
}

/// Of two readings of one device and time the later one must stay.
#[test]
fn parked_readings_flow_in_the_order_they_came() {
    let mut processor = processor();
    let (mut batch, mut out) = (Batch::default(), Outputs::default());
    (0..3).for_each(|_| batch_of_two().push(&mut batch));
    processor.process(&batch, &mut out).unwrap();
    processor.committed();
    let waiting = parked(&out, false);
    assign(&mut processor, WATCH, PATIENT, NOW - 5 * HOUR, None);
    let flowed = parked(&wake(&mut processor), true);
    assert_eq!((flowed.len(), flowed), (6, waiting));
}

#[test]
fn an_abort_takes_back_parking_and_waking() {
    let mut processor = processor();
    let (mut batch, mut out) = (Batch::default(), Outputs::default());
    batch_of_two().push(&mut batch);
    processor.process(&batch, &mut out).unwrap();
    processor.aborted();
    assign(&mut processor, WATCH, PATIENT, NOW - 5 * HOUR, None);
    assert!(wake(&mut processor).is_empty(), "what was aborted was not parked");

    assign(&mut processor, WATCH, PATIENT, NOW - 5 * HOUR, Some(NOW - 4 * HOUR));
    run(&mut processor, &batch_of_two());
    assign(&mut processor, WATCH, PATIENT, NOW - 5 * HOUR, None);
    let mut first = Outputs::default();
    processor.wake(&mut first).unwrap();
    processor.aborted();
    let again = wake(&mut processor);
    assert_eq!(samples(&first), samples(&again));
    assert_eq!(samples(&again).len(), 2);
}

#[test]
fn what_waits_is_restored_from_the_changelog() {
    let mut before = processor();
    let (_, out) = run(&mut before, &batch_of_two());
    assert_eq!(parked(&out, false).len(), 2);

    // Started anew, with the assignment there meanwhile.
    let mut after = processor();
    assign(&mut after, WATCH, PATIENT, NOW - 5 * HOUR, None);
    changelog(&[&out]).iter().for_each(|record| after.restore(record).unwrap());
    let flowed = wake(&mut after);
    assert_eq!((samples(&flowed).len(), parked(&flowed, true).len()), (2, 2));

    // And again, with the changelog as it is now: nothing is left.
    let mut later = processor();
    assign(&mut later, WATCH, PATIENT, NOW - 5 * HOUR, None);
    changelog(&[&out, &flowed]).iter().for_each(|record| later.restore(record).unwrap());
    assert!(wake(&mut later).is_empty());
}

#[test]
fn what_waits_in_a_partition_of_another_instance_is_left_to_it() {
    let (_, out) = run(&mut processor(), &batch_of_two());
    let mut other = processor();
    other.revoked(&[at("device.kati")]);
    changelog(&[&out]).iter().for_each(|record| other.restore(record).unwrap());
    assign(&mut other, WATCH, PATIENT, NOW - 5 * HOUR, None);
    assert!(wake(&mut other).is_empty(), "device.kati 0 is not ours");
    // It comes to us, with its changelog.
    changelog(&[&out]).iter().for_each(|record| other.restore(record).unwrap());
    own(&mut other, &["device.kati"]);
    assert_eq!(samples(&wake(&mut other)).len(), 2);
}

#[test]
fn a_reading_that_would_be_rejected_is_rejected_at_once_not_parked() {
    let mut example = batch_of_two();
    example.json["value"]["data"][1]["heartRate"] = 900.into();
    let (verdict, out) = run(&mut processor(), &example);
    let Verdict::Reject(rejection) = verdict else { panic!("{verdict:?}") };
    assert_eq!((rejection.reason, out.len()), (Reason::ImpossibleValue, 0));
}

#[test]
fn a_clock_far_ahead_is_flagged_and_the_brokers_time_taken() {
    let mut processor = processor();
    assign(&mut processor, WATCH, PATIENT, NOW - 5 * HOUR, None);
    let mut example = batch_of_two();
    example.json["value"]["data"] = json!([{"timestamp": 1_836_942_771, "heartRate": 70}]);
    let (verdict, out) = run(&mut processor, &example);
    let told = shown(&verdict, &out);
    assert!(samples(&out)[0].ends_with(&format!("/{NOW}")) && told.contains("clock-skew"), "{told}");
}

#[test]
fn many_parked_readings_flow_in_bounded_steps() {
    let mut processor = processor();
    let (mut batch, mut out) = (Batch::default(), Outputs::default());
    (0..600).for_each(|_| batch_of_two().push(&mut batch));
    processor.process(&batch, &mut out).unwrap();
    processor.committed();
    // Both readings of each message are looked at, and the later one of each flows.
    assign(&mut processor, WATCH, PATIENT, NOW - 90 * 60_000, None);
    let mut steps = Vec::new();
    loop {
        let mut out = Outputs::default();
        let more = processor.wake(&mut out).unwrap();
        processor.committed();
        steps.push(samples(&out).len());
        if !more {
            break;
        }
    }
    assert_eq!((steps.len(), steps.iter().sum::<usize>()), (2, 600), "{steps:?}");
}
