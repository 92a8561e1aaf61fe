use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fhirehose_codec::{SchemaSource, decode};
use fhirehose_pgsink::{StoreError, Tables, migrate};
use fhirehose_stream::{Batch, Fault, HEADER_SOURCE_TS, HEADER_VERSION, Reason, Record, Rejection, Verdict};
use fhirehose_tape::Tape;
use fhirehose_topics::{Registry, Topic};
use postgres::Client;

use crate::declaration::{self, Kind, Problem};
use crate::key;
use crate::members::{MemberSql, Members};
use crate::migration::{AFTER, BEFORE};
use crate::scd2::{self, Scd2Sql};
use crate::table::{Member, Origin, Table};
use crate::upsert::UpsertSql;

/// All declared tables, and what a batch adds to them.
pub struct Warehouse {
    registry: Arc<Registry>,
    schemas: Arc<dyn SchemaSource + Send + Sync>,
    migrations: PathBuf,
    tables: Vec<Table>,
    statements: Vec<Sql>,
    /// By dimension: who is referred to, or changes.
    members: BTreeMap<String, Members>,
    /// By table with refreshed columns: what the batch changes there.
    touched: BTreeMap<String, Touched>,
    record: Tape,
    resource: Tape,
}

/// Changed resources of a table, and the members their rows refer to.
#[derive(Default)]
struct Touched {
    tenants: Vec<String>,
    ids: Vec<String>,
    members: BTreeSet<Member>,
}

/// Statements of one table.
struct Sql {
    members: Option<MemberSql>,
    write: Write,
}

enum Write {
    Versions(Box<Scd2Sql>),
    Rows(UpsertSql),
}

impl Warehouse {
    /// Reads the declarations; all problems together.
    pub fn load(
        shapes: &Path,
        registry: Arc<Registry>,
        schemas: Arc<dyn SchemaSource + Send + Sync>,
    ) -> Result<Warehouse, Vec<Problem>> {
        let declared = declaration::load(shapes, &registry)?;
        let kinds =
            declared.iter().map(|table| (table.declaration.table.clone(), table.declaration.kind)).collect();
        let tables = declared.into_iter().map(|declared| Table::new(declared, &kinds)).collect();
        Ok(Warehouse::of(shapes, registry, schemas, tables))
    }

    /// The same for one table, written under another name. Those it refers to are there for that alone.
    pub(crate) fn of_one(
        shapes: &Path,
        registry: Arc<Registry>,
        schemas: Arc<dyn SchemaSource + Send + Sync>,
        table: &str,
        name: &str,
    ) -> Result<Warehouse, Vec<Problem>> {
        let mut warehouse = Warehouse::load(shapes, registry, schemas)?;
        let is_it = |one: &&Table| one.declaration.table == table;
        let lookups = warehouse.tables.iter().filter(is_it).flat_map(|one| one.declaration.lookups.values());
        let needed: BTreeSet<String> = lookups.map(|lookup| lookup.table.clone()).collect();
        warehouse.tables.retain(|one| is_it(&one) || needed.contains(&one.declaration.table));
        for one in &mut warehouse.tables {
            one.fed = one.declaration.table == table;
            if one.fed {
                one.name = name.to_owned();
            }
        }
        Ok(warehouse)
    }

    fn of(
        shapes: &Path,
        registry: Arc<Registry>,
        schemas: Arc<dyn SchemaSource + Send + Sync>,
        tables: Vec<Table>,
    ) -> Warehouse {
        Warehouse {
            registry,
            schemas,
            migrations: shapes.join("schemas/sql"),
            tables,
            statements: Vec::new(),
            members: BTreeMap::new(),
            touched: BTreeMap::new(),
            record: Tape::new(),
            resource: Tape::new(),
        }
    }

    /// Adds one record to the rows of every table it feeds: to all or, rejected, to none.
    fn judge(&mut self, record: &Record<'_>) -> Result<Verdict, Fault> {
        let before: Vec<_> = self.tables.iter().map(Table::before).collect();
        let mut members = Vec::new();
        match self.add(record, &mut members)? {
            Ok(rows) => {
                for (table, key, member) in members {
                    self.members.entry(table).or_default().insert(key, member);
                }
                Ok(Verdict::Emit(rows))
            }
            Err(rejection) => {
                for (table, before) in self.tables.iter_mut().zip(before) {
                    table.rewind(before);
                }
                Ok(rejection.into())
            }
        }
    }

    fn add(
        &mut self,
        record: &Record<'_>,
        members: &mut Vec<(String, i64, Member)>,
    ) -> Result<Result<u32, Rejection>, Fault> {
        let registry = self.registry.clone();
        let Some(topic) = registry.logical(record.topic()) else {
            return Err(Fault::fatal(format!("topic {} is not declared", record.topic())));
        };
        let key =
            record.key().and_then(|key| std::str::from_utf8(key).ok()).and_then(|key| key.split_once('/'));
        let Some((tenant, id)) = key.filter(|(tenant, id)| !tenant.is_empty() && !id.is_empty()) else {
            return Ok(Err(Rejection::new(Reason::MissingKey, "key")));
        };
        self.record.clear();
        if let Some(value) = record.value()
            && let Err(error) = decode(value, &*self.schemas, &mut self.record)
        {
            return Ok(Err(error.rejection()?));
        }
        let row = self.record.root();
        let origin = match origin(record, topic, row) {
            Ok((version, source_ts)) => {
                let event = row.get("version_id").or_else(|| row.get("source_event_id"));
                Origin {
                    tenant,
                    id,
                    version,
                    source_ts,
                    event_id: event.and_then(|event| event.as_str()).unwrap_or(id),
                }
            }
            Err(rejection) => return Ok(Err(rejection)),
        };
        let resource = match row.get("resource") {
            Some(json) => {
                let json = json.as_str().unwrap_or_default();
                if self.resource.parse_json(json.as_bytes()).is_err() {
                    return Ok(Err(Rejection::new(Reason::MalformedJson, "resource")));
                }
                self.resource.root()
            }
            None => row,
        };
        let mut rows = 0;
        for table in
            self.tables.iter_mut().filter(|table| table.fed && table.declaration.input == *topic.name)
        {
            let first = members.len();
            let added = match record.value() {
                Some(_) => table.upsert(origin, resource, members),
                None => table.delete(origin, members).map(|()| 1),
            };
            match added {
                Ok(count) => rows += count,
                Err(rejection) => return Ok(Err(rejection)),
            }
            if let Some(dimension) = table.refreshed_dimension() {
                let touched = self.touched.entry(table.declaration.table.clone()).or_default();
                touched.tenants.push(tenant.to_owned());
                touched.ids.push(id.to_owned());
                let own = members.iter().skip(first).filter(|(table, ..)| table == dimension);
                touched.members.extend(own.map(|(.., member)| member.clone()));
            }
        }
        Ok(Ok(rows))
    }

    /// Adds the members whose rows change without being referred to by the batch, such as those of deleted
    /// rows: columns computed over all their rows change too.
    fn refresh(&mut self, client: &mut Client) -> Result<(), StoreError> {
        for (table, sql) in self.tables.iter().zip(&self.statements) {
            let touched = self.touched.get_mut(&table.declaration.table);
            let (Write::Rows(upsert), Some(touched)) = (&sql.write, touched) else { continue };
            let Some(dimension) = table.refreshed_dimension() else { continue };
            touched.members.extend(upsert.members(client, (&touched.tenants, &touched.ids))?);
            let members = self.members.entry(dimension.to_owned()).or_default();
            members.exclusive = true;
            for member in &touched.members {
                let parts: Vec<&str> = member.id.iter().map(String::as_str).collect();
                members.insert(key::surrogate(dimension, &member.tenant, &parts), member.clone());
            }
        }
        Ok(())
    }
}

impl Warehouse {
    /// Versioned dimensions: members there and locked, versions in line with their changes, facts in the
    /// database and in the batch pointing at the right ones.
    fn write_versions(&mut self, client: &mut Client) -> Result<(), StoreError> {
        let none = Members::default();
        let both = || self.tables.iter().zip(&self.statements);
        for (table, sql) in both() {
            let (Write::Versions(_), Some(statements)) = (&sql.write, &sql.members) else { continue };
            let members = self.members.get(&table.declaration.table).unwrap_or(&none);
            statements.infer(client, members)?;
            statements.lock(client, members, members.exclusive || table.has_rows())?;
        }
        let mut resolved = Vec::new();
        for (table, sql) in both() {
            let (Write::Versions(versions), Some(statements)) = (&sql.write, &sql.members) else { continue };
            let dimension = &table.declaration.table;
            if table.has_rows() {
                table.copy(client)?;
                let moved = versions.merge(client)?;
                for (_, sql) in both() {
                    if let Write::Rows(upsert) = &sql.write {
                        upsert.repoint(client, dimension, &moved)?;
                    }
                }
            }
            let members = self.members.get(dimension).unwrap_or(&none);
            resolved.push((dimension.clone(), statements.versions(client, members)?));
        }
        for (dimension, versions) in &resolved {
            self.tables.iter_mut().for_each(|table| table.resolve(dimension, versions));
        }
        Ok(())
    }
}

/// Version and source time of a record: its own where it has them, else of its offset and headers.
fn origin(
    record: &Record<'_>,
    topic: &Topic,
    row: fhirehose_tape::Value<'_>,
) -> Result<(i64, i64), Rejection> {
    let missing = |what: &str| Rejection::new(Reason::MissingElement, what.to_owned());
    let versioned = topic.schema.as_ref().is_some_and(|schema| schema.field("version").is_some());
    let header_ts = record.header_i64(HEADER_SOURCE_TS);
    if !versioned {
        return Ok((topic.version(record.offset(), 0), header_ts.unwrap_or(record.timestamp_ms())));
    }
    if record.value().is_none() {
        let version = record.header_i64(HEADER_VERSION).ok_or_else(|| missing(HEADER_VERSION))?;
        return Ok((version, header_ts.ok_or_else(|| missing(HEADER_SOURCE_TS))?));
    }
    let field = |name: &str| row.get(name).and_then(|value| value.as_i64()).ok_or_else(|| missing(name));
    Ok((field("version")?, field("last_updated")?))
}

impl Tables for Warehouse {
    fn connected(&mut self, client: &mut Client) -> Result<(), StoreError> {
        let files = [BEFORE, AFTER].concat();
        migrate::require(client, &self.migrations, &files)
            .map_err(|error| Fault::fatal(error.to_string()))?;
        for table in &mut self.tables {
            table.connected(client)?;
        }
        self.statements.clear();
        for table in &self.tables {
            let members = table
                .declaration
                .kind
                .is_dimension()
                .then(|| MemberSql::prepare(client, table))
                .transpose()?;
            let write = match table.declaration.kind {
                Kind::Scd2 => Write::Versions(Box::new(Scd2Sql::prepare(client, table)?)),
                _ => Write::Rows(UpsertSql::prepare(client, table, &self.tables)?),
            };
            self.statements.push(Sql { members, write });
        }
        Ok(())
    }

    /// Who is referred to is there and locked; then versions, with the facts they move; then the other
    /// dimensions; then facts.
    fn write(&mut self, client: &mut Client, batch: &Batch) -> Result<Vec<Verdict>, StoreError> {
        self.tables.iter_mut().for_each(Table::clear);
        self.members.values_mut().for_each(Members::clear);
        self.touched.clear();
        let judged = batch.iter().map(|record| self.judge(&record)).collect::<Result<_, _>>()?;
        self.refresh(client)?;
        self.write_versions(client)?;
        // Dimensions stand before facts.
        for (table, sql) in self.tables.iter_mut().zip(&self.statements) {
            let Write::Rows(upsert) = &sql.write else { continue };
            upsert.write(client, table)?;
            if let (Some(statements), Some(members)) =
                (&sql.members, self.members.get(&table.declaration.table))
            {
                statements.infer(client, members)?;
            }
            if let Some(touched) = self.touched.get(&table.declaration.table) {
                upsert.refresh(client, &touched.members)?;
            }
        }
        Ok(judged)
    }

    fn again(&mut self, client: &mut Client) -> Result<(), StoreError> {
        let versioned = self.tables.iter().filter(|table| table.declaration.kind == Kind::Scd2);
        let temporary: Vec<String> =
            self.tables.iter().map(Table::stage).chain(versioned.map(scd2::wanted)).collect();
        Ok(client.batch_execute(&format!("TRUNCATE {}", temporary.join(", ")))?)
    }
}
