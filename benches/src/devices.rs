//! Watches: who wears them, and what they send, made from the repository's examples.

use std::path::Path;

use anyhow::{Context, Result};
use fhirehose_codec::AvroEncoder;
use fhirehose_tape::Tape;
use fhirehose_topics::Registry;
use serde_json::{Value as Json, json};

use crate::kafka::Writer;
use crate::stack::Stack;

/// Each sends at most once a second.
pub const WATCHES: u64 = 500;
const TOPIC: &str = "device.kati";
/// One message in so many is an emergency call.
const CALLS: u64 = 200;

pub struct Watches {
    vital_sign: Json,
    sos: Json,
}

impl Watches {
    /// Puts every watch on someone's wrist.
    pub fn assign(stack: &Stack, writer: &Writer) -> Result<Watches> {
        let topics = Registry::load(&stack.root).ok().context("the topics cannot be read")?;
        let schema = topics.schema("device.assignment").context("device.assignment is not declared")?;
        let encoder = AvroEncoder::new(schema, stack.registry()?.id_of(&schema.subject, &schema.json)?)?;
        let mut tape = Tape::new();
        for watch in 0..WATCHES {
            let assignment = json!({
                "device_id": imei(watch), "tenant": "bench", "valid_from": 0,
                "patient_id": format!("00000000-0000-5000-8000-{watch:012}"),
            });
            tape.parse_json(assignment.to_string().as_bytes())?;
            let mut value = Vec::new();
            encoder.encode(tape.root(), &mut value)?;
            writer.send("device.assignment", format!("{}/0", imei(watch)).as_bytes(), &value, None)?;
        }
        let example = |name: &str| read(&stack.root, name);
        Ok(Watches { vital_sign: example("vital-sign")?, sos: example("sos")? })
    }

    /// Message `number`, at this time.
    pub fn send(&self, writer: &Writer, number: u64, at: jiff::Timestamp) -> Result<()> {
        let mut message =
            if number.is_multiple_of(CALLS) { self.sos.clone() } else { self.vital_sign.clone() };
        let device = imei(number % WATCHES);
        message["value"]["IMEI"] = device.as_str().into();
        if message["value"].get("timeStamps").is_some() {
            message["value"]["timeStamps"] = at.strftime("%d/%m/%Y %H:%M:%S").to_string().into();
        }
        let mqtt = message["headers"]["mqtt-topic"].as_str().unwrap_or_default();
        let value = message["value"].to_string();
        writer.send(TOPIC, device.as_bytes(), value.as_bytes(), Some(("mqtt-topic", mqtt)))
    }
}

fn imei(watch: u64) -> String {
    format!("86126506148{watch:04}")
}

fn read(root: &Path, name: &str) -> Result<Json> {
    let file = root.join(format!("examples/device.kati/{name}.json"));
    let text = std::fs::read(&file).with_context(|| file.display().to_string())?;
    Ok(serde_json::from_slice(&text)?)
}
