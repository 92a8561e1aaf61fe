use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use fhirehose_pgsink::{ColumnType, CopyRows, Datum, Mark, StoreError, Straight, TableShape};
use fhirehose_stream::{Fault, Reason, Rejection};
use fhirehose_tape::Value;
use fhirehose_views::{Cell, View};
use postgres::Client;

use crate::declaration::{self, Declaration, Declared, Deletes, Kind};
use crate::key;
use crate::members::Versions;

/// Columns the engine fills or the database computes, beside those of the view.
const ENGINE: [&str; 8] = [
    "loaded_at",
    "attr_hash",
    "valid_from",
    "valid_to",
    "is_current",
    "is_deleted",
    "is_inferred",
    "version",
];

/// Where a row comes from.
#[derive(Clone, Copy)]
pub(crate) struct Origin<'r> {
    pub tenant: &'r str,
    /// The resource's id: the record key without the tenant.
    pub id: &'r str,
    pub version: i64,
    /// When the source committed it, milliseconds since the epoch.
    pub source_ts: i64,
    pub event_id: &'r str,
}

/// A member of a dimension that a row refers to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Member {
    pub tenant: String,
    pub id: Vec<String>,
}

/// A declared table and its rows of the current batch.
pub(crate) struct Table {
    pub declaration: Declaration,
    /// The table that is written: the declared one, or another in its place while that is built anew.
    pub name: String,
    /// Whether records become rows here; else it is there for those that refer to it.
    pub fed: bool,
    view: View,
    tracked: Vec<usize>,
    id: Vec<usize>,
    lookups: Vec<Lookup>,
    event_time: Option<usize>,
    /// Types of the business key's columns in the database.
    pub id_types: Vec<String>,
    rows: CopyRows,
    straight: Straight,
    keys: HashSet<i64>,
    repeats: bool,
    unresolved: Vec<Unresolved>,
    pub gone: Gone,
}

struct Lookup {
    table: String,
    /// Kind of that table.
    kind: Kind,
    id: Vec<usize>,
}

/// A staged row's key to a versioned dimension: the member's, until the version that holds at its time is known.
struct Unresolved {
    /// Where the key stands in the rows' bytes.
    at: usize,
    lookup: usize,
    member: i64,
    /// Microseconds since the epoch.
    time: i64,
}

/// Resources that no longer have a row here, column by column.
#[derive(Default)]
pub(crate) struct Gone {
    pub tenant: Vec<String>,
    pub id: Vec<String>,
    pub version: Vec<i64>,
    pub source_ts: Vec<i64>,
}

/// What a record adds to a table, undone by [`Table::rewind`].
#[derive(Clone, Copy)]
pub(crate) struct Before {
    rows: Mark,
    gone: usize,
    unresolved: usize,
}

impl Table {
    /// `kinds` says what each declared table is.
    pub(crate) fn new(declared: Declared, kinds: &HashMap<String, Kind>) -> Table {
        let Declared { declaration, view, .. } = declared;
        let position = |name: &String| view.columns().iter().position(|column| *column.name == **name);
        let positions = |names: &[String]| names.iter().filter_map(position).collect::<Vec<_>>();
        let lookup = |lookup: &declaration::Lookup| Lookup {
            table: lookup.table.clone(),
            kind: kinds.get(&lookup.table).copied().unwrap_or(Kind::Fact),
            id: positions(&lookup.id),
        };
        Table {
            tracked: positions(&declaration.tracked),
            id: positions(&declaration.id),
            lookups: declaration.lookups.values().map(lookup).collect(),
            event_time: declaration.event_time.as_ref().and_then(position),
            id_types: Vec::new(),
            rows: CopyRows::new(&[]),
            straight: Straight::default(),
            keys: HashSet::new(),
            repeats: false,
            unresolved: Vec::new(),
            gone: Gone::default(),
            name: declaration.table.clone(),
            fed: true,
            declaration,
            view,
        }
    }

    /// Name of the temporary table that takes the batch.
    pub(crate) fn stage(&self) -> String {
        format!("stage_{}", self.declaration.table.replace('.', "_"))
    }

    /// The business key's column, or columns with commas between.
    pub(crate) fn id_columns(&self) -> String {
        self.declaration.id.join(", ")
    }

    fn view_columns(&self) -> impl Iterator<Item = &str> {
        self.view.columns().iter().map(|column| &*column.name)
    }

    /// Columns that a function of the database fills; it knows the declared table, not one in its place.
    pub(crate) fn refresh(&self) -> Option<&declaration::Refresh> {
        self.declaration.refresh.as_ref().filter(|_| self.name == self.declaration.table)
    }

    /// The dimension whose members' rows here are computed over all of a member's.
    pub(crate) fn refreshed_dimension(&self) -> Option<&str> {
        let refresh = self.refresh()?;
        self.declaration.lookups.get(&refresh.lookup).map(|lookup| lookup.table.as_str())
    }

    /// Columns of a staged row, in order.
    pub(crate) fn columns(&self) -> Vec<String> {
        let declaration = &self.declaration;
        let own = |name: &str| name.to_owned();
        let mut columns = match declaration.kind {
            Kind::Scd2 => vec![own("member_key"), own("version_key"), own("is_deleted"), own("attr_hash")],
            _ => vec![declaration.key.clone()],
        };
        columns.push(own("tenant_id"));
        if declaration.kind != Kind::Code {
            columns.push(declaration.id[0].clone());
        }
        if declaration.kind == Kind::View {
            columns.push(own("row_nr"));
        }
        columns.extend([own("source_ts"), own("version")]);
        if !declaration.kind.is_dimension() {
            columns.push(own("source_event_id"));
        }
        columns.extend(self.view_columns().map(own));
        columns.extend(declaration.lookups.keys().cloned());
        columns
    }

    /// Columns of the table that come from the view.
    pub(crate) fn attributes(&self) -> Vec<String> {
        self.view_columns().map(str::to_owned).collect()
    }

    /// Checks the declaration against the database, and makes the stage.
    pub(crate) fn connected(&mut self, client: &mut Client) -> Result<(), StoreError> {
        let declaration = &self.declaration;
        let shape = TableShape::read(client, &self.name)?;
        // A version is staged as its change is kept.
        let target = declaration.changes.as_ref().unwrap_or(&self.name);
        let staged = TableShape::read(client, target)?;
        let columns = self.columns();
        let mut wrong: Vec<String> = Vec::new();
        let mut typed: Vec<(String, ColumnType)> = Vec::new();
        for column in &columns {
            match staged.writable(column) {
                Ok(kind) => typed.push((column.clone(), kind)),
                Err(message) => wrong.push(message),
            }
        }
        let names: Vec<&str> = columns.iter().map(String::as_str).collect();
        wrong.extend(staged.missing(&names).iter().map(|name| format!("nothing fills {target}.{name}")));
        let refreshed = declaration.refresh.iter().flat_map(|refresh| &refresh.columns);
        let mut filled = names.clone();
        filled.extend(refreshed.map(String::as_str).chain([declaration.key.as_str()]).chain(ENGINE));
        let generated = |name: &str| shape.column(name).is_some_and(|column| column.generated);
        for column in shape.columns.iter().map(|column| column.name.as_str()) {
            if !filled.contains(&column) && !generated(column) {
                wrong.push(format!("neither the view nor the declaration fills {}.{column}", shape.name));
            }
        }
        if shape.columns.is_empty() {
            wrong.push(format!("there is no table {}", shape.name));
        }
        if !wrong.is_empty() {
            let wrong = wrong.join("; ");
            return Err(Fault::fatal(format!("{wrong} (`fhirehose migrate plan` shows what to do)")).into());
        }
        client.batch_execute(&format!(
            "CREATE TEMP TABLE {} ON COMMIT DELETE ROWS AS SELECT {} FROM {target} WITH NO DATA",
            self.stage(),
            names.join(", ")
        ))?;
        let id_type = |name: &String| shape.column(name).map_or("text", |column| &column.udt_name).to_owned();
        self.id_types = declaration.id.iter().map(id_type).collect();
        self.rows = CopyRows::new(&typed);
        Ok(())
    }

    pub(crate) fn clear(&mut self) {
        self.rows.clear();
        self.keys.clear();
        self.repeats = false;
        self.unresolved.clear();
        self.gone = Gone::default();
    }

    pub(crate) fn before(&self) -> Before {
        Before { rows: self.rows.mark(), gone: self.gone.id.len(), unresolved: self.unresolved.len() }
    }

    pub(crate) fn rewind(&mut self, before: Before) {
        self.rows.rewind(before.rows);
        self.unresolved.truncate(before.unresolved);
        self.gone.tenant.truncate(before.gone);
        self.gone.id.truncate(before.gone);
        self.gone.version.truncate(before.gone);
        self.gone.source_ts.truncate(before.gone);
    }

    pub(crate) fn has_rows(&self) -> bool {
        !self.rows.is_empty()
    }

    /// Points the rows at the versions that hold at their time, given those of one dimension.
    pub(crate) fn resolve(&mut self, dimension: &str, versions: &Versions) {
        for key in &self.unresolved {
            if self.lookups.get(key.lookup).is_none_or(|lookup| lookup.table != dimension) {
                continue;
            }
            let all = versions.get(&key.member).map(Vec::as_slice).unwrap_or_default();
            // Older than the calendar: the first version, whose key is the member's.
            let begun = all.partition_point(|(from, _)| *from <= key.time);
            if let Some((_, version)) = begun.checked_sub(1).and_then(|at| all.get(at)) {
                self.rows.patch_int8(key.at, *version);
            }
        }
    }

    /// Copies rows of a fact or view into the table itself; `false` where they must be merged.
    pub(crate) fn copy_straight(&mut self, client: &mut Client) -> Result<bool, StoreError> {
        if self.declaration.kind.is_dimension() {
            return Ok(false);
        }
        self.straight.copy(client, &self.rows, &self.name, self.repeats)
    }

    /// Sends the batch's rows to the stage.
    pub(crate) fn copy(&self, client: &mut Client) -> Result<(), StoreError> {
        self.rows.copy_into(client, &self.stage())?;
        Ok(())
    }

    /// Adds what a resource is in this table; says which members of dimensions the row refers to.
    pub(crate) fn upsert(
        &mut self,
        origin: Origin<'_>,
        resource: Value<'_>,
        members: &mut Vec<(String, i64, Member)>,
    ) -> Result<u32, Rejection> {
        let (mut count, mut rejected) = (0_u32, None);
        let Table {
            view,
            declaration,
            tracked,
            id,
            lookups,
            rows,
            event_time,
            unresolved,
            keys,
            repeats,
            ..
        } = self;
        let mut push = |cells: &[Cell<'_>]| -> Result<(), Rejection> {
            let nr = count;
            count += 1;
            if count > 1 && declaration.kind != Kind::View {
                return Err(Rejection::new(
                    Reason::InvalidFhir,
                    format!("{}: more than one row", declaration.table),
                ));
            }
            let mut row = leading(declaration, origin, nr, cells, tracked, id);
            if let (false, Some(Datum::Int(key))) = (declaration.kind.is_dimension(), row.first()) {
                *repeats |= !keys.insert(*key);
            }
            row.extend(cells.iter().map(datum));
            let mut found = Vec::with_capacity(lookups.len());
            for lookup in lookups.iter() {
                let parts = parts(cells, &lookup.id);
                let key =
                    parts.as_ref().map_or(0, |parts| key::surrogate(&lookup.table, origin.tenant, parts));
                row.push(Datum::Int(key));
                found.push((parts, key));
            }
            rows.push(row.into_iter()).map_err(|(at, _)| wrong_type(declaration, view, at))?;
            let time = event_time.and_then(|at| cells.get(at)).and_then(|cell| datum(cell).micros().ok());
            for (at, (lookup, (parts, member))) in lookups.iter().zip(found).enumerate() {
                let (Some(parts), true) = (parts, lookup.kind.is_dimension()) else { continue };
                if lookup.kind == Kind::Scd2 {
                    // Lookups end the row: a length of four bytes, then the key's eight.
                    let at_key = rows.end() - (lookups.len() - at) * 12 + 4;
                    let time = time.unwrap_or(origin.source_ts.saturating_mul(1000));
                    unresolved.push(Unresolved { at: at_key, lookup: at, member, time });
                }
                let id = parts.iter().map(|part| (*part).to_owned()).collect();
                members.push((lookup.table.clone(), member, Member { tenant: origin.tenant.to_owned(), id }));
            }
            Ok(())
        };
        view.rows(resource, &mut |cells| {
            if rejected.is_none() {
                rejected = push(cells).err();
            }
        })
        .map_err(|error| {
            Rejection::new(Reason::WrongType, format!("{}.{}", declaration.table, error.column))
        })?;
        if let Some(rejection) = rejected {
            return Err(rejection);
        }
        if count == 0 {
            self.delete(origin, members)?;
        } else if declaration.kind == Kind::Scd2 {
            members.push(self.own_member(origin));
        }
        Ok(count)
    }

    /// Takes the resource out of this table.
    pub(crate) fn delete(
        &mut self,
        origin: Origin<'_>,
        members: &mut Vec<(String, i64, Member)>,
    ) -> Result<(), Rejection> {
        match self.declaration.deletes() {
            Deletes::Keep => {}
            Deletes::Close => {
                let cells = vec![Cell::Null; self.view.columns().len()];
                let mut row = leading(&self.declaration, origin, 0, &cells, &self.tracked, &self.id);
                (row[2], row[3]) = (Datum::Bool(true), Datum::Int(0));
                row.extend(cells.iter().map(datum));
                let pushed = self.rows.push(row.into_iter());
                pushed.map_err(|(at, _)| wrong_type(&self.declaration, &self.view, at))?;
                members.push(self.own_member(origin));
            }
            Deletes::Mark | Deletes::Remove => {
                if self.id_types.iter().any(|kind| kind == "uuid")
                    && uuid::Uuid::try_parse(origin.id).is_err()
                {
                    return Err(Rejection::new(Reason::WrongType, format!("{}.id", self.declaration.table)));
                }
                self.gone.tenant.push(origin.tenant.to_owned());
                self.gone.id.push(origin.id.to_owned());
                self.gone.version.push(origin.version);
                self.gone.source_ts.push(origin.source_ts);
            }
        }
        Ok(())
    }

    /// The member that a resource is in this dimension.
    pub(crate) fn own_member(&self, origin: Origin<'_>) -> (String, i64, Member) {
        let table = &self.declaration.table;
        let key = key::surrogate(table, origin.tenant, &[origin.id]);
        (table.clone(), key, Member { tenant: origin.tenant.to_owned(), id: vec![origin.id.to_owned()] })
    }
}

/// The values of a staged row before those of the view. `nr` is the row's place among the resource's.
fn leading<'a>(
    declaration: &Declaration,
    origin: Origin<'a>,
    nr: u32,
    cells: &[Cell<'_>],
    tracked: &[usize],
    id: &[usize],
) -> Vec<Datum<'a>> {
    let table = &declaration.table;
    let mut row = Vec::with_capacity(cells.len() + 12);
    match declaration.kind {
        Kind::Scd2 => {
            let start = origin.source_ts.to_string();
            row.push(Datum::Int(key::surrogate(table, origin.tenant, &[origin.id])));
            row.push(Datum::Int(key::surrogate(table, origin.tenant, &[origin.id, &start])));
            row.push(Datum::Bool(false));
            row.push(Datum::Int(key::attributes(tracked.iter().filter_map(|at| cells.get(*at)))));
        }
        Kind::Code => {
            let parts: Vec<Cow<'_, str>> =
                id.iter().filter_map(|at| cells.get(*at).and_then(key::text)).collect();
            let parts: Vec<&str> = parts.iter().map(Cow::as_ref).collect();
            row.push(Datum::Int(key::surrogate(table, origin.tenant, &parts)));
        }
        Kind::View => {
            let parts = [origin.id, &nr.to_string()];
            row.push(Datum::Int(key::surrogate(table, origin.tenant, &parts)));
        }
        Kind::Scd1 | Kind::Fact => row.push(Datum::Int(key::surrogate(table, origin.tenant, &[origin.id]))),
    }
    row.push(Datum::Text(origin.tenant));
    if declaration.kind != Kind::Code {
        row.push(Datum::Text(origin.id));
    }
    if declaration.kind == Kind::View {
        row.push(Datum::Int(i64::from(nr)));
    }
    row.extend([Datum::Int(origin.source_ts), Datum::Int(origin.version)]);
    if !declaration.kind.is_dimension() {
        row.push(Datum::Text(origin.event_id));
    }
    row
}

fn datum<'c>(cell: &'c Cell<'_>) -> Datum<'c> {
    match cell {
        Cell::Null => Datum::Null,
        Cell::Bool(value) => Datum::Bool(*value),
        Cell::Integer(value) => Datum::Int(*value),
        Cell::Decimal(text)
        | Cell::Text(text)
        | Cell::Date(text)
        | Cell::DateTime(text)
        | Cell::Time(text) => Datum::Text(text),
        Cell::Json(bytes) => std::str::from_utf8(bytes).map_or(Datum::Null, Datum::Text),
    }
}

/// The business key that these cells are; `None` where one of them is null.
fn parts<'c>(cells: &'c [Cell<'_>], id: &[usize]) -> Option<Vec<&'c str>> {
    let part = |at: &usize| match cells.get(*at) {
        Some(Cell::Text(text)) => Some(text.as_ref()),
        _ => None,
    };
    id.iter().map(part).collect()
}

/// Names the column of the position in a staged row at which a value was refused.
fn wrong_type(declaration: &Declaration, view: &View, at: usize) -> Rejection {
    let own = match declaration.kind {
        Kind::Scd2 => 8,
        Kind::View => 7,
        Kind::Fact => 6,
        Kind::Scd1 => 5,
        Kind::Code => 4,
    };
    let name = at.checked_sub(own).and_then(|at| view.columns().get(at)).map_or("id", |column| &*column.name);
    Rejection::new(Reason::WrongType, format!("{}.{name}", declaration.table))
}
