//! What PostgreSQL holds: rows as hashes of their values, totals, and the offsets beside them.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use postgres::fallible_iterator::FallibleIterator;
use postgres::types::{ToSql, Type};
use postgres::{Client, Config, NoTls, Transaction};

use super::state::{Row, TOTALS_MODULUS, Totals, print};
use super::topics::Offsets;

/// How long a question may take: a table may be locked on purpose.
const STATEMENT: Duration = Duration::from_secs(20);

/// One value, alike whether it comes from Avro or from a column.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Cell {
    Null,
    Bool(bool),
    /// Instants too, in milliseconds since the epoch.
    Int(i64),
    /// The bits of a double.
    Real(u64),
    Text(String),
    Texts(Vec<String>),
}

impl Cell {
    pub fn real(value: f64) -> Cell {
        Cell::Real(value.to_bits())
    }

    pub fn text(value: impl Into<String>) -> Cell {
        Cell::Text(value.into())
    }
}

pub fn connect(url: &str) -> Result<Client> {
    let mut config: Config = url.parse().context("the address of PostgreSQL")?;
    config.connect_timeout(Duration::from_secs(3)).application_name("fhirehose-chaos");
    // Statistics know nothing of a run that has just been: a join is taken for one of a row or two.
    let options =
        format!("-c statement_timeout={} -c TimeZone=UTC -c enable_nestloop=off", STATEMENT.as_millis());
    config.options(&options);
    config.connect(NoTls).context("connecting to PostgreSQL")
}

/// Puts a pipeline at these offsets, as a claim by nobody.
pub fn put_offsets(client: &mut Client, pipeline: &str, offsets: &Offsets) -> Result<()> {
    for ((topic, partition), next) in offsets {
        client.execute(
            "INSERT INTO fhirehose.sink_offsets AS o (pipeline, topic, part, epoch, next_off) VALUES ($1, $2, $3, 1, $4)
             ON CONFLICT (pipeline, topic, part) DO UPDATE SET epoch = o.epoch + 1, next_off = $4, topic_id = NULL, updated_at = now()",
            &[&pipeline, &&**topic, partition, next],
        )?;
    }
    Ok(())
}

/// Lets PostgreSQL itself note from now on every offset that moves back, however short it stays so.
pub fn note_steps_back(client: &mut Client) -> Result<()> {
    client.batch_execute(
        "CREATE TABLE IF NOT EXISTS fhirehose.chaos_steps_back (pipeline text, topic text, part int, was int8, became int8);
         TRUNCATE fhirehose.chaos_steps_back;
         CREATE OR REPLACE FUNCTION fhirehose.chaos_note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO fhirehose.chaos_steps_back
             VALUES (NEW.pipeline, NEW.topic, NEW.part, OLD.next_off, NEW.next_off);
             RETURN NULL;
         END $$;
         CREATE OR REPLACE TRIGGER chaos_note AFTER UPDATE ON fhirehose.sink_offsets
         FOR EACH ROW WHEN (NEW.next_off < OLD.next_off) EXECUTE FUNCTION fhirehose.chaos_note()",
    )?;
    Ok(())
}

/// The offsets of a pipeline that have moved back since [`note_steps_back`]: each partition, from where to where.
pub fn steps_back(transaction: &mut Transaction<'_>, pipeline: &str) -> Result<Vec<String>> {
    let sql = "SELECT format('%s [%s] from %s to %s', topic, part, was, became)
               FROM fhirehose.chaos_steps_back WHERE pipeline = $1";
    transaction.query(sql, &[&pipeline])?.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

/// Where a pipeline continues, by partition.
pub fn offsets(transaction: &mut Transaction<'_>, pipeline: &str) -> Result<Offsets> {
    let sql = "SELECT topic, part, next_off FROM fhirehose.sink_offsets WHERE pipeline = $1 AND next_off IS NOT NULL";
    let mut found = Offsets::new();
    for row in transaction.query(sql, &[&pipeline])? {
        let topic: String = row.try_get(0)?;
        found.insert((topic.into(), row.try_get(1)?), row.try_get(2)?);
    }
    Ok(found)
}

/// Numbers of the rows of one tenant. `from` is a table, with a condition where not all its rows count.
pub fn totals(transaction: &mut Transaction<'_>, from: &str, tenant: &str) -> Result<Totals> {
    let filter = if from.contains(" WHERE ") { "AND" } else { "WHERE" };
    let sql = format!(
        "SELECT count(*), coalesce(sum(version % {TOTALS_MODULUS}), 0)::int8, coalesce(bit_xor(version), 0)
         FROM {from} {filter} tenant_id = $1"
    );
    let row = transaction.query_one(&sql, &[&tenant])?;
    Ok(Totals { rows: row.try_get(0)?, sum: row.try_get(1)?, xor: row.try_get(2)? })
}

/// Key, version and hash of the values that follow, of every row of a query whose `$1` is the tenant.
pub fn rows(transaction: &mut Transaction<'_>, sql: &str, tenant: &str) -> Result<Vec<(String, Row)>> {
    let mut found = Vec::new();
    each(transaction, sql, tenant, |row| {
        let values = (2..row.len()).map(|at| cell(row, at)).collect::<Result<Vec<_>>>()?;
        found.push((row.try_get(0)?, Row { version: row.try_get(1)?, print: print(&values) }));
        Ok(())
    })?;
    Ok(found)
}

/// Every row of a query whose `$1` is the tenant.
pub fn each(
    transaction: &mut Transaction<'_>,
    sql: &str,
    tenant: &str,
    mut take: impl FnMut(&postgres::Row) -> Result<()>,
) -> Result<()> {
    let tenant: &(dyn ToSql + Sync) = &tenant;
    let mut rows = transaction.query_raw(sql, [tenant])?;
    while let Some(row) = rows.next()? {
        take(&row)?;
    }
    Ok(())
}

/// A column's value; decimals are to be cast by the query.
pub fn cell(row: &postgres::Row, at: usize) -> Result<Cell> {
    let cell = match *row.columns()[at].type_() {
        Type::BOOL => row.try_get::<_, Option<bool>>(at)?.map(Cell::Bool),
        Type::INT4 => row.try_get::<_, Option<i32>>(at)?.map(|value| Cell::Int(value.into())),
        Type::INT8 => row.try_get::<_, Option<i64>>(at)?.map(Cell::Int),
        Type::FLOAT8 => row.try_get::<_, Option<f64>>(at)?.map(Cell::real),
        Type::TEXT => row.try_get::<_, Option<String>>(at)?.map(Cell::Text),
        Type::UUID => row.try_get::<_, Option<uuid::Uuid>>(at)?.map(|value| Cell::Text(value.to_string())),
        Type::TIMESTAMPTZ => {
            row.try_get::<_, Option<jiff::Timestamp>>(at)?.map(|value| Cell::Int(value.as_millisecond()))
        }
        Type::TEXT_ARRAY => row.try_get::<_, Option<Vec<String>>>(at)?.map(Cell::Texts),
        ref other => bail!("a column of type {other}: cast it"),
    };
    Ok(cell.unwrap_or(Cell::Null))
}
