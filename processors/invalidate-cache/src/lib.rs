//! Reads row changes (`cdc.*`) and writes to `cache.invalidation` the cache keys each makes stale, by the rules
//! in `mappings/cache.yaml`. Promises: keys of the row before and after, each once per change; a key never
//! lacks its tenant. Never: reads a column no rule names, keeps state, or talks to a cache.

mod rules;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use fhirehose_codec::{AvroEncoder, ChangeEvent, EncodeError, Op, SchemaSource, decode};
use fhirehose_stream::{
    Batch, Fault, HEADER_SOURCE_TS, Outputs, Processor, Reason, Record, Rejection, Verdict, Verdicts,
};
use fhirehose_tape::Tape;
use fhirehose_topics::cdc_name;

pub use rules::Rules;

/// Topic written to.
pub const OUTPUT: &str = "cache.invalidation";

/// The processor.
pub struct InvalidateCache {
    rules: Arc<Rules>,
    tenants: HashMap<String, String>,
    schemas: Arc<dyn SchemaSource + Send + Sync>,
    encoder: Arc<AvroEncoder>,
    output: Arc<str>,
    change: Tape,
    value: Tape,
    keys: Vec<String>,
}

impl InvalidateCache {
    /// `tenants` is the tenant of every configured source; `encoder` that of [`OUTPUT`].
    pub fn new(
        rules: Arc<Rules>,
        tenants: HashMap<String, String>,
        schemas: Arc<dyn SchemaSource + Send + Sync>,
        encoder: Arc<AvroEncoder>,
    ) -> Self {
        InvalidateCache {
            rules,
            tenants,
            schemas,
            encoder,
            output: OUTPUT.into(),
            change: Tape::new(),
            value: Tape::new(),
            keys: Vec::new(),
        }
    }

    fn judge(&mut self, record: Record<'_>, out: &mut Outputs) -> Result<Verdict, Fault> {
        // Debezium's own topics beside those of tables.
        let Some(name) = cdc_name(record.topic()) else { return Ok(Verdict::Drop(Reason::Heartbeat)) };
        let Some(bytes) = record.value() else { return Ok(Verdict::Drop(Reason::Tombstone)) };
        let table = format!("{}.{}", name.db, name.table);
        if !self.rules.covers(&table) {
            return Ok(Verdict::Drop(Reason::NotRelevant));
        }
        let Some(tenant) = self.tenants.get(name.source) else {
            return Ok(Rejection::new(Reason::UnknownSource, name.source).into());
        };
        if let Err(error) = decode(bytes, &*self.schemas, &mut self.change) {
            return error.rejection().map(Verdict::from);
        }
        let event = match ChangeEvent::read(&self.change) {
            Ok(event) => event,
            Err(error) => return Ok(error.into()),
        };
        if event.op == Op::Delete && event.before.is_none() {
            let what = "before: absent on delete; the database must log whole rows";
            return Ok(Rejection::new(Reason::MalformedEnvelope, what).into());
        }
        self.keys.clear();
        for row in [event.before, event.after].into_iter().flatten() {
            if let Err(column) = self.rules.keys(&table, tenant, name.source, row, &mut self.keys) {
                return Ok(Rejection::new(Reason::MissingColumn, column).into());
            }
        }
        let (source_ts, position) = (event.source.ts_ms, event.source.position());
        for key in &self.keys {
            let value = &mut self.value;
            value.clear();
            value.begin_object();
            for (field, text) in [
                ("key", key.as_str()),
                ("tenant", tenant),
                ("source", name.source),
                ("table", &table),
                ("op", event.op.as_str()),
                ("source_position", &position),
            ] {
                value.key(field);
                value.string(text);
            }
            value.key("source_ts");
            value.integer(source_ts);
            value.end();
            out.to(&self.output, key.as_bytes())
                .header(HEADER_SOURCE_TS, source_ts.to_string().as_bytes())
                .value(|bytes| self.encoder.encode(value.root(), bytes))
                .map_err(|error: EncodeError| {
                    Fault::fatal(format!("{OUTPUT} does not fit its schema: {error}"))
                })?;
        }
        Ok(Verdict::Emit(u32::try_from(self.keys.len()).unwrap_or(u32::MAX)))
    }
}

impl Processor for InvalidateCache {
    fn process(&mut self, batch: &Batch, out: &mut Outputs) -> Result<Verdicts, Fault> {
        batch.judge(|record| self.judge(record, out))
    }
}
