use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use fhirehose_faultpoint::planted;
use fhirehose_pgsink::{ColumnType, CopyRows, StoreError, Straight, TableShape};
use fhirehose_stream::{Fault, Reason, Rejection};
use fhirehose_tape::Value;
use fhirehose_topics::Registry;
use postgres::{Client, Statement};

use crate::row::Row;

/// One hypertable and the rows and deletes of the current batch.
///
/// Nearly every reading is new: rows go straight in by COPY. Where one is there already the batch is merged
/// through a temporary table instead, newest version first.
pub(crate) struct Hypertable {
    pub(crate) topic: &'static str,
    table: &'static str,
    key: [&'static str; 3],
    row: Row,
    bound: Option<Bound>,
    straight: Straight,
    keys: HashSet<u64>,
    repeats: bool,
    /// By the first two parts of the key.
    deletes: BTreeMap<(String, String), Deletes>,
}

/// What depends on the table in the database.
struct Bound {
    rows: CopyRows,
    merge: Statement,
    delete: Statement,
}

/// Times and versions of one device's deleted rows, column by column.
#[derive(Default)]
struct Deletes {
    at_ms: Vec<i64>,
    version: Vec<i64>,
}

impl Hypertable {
    pub(crate) fn new(
        registry: &Registry,
        topic: &'static str,
        table: &'static str,
        key: [&'static str; 3],
    ) -> Result<Hypertable, Fault> {
        let schema = registry
            .schema(topic)
            .ok_or_else(|| Fault::fatal(format!("topic {topic} is not declared with a schema")))?;
        Ok(Hypertable {
            topic,
            table,
            key,
            row: Row::of(schema),
            bound: None,
            straight: Straight::default(),
            keys: HashSet::new(),
            repeats: false,
            deletes: BTreeMap::new(),
        })
    }

    /// Name of the temporary table.
    pub(crate) fn stage(&self) -> String {
        format!("stage_{}", self.table)
    }

    /// Checks the table and makes ready on a new connection.
    pub(crate) fn connected(&mut self, client: &mut Client) -> Result<(), StoreError> {
        let shape = TableShape::read(client, &format!("public.{}", self.table))?;
        let columns = self.row.bind(&shape)?;
        let (table, stage) = (self.table, self.stage());
        client.batch_execute(&format!(
            "CREATE TEMP TABLE {stage} ON COMMIT DELETE ROWS AS SELECT {} FROM public.{table} WITH NO DATA",
            self.row.columns().join(", ")
        ))?;
        self.bound = Some(Bound {
            rows: CopyRows::new(&columns),
            merge: client.prepare(&self.merge_sql(&columns))?,
            delete: client.prepare(&self.delete_sql())?,
        });
        Ok(())
    }

    fn merge_sql(&self, columns: &[(String, ColumnType)]) -> String {
        let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
        let (all, key) = (names.join(", "), self.key.join(", "));
        let set: Vec<String> = names
            .iter()
            .filter(|name| !self.key.contains(name))
            .map(|name| format!("{name} = excluded.{name}"))
            .collect();
        // Planted: any of a batch's versions, over whatever is there.
        let (newest, newer) = match planted("sample-version-ignored") {
            true => ("", ""),
            false => (", version DESC", " WHERE t.version < excluded.version"),
        };
        format!(
            "INSERT INTO public.{table} AS t ({all}) SELECT DISTINCT ON ({key}) {all} FROM {stage} \
             ORDER BY {key}{newest} ON CONFLICT ({key}) DO UPDATE SET {set}, loaded_at = now(){newer}",
            table = self.table,
            stage = self.stage(),
            set = set.join(", "),
        )
    }

    /// One device at a time: the bounds on the time let the planner skip chunks, and with the device known as it
    /// plans, of a compressed chunk only what the device wrote is decompressed.
    fn delete_sql(&self) -> String {
        let [first, second, at] = self.key;
        format!(
            "DELETE FROM public.{} AS t USING unnest($3::int8[], $4::int8[]) AS d (ms, version) \
             WHERE t.{first} = $1 AND t.{second} = $2 AND t.{at} = to_timestamp(d.ms / 1000.0) \
             AND t.version < d.version AND t.{at} BETWEEN to_timestamp($5::int8 / 1000.0) AND to_timestamp($6::int8 / 1000.0)",
            self.table
        )
    }

    pub(crate) fn clear(&mut self) {
        if let Some(bound) = &mut self.bound {
            bound.rows.clear();
        }
        self.keys.clear();
        self.repeats = false;
        self.deletes.clear();
    }

    pub(crate) fn upsert(
        &mut self,
        key: Option<&[u8]>,
        value: Value<'_>,
        version: i64,
        source_ts: i64,
    ) -> Result<(), Rejection> {
        let Some(bound) = &mut self.bound else { return Ok(()) };
        self.row.push(value, version, source_ts, &mut bound.rows)?;
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        // Equal hashes of different keys only cost the straight way.
        self.repeats |= !self.keys.insert(hasher.finish());
        Ok(())
    }

    /// A tombstone: its key names the row.
    pub(crate) fn delete(&mut self, key: Option<&[u8]>, version: i64) -> Result<(), Rejection> {
        let missing = || Rejection::new(Reason::MissingKey, "key");
        let key = key.and_then(|key| std::str::from_utf8(key).ok()).ok_or_else(missing)?;
        let (rest, at) = key.rsplit_once('/').ok_or_else(missing)?;
        // Tenants and kinds hold no slash; a device id, second in one key and first in the other, may.
        let split = if self.key[0] == "tenant_id" { rest.split_once('/') } else { rest.rsplit_once('/') };
        let (first, second) = split.ok_or_else(missing)?;
        let at_ms = at.parse::<i64>().map_err(|_| missing())?;
        let deletes = self.deletes.entry((first.to_owned(), second.to_owned())).or_default();
        deletes.at_ms.push(at_ms);
        deletes.version.push(version);
        Ok(())
    }

    pub(crate) fn write(&mut self, client: &mut Client) -> Result<(), StoreError> {
        let (table, stage) = (format!("public.{}", self.table), self.stage());
        let Some(bound) = &self.bound else { return Ok(()) };
        if !bound.rows.is_empty() && !self.straight.copy(client, &bound.rows, &table, self.repeats)? {
            bound.rows.copy_into(client, &stage)?;
            client.execute(&bound.merge, &[])?;
        }
        for ((first, second), Deletes { at_ms, version }) in &self.deletes {
            if let (Some(from), Some(to)) = (at_ms.iter().min(), at_ms.iter().max()) {
                client.execute(&bound.delete, &[first, second, at_ms, version, from, to])?;
            }
        }
        Ok(())
    }
}
