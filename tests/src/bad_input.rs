//! Everything bad that a record can be: what is sent, and what becomes of it. The same records go through the
//! processors in process here, and through the real product in the end-to-end test. `docs/bad-input.md` tells
//! the outcomes.

use std::sync::Arc;

use fhirehose_stream::{Batch, Outputs, Processor, Reason, Verdict};
use fhirehose_testkit::{Example, examples, root, schema_id};
use serde_json::Value;

use crate::chain::processor;

/// A record that cannot be processed, or not yet.
pub struct Case {
    pub name: String,
    pub logical_topic: String,
    pub key: Option<Vec<u8>>,
    pub value: Vec<u8>,
    pub headers: Vec<(String, String)>,
    /// Kafka's, of the example it is made of.
    pub timestamp: i64,
    /// Label of the reason it is rejected or parked with.
    pub outcome: String,
    /// Only a source that holds several tenants rejects it.
    pub several_tenants: bool,
}

/// Larger than a record may be by default, and as large as the topics take.
const TEN_MEGABYTES: usize = 10_000_000;

/// `registered` is the id of a schema the registry knows: of `fhir.patient`.
pub fn cases(registered: u32) -> Vec<Case> {
    let mut cases: Vec<_> = examples("bad").iter().map(from_example).collect();
    let [a, b, c, d] = registered.to_be_bytes();
    let [e, f, g, h] = 4_000_000_u32.to_be_bytes();
    let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
    let big = format!(r#"{{"op":"c","after":{{"id":"{}"}}}}"#, "9".repeat(TEN_MEGABYTES));
    let raw: [(&str, Vec<u8>, Reason); 7] = [
        ("truncated-avro", vec![0, a, b, c, d, 40, b'k', b'h'], Reason::MalformedAvro),
        ("wrong-schema-id", vec![0, e, f, g, h, 2, 2, 2], Reason::UnknownSchema),
        ("not-json", b"id,name\n1,Qanarywala".to_vec(), Reason::MalformedJson),
        ("invalid-utf-8", b"{\"op\":\"c\",\"after\":{\"id\":\"\xff\"}}".to_vec(), Reason::MalformedJson),
        ("nan", b"{\"op\":\"c\",\"after\":{\"id\":NaN}}".to_vec(), Reason::MalformedJson),
        ("thousand-deep", deep.into_bytes(), Reason::TooDeep),
        ("ten-megabytes", big.into_bytes(), Reason::TooLarge),
    ];
    for (name, value, reason) in raw {
        for topic in ["cdc.clinical_data.patients", "device.ava4"] {
            cases.push(Case {
                name: format!("{name}.{topic}"),
                logical_topic: topic.into(),
                key: Some(format!("{{\"id\":\"{name}\"}}").into_bytes()),
                value: value.clone(),
                headers: Vec::new(),
                timestamp: 1_772_366_400_000,
                outcome: reason.label().into(),
                several_tenants: false,
            });
        }
    }
    // Without a column of the primary key anywhere.
    let mut keyless = examples("cdc.clinical_data.patients").swap_remove(0);
    keyless.json["value"]["after"]["id"] = Value::Null;
    keyless.json["key"] = Value::Null;
    keyless.json["expect"] = Reason::MissingKey.label().into();
    keyless.name = "missing-key".into();
    cases.push(from_example(&keyless));
    cases
}

fn from_example(example: &Example) -> Case {
    let bytes = |value: &Value| match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone().into_bytes()),
        other => Some(other.to_string().into_bytes()),
    };
    let headers = example.json["headers"].as_object().into_iter().flatten();
    Case {
        name: example.name.clone(),
        logical_topic: example.logical_topic.clone(),
        key: bytes(&example.json["key"]),
        value: bytes(&example.json["value"]).unwrap_or_default(),
        headers: headers.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect(),
        timestamp: example.json["timestamp"].as_i64().unwrap(),
        outcome: example.json["expect"].as_str().unwrap().to_owned(),
        several_tenants: example.json["needs"] == "facility_tenants",
    }
}

impl Case {
    fn run(&self, processor: &mut dyn Processor) -> (Verdict, Outputs) {
        let (mut batch, mut out) = (Batch::default(), Outputs::default());
        let topic: Arc<str> = self.logical_topic.replacen("cdc.", "cdc.hospital_a.", 1).into();
        let headers = self.headers.iter().map(|(name, value)| (name.as_str(), Some(value.as_bytes())));
        batch.push(&topic, 0, 0, self.timestamp, self.key.as_deref(), Some(&self.value), headers);
        let verdicts = processor.process(&batch, &mut out).unwrap();
        processor.committed();
        (verdicts.as_slice()[0].clone(), out)
    }
}

#[test]
fn every_bad_record_is_rejected_or_parked_for_its_reason() {
    let cases = cases(schema_id("fhir.patient-value").unwrap());
    // The runtime turns away what is too large before a processor sees it.
    for case in cases.iter().filter(|case| case.outcome != Reason::TooLarge.label()) {
        let facilities: &[_] = if case.several_tenants { &[("f1", "tenant-one")] } else { &[] };
        let first = if case.logical_topic.starts_with("cdc.") { "normalize-cdc" } else { "normalize-device" };
        let (verdict, out) = case.run(&mut *processor(first, facilities));
        match verdict {
            Verdict::Reject(rejection) => {
                assert_eq!(rejection.reason.label(), case.outcome, "{}: {}", case.name, rejection.detail);
                assert!(out.is_empty() && out.bytes() == 0, "{} left a trace", case.name);
            }
            Verdict::Park(reason) => assert_eq!(reason.label(), case.outcome, "{}", case.name),
            other => panic!("{}: {other:?}", case.name),
        }
    }
}

/// A server that cannot be asked is not the record's fault, and never ends in a dead letter.
#[test]
fn a_registry_that_is_down_is_a_fault_to_be_tried_again() {
    use fhirehose_codec::{AvroSchema, SchemaError, SchemaSource, decode};
    struct Down;
    impl SchemaSource for Down {
        fn schema(&self, _: u32) -> Result<Arc<AvroSchema>, SchemaError> {
            Err(SchemaError::Unavailable("refused".into()))
        }
    }
    let error = decode(&[0, 0, 0, 0, 7, 1], &Down, &mut fhirehose_tape::Tape::new()).unwrap_err();
    assert_eq!(error.reason(), None, "no reason to reject the record: {error}");
}

#[test]
fn every_bad_record_is_in_the_docs_with_its_outcome() {
    let docs = std::fs::read_to_string(root().join("docs/bad-input.md")).unwrap();
    for case in cases(1) {
        let name = case.name.split('.').next().unwrap().to_owned();
        let line = docs.lines().find(|line| line.contains(&format!("`{name}`")));
        let line = line.unwrap_or_else(|| panic!("docs/bad-input.md does not tell of {name}"));
        assert!(line.contains(&format!("`{}`", case.outcome)), "{name} ends as {}: {line}", case.outcome);
    }
}
