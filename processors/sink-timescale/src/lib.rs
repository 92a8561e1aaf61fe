//! Reads `vitals.sample`, `device.metrics` and `alert.emergency`; writes the hypertables
//! `vital_signs_timeseries`, `device_metrics` and `device_alerts`, each record once, deletes included.
//! Promises: a newer version of a reading replaces an older one and never the other way; a reading older than
//! the retention is dropped and never makes a dropped chunk again. Never: computes rollups (the database does).

mod hypertable;
mod row;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fhirehose_codec::{SchemaSource, decode};
use fhirehose_pgsink::migrate::{self, Edition};
use fhirehose_pgsink::{Connector, PgSink, StoreError, Tables};
use fhirehose_stream::{Batch, Fault, HEADER_SOURCE_TS, Reason, Record, Rejection, Verdict};
use fhirehose_tape::Tape;
use fhirehose_topics::Registry;
use postgres::Client;

use crate::hypertable::Hypertable;

const DAY_MS: i64 = 86_400_000;

/// Topic, hypertable, and the columns of its unique key in the order of the record key's parts.
const HYPERTABLES: [(&str, &str, [&str; 3]); 3] = [
    ("vitals.sample", "vital_signs_timeseries", ["tenant_id", "device_id", "observed_at"]),
    ("device.metrics", "device_metrics", ["tenant_id", "device_id", "observed_at"]),
    ("alert.emergency", "device_alerts", ["device_id", "kind", "observed_at"]),
];

/// The three hypertables as a sink's tables.
pub struct Timescale {
    registry: Arc<Registry>,
    schemas: Arc<dyn SchemaSource + Send + Sync>,
    migrations: PathBuf,
    retention_days: u32,
    tables: Vec<Hypertable>,
    tape: Tape,
}

/// The sink. `pipeline` is the consumer group, `shapes` the directory that holds `schemas/sql`;
/// `retention_days` is how old a reading may be and how long it is kept.
pub fn new(
    url: &str,
    pipeline: &str,
    shapes: &Path,
    registry: Arc<Registry>,
    schemas: Arc<dyn SchemaSource + Send + Sync>,
    retention_days: u32,
) -> Result<PgSink<Timescale>, Fault> {
    let tables = HYPERTABLES
        .into_iter()
        .map(|(topic, table, key)| Hypertable::new(&registry, topic, table, key))
        .collect::<Result<_, _>>()?;
    let migrations = shapes.join("schemas/sql");
    let tables = Timescale { registry, schemas, migrations, retention_days, tables, tape: Tape::new() };
    Ok(PgSink::new(Connector::new(url, pipeline)?, pipeline, tables))
}

impl Timescale {
    /// Sorts one record into its table's rows or deletes.
    fn judge(&mut self, record: &Record<'_>, oldest_ms: i64) -> Result<Verdict, Fault> {
        let topic = self.registry.logical(record.topic());
        let table = topic.and_then(|topic| self.tables.iter_mut().find(|table| *table.topic == *topic.name));
        let (Some(topic), Some(table)) = (topic, table) else {
            return Err(Fault::fatal(format!("topic {} is not an input of sink-timescale", record.topic())));
        };
        let version = topic.version(record.offset(), 0);
        let Some(value) = record.value() else {
            return Ok(match table.delete(record.key(), version) {
                Ok(()) => Verdict::Emit(1),
                Err(rejection) => rejection.into(),
            });
        };
        if let Err(error) = decode(value, &*self.schemas, &mut self.tape) {
            return Ok(error.rejection()?.into());
        }
        let row = self.tape.root();
        match row.get("observed_at").and_then(|at| at.as_i64()) {
            None => return Ok(Rejection::new(Reason::MissingElement, "observed_at").into()),
            Some(at) if at < oldest_ms => return Ok(Verdict::Drop(Reason::PastRetention)),
            Some(_) => {}
        }
        let source_ts = record.header_i64(HEADER_SOURCE_TS).unwrap_or(record.timestamp_ms());
        Ok(match table.upsert(record.key(), row, version, source_ts) {
            Ok(()) => Verdict::Emit(1),
            Err(rejection) => rejection.into(),
        })
    }
}

impl Tables for Timescale {
    fn connected(&mut self, client: &mut Client) -> Result<(), StoreError> {
        migrate::require(client, &self.migrations, migrate::TIMESCALE)
            .map_err(|error| Fault::fatal(error.to_string()))?;
        match Edition::of(client)? {
            Some(Edition::Apache) => tracing::warn!(
                "timescaledb runs in its apache edition: vital_signs_hourly and vital_signs_daily are plain views, \
                 chunks are not compressed, retention is applied by this sink every minute instead of by policies"
            ),
            // Late readings and deletes decompress what they meet, in any number: the limit would refuse a batch
            // each time it is tried. Only constants narrow what a delete decompresses, hence no generic plans.
            _ => client.batch_execute(
                "SET timescaledb.max_tuples_decompressed_per_dml_transaction = 0; SET plan_cache_mode = force_custom_plan",
            )?,
        }
        for table in &mut self.tables {
            table.connected(client)?;
        }
        self.maintain(client)
    }

    fn write(&mut self, client: &mut Client, batch: &Batch) -> Result<Vec<Verdict>, StoreError> {
        // The database's clock, as chunks are dropped by it too.
        let now_ms: i64 =
            client.query_one("SELECT (extract(epoch FROM now()) * 1000)::bigint", &[])?.try_get(0)?;
        let oldest_ms = now_ms - i64::from(self.retention_days) * DAY_MS;
        self.tables.iter_mut().for_each(Hypertable::clear);
        let judged = batch.iter().map(|record| self.judge(&record, oldest_ms)).collect::<Result<_, _>>()?;
        for table in &mut self.tables {
            table.write(client)?;
        }
        Ok(judged)
    }

    fn again(&mut self, client: &mut Client) -> Result<(), StoreError> {
        let stages: Vec<String> = self.tables.iter().map(Hypertable::stage).collect();
        Ok(client.batch_execute(&format!("TRUNCATE {}", stages.join(", ")))?)
    }

    fn maintain(&mut self, client: &mut Client) -> Result<(), StoreError> {
        let days = i32::try_from(self.retention_days).unwrap_or(i32::MAX);
        client.execute("SELECT fhirehose.apply_retention($1)", &[&days])?;
        Ok(())
    }
}
