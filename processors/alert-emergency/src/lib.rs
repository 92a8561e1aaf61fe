//! Reads device messages (`device.*`) beside everything else, in a group of its own, and writes emergencies
//! (SOS, fall) to `alert.emergency` at once. Promises to wait for nobody: the patient is named if the device is
//! assigned, and left open if not. Never: writes readings, keeps state, does I/O.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use fhirehose_codec::{SchemaSource, decode};
use fhirehose_mapping::{
    Assignments, Drafts, Encoders, Mappings, Message, Plane, Provenance, Scratch, Vendor, read_headers,
};
use fhirehose_stream::{Batch, Fault, Outputs, Processor, Reason, Record, Rejection, Verdict, Verdicts};
use fhirehose_tape::Tape;
use fhirehose_topics::Registry;

/// The processor.
pub struct AlertEmergency {
    mappings: Arc<Mappings>,
    /// By topic.
    vendors: HashMap<String, Vendor>,
    schemas: Arc<dyn SchemaSource + Send + Sync>,
    encoders: Encoders,
    assignments: Assignments,
    body: Tape,
    headers: Tape,
    scratch: Scratch,
    drafts: Drafts,
}

impl AlertEmergency {
    /// `schema_id` gives the registered id of a subject.
    pub fn new(
        mappings: Arc<Mappings>,
        registry: &Registry,
        vendors: impl IntoIterator<Item = Vendor>,
        schemas: Arc<dyn SchemaSource + Send + Sync>,
        schema_id: &dyn Fn(&str) -> Result<u32, Fault>,
    ) -> Result<AlertEmergency, Fault> {
        let topics = mappings.messages().flat_map(|mapping| mapping.topics(Plane::Alerts));
        let encoders = Encoders::new(topics, registry, schema_id)?;
        Ok(AlertEmergency {
            mappings,
            vendors: vendors.into_iter().map(|vendor| (format!("device.{}", vendor.name), vendor)).collect(),
            schemas,
            encoders,
            assignments: Assignments::default(),
            body: Tape::new(),
            headers: Tape::new(),
            scratch: Scratch::default(),
            drafts: Drafts::new(),
        })
    }

    fn judge(&mut self, record: Record<'_>, out: &mut Outputs) -> Result<Verdict, Fault> {
        let Some(vendor) = self.vendors.get(record.topic()) else {
            return Ok(Rejection::new(Reason::UnknownSource, record.topic()).into());
        };
        let Some(bytes) = record.value() else {
            return Ok(Rejection::new(Reason::MissingValue, "value").into());
        };
        if let Err(error) = decode(bytes, &*self.schemas, &mut self.body) {
            return error.rejection().map(Verdict::from);
        }
        read_headers(&record, &mut self.headers);
        let record_time = record.timestamp_ms();
        let message = Message { body: self.body.root(), headers: self.headers.root(), vendor, record_time };
        let mapping = match self.mappings.device(record.topic(), &message) {
            Ok(mapping) if mapping.has(Plane::Alerts) => mapping,
            // What nobody knows is rejected by normalize-device, once.
            Ok(_) => return Ok(Verdict::Drop(Reason::NotRelevant)),
            Err(rejection) if rejection.reason == Reason::UnknownMessage => {
                return Ok(Verdict::Drop(Reason::NotRelevant));
            }
            Err(rejection) => return Ok(rejection.into()),
        };
        self.drafts.clear();
        let written = mapping.readings(&message).and_then(|readings| {
            for reading in &readings {
                let assignment = self.assignments.at(&reading.device, reading.observed_at);
                let (scratch, drafts) = (&mut self.scratch, &mut self.drafts);
                mapping.apply(&message, reading, assignment, Plane::Alerts, scratch, drafts)?;
            }
            let provenance = Provenance {
                source: &vendor.name,
                source_position: "",
                mapping: &mapping.name,
                mapping_version: mapping.version,
                version_id: "1",
                source_ts: record_time,
                last_updated: record_time,
            };
            self.encoders.write(&self.drafts, &provenance, out)
        });
        Ok(match written {
            Ok(0) => Verdict::Drop(Reason::NotRelevant),
            Ok(count) => Verdict::Emit(count),
            Err(rejection) => rejection.into(),
        })
    }
}

impl Processor for AlertEmergency {
    fn process(&mut self, batch: &Batch, out: &mut Outputs) -> Result<Verdicts, Fault> {
        batch.judge(|record| self.judge(record, out))
    }

    fn table(&mut self, record: Record<'_>) -> Result<(), Fault> {
        self.assignments.take(record, &*self.schemas).map(|_| ())
    }
}
