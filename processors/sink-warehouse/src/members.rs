//! Members of dimensions that a batch refers to: those not there yet are inferred, and those of versioned
//! dimensions are locked, so that no version appears between a fact's lookup and its commit.

use std::collections::{BTreeMap, HashMap};

use fhirehose_pgsink::StoreError;
use postgres::{Client, Statement};

use crate::declaration::Kind;
use crate::table::{Member, Table};

/// Members by surrogate key: the order in which every instance locks them.
#[derive(Default)]
pub(crate) struct Members {
    by_key: BTreeMap<i64, Member>,
    /// Whether the batch changes columns that are computed over a member's facts.
    pub exclusive: bool,
}

/// Statements for one dimension.
pub(crate) struct MemberSql {
    infer: Statement,
    lock_shared: Statement,
    lock_exclusive: Statement,
    /// Only of a versioned dimension.
    versions: Option<Statement>,
    id_columns: usize,
}

/// Versions by member: when each begins, microseconds since the epoch, and its key; in order.
pub(crate) type Versions = HashMap<i64, Vec<(i64, i64)>>;

impl Members {
    pub(crate) fn insert(&mut self, key: i64, member: Member) {
        self.by_key.insert(key, member);
    }

    pub(crate) fn clear(&mut self) {
        self.by_key.clear();
        self.exclusive = false;
    }
}

impl MemberSql {
    pub(crate) fn prepare(client: &mut Client, table: &Table) -> Result<MemberSql, StoreError> {
        let declaration = &table.declaration;
        let (name, key, id) = (&table.name, &declaration.key, table.id_columns());
        let typed = table.id_types.iter().enumerate().map(|(at, kind)| format!("m.id{at}::{kind}"));
        let typed: Vec<String> = typed.collect();
        let arrays: Vec<String> = (0..typed.len()).map(|at| format!("${}::text[]", at + 3)).collect();
        let aliases: Vec<String> = (0..typed.len()).map(|at| format!("id{at}")).collect();
        // The first version of a member has its key whatever else is known of it; it starts with the calendar.
        let (columns, values) = match declaration.kind {
            Kind::Scd2 => (", valid_from, is_current", ", '1900-01-01', true"),
            _ => ("", ""),
        };
        let infer = format!(
            "INSERT INTO {name} ({key}, tenant_id, {id}, is_inferred, source_ts, version{columns}) \
             SELECT m.key, m.tenant, {}, true, '1900-01-01', -1{values} \
             FROM unnest($1::int8[], $2::text[], {}) AS m (key, tenant, {}) ORDER BY m.key \
             ON CONFLICT ({key}) DO NOTHING",
            typed.join(", "),
            arrays.join(", "),
            aliases.join(", "),
        );
        let lock = |strength: &str| {
            format!("SELECT FROM {name} WHERE {key} = ANY($1) ORDER BY {key} FOR {strength}")
        };
        let versions = format!(
            "SELECT m.key, (extract(epoch FROM d.valid_from) * 1000000)::int8, d.{key} \
             FROM unnest($1::int8[]) AS m (key) JOIN {name} AS f ON f.{key} = m.key \
             JOIN {name} AS d ON d.tenant_id = f.tenant_id AND d.{id} = f.{id} ORDER BY m.key, d.valid_from"
        );
        let versions = (declaration.kind == Kind::Scd2).then(|| client.prepare(&versions)).transpose()?;
        Ok(MemberSql {
            versions,
            infer: client.prepare(&infer)?,
            lock_shared: client.prepare(&lock("KEY SHARE"))?,
            lock_exclusive: client.prepare(&lock("UPDATE"))?,
            id_columns: declaration.id.len(),
        })
    }

    /// Makes rows for members not there yet.
    pub(crate) fn infer(&self, client: &mut Client, members: &Members) -> Result<(), StoreError> {
        if members.by_key.is_empty() {
            return Ok(());
        }
        let keys: Vec<i64> = members.by_key.keys().copied().collect();
        let tenants: Vec<&str> = members.by_key.values().map(|member| member.tenant.as_str()).collect();
        let ids: Vec<Vec<&str>> = (0..self.id_columns)
            .map(|at| {
                members.by_key.values().map(|member| member.id.get(at).map_or("", String::as_str)).collect()
            })
            .collect();
        let mut parameters: Vec<&(dyn postgres::types::ToSql + Sync)> = vec![&keys, &tenants];
        parameters.extend(ids.iter().map(|id| id as &(dyn postgres::types::ToSql + Sync)));
        client.execute(&self.infer, &parameters)?;
        Ok(())
    }

    /// Locks the members' first rows, which every member has, until the transaction ends: against all others
    /// where versions change, else only against such changes. All in one order and one strength, so two
    /// batches never wait for each other.
    pub(crate) fn lock(
        &self,
        client: &mut Client,
        members: &Members,
        exclusive: bool,
    ) -> Result<(), StoreError> {
        if members.by_key.is_empty() {
            return Ok(());
        }
        let keys: Vec<i64> = members.by_key.keys().copied().collect();
        client.execute(if exclusive { &self.lock_exclusive } else { &self.lock_shared }, &[&keys])?;
        Ok(())
    }

    /// The versions there are of the members.
    pub(crate) fn versions(&self, client: &mut Client, members: &Members) -> Result<Versions, StoreError> {
        let mut versions = Versions::new();
        let Some(statement) = self.versions.as_ref().filter(|_| !members.by_key.is_empty()) else {
            return Ok(versions);
        };
        let keys: Vec<i64> = members.by_key.keys().copied().collect();
        for row in client.query(statement, &[&keys])? {
            versions.entry(row.try_get(0)?).or_default().push((row.try_get(1)?, row.try_get(2)?));
        }
        Ok(versions)
    }
}
