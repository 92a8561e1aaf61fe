//! Reads `enriched.*` and `vitals.sample`; writes a star schema as the files of `views/warehouse` declare it: one
//! ViewDefinition per table and, beside it, the table's kind, keys and lookups. Promises: each record takes effect
//! once; any order of arrival ends in the same rows; a fact points at the dimension version that holds at its own
//! time, also when that version comes later. Never: knows a table by name, or holds state outside the database.

mod catalog;
mod check;
mod declaration;
mod key;
mod members;
mod migration;
mod rebuild;
mod scd2;
mod spec;
mod swap;
mod table;
mod upsert;
mod warehouse;

use std::path::Path;
use std::sync::Arc;

use fhirehose_codec::SchemaSource;
use fhirehose_pgsink::{Connector, PgSink};
use fhirehose_stream::Fault;
use fhirehose_topics::Registry;

pub use declaration::Problem;
pub use migration::{MigrationError, Pending, Plan, apply, describe, plan};
pub use rebuild::{Rebuild, RebuildError, Swap};
pub use warehouse::Warehouse;

/// The sink. `pipeline` is the consumer group, `shapes` the directory that holds `views/warehouse` and
/// `schemas/sql`.
pub fn new(
    url: &str,
    pipeline: &str,
    shapes: &Path,
    registry: Arc<Registry>,
    schemas: Arc<dyn SchemaSource + Send + Sync>,
) -> Result<PgSink<Warehouse>, Fault> {
    let tables = Warehouse::load(shapes, registry, schemas).map_err(|problems| {
        let problems: Vec<String> = problems.iter().map(Problem::to_string).collect();
        Fault::fatal(problems.join("\n"))
    })?;
    Ok(PgSink::new(Connector::new(url, pipeline)?, pipeline, tables))
}
