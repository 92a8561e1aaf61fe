//! Facts, rows of views, and dimensions that are overwritten: one row per key, of the newest version.

use std::collections::BTreeSet;

use fhirehose_pgsink::{StoreError, TableShape};
use fhirehose_stream::Fault;
use postgres::{Client, Statement};

use crate::declaration::{Deletes, Kind};
use crate::scd2::{Moved, Repoint};
use crate::table::{Member, Table};

/// Statements for one table that is written by key.
pub(crate) struct UpsertSql {
    /// Removes what the staged rows of a resource replace, where a resource has several.
    replace: Option<Statement>,
    upsert: Statement,
    /// Removes rows, or marks them in a dimension; codes have none.
    gone: Option<Statement>,
    refresh: Option<Refresh>,
    /// By dimension: what its moved members mean for this table.
    repoints: Vec<(String, Repoint)>,
}

struct Refresh {
    /// Members of the rows that are about to change.
    members: Statement,
    run: Statement,
}

impl UpsertSql {
    pub(crate) fn prepare(
        client: &mut Client,
        table: &Table,
        all: &[Table],
    ) -> Result<UpsertSql, StoreError> {
        let shape = TableShape::read(client, &table.name)?;
        let event_time = table.declaration.event_time.as_deref();
        // Bare where it can be, for the index that ends in it.
        let at = match event_time {
            Some(column) if shape.column(column).is_some_and(|column| !column.optional) => {
                format!("f.{column}")
            }
            Some(column) => format!("coalesce(f.{column}, f.source_ts)"),
            None => "f.source_ts".to_owned(),
        };
        let dimension = |name: &str| {
            let found = all.iter().find(|table| table.declaration.table == name);
            found.ok_or_else(|| Fault::fatal(format!("no table {name} is declared")))
        };
        let mut repoints = Vec::new();
        for (column, lookup) in &table.declaration.lookups {
            let target = dimension(&lookup.table)?;
            if target.declaration.kind == Kind::Scd2 {
                let repoint = Repoint::prepare(client, table, column, &lookup.id[0], &at, target)?;
                repoints.push((lookup.table.clone(), repoint));
            }
        }
        let gone = gone_sql(table).map(|sql| client.prepare(&sql)).transpose()?;
        let refresh = match table.refresh() {
            Some(refresh) => {
                let lookup = &table.declaration.lookups[&refresh.lookup];
                Some(Refresh {
                    members: client.prepare(&members_sql(table, &lookup.id[0]))?,
                    run: client.prepare(&format!(
                        "SELECT {}($1::text[], $2::text[]::{}[])",
                        refresh.function,
                        dimension(&lookup.table)?.id_types[0]
                    ))?,
                })
            }
            None => None,
        };
        let (replace, upsert) = match table.declaration.kind {
            Kind::View => (Some(client.prepare(&replace_sql(table))?), insert_sql(table)),
            _ => (None, upsert_sql(table)),
        };
        Ok(UpsertSql { replace, upsert: client.prepare(&upsert)?, gone, refresh, repoints })
    }

    /// Members of the rows these resources (tenants and ids) have now, where columns are computed over them.
    pub(crate) fn members(
        &self,
        client: &mut Client,
        (tenants, ids): (&[String], &[String]),
    ) -> Result<Vec<Member>, StoreError> {
        let Some(refresh) = &self.refresh else { return Ok(Vec::new()) };
        let member = |row: &postgres::Row| Ok(Member { tenant: row.try_get(0)?, id: vec![row.try_get(1)?] });
        client.query(&refresh.members, &[&tenants, &ids])?.iter().map(member).collect()
    }

    /// Writes the rows, then takes away what is gone: by version, so their order in the batch is kept.
    pub(crate) fn write(&self, client: &mut Client, table: &mut Table) -> Result<(), StoreError> {
        if table.has_rows() && !table.copy_straight(client)? {
            table.copy(client)?;
            if let Some(replace) = &self.replace {
                client.execute(replace, &[])?;
            }
            client.execute(&self.upsert, &[])?;
        }
        let gone = &table.gone;
        if let Some(statement) = self.gone.as_ref().filter(|_| !gone.id.is_empty()) {
            client.execute(statement, &[&gone.tenant, &gone.id, &gone.version, &gone.source_ts])?;
        }
        Ok(())
    }

    /// Computes the refreshed columns of these members anew.
    pub(crate) fn refresh(&self, client: &mut Client, members: &BTreeSet<Member>) -> Result<(), StoreError> {
        if let Some(refresh) = self.refresh.as_ref().filter(|_| !members.is_empty()) {
            let tenants: Vec<&str> = members.iter().map(|member| member.tenant.as_str()).collect();
            let ids: Vec<&str> =
                members.iter().filter_map(|member| member.id.first().map(String::as_str)).collect();
            client.execute(&refresh.run, &[&tenants, &ids])?;
        }
        Ok(())
    }

    /// Follows the members of a versioned dimension that moved.
    pub(crate) fn repoint(
        &self,
        client: &mut Client,
        dimension: &str,
        moved: &Moved,
    ) -> Result<(), StoreError> {
        let mut of = self.repoints.iter().filter(|(name, _)| name == dimension);
        of.try_for_each(|(_, repoint)| repoint.run(client, moved))
    }
}

/// Newest version per key first; rows older than what is there change nothing.
fn upsert_sql(table: &Table) -> String {
    let declaration = &table.declaration;
    let columns = table.columns();
    let id = table.id_columns();
    let mut set: Vec<String> = columns
        .iter()
        .filter(|column| {
            **column != declaration.key && **column != "tenant_id" && !declaration.id.contains(column)
        })
        .map(|column| format!("{column} = excluded.{column}"))
        .collect();
    if declaration.kind.is_dimension() {
        set.push("is_inferred = false".into());
    }
    if declaration.deletes() == Deletes::Mark {
        set.push("is_deleted = false".into());
    }
    // Versions of different resources cannot be compared: the newest use of a code describes it.
    let (order, newer) = match declaration.kind {
        Kind::Code => (
            "source_ts DESC, version DESC",
            "(t.source_ts, t.version) < (excluded.source_ts, excluded.version)",
        ),
        _ => ("version DESC", "t.version < excluded.version"),
    };
    // In the order of keys: rows of dimensions are shared by instances, and all take them in one order.
    format!(
        "INSERT INTO {name} AS t ({all}) SELECT {all} \
         FROM (SELECT DISTINCT ON ({key}) * FROM {stage} ORDER BY {key}, {order}) AS s \
         ON CONFLICT (tenant_id, {id}) DO UPDATE SET {set}, loaded_at = now() WHERE {newer}",
        name = table.name,
        key = declaration.key,
        all = columns.join(", "),
        stage = table.stage(),
        set = set.join(", "),
    )
}

/// The newest version staged of each resource.
fn newest(table: &Table) -> String {
    let (id, stage) = (table.id_columns(), table.stage());
    format!("(SELECT tenant_id, {id}, max(version) AS version FROM {stage} GROUP BY tenant_id, {id})")
}

/// Removes the rows of older versions of the resources staged.
fn replace_sql(table: &Table) -> String {
    let (name, id, newest) = (&table.name, table.id_columns(), newest(table));
    format!(
        "DELETE FROM {name} AS t USING {newest} AS n \
         WHERE t.tenant_id = n.tenant_id AND t.{id} = n.{id} AND t.version < n.version"
    )
}

/// Inserts the rows of the newest version staged, where the table does not have that or a newer one.
fn insert_sql(table: &Table) -> String {
    let (id, all) = (table.id_columns(), table.columns().join(", "));
    format!(
        "INSERT INTO {name} ({all}) SELECT {all} FROM (SELECT DISTINCT ON ({key}) s.* FROM {stage} AS s \
         JOIN {newest} AS n USING (tenant_id, {id}, version) ORDER BY {key}) AS s \
         WHERE NOT EXISTS (SELECT FROM {name} AS t \
         WHERE t.tenant_id = s.tenant_id AND t.{id} = s.{id} AND t.version >= s.version)",
        name = table.name,
        key = table.declaration.key,
        stage = table.stage(),
        newest = newest(table),
    )
}

fn gone_sql(table: &Table) -> Option<String> {
    let (name, id) = (&table.name, table.id_columns());
    let kind = table.id_types.first()?;
    // The newest of each: of several matches an UPDATE takes any one.
    let gone = "(SELECT DISTINCT ON (tenant, id) * FROM unnest($1::text[], $2::text[], $3::int8[], $4::int8[]) \
        AS g (tenant, id, version, source_ts) ORDER BY tenant, id, version DESC) AS g";
    let same = format!("t.tenant_id = g.tenant AND t.{id} = g.id::{kind} AND t.version < g.version");
    match table.declaration.deletes() {
        Deletes::Remove => Some(format!("DELETE FROM {name} AS t USING {gone} WHERE {same}")),
        Deletes::Mark => Some(format!(
            "UPDATE {name} AS t SET is_deleted = true, version = g.version, \
             source_ts = to_timestamp(g.source_ts / 1000.0), loaded_at = now() FROM {gone} WHERE {same}"
        )),
        Deletes::Close | Deletes::Keep => None,
    }
}

fn members_sql(table: &Table, member: &str) -> String {
    let (name, id) = (&table.name, table.id_columns());
    let kind = table.id_types.first().map_or("text", String::as_str);
    format!(
        "SELECT DISTINCT t.tenant_id, t.{member}::text FROM {name} AS t \
         JOIN unnest($1::text[], $2::text[]) AS r (tenant, id) ON t.tenant_id = r.tenant AND t.{id} = r.id::{kind} \
         WHERE t.{member} IS NOT NULL"
    )
}
