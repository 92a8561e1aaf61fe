//! Reads device messages (`device.*`) and the table `device.assignment`; writes `fhir.observation`,
//! `vitals.sample` and `device.metrics` for the patient a device was assigned to at the reading's own time.
//! Readings of unassigned devices are parked in a changelog, one by one, and flow when the assignment comes.
//! Promises that a reading written is never assigned anew. Never: writes alerts, knows a message, does I/O.

mod parked;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use fhirehose_codec::{SchemaSource, decode};
use fhirehose_mapping::{
    Assignment, Assignments, DeviceMapping, Drafts, Encoders, Mappings, Message, Plane, Provenance, Reading,
    Scratch, Vendor, read_headers,
};
use fhirehose_stream::{
    Assigned, Batch, Fault, Outputs, Processor, Reason, Record, Rejection, TopicPartition, Verdict, Verdicts,
};
use fhirehose_tape::Tape;
use fhirehose_topics::Registry;

use parked::{Item, ItemKey, Parked};

/// The changelog.
pub const PARKED: &str = "normalize-device.parked";
/// Parked readings that flow in one transaction.
const FLOW_PER_CALL: usize = 500;

/// The processor.
pub struct NormalizeDevice {
    mappings: Arc<Mappings>,
    /// By topic.
    vendors: HashMap<String, Vendor>,
    schemas: Arc<dyn SchemaSource + Send + Sync>,
    assignments: Assignments,
    parked: Parked,
    desk: Desk,
    body: Tape,
    headers: Tape,
}

/// What turns one message's readings into outputs.
struct Desk {
    encoders: Encoders,
    scratch: Scratch,
    drafts: Drafts,
    /// Stands in for the assignment a reading waits for, to tell now what would be rejected then.
    nobody: Assignment,
}

impl NormalizeDevice {
    /// `schema_id` gives the registered id of a subject.
    pub fn new(
        mappings: Arc<Mappings>,
        registry: &Registry,
        vendors: impl IntoIterator<Item = Vendor>,
        schemas: Arc<dyn SchemaSource + Send + Sync>,
        schema_id: &dyn Fn(&str) -> Result<u32, Fault>,
    ) -> Result<NormalizeDevice, Fault> {
        let topics = mappings.messages().flat_map(|mapping| mapping.topics(Plane::Readings));
        let encoders = Encoders::new(topics, registry, schema_id)?;
        let patient = "00000000-0000-0000-0000-000000000000".into();
        let nobody = Assignment { tenant: "nobody".into(), patient, facility: None };
        Ok(NormalizeDevice {
            mappings,
            vendors: vendors.into_iter().map(|vendor| (format!("device.{}", vendor.name), vendor)).collect(),
            schemas,
            assignments: Assignments::default(),
            parked: Parked::default(),
            desk: Desk { encoders, scratch: Scratch::default(), drafts: Drafts::new(), nobody },
            body: Tape::new(),
            headers: Tape::new(),
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
            Ok(mapping) if mapping.has(Plane::Readings) => mapping,
            Ok(_) => return Ok(Verdict::Drop(Reason::NotRelevant)),
            Err(rejection) => return Ok(rejection.into()),
        };
        let before = out.len();
        let waiting = match self.desk.write(mapping, &message, &self.assignments, out) {
            Ok(waiting) => waiting,
            Err(rejection) => {
                out.truncate(before);
                return Ok(rejection.into());
            }
        };
        if waiting.is_empty() {
            let written = u32::try_from(out.len() - before).unwrap_or(u32::MAX);
            return Ok(if written == 0 {
                Verdict::Drop(Reason::NotRelevant)
            } else {
                Verdict::Emit(written)
            });
        }
        let (value, headers) = (Arc::from(bytes), Arc::from(headers_json(&self.headers)));
        for reading in waiting {
            let key = ItemKey { at: record.at().clone(), offset: record.offset(), item: reading.item };
            let observed_at = reading.observed_at;
            let item =
                Item { value: Arc::clone(&value), headers: Arc::clone(&headers), record_time, observed_at };
            self.parked.park(reading.device, key, item, out);
        }
        Ok(Verdict::Park(Reason::UnassignedDevice))
    }

    /// Writes a parked reading if its device was assigned at its time. A reading that a mapping changed since
    /// now rejects stays parked: nothing is lost, and the mapping can be mended.
    fn try_parked(
        &mut self,
        device: &str,
        key: &ItemKey,
        item: &Item,
        out: &mut Outputs,
    ) -> Result<bool, Fault> {
        if self.assignments.at(device, item.observed_at).is_none() {
            return Ok(false);
        }
        let Some(vendor) = self.vendors.get(&*key.at.topic) else { return Ok(false) };
        if let Err(error) = decode(&item.value, &*self.schemas, &mut self.body) {
            return error.rejection().map(|_| false);
        }
        if self.headers.parse_json(item.headers.as_bytes()).is_err() {
            return Ok(false);
        }
        let (body, headers, record_time) = (self.body.root(), self.headers.root(), item.record_time);
        let message = Message { body, headers, vendor, record_time };
        let Ok(mapping) = self.mappings.device(&key.at.topic, &message) else { return Ok(false) };
        let Ok(readings) = mapping.readings(&message) else { return Ok(false) };
        let Some(reading) = readings.get(key.item) else { return Ok(false) };
        let Some(assignment) = self.assignments.at(&reading.device, reading.observed_at) else {
            return Ok(false);
        };
        Ok(self.desk.one(mapping, &message, reading, assignment, out).is_ok())
    }
}

impl Desk {
    /// Writes the readings whose device was assigned at their time; gives those that must wait. After a
    /// rejection `out` may hold some.
    fn write(
        &mut self,
        mapping: &DeviceMapping,
        message: &Message<'_>,
        assignments: &Assignments,
        out: &mut Outputs,
    ) -> Result<Vec<Reading>, Rejection> {
        let mut waiting = Vec::new();
        for reading in mapping.readings(message)? {
            match assignments.at(&reading.device, reading.observed_at) {
                Some(assignment) => {
                    self.one(mapping, message, &reading, assignment, out)?;
                }
                None => {
                    let (before, nobody) = (out.len(), self.nobody.clone());
                    let written = self.one(mapping, message, &reading, &nobody, out)?;
                    out.truncate(before);
                    if written > 0 {
                        waiting.push(reading);
                    }
                }
            }
        }
        Ok(waiting)
    }

    fn one(
        &mut self,
        mapping: &DeviceMapping,
        message: &Message<'_>,
        reading: &Reading,
        assignment: &Assignment,
        out: &mut Outputs,
    ) -> Result<u32, Rejection> {
        let Desk { encoders, scratch, drafts, .. } = self;
        drafts.clear();
        mapping.apply(message, reading, Some(assignment), Plane::Readings, scratch, drafts)?;
        let provenance = Provenance {
            source: &message.vendor.name,
            source_position: &reading.device,
            mapping: &mapping.name,
            mapping_version: mapping.version,
            version_id: "1",
            source_ts: message.record_time,
            last_updated: message.record_time,
        };
        encoders.write(drafts, &provenance, out)
    }
}

fn headers_json(headers: &Tape) -> String {
    let mut json = Vec::new();
    headers.root().write_json(&mut json);
    String::from_utf8_lossy(&json).into_owned()
}

impl Processor for NormalizeDevice {
    fn process(&mut self, batch: &Batch, out: &mut Outputs) -> Result<Verdicts, Fault> {
        self.parked.settle();
        let verdicts = batch.judge(|record| self.judge(record, out));
        if verdicts.is_err() {
            self.parked.abort();
        }
        verdicts
    }

    fn committed(&mut self) {
        self.parked.commit();
    }

    fn aborted(&mut self) {
        self.parked.abort();
    }

    fn assigned(&mut self, partitions: &[Assigned]) -> Result<(), Fault> {
        self.parked.own(partitions.iter().map(|assigned| assigned.at.clone()));
        Ok(())
    }

    fn revoked(&mut self, partitions: &[TopicPartition]) {
        self.parked.disown(partitions);
    }

    fn table(&mut self, record: Record<'_>) -> Result<(), Fault> {
        if let Some(device) = self.assignments.take(record, &*self.schemas)? {
            self.parked.awake(&device);
        }
        Ok(())
    }

    fn restore(&mut self, record: Record<'_>) -> Result<(), Fault> {
        self.parked.restore(record)
    }

    fn wake(&mut self, out: &mut Outputs) -> Result<bool, Fault> {
        self.parked.settle();
        let mut flowed = 0;
        while flowed < FLOW_PER_CALL {
            let Some((device, key, item)) = self.parked.next_awake() else { return Ok(false) };
            if self.try_parked(&device, &key, &item, out)? {
                self.parked.remove(&device, &key, out);
                flowed += 1;
            }
        }
        Ok(true)
    }
}
