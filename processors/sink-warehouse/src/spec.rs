//! What a declared table is in the database: columns, constraints, indexes, and the SQL that makes it.

use fhirehose_views::{Column, ColumnType};

use crate::declaration::{Declared, Deletes, Kind};

/// Types a declared column can have.
pub(crate) const TYPES: [&str; 11] = [
    "boolean",
    "smallint",
    "integer",
    "bigint",
    "double precision",
    "numeric",
    "text",
    "uuid",
    "date",
    "timestamptz",
    "jsonb",
];

/// A table as it must be.
#[derive(Clone)]
pub(crate) struct TableSpec {
    /// `schema.table`.
    pub name: String,
    pub comment: Option<String>,
    pub columns: Vec<ColumnSpec>,
    pub constraints: Vec<String>,
    pub indexes: Vec<IndexSpec>,
    /// Columns and values of the row that "not applicable" refers to.
    pub zero_row: Option<String>,
}

#[derive(Clone)]
pub(crate) struct ColumnSpec {
    pub name: String,
    pub sql_type: String,
    pub not_null: bool,
    pub default: Option<String>,
    /// SQL by which the database computes it.
    pub computed: Option<String>,
    pub comment: Option<String>,
    /// Where its values come from, for the docs.
    pub from: String,
}

#[derive(Clone)]
pub(crate) struct IndexSpec {
    pub name: String,
    pub unique: bool,
    pub columns: Vec<String>,
    pub predicate: Option<String>,
}

impl TableSpec {
    pub(crate) fn column(&self, name: &str) -> Option<&ColumnSpec> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The table's own name, without the schema.
    pub(crate) fn bare(&self) -> &str {
        self.name.split_once('.').map_or(&*self.name, |(_, table)| table)
    }

    /// `CREATE TABLE` under another name, without indexes, comments and rows.
    pub(crate) fn create(&self, temporary: bool, name: &str) -> String {
        let lines = self.columns.iter().map(ColumnSpec::definition).chain(self.constraints.iter().cloned());
        let lines: Vec<String> = lines.map(|line| format!("    {line}")).collect();
        let temporary = if temporary { "TEMP " } else { "" };
        format!("CREATE {temporary}TABLE {name} (\n{}\n)", lines.join(",\n"))
    }

    /// All statements that make it.
    pub(crate) fn statements(&self) -> Vec<String> {
        let schema = self.name.split_once('.').map_or("public", |(schema, _)| schema);
        let mut made = vec![format!("CREATE SCHEMA IF NOT EXISTS {schema}"), self.create(false, &self.name)];
        made.extend(self.indexes.iter().map(|index| index.create(&index.name, &self.name)));
        made.extend(self.comment.iter().map(|text| comment("TABLE", &self.name, text)));
        made.extend(self.columns.iter().filter_map(|column| column.commented(&self.name)));
        made.extend(self.zero_row.iter().map(|row| format!("INSERT INTO {} {row}", self.name)));
        made
    }
}

impl ColumnSpec {
    /// `name type …`, as `CREATE TABLE` and `ADD COLUMN` take it.
    pub(crate) fn definition(&self) -> String {
        let mut text = format!("{} {}", self.name, self.sql_type);
        if self.not_null {
            text.push_str(" NOT NULL");
        }
        if let Some(default) = &self.default {
            text.push_str(&format!(" DEFAULT {default}"));
        }
        if let Some(computed) = &self.computed {
            text.push_str(&format!(" GENERATED ALWAYS AS ({computed}) STORED"));
        }
        text
    }

    /// `COMMENT ON COLUMN`, where it has one.
    pub(crate) fn commented(&self, table: &str) -> Option<String> {
        let text = self.comment.as_ref()?;
        Some(comment("COLUMN", &format!("{table}.{}", self.name), text))
    }

    fn of(name: &str, sql_type: &str, not_null: bool, from: &str) -> ColumnSpec {
        ColumnSpec {
            name: name.to_owned(),
            sql_type: sql_type.to_owned(),
            not_null,
            default: None,
            computed: None,
            comment: None,
            from: from.to_owned(),
        }
    }

    fn defaulted(mut self, default: &str) -> ColumnSpec {
        self.default = Some(default.to_owned());
        self
    }
}

impl IndexSpec {
    pub(crate) fn create(&self, name: &str, table: &str) -> String {
        let unique = if self.unique { "UNIQUE " } else { "" };
        let predicate = self.predicate.as_ref().map(|text| format!(" WHERE {text}")).unwrap_or_default();
        format!("CREATE {unique}INDEX {name} ON {table} ({}){predicate}", self.columns.join(", "))
    }
}

pub(crate) fn comment(what: &str, name: &str, text: &str) -> String {
    format!("COMMENT ON {what} {name} IS '{}'", text.replace('\'', "''"))
}

/// The type a view's column is stored as; `None` where nothing tells it.
pub(crate) fn view_type(table: &Declared, all: &[&Declared], column: &Column) -> Option<String> {
    let name = &*column.name;
    if let Some(told) = table.declaration.columns.get(name).and_then(|told| told.sql_type.as_ref()) {
        return Some(told.clone());
    }
    for lookup in table.declaration.lookups.values() {
        let Some(at) = lookup.id.iter().position(|id| id == name) else { continue };
        if let Some(other) = all.iter().find(|other| other.declaration.table == lookup.table) {
            return id_type(other, at);
        }
    }
    own_type(column)
}

fn own_type(column: &Column) -> Option<String> {
    if column.collection {
        return Some("jsonb".into());
    }
    let sql = match column.kind {
        ColumnType::Any => return None,
        ColumnType::Boolean => "boolean",
        ColumnType::Integer if column.of.as_deref() == Some("integer64") => "bigint",
        ColumnType::Integer => "integer",
        ColumnType::Decimal => "numeric",
        ColumnType::Text | ColumnType::Time => "text",
        ColumnType::Date => "date",
        ColumnType::DateTime => "timestamptz",
        ColumnType::Json => "jsonb",
    };
    Some(sql.into())
}

/// The type of the business key's column at that place.
fn id_type(table: &Declared, at: usize) -> Option<String> {
    let declaration = &table.declaration;
    let name = declaration.id.get(at)?;
    let told = declaration.columns.get(name).and_then(|told| told.sql_type.clone());
    told.or_else(|| match declaration.kind {
        Kind::Code => table.view.columns().iter().find(|column| *column.name == **name).and_then(own_type),
        _ if table.of_resources => Some("uuid".into()),
        _ => Some("text".into()),
    })
}

/// Columns that the engine fills, by kind, those of the view not among them.
pub(crate) fn engine_columns(table: &Declared) -> Vec<ColumnSpec> {
    let declaration = &table.declaration;
    let kind = declaration.kind;
    let own = ColumnSpec::of;
    let business = match declaration.id.as_slice() {
        [id] => id.clone(),
        all => format!("({})", all.join(", ")),
    };
    let of_versions = if kind == Kind::Scd2 { " and, but for the first version, its start" } else { "" };
    let of_rows = if kind == Kind::View { " and row_nr" } else { "" };
    let key = format!("Surrogate key of the tenant, {business}{of_rows}{of_versions}");
    let mut columns = vec![
        own(&declaration.key, "bigint", true, &key),
        own("tenant_id", "text", true, "The record's tenant"),
    ];
    if kind != Kind::Code {
        let id = id_type(table, 0).unwrap_or_default();
        let from =
            if table.of_resources { "The resource's id" } else { "The record's key without the tenant" };
        columns.extend(declaration.id.iter().map(|name| own(name, &id, true, from)));
    }
    if kind == Kind::View {
        columns.push(own("row_nr", "integer", true, "The row's place among the resource's, from 0 on"));
    }
    for (name, lookup) in &declaration.lookups {
        let from = format!("Row of `{}` by {}; 0 where there is none", lookup.table, lookup.id.join(", "));
        columns.push(own(name, "bigint", true, &from));
    }
    if kind == Kind::Scd2 {
        let hash = "Hash of the tracked columns; a change that leaves it alike makes no version";
        columns.push(own("attr_hash", "bigint", false, hash));
        columns.push(own("valid_from", "timestamptz", true, "The version's start; 1900-01-01 for the first"));
        columns.push(own("valid_to", "timestamptz", false, "First moment after it; null while it holds"));
        columns.push(own("is_current", "boolean", true, "The newest version, deleted or not"));
    }
    if kind == Kind::Scd2 || declaration.deletes() == Deletes::Mark {
        columns.push(own("is_deleted", "boolean", true, "The resource was deleted").defaulted("false"));
    }
    if kind.is_dimension() {
        let from = "Referred to, and its own record has not come yet";
        columns.push(own("is_inferred", "boolean", true, from).defaulted("false"));
    } else {
        columns.push(own("source_event_id", "text", true, "The record's version id or event id"));
    }
    columns.push(own("source_ts", "timestamptz", true, "When the source committed it"));
    columns.push(own("version", "bigint", true, "Rises with each change of the resource"));
    columns.push(own("loaded_at", "timestamptz", true, "When the row was written last").defaulted("now()"));
    columns
}

/// The table itself.
pub(crate) fn table(table: &Declared, all: &[&Declared]) -> TableSpec {
    let declaration = &table.declaration;
    let mut columns = engine_columns(table);
    // After the keys, before what tells of the row itself.
    let keys = columns.iter().position(|column| {
        matches!(&*column.name, "attr_hash" | "is_deleted" | "is_inferred" | "source_event_id")
    });
    let rest = columns.split_off(keys.unwrap_or(columns.len()));
    columns.extend(view_columns(table, all));
    for (name, told) in &declaration.columns {
        let of_view = columns.iter().chain(&rest).any(|column| column.name == *name);
        if of_view {
            continue;
        }
        let from = match (&told.computed, &declaration.refresh) {
            // The file has it where it is longer than a cell can show.
            (Some(sql), _) if sql.len() > 200 => "Computed from the row".to_owned(),
            (Some(sql), _) => format!("`{sql}`"),
            (None, Some(refresh)) => format!("`{}`", refresh.function),
            (None, None) => String::new(),
        };
        let kind = told.sql_type.as_deref().unwrap_or_default();
        let column = ColumnSpec::of(name, kind, told.not_null, &from);
        columns.push(ColumnSpec { default: told.default.clone(), computed: told.computed.clone(), ..column });
    }
    columns.extend(rest);
    for column in &mut columns {
        if let Some(text) = declaration.columns.get(&column.name).and_then(|told| told.description.clone()) {
            column.comment = Some(text);
        }
    }
    TableSpec {
        name: declaration.table.clone(),
        comment: declaration.description.clone(),
        constraints: constraints(table),
        indexes: indexes(table, all),
        zero_row: declaration.kind.is_dimension().then(|| zero_row(table, &columns)),
        columns,
    }
}

/// The tables of a declaration: itself, and the one that keeps changes.
pub(crate) fn tables(declared: &Declared, all: &[&Declared]) -> Vec<TableSpec> {
    let mut tables = vec![table(declared, all)];
    if let Some(name) = &declared.declaration.changes {
        let id = declared.declaration.id.join(", ");
        let dimension = &tables[0];
        let engine = |name: &str| {
            dimension.column(name).map(|column| ColumnSpec::of(name, &column.sql_type, true, &column.from))
        };
        let mut columns: Vec<ColumnSpec> =
            ["tenant_id", &id, "source_ts", "version"].into_iter().filter_map(engine).collect();
        let own = ColumnSpec::of;
        columns.push(own("member_key", "bigint", true, "Key of the member's first version"));
        columns.push(own("version_key", "bigint", true, "Key of a version that begins here"));
        columns.push(own("is_deleted", "boolean", true, "The change is a delete"));
        columns.push(own("attr_hash", "bigint", true, "Hash of the tracked columns"));
        columns.extend(view_columns(declared, all).into_iter().map(|column| ColumnSpec {
            comment: None,
            not_null: false,
            ..column
        }));
        tables.push(TableSpec {
            name: name.clone(),
            comment: None,
            constraints: vec![format!("PRIMARY KEY (tenant_id, {id}, source_ts)")],
            indexes: Vec::new(),
            zero_row: None,
            columns,
        });
    }
    tables
}

fn view_columns(table: &Declared, all: &[&Declared]) -> Vec<ColumnSpec> {
    let declaration = &table.declaration;
    let column = |column: &Column| {
        let told = declaration.columns.get(&*column.name);
        let of_code = declaration.kind == Kind::Code && declaration.id.iter().any(|id| **id == *column.name);
        let not_null = of_code || told.is_some_and(|told| told.not_null);
        let kind = view_type(table, all, column).unwrap_or_default();
        let from = format!("`{}`", column.path);
        let comment = column.description.as_deref().map(str::to_owned);
        ColumnSpec { comment, ..ColumnSpec::of(&column.name, &kind, not_null, &from) }
    };
    table.view.columns().iter().map(column).collect()
}

fn constraints(table: &Declared) -> Vec<String> {
    let declaration = &table.declaration;
    let id = declaration.id.join(", ");
    let mut constraints = vec![format!("PRIMARY KEY ({})", declaration.key)];
    match declaration.kind {
        Kind::Scd2 => constraints.extend([
            format!("UNIQUE (tenant_id, {id}, valid_from)"),
            "CHECK (valid_from < valid_to)".into(),
            format!(
                "EXCLUDE USING gist (tenant_id WITH =, {id} WITH =, tstzrange(valid_from, valid_to) WITH &&)"
            ),
        ]),
        Kind::View => constraints.push(format!("UNIQUE (tenant_id, {id}, row_nr)")),
        Kind::Scd1 | Kind::Code | Kind::Fact => constraints.push(format!("UNIQUE (tenant_id, {id})")),
    }
    constraints
}

fn indexes(table: &Declared, all: &[&Declared]) -> Vec<IndexSpec> {
    let declaration = &table.declaration;
    let bare = declaration.table.split_once('.').map_or("", |(_, bare)| bare);
    let mut indexes = Vec::new();
    if declaration.kind == Kind::Scd2 {
        indexes.push(IndexSpec {
            name: format!("{bare}_current"),
            unique: true,
            columns: vec!["tenant_id".into(), declaration.id[0].clone()],
            predicate: Some("is_current".into()),
        });
    }
    // By these, rows are pointed at another version.
    for (column, lookup) in &declaration.lookups {
        let target = all.iter().find(|other| other.declaration.table == lookup.table);
        if target.is_some_and(|target| target.declaration.kind == Kind::Scd2) {
            let time = declaration.event_time.clone().unwrap_or_else(|| "source_ts".into());
            indexes.push(IndexSpec {
                name: format!("{bare}_{}", column.strip_suffix("_key").unwrap_or(column)),
                unique: false,
                columns: vec!["tenant_id".into(), lookup.id[0].clone(), time],
                predicate: None,
            });
        }
    }
    let declared = declaration.indexes.iter().map(|(name, columns)| IndexSpec {
        name: name.clone(),
        unique: false,
        columns: columns.clone(),
        predicate: None,
    });
    indexes.extend(declared);
    indexes
}

/// Key 0 of no tenant; what else a row must have is empty.
fn zero_row(table: &Declared, columns: &[ColumnSpec]) -> String {
    let needed = columns.iter().filter(|column| column.not_null && column.default.is_none());
    let value = |column: &ColumnSpec| match (&*column.name, &*column.sql_type) {
        (name, _) if *name == *table.declaration.key => "0",
        ("version", _) => "-1",
        ("is_current", _) => "true",
        (_, "timestamptz" | "date") => "'1900-01-01'",
        (_, "uuid") => "'00000000-0000-0000-0000-000000000000'",
        (_, "text") => "''",
        (_, "boolean") => "false",
        (_, "jsonb") => "'null'",
        _ => "0",
    };
    let (names, values): (Vec<&str>, Vec<&str>) =
        needed.map(|column| (column.name.as_str(), value(column))).unzip();
    format!("({}) VALUES ({})", names.join(", "), values.join(", "))
}
