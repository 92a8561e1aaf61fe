//! Versioned dimensions. Every change is kept in a table beside the dimension, by source time; the dimension's
//! rows of a member are computed from all its changes, so any order of arrival ends in the same intervals.

use fhirehose_faultpoint::planted;
use fhirehose_pgsink::StoreError;
use postgres::{Client, Statement};

use crate::declaration::Declaration;
use crate::table::Table;

/// Statements for one dimension.
pub(crate) struct Scd2Sql {
    keep: Statement,
    compute: Statement,
    delete: Statement,
    update: Statement,
    insert: Statement,
}

/// Members whose versions begin elsewhere now, and from when on, column by column.
#[derive(Default)]
pub(crate) struct Moved {
    tenant: Vec<String>,
    id: Vec<String>,
    from: Vec<String>,
}

/// Name of the temporary table of computed rows.
pub(crate) fn wanted(table: &Table) -> String {
    format!("wanted_{}", table.declaration.table.replace('.', "_"))
}

impl Scd2Sql {
    pub(crate) fn prepare(client: &mut Client, table: &Table) -> Result<Scd2Sql, StoreError> {
        let declaration = &table.declaration;
        let (dimension, key, id, stage) =
            (&declaration.table, &declaration.key, table.id_columns(), table.stage());
        let changes = declaration.changes.as_deref().unwrap_or_default();
        let wanted = wanted(table);
        let attributes = table.attributes().join(", ");
        let kept = table.columns();
        let change_key = ["tenant_id", id.as_str(), "source_ts"];
        let set: Vec<String> = kept
            .iter()
            .filter(|column| !change_key.contains(&column.as_str()))
            .map(|column| format!("{column} = excluded.{column}"))
            .collect();
        let keep = format!(
            "INSERT INTO {changes} AS c ({all}) \
             SELECT DISTINCT ON (tenant_id, {id}, source_ts) {all} FROM {stage} \
             ORDER BY tenant_id, {id}, source_ts, version DESC \
             ON CONFLICT (tenant_id, {id}, source_ts) DO UPDATE SET {set} WHERE c.version < excluded.version",
            all = kept.join(", "),
            set = set.join(", "),
        );
        let columns = format!(
            "{key}, tenant_id, {id}, {attributes}, attr_hash, valid_from, valid_to, is_current, is_deleted, is_inferred, \
             source_ts, version"
        );
        client.batch_execute(&format!(
            "CREATE TEMP TABLE {wanted} ON COMMIT DELETE ROWS AS SELECT {columns} FROM {dimension} WITH NO DATA"
        ))?;
        // Planted: a version stays open, or is closed before the next begins.
        let next_at = if planted("scd2-open-interval-kept") {
            "NULL"
        } else if planted("scd2-gap") {
            "next_at - interval '1 millisecond'"
        } else {
            "next_at"
        };
        // Changes with the same hash in a row are one version, which takes what is not tracked from the last of
        // them. A delete ends the version before it; one with nothing before it is the member's only row.
        let compute = format!(
            "INSERT INTO {wanted} ({columns})
             WITH entry AS (
                 SELECT c.*, coalesce(c.attr_hash <> lag(c.attr_hash) OVER w OR c.is_deleted <> lag(c.is_deleted) OVER w, true)
                     AS starts
                 FROM {changes} AS c JOIN (SELECT DISTINCT tenant_id, {id} FROM {stage}) AS s USING (tenant_id, {id})
                 WINDOW w AS (PARTITION BY tenant_id, {id} ORDER BY source_ts)
             ), run AS (
                 SELECT *, sum(starts::integer) OVER (PARTITION BY tenant_id, {id} ORDER BY source_ts) AS nr FROM entry
             ), span AS (
                 SELECT DISTINCT ON (tenant_id, {id}, nr) tenant_id, {id}, nr, {attributes}, attr_hash, is_deleted, version,
                     member_key, first_value(version_key) OVER w AS version_key, first_value(source_ts) OVER w AS starts_at
                 FROM run WINDOW w AS (PARTITION BY tenant_id, {id}, nr ORDER BY source_ts)
                 ORDER BY tenant_id, {id}, nr, source_ts DESC
             ), chain AS (
                 SELECT *, lead(starts_at) OVER w AS next_at, coalesce(lead(is_deleted) OVER w, false) AS next_deleted,
                     row_number() OVER (PARTITION BY tenant_id, {id}, is_deleted ORDER BY nr) AS nth,
                     count(*) FILTER (WHERE NOT is_deleted) OVER (PARTITION BY tenant_id, {id}) AS living
                 FROM span WINDOW w AS (PARTITION BY tenant_id, {id} ORDER BY nr)
             )
             SELECT CASE WHEN nth = 1 THEN member_key ELSE version_key END, tenant_id, {id}, {attributes}, attr_hash,
                 CASE WHEN nth = 1 THEN '1900-01-01' ELSE starts_at END,
                 CASE WHEN is_deleted THEN starts_at ELSE {next_at} END,
                 nth = greatest(living, 1), is_deleted OR next_deleted, is_deleted, starts_at, version
             FROM chain WHERE NOT is_deleted OR living = 0"
        );
        let delete = format!(
            "DELETE FROM {dimension} AS d USING (SELECT DISTINCT tenant_id, {id} FROM {stage}) AS s \
             WHERE d.tenant_id = s.tenant_id AND d.{id} = s.{id} \
             AND NOT EXISTS (SELECT FROM {wanted} AS w WHERE w.{key} = d.{key}) \
             RETURNING d.tenant_id, d.{id}::text, d.valid_from::text"
        );
        let update = format!(
            "UPDATE {dimension} AS d SET ({columns}, loaded_at) = ({of_wanted}, now()) FROM {wanted} AS w \
             WHERE d.{key} = w.{key} AND ({of_dimension}) IS DISTINCT FROM ({of_wanted})",
            of_wanted = qualified("w", &columns),
            of_dimension = qualified("d", &columns),
        );
        let insert = format!(
            "INSERT INTO {dimension} ({columns}) SELECT {columns} FROM {wanted} AS w \
             WHERE NOT EXISTS (SELECT FROM {dimension} AS d WHERE d.{key} = w.{key}) \
             RETURNING tenant_id, {id}::text, valid_from::text"
        );
        Ok(Scd2Sql {
            keep: client.prepare(&keep)?,
            compute: client.prepare(&compute)?,
            delete: client.prepare(&delete)?,
            update: client.prepare(&update)?,
            insert: client.prepare(&insert)?,
        })
    }

    /// Keeps the staged changes and brings the members' versions in line. Deleting before updating before
    /// inserting, no interval ever overlaps another on the way.
    pub(crate) fn merge(&self, client: &mut Client) -> Result<Moved, StoreError> {
        client.execute(&self.keep, &[])?;
        client.execute(&self.compute, &[])?;
        let mut moved = Moved::default();
        let deleted = client.query(&self.delete, &[])?;
        client.execute(&self.update, &[])?;
        let inserted = client.query(&self.insert, &[])?;
        for row in deleted.iter().chain(&inserted) {
            moved.tenant.push(row.try_get(0)?);
            moved.id.push(row.try_get(1)?);
            moved.from.push(row.try_get(2)?);
        }
        Ok(moved)
    }
}

fn qualified(alias: &str, columns: &str) -> String {
    columns.split(", ").map(|column| format!("{alias}.{}", column.trim())).collect::<Vec<_>>().join(", ")
}

/// The version that holds at a fact's time, as a subquery over `f`; `at` is that time.
fn version_at(id: &str, at: &str, dimension: &Declaration) -> String {
    let Declaration { table, key, .. } = dimension;
    format!(
        "(SELECT d.{key} FROM {table} AS d
         WHERE d.tenant_id = f.tenant_id AND d.{} = f.{id} AND d.valid_from <= {at}
         ORDER BY d.valid_from DESC LIMIT 1)",
        dimension.id[0]
    )
}

/// Points all rows of a table, with its key, at the versions that hold at their time: `column` refers to
/// `dimension` by the column `id`.
pub(crate) fn point_all(
    (table, row): (&str, &str),
    (column, id): (&str, &str),
    at: &str,
    dimension: &Declaration,
) -> String {
    format!(
        "UPDATE {table} AS t SET {column} = v.key FROM (
             SELECT f.{row} AS row, {} AS key FROM {table} AS f WHERE f.{id} IS NOT NULL
         ) AS v WHERE t.{row} = v.row AND t.{column} <> v.key",
        version_at(id, at, dimension)
    )
}

/// Points a fact's key at the versions that hold at its time now, for the members that moved.
pub(crate) struct Repoint(Statement);

impl Repoint {
    /// `column` of `fact` refers to `dimension` by the fact's column `id`; `at` is the fact's time, over `f`.
    pub(crate) fn prepare(
        client: &mut Client,
        fact: &Table,
        column: &str,
        id: &str,
        at: &str,
        dimension: &Table,
    ) -> Result<Repoint, StoreError> {
        let (name, row) = (&fact.name, &fact.declaration.key);
        let kind = dimension.id_types.first().map_or("text", String::as_str);
        // The outer comparison of the id is checked again should the row change meanwhile.
        let sql = format!(
            "WITH moved AS (
                 SELECT tenant_id, id::{kind} AS id, min(at::timestamptz) AS at
                 FROM unnest($1::text[], $2::text[], $3::text[]) AS m (tenant_id, id, at) GROUP BY 1, 2
             )
             UPDATE {name} AS t SET {column} = v.key
             FROM (
                 SELECT f.{row} AS row, m.id, {version} AS key
                 FROM moved AS m JOIN {name} AS f ON f.tenant_id = m.tenant_id AND f.{id} = m.id AND {at} >= m.at
             ) AS v
             WHERE t.{row} = v.row AND t.{id} = v.id AND t.{column} <> v.key",
            version = version_at(id, at, &dimension.declaration),
        );
        Ok(Repoint(client.prepare(&sql)?))
    }

    pub(crate) fn run(&self, client: &mut Client, moved: &Moved) -> Result<(), StoreError> {
        // Planted: facts that came before a version stay with the one before it.
        if !moved.id.is_empty() && !planted("pending-fact-forgotten") {
            client.execute(&self.0, &[&moved.tenant, &moved.id, &moved.from])?;
        }
        Ok(())
    }
}
