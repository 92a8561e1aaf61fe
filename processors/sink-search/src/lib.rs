//! Reads `enriched.*` records and keeps one search document of each in OpenSearch or Elasticsearch 8, as
//! `schemas/search` declares. Promises: the document is that of the highest version, in whatever order and
//! however often records come; a delete leaves a tombstone document without personal data, hidden by the alias,
//! that no late record overwrites. Never: indexes a column its template does not name.

mod bootstrap;
mod bulk;
mod client;
mod shapes;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use fhirehose_codec::{SchemaSource, decode, split_fhir_key};
use fhirehose_faultpoint::planted;
use fhirehose_stream::{
    Batch, Fault, HEADER_VERSION, OffsetsIn, Reason, Record, Rejection, Sink, TopicPartition, Verdict,
    Verdicts,
};
use fhirehose_tape::{Tape, Value, write_string};

pub use bootstrap::{check, ensure};
pub use client::{Client, Connection};
pub use shapes::Shapes;

/// The sink.
pub struct SinkSearch {
    client: Client,
    shapes: Arc<Shapes>,
    /// Positions in `shapes.indices` by topic.
    topics: HashMap<String, usize>,
    schemas: Arc<dyn SchemaSource + Send + Sync>,
    checked: bool,
    tape: Tape,
}

impl SinkSearch {
    pub fn new(client: Client, shapes: Arc<Shapes>, schemas: Arc<dyn SchemaSource + Send + Sync>) -> Self {
        let topics = shapes.indices.iter().enumerate().map(|(at, index)| (index.topic.clone(), at)).collect();
        SinkSearch { client, shapes, topics, schemas, checked: false, tape: Tape::new() }
    }

    /// The record's write, or its verdict where there is nothing to write.
    fn read(&mut self, record: Record<'_>) -> Result<Result<Vec<u8>, Verdict>, Fault> {
        let shapes = self.shapes.clone();
        let index = match self.topics.get(record.topic()).and_then(|at| shapes.indices.get(*at)) {
            Some(index) => index,
            None => return Ok(Err(Verdict::Drop(Reason::NotRelevant))),
        };
        let reject = |reason, what: &str| Ok(Err(Rejection::new(reason, what).into()));
        let Some((tenant, id)) = record.key().and_then(split_fhir_key) else {
            return reject(Reason::MissingKey, "the key is not <tenant>/<id>");
        };
        let mut document = Vec::new();
        let version = match record.value() {
            None => {
                let Some(version) = record.header_i64(HEADER_VERSION) else {
                    return reject(Reason::MissingElement, HEADER_VERSION);
                };
                begin(&mut document, tenant, &index.kind, id, version, true);
                version
            }
            Some(value) => {
                if let Err(error) = decode(value, &*self.schemas, &mut self.tape) {
                    return error.rejection().map(|rejection| Err(rejection.into()));
                }
                let columns = self.tape.root();
                let Some(version) = columns.get("version").and_then(Value::as_i64) else {
                    return reject(Reason::MissingElement, "version");
                };
                begin(&mut document, tenant, &index.kind, id, version, false);
                for column in &index.columns {
                    if let Some(value) = columns.get(column).filter(|value| !value.is_null()) {
                        document.push(b',');
                        write_string(column, &mut document);
                        document.push(b':');
                        value.write_json(&mut document);
                    }
                }
                version
            }
        };
        let mut lines = Vec::with_capacity(document.len() + 160);
        // Planted: a delete takes the document away, and with it the version that a late record must beat.
        let delete = record.value().is_none() && planted("delete-without-tombstone");
        lines.extend_from_slice(if delete {
            b"{\"delete\":{\"_index\":"
        } else {
            b"{\"index\":{\"_index\":"
        });
        write_string(&index.name, &mut lines);
        lines.extend_from_slice(b",\"_id\":");
        write_string(&format!("{tenant}|{id}"), &mut lines);
        // Planted: the last to come stays.
        if !planted("version-guard-dropped") {
            lines.extend_from_slice(
                format!(",\"version\":{version},\"version_type\":\"external_gte\"").as_bytes(),
            );
        }
        lines.extend_from_slice(b"}}\n");
        if !delete {
            lines.extend_from_slice(&document);
            lines.extend_from_slice(b"}\n");
        }
        Ok(Ok(lines))
    }
}

/// Starts a document with the fields all have; the caller ends it.
fn begin(document: &mut Vec<u8>, tenant: &str, kind: &str, id: &str, version: i64, deleted: bool) {
    document.push(b'{');
    for (name, value) in [("tenant", tenant), ("kind", kind), ("id", id)] {
        write_string(name, document);
        document.push(b':');
        write_string(value, document);
        document.push(b',');
    }
    document.extend_from_slice(format!("\"version\":{version},\"deleted\":{deleted}").as_bytes());
}

impl Sink for SinkSearch {
    fn offsets_in(&self) -> OffsetsIn {
        OffsetsIn::Kafka
    }

    fn claim(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<i64>>, Fault> {
        if !self.checked {
            check(&self.client, &self.shapes)?;
            self.checked = true;
        }
        Ok(vec![None; partitions.len()])
    }

    fn stage(&mut self, batch: &Batch) -> Result<Verdicts, Fault> {
        let mut verdicts = vec![None; batch.len()];
        let mut items = Vec::with_capacity(batch.len());
        for record in batch.iter() {
            match self.read(record)? {
                Ok(lines) => items.push(bulk::Item { record: record.index(), lines }),
                Err(verdict) => verdicts[record.index()] = Some(verdict),
            }
        }
        bulk::write(&self.client, items, |record, verdict| verdicts[record] = Some(verdict))?;
        batch.judge(|record| match verdicts[record.index()].take() {
            Some(verdict) => Ok(verdict),
            None => Err(Fault::transient("search left a document without answer")),
        })
    }

    fn commit(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    /// Nothing to undo: every write stands on its own and may be repeated.
    fn rollback(&mut self) {}
}
