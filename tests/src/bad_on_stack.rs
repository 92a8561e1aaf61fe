//! Everything bad sent to the real product between good records: each ends where `docs/bad-input.md` says,
//! complete, and the good ones flow.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use fhirehose_stream::Reason;
use fhirehose_testkit::{Example, canaries, examples, examples_of, root};
use serde_json::Value;

use crate::bad_input::{Case, cases};
use crate::end_to_end::World;
use crate::fleet::{Process, eventually, quiet, say};
use crate::kafka::Record;
use crate::stores;

/// Source of the examples, and that of several tenants, in `tests/product.toml`.
const SOURCE: &str = "examples";
const SEVERAL: &str = "several";

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

/// A row change at a place of the log of its own, so that it does not count as sent twice.
fn placed(value: &[u8], place: usize) -> Vec<u8> {
    match serde_json::from_slice::<Value>(value) {
        Ok(mut json) if json["source"].is_object() => {
            json["source"]["pos"] = (1_000_000 + place * 100).into();
            json.to_string().into_bytes()
        }
        _ => value.to_vec(),
    }
}

/// With the hospital's clock three hours ahead of now.
fn ahead(value: &[u8]) -> Vec<u8> {
    let mut json: Value = serde_json::from_slice(value).unwrap();
    // Zone-less, and Khartoum is two hours ahead of UTC.
    let local = jiff::Timestamp::from_millisecond(now_ms() + 5 * 3_600_000).unwrap();
    json["after"]["observation_time"] = local.strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into();
    json.to_string().into_bytes()
}

struct Sent {
    case: Case,
    topic: String,
    value: Vec<u8>,
    timestamp: i64,
}

pub fn check(world: &World, product: &mut Process) {
    let registered = {
        let schema = std::fs::read_to_string(root().join("schemas/avro/fhir.patient-value.avsc")).unwrap();
        world.kafka.registry.id_of("fhir.patient-value", &schema).unwrap()
    };
    world.kafka.create_topic(&format!("cdc.{SOURCE}.clinical_data.allergies"));
    for assignment in examples("device.assignment") {
        let key = assignment.json["key"].as_str().unwrap().as_bytes().to_vec();
        let value = assignment.json["value"].to_string();
        world.kafka.send("device.assignment", now_ms(), Some(&key), Some(value.as_bytes()), &[]);
    }
    let others = parked(world);
    let mut sent = Vec::new();
    for (place, case) in cases(registered).into_iter().enumerate() {
        let source = if case.several_tenants { SEVERAL } else { SOURCE };
        let topic = case.logical_topic.replacen("cdc.", &format!("cdc.{source}."), 1);
        let value =
            if case.name == "vitals-three-hours-ahead" { ahead(&case.value) } else { case.value.clone() };
        let (value, timestamp) = (placed(&value, place), now_ms());
        let mut headers = case.headers.clone();
        headers.push(("case".into(), case.name.clone()));
        world.kafka.send(&topic, timestamp, case.key.as_deref(), Some(&value), &headers);
        sent.push(Sent { case, topic, value, timestamp });
    }
    // After all that, in the same partitions.
    for (place, example) in good().iter().enumerate() {
        send_example(world, example, 10_000 + place);
    }

    let all_letters = |world: &World| {
        let topics =
            world.kafka.topics().into_iter().filter(|name| {
                name.ends_with(".normalize-cdc.dlq") || name.ends_with(".normalize-device.dlq")
            });
        let mut letters = BTreeMap::<String, Vec<Record>>::new();
        for letter in topics.flat_map(|topic| world.kafka.read(&topic)) {
            letters.entry(letter.header("case")).or_default().push(letter);
        }
        letters
    };
    let rejected = sent.iter().filter(|sent| sent.case.outcome != Reason::UnassignedDevice.label());
    let rejected: Vec<_> = rejected.collect();
    eventually("everything bad is dead-lettered", 90, || {
        product.still_runs();
        let letters = all_letters(world);
        rejected.iter().all(|sent| letters.contains_key(&sent.case.name))
    });
    let letters = all_letters(world);
    for sent in rejected {
        let of_case = &letters[&sent.case.name];
        assert_eq!(of_case.len(), 1, "{} has one letter", sent.case.name);
        assert_complete(world, sent, &of_case[0]);
    }
    parked_until_assigned(world, &others);
    the_rest_flows(world);
    redelivered_changes_nothing(world, product);
    stores::check(world, SOURCE);
}

/// What Debezium sends again after a crash of its own, at the same places of the log, is dropped.
fn redelivered_changes_nothing(world: &World, product: &mut Process) {
    let product = std::slice::from_mut(product);
    quiet(product, &world.kafka, &[], 60);
    let written = || {
        let kinds = ["patient", "encounter", "condition", "observation", "organization", "practitioner"];
        let topics = kinds.map(|kind| format!("fhir.{kind}"));
        topics.iter().map(|topic| world.kafka.read(topic).len()).sum::<usize>()
    };
    let dropped = |product: &[Process]| {
        let status = product[0].status().unwrap();
        let of = status.iter().find(|processor| processor["processor"] == "normalize-cdc").unwrap();
        of["dropped"]["redelivered"].as_u64().unwrap_or(0)
    };
    let (before, dropped_before, mut again) = (written(), dropped(product), 0);
    // A snapshot is not the log: it is sent again on purpose, and taken again.
    for (place, example) in good().iter().enumerate() {
        if example.logical_topic.starts_with("cdc.") && example.name.starts_with("create") {
            send_example(world, example, 10_000 + place);
            again += 1;
        }
    }
    assert!(again > 10, "only {again}");
    eventually("all of them are dropped", 60, || dropped(product) == dropped_before + again);
    quiet(product, &world.kafka, &[], 60);
    assert_eq!(written(), before, "nothing was written for them");
}

fn assert_complete(world: &World, sent: &Sent, letter: &Record) {
    let (name, header) = (&sent.case.name, |name: &str| letter.header(&format!("fhirehose-dlq-{name}")));
    assert_eq!(header("reason"), sent.case.outcome, "{name}: {}", header("detail"));
    assert_eq!(letter.key, sent.case.key, "{name}");
    assert_eq!(letter.timestamp, sent.timestamp, "{name}");
    match header("value-omitted").is_empty() {
        true => assert_eq!(letter.value.as_deref(), Some(&*sent.value), "{name}"),
        false => assert_eq!(header("value-omitted"), format!("{} bytes", sent.value.len()), "{name}"),
    }
    assert_eq!(header("source-topic"), sent.topic, "{name}");
    for part in ["stage", "detail", "processor", "version"] {
        assert!(!header(part).is_empty(), "{name} has no {part}");
    }
    for (original, value) in &sent.case.headers {
        assert_eq!(&letter.header(original), value, "{name}: header {original}");
    }
    // It names the very record.
    let (partition, offset) = (header("source-partition"), header("source-offset"));
    let originals = world.kafka.read(&sent.topic);
    let original = originals
        .iter()
        .find(|record| record.partition.to_string() == partition && record.offset.to_string() == offset);
    assert_eq!(&original.unwrap_or_else(|| panic!("{name}")).header("case"), name);
}

fn good() -> Vec<Example> {
    let mut good = [examples_of("cdc."), examples_of("device.ava4"), examples_of("device.kati")].concat();
    good.retain(|example| {
        example.logical_topic.starts_with("device.")
            || example.name.starts_with("create")
            || example.name.starts_with("snapshot")
    });
    // In the order of the log.
    good.sort_by_key(|example| example.json["value"]["source"]["pos"].as_i64());
    good
}

fn send_example(world: &World, example: &Example, place: usize) {
    let bytes = |value: &Value| match value {
        Value::String(text) => text.clone().into_bytes(),
        other => other.to_string().into_bytes(),
    };
    let topic = example.logical_topic.replacen("cdc.", &format!("cdc.{SOURCE}."), 1);
    let headers = example.json["headers"].as_object().into_iter().flatten();
    let headers: Vec<_> =
        headers.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect();
    let (key, value) = (bytes(&example.json["key"]), placed(&bytes(&example.json["value"]), place));
    world.kafka.send(&topic, now_ms(), Some(&key), Some(&value), &headers);
}

/// Keys of what waits for an assignment.
fn parked(world: &World) -> BTreeSet<String> {
    let records = world.kafka.read("normalize-device.parked").into_iter();
    let last: BTreeMap<_, _> = records.map(|record| (record.key(), record.value.is_some())).collect();
    last.into_iter().filter(|(_, kept)| *kept).map(|(key, _)| key).collect()
}

/// A reading of a device nobody wears is kept, and flows once somebody says who wore it.
fn parked_until_assigned(world: &World, others: &BTreeSet<String>) {
    // Others wait there too: of devices that the simulated hospitals never assigned.
    let new = || parked(world).difference(others).cloned().collect::<Vec<_>>();
    eventually("the reading is parked", 30, || !new().is_empty());
    for device in new().iter().map(|key| key.split('/').next().unwrap()) {
        let arguments =
            ["devices", "assign", "--source", SOURCE, "--patient", "parked-1", "--device", device];
        say(&[&arguments[..], &["--from", "2020-01-01T00:00:00Z"]].concat());
    }
    eventually("what was parked flows", 30, || new().is_empty());
    let patient = fhirehose_demo::ids::row(SOURCE, SOURCE, "clinical_data.patients", "parked-1", None);
    eventually("as an observation of the patient", 30, || {
        let live = world.kafka.read("fhir.observation").into_iter().filter_map(|record| record.value);
        live.into_iter().any(|value| world.kafka.resource(&value).contains(&patient))
    });
}

fn the_rest_flows(world: &World) {
    let tenant = format!("{SOURCE}/");
    let written = |topic: &str| {
        let records = world.kafka.read(topic).into_iter();
        records.filter(|record| record.key().starts_with(&tenant) && record.value.is_some()).count()
    };
    for kind in ["patient", "encounter", "condition", "observation", "organization", "practitioner"] {
        eventually(&format!("good records reach fhir.{kind}"), 30, || written(&format!("fhir.{kind}")) > 0);
        eventually("and are enriched", 30, || written(&format!("enriched.{kind}")) > 0);
    }
    let mut postgres = postgres::Client::connect(&world.stack.postgres, postgres::NoTls).unwrap();
    for table in ["vital_signs_timeseries", "dim.patient_dimension", "fact.encounter_fact"] {
        let count = format!("SELECT count(*) FROM {table} WHERE tenant_id = '{SOURCE}'");
        eventually(&format!("good records reach {table}"), 60, || {
            postgres.query_one(&count, &[]).unwrap().get::<_, i64>(0) > 0
        });
    }
    let family = canaries().into_iter().find(|canary| canary == "Qanarywala").unwrap();
    let stored = postgres.query("SELECT 1 FROM dim.patient_dimension WHERE last_name = $1", &[&family]);
    assert!(!stored.unwrap().is_empty(), "what must not be told went through: {family}");
}
