//! Builds a table anew beside itself, and swaps the two. The new one is filled by the sink's own code under
//! offsets of its own in the same database, up to those of the sink; the swap happens in a transaction that holds
//! the sink's offsets, so nothing is between the two.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use fhirehose_codec::SchemaSource;
use fhirehose_pgsink::{Connector, PgSink, StoreError};
use fhirehose_stream::{Fault, TopicPartition};
use fhirehose_topics::Registry;
use postgres::Client;
use postgres::error::SqlState;

use crate::Warehouse;
use crate::catalog;
use crate::declaration::{self, Declared, Kind};
use crate::migration::{self, MigrationError};
use crate::spec::{self, TableSpec};
use crate::swap;

/// Why a table is not built anew.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    #[error(transparent)]
    Migration(#[from] MigrationError),
    #[error("no table {0} is declared; there are {1}")]
    Unknown(String, String),
    #[error(
        "{0} keeps the history of its members, of which the topic may hold the last version only: it cannot be built \
         anew without losing it"
    )]
    Versioned(String),
    #[error("{0} does not exist yet: run `fhirehose migrate apply`")]
    Missing(String),
    #[error("another rebuild of {0} is running")]
    Running(String),
    #[error("a rebuild of {0} was begun with another declaration: begin anew with --anew")]
    Changed(String),
    #[error("{0} has stored no offsets of {1} in this database: the table cannot be behind it")]
    NoOffsets(String, String),
    #[error("{0}")]
    Key(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<postgres::Error> for RebuildError {
    fn from(error: postgres::Error) -> Self {
        RebuildError::Store(error.into())
    }
}

impl From<Fault> for RebuildError {
    fn from(fault: Fault) -> Self {
        RebuildError::Store(fault.into())
    }
}

/// Whether the swap took place, or why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swap {
    Done,
    /// The sink has read on: what it read must be filled in first.
    Behind,
    /// The sink is connected. It would go on with the declaration that it began with.
    SinkRuns,
}

/// A table that is built anew.
pub struct Rebuild {
    connector: Connector,
    /// Holds the lock on this rebuild.
    client: Client,
    shapes: PathBuf,
    spec: TableSpec,
    declared: Vec<Declared>,
    at: usize,
    /// The sink's consumer group.
    group: String,
    /// Name of our own offsets.
    pipeline: String,
    /// Goes on with what an earlier run began.
    pub resumed: bool,
}

impl Rebuild {
    /// Takes the rebuild up, or begins it; `anew` drops what an earlier run made. `group` is the sink's consumer
    /// group.
    pub fn begin(
        url: &str,
        group: &str,
        shapes: &Path,
        registry: &Registry,
        table: &str,
        anew: bool,
    ) -> Result<Rebuild, RebuildError> {
        let declared = declaration::load(shapes, registry).map_err(MigrationError::Declarations)?;
        let Some(at) = declared.iter().position(|one| one.declaration.table == table) else {
            let all: Vec<&str> = declared.iter().map(|one| one.declaration.table.as_str()).collect();
            return Err(RebuildError::Unknown(table.to_owned(), all.join(", ")));
        };
        if declared[at].declaration.kind == Kind::Scd2 {
            return Err(RebuildError::Versioned(table.to_owned()));
        }
        let all: Vec<&Declared> = declared.iter().collect();
        let spec = spec::table(all[at], &all);
        let pipeline = format!("{}{}", pipelines(table), declared[at].fingerprint);
        let connector = Connector::new(url, "fhirehose-rebuild")?;
        let mut client = connector.connect()?;
        // The swap copies and compares whole tables.
        client.batch_execute("SET statement_timeout = 0")?;
        // Waits a moment for a run that was killed to be missed by the database.
        match client.execute("SELECT pg_advisory_lock(hashtextextended($1, 0))", &[&pipelines(table)]) {
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                return Err(RebuildError::Running(table.to_owned()));
            }
            locked => locked?,
        };
        if !catalog::exists(&mut client, table)? {
            return Err(RebuildError::Missing(table.to_owned()));
        }
        let group = group.to_owned();
        let shapes = shapes.to_owned();
        let mut this =
            Rebuild { connector, client, shapes, spec, declared, at, group, pipeline, resumed: false };
        this.prepare(anew)?;
        Ok(this)
    }

    /// Where the new table is until it takes its place: in a schema of its own, so that its indexes and
    /// constraints have their names from the start.
    fn shadow(&self) -> String {
        format!("rebuild_{}", self.spec.name)
    }

    fn table(&self) -> &str {
        &self.spec.name
    }

    fn topic(&self) -> &str {
        &self.declared[self.at].declaration.input
    }

    fn prepare(&mut self, anew: bool) -> Result<(), RebuildError> {
        let (shadow, ours) = (self.shadow(), pipelines(self.table()));
        if anew {
            let mut transaction = self.client.transaction()?;
            transaction.batch_execute(&format!("DROP TABLE IF EXISTS {shadow}"))?;
            transaction
                .execute("DELETE FROM fhirehose.sink_offsets WHERE starts_with(pipeline, $1)", &[&ours])?;
            transaction.commit()?;
        }
        if catalog::exists(&mut self.client, &shadow)? {
            let begun = "SELECT EXISTS (SELECT FROM fhirehose.sink_offsets WHERE pipeline = $1)";
            if !self.client.query_one(begun, &[&self.pipeline])?.try_get::<_, bool>(0)? {
                return Err(RebuildError::Changed(self.table().to_owned()));
            }
            self.resumed = true;
            return Ok(());
        }
        let ends = self.ends()?;
        let failed = migration::failed(&shadow);
        let spec = TableSpec { name: shadow.clone(), ..self.spec.clone() };
        let topic = self.topic().to_owned();
        let mut transaction = self.client.transaction()?;
        for statement in spec.statements() {
            transaction.batch_execute(&statement).map_err(&failed)?;
        }
        // Rows of a claim, not made yet: the shadow and the name of its declaration come into being together.
        let parts: Vec<i32> = ends.iter().map(|(at, _)| at.partition).collect();
        transaction
            .execute("DELETE FROM fhirehose.sink_offsets WHERE starts_with(pipeline, $1)", &[&ours])?;
        transaction.execute(
            "INSERT INTO fhirehose.sink_offsets (pipeline, topic, part, epoch) SELECT $1, $2, unnest($3::int4[]), 0",
            &[&self.pipeline, &topic, &parts],
        )?;
        transaction.commit()?;
        Ok(())
    }

    /// How far the sink is: what the new table must hold is before these offsets.
    pub fn ends(&mut self) -> Result<Vec<(TopicPartition, i64)>, RebuildError> {
        let topic: Arc<str> = self.topic().into();
        let rows = self.client.query(
            "SELECT part, next_off FROM fhirehose.sink_offsets \
             WHERE pipeline = $1 AND topic = $2 AND next_off IS NOT NULL ORDER BY part",
            &[&self.group, &&*topic],
        )?;
        if rows.is_empty() {
            return Err(RebuildError::NoOffsets(self.group.clone(), topic.to_string()));
        }
        let end = |row: &postgres::Row| {
            Ok((TopicPartition { topic: topic.clone(), partition: row.try_get(0)? }, row.try_get(1)?))
        };
        rows.iter().map(end).collect()
    }

    /// What fills the new table.
    pub fn sink(
        &self,
        registry: Arc<Registry>,
        schemas: Arc<dyn SchemaSource + Send + Sync>,
    ) -> Result<PgSink<Warehouse>, RebuildError> {
        let shadow = self.shadow();
        let tables = Warehouse::of_one(&self.shapes, registry, schemas, self.table(), &shadow)
            .map_err(MigrationError::Declarations)?;
        Ok(PgSink::new(self.connector.clone(), &self.pipeline, tables))
    }

    /// Puts the new table, filled up to `filled`, in the place of the old one. No transaction of the sink comes
    /// between: they all move offsets, which are locked here first.
    pub fn swap(&mut self, filled: &[(TopicPartition, i64)]) -> Result<Swap, RebuildError> {
        let shadow = self.shadow();
        let all: Vec<&Declared> = self.declared.iter().collect();
        let declared = all[self.at];
        let mut transaction = self.client.transaction()?;
        let locked = transaction.query(
            "SELECT topic, part, next_off FROM fhirehose.sink_offsets WHERE pipeline = $1 \
             ORDER BY topic, part FOR UPDATE",
            &[&self.group],
        )?;
        let connected = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = left($1, 63) \
             AND datname = current_database())";
        if transaction.query_one(connected, &[&self.group])?.try_get::<_, bool>(0)? {
            return Ok(Swap::SinkRuns);
        }
        for row in locked {
            let (topic, partition): (String, i32) = (row.try_get(0)?, row.try_get(1)?);
            let next: Option<i64> = row.try_get(2)?;
            let reached = filled.iter().find(|(at, _)| *at.topic == *topic && at.partition == partition);
            if topic == declared.declaration.input && next != reached.map(|(_, end)| *end) {
                return Ok(Swap::Behind);
            }
        }
        swap::complete(&mut transaction, declared, &all, &self.spec, &shadow)?;
        swap::replace(&mut transaction, &self.spec, &shadow)?;
        swap::refresh(&mut transaction, declared, &all)?;
        // A worker of the sink that was not seen is shut out: it claims again, on a new connection.
        transaction.execute(
            "UPDATE fhirehose.sink_offsets SET epoch = epoch + 1 WHERE pipeline = $1",
            &[&self.group],
        )?;
        transaction.execute("DELETE FROM fhirehose.sink_offsets WHERE pipeline = $1", &[&self.pipeline])?;
        transaction.commit()?;
        Ok(Swap::Done)
    }
}

/// What the names of a table's rebuilds begin with.
fn pipelines(table: &str) -> String {
    format!("rebuild:{table}:")
}
