//! The files of `views/warehouse`: `<table>.yaml` declares a table, `<table>.json` is its ViewDefinition.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use fhirehose_fhirpath::Env;
use fhirehose_topics::Registry;
use fhirehose_views::View;
use serde::Deserialize;

/// What a table is, which decides how its rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Dimension with one row per version of a member.
    Scd2,
    /// Dimension with one row per member, overwritten.
    Scd1,
    /// Dimension whose members are codes found in resources; a resource's delete leaves them.
    Code,
    /// One or more rows per resource, gone with it.
    Fact,
}

/// One table, as its file declares it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Declaration {
    /// `schema.table`.
    pub table: String,
    pub kind: Kind,
    /// Logical topic.
    pub input: String,
    /// The surrogate key's column.
    pub key: String,
    /// Business key within the tenant: the one column the resource's id goes to, or for `code` columns of the
    /// view.
    pub id: Vec<String>,
    /// `scd2`: the table that keeps every change.
    pub changes: Option<String>,
    /// `scd2`: a change of these makes a version; the other columns are changed in place.
    #[serde(default)]
    pub tracked: Vec<String>,
    /// `fact`: the column whose time decides the dimensions' versions; the source's commit time where null.
    pub event_time: Option<String>,
    /// `fact`: key columns, each filled from the table it refers to.
    #[serde(default)]
    pub lookups: BTreeMap<String, Lookup>,
    /// `fact`: columns computed over all rows of a member after each change to one of them.
    pub refresh: Option<Refresh>,
}

/// A reference to a row of another table.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Lookup {
    pub table: String,
    /// Columns of the view that hold the other table's business key, in its order.
    pub id: Vec<String>,
}

/// A function of the database, called with the tenants and the ids of a lookup's members.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Refresh {
    pub function: String,
    pub lookup: String,
    /// What the function fills.
    pub columns: Vec<String>,
}

/// A declaration with its compiled view.
pub(crate) struct Declared {
    pub declaration: Declaration,
    pub view: View,
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub file: PathBuf,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.message)
    }
}

/// Reads every declaration in `dir`, dimensions before facts and then by name; all problems together.
pub(crate) fn load(dir: &Path, registry: &Registry) -> Result<Vec<Declared>, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut tables = Vec::new();
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => return Err(vec![Problem { file: dir.into(), message: error.to_string() }]),
    };
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    if files.is_empty() {
        problems.push(Problem { file: dir.into(), message: "no table is declared here".into() });
    }
    for file in files {
        match read(&file, registry) {
            Ok(table) => tables.push((file, table)),
            Err((file, message)) => problems.push(Problem { file, message }),
        }
    }
    for (file, table) in &tables {
        let others = tables.iter().map(|(_, table)| &table.declaration);
        let wrong = check(table, others.collect());
        problems.extend(wrong.into_iter().map(|message| Problem { file: file.clone(), message }));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut tables: Vec<Declared> = tables.into_iter().map(|(_, table)| table).collect();
    tables.sort_by_key(|table| (table.declaration.kind == Kind::Fact, table.declaration.table.clone()));
    Ok(tables)
}

fn read(file: &Path, registry: &Registry) -> Result<Declared, (PathBuf, String)> {
    let text =
        |file: &Path| std::fs::read_to_string(file).map_err(|error| (file.to_owned(), error.to_string()));
    let declaration: Declaration =
        serde_yaml_ng::from_str(&text(file)?).map_err(|error| (file.to_owned(), error.to_string()))?;
    let schema = registry.schema(&declaration.input).ok_or_else(|| {
        (file.to_owned(), format!("input: no topic {} is declared with a schema", declaration.input))
    })?;
    // A resource inside the record is FHIR; a record without one is viewed itself, by the fields it has.
    let env = match schema.field("resource") {
        Some(_) => Env::fhir(),
        None => Env::plain().columns(schema.fields.iter().map(|field| field.name.as_str())),
    };
    let definition = file.with_extension("json");
    let view =
        View::compile(&text(&definition)?, &env).map_err(|error| (definition.clone(), error.to_string()))?;
    Ok(Declared { declaration, view })
}

fn check(table: &Declared, all: Vec<&Declaration>) -> Vec<String> {
    let Declared { declaration, view } = table;
    let mut wrong = Vec::new();
    let is_column = |name: &str| view.columns().iter().any(|column| &*column.name == name);
    let mut names = vec![&declaration.key];
    names.extend(&declaration.id);
    names.extend(declaration.lookups.keys());
    names.extend(declaration.tracked.iter().chain(&declaration.event_time));
    if let Some(refresh) = &declaration.refresh {
        names.extend(&refresh.columns);
        if !declaration.lookups.contains_key(&refresh.lookup) {
            wrong.push(format!("refresh: lookups has no {}", refresh.lookup));
        }
    }
    let columns = view.columns().iter().map(|column| &*column.name);
    for name in names.into_iter().map(String::as_str).chain(columns).filter(|name| !is_identifier(name)) {
        wrong.push(format!("`{name}` is not a column name: lower-case letters, digits and _"));
    }
    let tables = [Some(&declaration.table), declaration.changes.as_ref()];
    let functions = declaration.refresh.iter().map(|refresh| &refresh.function);
    for name in tables.into_iter().flatten().chain(functions) {
        if !name.split_once('.').is_some_and(|(schema, table)| is_identifier(schema) && is_identifier(table))
        {
            wrong.push(format!("`{name}` must be schema.name, lower-case"));
        }
    }
    let scd2 = declaration.kind == Kind::Scd2;
    if scd2 != declaration.changes.is_some() || scd2 == declaration.tracked.is_empty() {
        wrong.push("`changes` and `tracked` are for kind scd2, which needs both".into());
    }
    if declaration.kind != Kind::Fact
        && (declaration.event_time.is_some()
            || !declaration.lookups.is_empty()
            || declaration.refresh.is_some())
    {
        wrong.push("`event_time`, `lookups` and `refresh` are for kind fact".into());
    }
    match declaration.kind {
        Kind::Code if declaration.id.is_empty() => wrong.push("id: name the columns of the code".into()),
        Kind::Code => {}
        _ if declaration.id.len() != 1 => {
            wrong.push("id: name the one column the resource's id goes to".into())
        }
        _ if is_column(&declaration.id[0]) => {
            wrong.push(format!("the view must not have {}: the resource's id goes there", declaration.id[0]));
        }
        _ => {}
    }
    let code_id = declaration.id.iter().filter(|_| declaration.kind == Kind::Code);
    let lookup_ids = declaration.lookups.values().flat_map(|lookup| &lookup.id);
    for name in declaration.tracked.iter().chain(&declaration.event_time).chain(code_id).chain(lookup_ids) {
        if !is_column(name) {
            wrong.push(format!("the view has no column {name}"));
        }
    }
    for (column, lookup) in &declaration.lookups {
        match all.iter().find(|other| other.table == lookup.table) {
            None => wrong.push(format!("lookups.{column}: no table {} is declared", lookup.table)),
            Some(other) if other.id.len() != lookup.id.len() => {
                wrong.push(format!("lookups.{column}: {} has the id ({})", other.table, other.id.join(", ")));
            }
            Some(_) => {}
        }
    }
    wrong
}

/// Names go into SQL unquoted.
fn is_identifier(name: &str) -> bool {
    let first = name.bytes().next();
    first.is_some_and(|byte| byte.is_ascii_lowercase() || byte == b'_')
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}
