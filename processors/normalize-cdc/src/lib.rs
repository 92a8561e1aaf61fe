//! Reads row changes of hospital databases (`cdc.<source>.<db>.<table>`) and writes what the mappings make of
//! them: `fhir.*` and `vitals.sample`. Promises all outputs of a change or none, a change Debezium sends again
//! dropped, deletes and moved keys as tombstones. Never: knows a table, a code or a column; does I/O.

mod position;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use fhirehose_codec::{ChangeEvent, Op, SchemaSource, decode};
use fhirehose_faultpoint::planted;
use fhirehose_mapping::{Drafts, Encoders, Mappings, Provenance, RowChange, RowOp, Scratch, Source};
use fhirehose_stream::{
    Assigned, Batch, Fault, Outputs, Processor, Reason, Record, Rejection, TopicPartition, Verdict, Verdicts,
};
use fhirehose_tape::Tape;
use fhirehose_topics::{Registry, cdc_name};

use position::{Position, Watermarks};

/// The processor.
pub struct NormalizeCdc {
    mappings: Arc<Mappings>,
    sources: HashMap<String, Source>,
    schemas: Arc<dyn SchemaSource + Send + Sync>,
    encoders: Encoders,
    watermarks: Watermarks,
    change: Tape,
    key: Tape,
    scratch: Scratch,
    drafts: Drafts,
}

impl NormalizeCdc {
    /// `schema_id` gives the registered id of a subject.
    pub fn new(
        mappings: Arc<Mappings>,
        registry: &Registry,
        sources: impl IntoIterator<Item = Source>,
        schemas: Arc<dyn SchemaSource + Send + Sync>,
        schema_id: &dyn Fn(&str) -> Result<u32, Fault>,
    ) -> Result<NormalizeCdc, Fault> {
        let topics = mappings.tables().flat_map(|mapping| mapping.topics());
        let encoders = Encoders::new(topics, registry, schema_id)?;
        Ok(NormalizeCdc {
            sources: sources.into_iter().map(|source| (source.name.to_string(), source)).collect(),
            mappings,
            schemas,
            encoders,
            watermarks: Watermarks::default(),
            change: Tape::new(),
            key: Tape::new(),
            scratch: Scratch::default(),
            drafts: Drafts::new(),
        })
    }

    fn judge(&mut self, record: Record<'_>, out: &mut Outputs) -> Result<Verdict, Fault> {
        // Debezium's own topics stand beside those of tables.
        let Some(name) = cdc_name(record.topic()) else { return Ok(Verdict::Drop(Reason::Heartbeat)) };
        let Some(bytes) = record.value() else { return Ok(Verdict::Drop(Reason::Tombstone)) };
        let Some(source) = self.sources.get(name.source) else {
            return Ok(Rejection::new(Reason::UnknownSource, name.source).into());
        };
        let Some(mapping) = self.mappings.cdc(name.db, name.table) else {
            return Ok(Rejection::new(Reason::UndeclaredTable, format!("{}.{}", name.db, name.table)).into());
        };
        if let Err(error) = decode(bytes, &*self.schemas, &mut self.change) {
            return error.rejection().map(Verdict::from);
        }
        let event = match ChangeEvent::read(&self.change) {
            Ok(event) => event,
            Err(error) => return Ok(error.into()),
        };
        let position = Position::of(&event);
        if position.as_ref().is_some_and(|position| self.watermarks.covers(record.at(), position)) {
            return Ok(Verdict::Drop(Reason::Redelivered));
        }
        let key = match record.key() {
            // Only changes that come without the row before are told by their key.
            Some(key) if event.before.is_none() && matches!(event.op, Op::Update | Op::Delete) => {
                if let Err(error) = decode(key, &*self.schemas, &mut self.key) {
                    return error.rejection().map(Verdict::from);
                }
                let root = self.key.root();
                Some(root.get("payload").filter(|_| root.get("schema").is_some()).unwrap_or(root))
            }
            _ => None,
        };
        let version_id = position::version_id(&event.source);
        let change = RowChange {
            op: match event.op {
                Op::Create => RowOp::Create,
                Op::Read => RowOp::Read,
                Op::Update => RowOp::Update,
                Op::Delete => RowOp::Delete,
            },
            key,
            before: event.before,
            after: event.after,
            source,
            version_id: &version_id,
            last_updated: event.source.ts_ms,
            record_time: record.timestamp_ms(),
        };
        let written = mapping.apply(&change, &mut self.scratch, &mut self.drafts).and_then(|()| {
            let provenance = Provenance {
                source: &source.name,
                source_position: &event.source.position(),
                mapping: &mapping.name,
                mapping_version: mapping.version,
                version_id: &version_id,
                source_ts: event.source.ts_ms,
                last_updated: event.source.ts_ms,
            };
            self.encoders.write(&self.drafts, &provenance, out)
        });
        // A rejected change counts as seen: sent again, it would only be dead-lettered again.
        if let Some(position) = position {
            self.watermarks.raise(record.at(), position);
        }
        Ok(match written {
            Ok(0) => Verdict::Drop(Reason::NotRelevant),
            Ok(count) => Verdict::Emit(count),
            Err(rejection) => rejection.into(),
        })
    }
}

impl Processor for NormalizeCdc {
    fn process(&mut self, batch: &Batch, out: &mut Outputs) -> Result<Verdicts, Fault> {
        let verdicts = batch.judge(|record| self.judge(record, out));
        if verdicts.is_err() {
            self.watermarks.abort();
        }
        verdicts
    }

    fn committed(&mut self) {
        self.watermarks.commit();
    }

    fn aborted(&mut self) {
        self.watermarks.abort();
    }

    fn assigned(&mut self, partitions: &[Assigned]) -> Result<(), Fault> {
        for Assigned { at, metadata, .. } in partitions {
            // Planted: a restart forgets how far the source was read.
            let metadata = metadata.as_deref().filter(|_| !planted("watermark-lost-on-restart"));
            self.watermarks.restore(at, metadata)?;
        }
        Ok(())
    }

    fn revoked(&mut self, partitions: &[TopicPartition]) {
        self.watermarks.forget(partitions);
    }

    fn offset_metadata(&self, at: &TopicPartition) -> Option<String> {
        self.watermarks.metadata(at)
    }
}
