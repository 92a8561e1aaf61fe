//! `device.assignment` records: who wears which device from when until when.

use std::path::Path;

use fhirehose_codec::AvroEncoder;
use fhirehose_fhir::id;
use fhirehose_tape::Tape;
use fhirehose_topics::Registry;
use serde_json::Value;

use super::publish::Publisher;
use crate::Error;

const TOPIC: &str = "device.assignment";

pub(super) struct Assignment<'a> {
    pub device: &'a str,
    pub tenant: &'a str,
    pub source: &'a str,
    /// Id of the patient's row in the source.
    pub patient: &'a str,
    /// Milliseconds since the epoch, inclusive.
    pub from_ms: i64,
    /// Exclusive; `None` is still worn.
    pub to_ms: Option<i64>,
}

pub(super) struct Assigner {
    encoder: AvroEncoder,
    tape: Tape,
    bytes: Vec<u8>,
}

impl Assigner {
    /// Takes the schema from `shapes` and its id from the schema registry.
    pub fn open(shapes: &Path, registry: &str) -> Result<Self, Error> {
        let topics = Registry::load(shapes).map_err(|problems| {
            Error::Usage(format!(
                "{} problems in {}/topics: see `fhirehose topics list`",
                problems.len(),
                shapes.display()
            ))
        })?;
        let schema = topics
            .topic(TOPIC)
            .and_then(|topic| topic.schema.as_ref())
            .ok_or_else(|| Error::Usage(format!("{TOPIC} is not declared in {}", shapes.display())))?;
        let url = format!("{}/subjects/{}/versions/latest", registry.trim_end_matches('/'), schema.subject);
        let found: Value = ureq::get(&url)
            .call()
            .and_then(|mut response| response.body_mut().read_json())
            .map_err(|error| {
                Error::Usage(format!(
                    "the schema of {TOPIC} is not in the registry ({error}): run `fhirehose topics apply`"
                ))
            })?;
        let id = found["id"]
            .as_u64()
            .and_then(|id| u32::try_from(id).ok())
            .ok_or_else(|| Error::Usage("the schema registry's answer has no schema id".into()))?;
        let encoder = AvroEncoder::new(schema, id)
            .map_err(|problem| Error::Usage(format!("the schema of {TOPIC}: {problem}")))?;
        Ok(Self { encoder, tape: Tape::new(), bytes: Vec::new() })
    }

    pub fn send(&mut self, to: &Publisher, assignment: &Assignment<'_>) -> Result<(), Error> {
        let Assignment { tenant, source, patient, .. } = assignment;
        let patient = id(tenant, source, "clinical_data.patients", &[patient], None).to_string();
        let tape = &mut self.tape;
        tape.clear();
        tape.begin_object();
        for (name, value) in
            [("device_id", assignment.device), ("tenant", assignment.tenant), ("patient_id", &patient)]
        {
            tape.key(name);
            tape.string(value);
        }
        tape.key("valid_from");
        tape.integer(assignment.from_ms);
        if let Some(to_ms) = assignment.to_ms {
            tape.key("valid_to");
            tape.integer(to_ms);
        }
        tape.end();
        self.bytes.clear();
        self.encoder
            .encode(self.tape.root(), &mut self.bytes)
            .map_err(|error| Error::Usage(format!("an assignment does not fit its schema: {error}")))?;
        let key = format!("{}/{}", assignment.device, assignment.from_ms);
        to.send(TOPIC, &key, &self.bytes, None, None)
    }
}
