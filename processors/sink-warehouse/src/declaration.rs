//! The files of `views/warehouse`: `<table>.yaml` declares a table, `<table>.json` is its ViewDefinition.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use fhirehose_fhirpath::Env;
use fhirehose_topics::Registry;
use fhirehose_views::View;
use serde::Deserialize;

use crate::check;

/// What a declaration's file name ends in.
const EXTENSION: &str = "yaml";

/// What a table is, which decides how its rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Dimension with one row per version of a member.
    Scd2,
    /// Dimension with one row per member, overwritten.
    Scd1,
    /// Dimension whose members are codes found in resources.
    Code,
    /// One row per resource.
    Fact,
    /// The view's rows of a resource, any number, replaced together.
    View,
}

impl Kind {
    /// Whether others may look its rows up as members.
    pub(crate) fn is_dimension(self) -> bool {
        !matches!(self, Kind::Fact | Kind::View)
    }

    /// What a delete does unless the declaration says otherwise.
    fn deletes(self) -> Deletes {
        match self {
            Kind::Scd2 => Deletes::Close,
            Kind::Scd1 => Deletes::Mark,
            Kind::Code => Deletes::Keep,
            Kind::Fact | Kind::View => Deletes::Remove,
        }
    }
}

/// What becomes of the rows of a resource that is deleted, or that the view has no row of any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Deletes {
    Remove,
    /// They stay, `is_deleted`.
    Mark,
    /// The last version ends.
    Close,
    Keep,
}

/// One table, as its file declares it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Declaration {
    /// `schema.table`.
    pub table: String,
    /// The table's comment.
    pub description: Option<String>,
    pub kind: Kind,
    /// Logical topic.
    pub input: String,
    /// The surrogate key's column.
    pub key: String,
    /// Business key within the tenant: the one column the resource's id goes to, or for `code` columns of the
    /// view.
    pub id: Vec<String>,
    /// By default as the kind has it.
    deletes: Option<Deletes>,
    /// `scd2`: the table that keeps every change.
    pub changes: Option<String>,
    /// `scd2`: a change of these makes a version; the other columns are changed in place.
    #[serde(default)]
    pub tracked: Vec<String>,
    /// `fact`, `view`: the column whose time decides the dimensions' versions; the source's commit time where
    /// null.
    pub event_time: Option<String>,
    /// `fact`, `view`: key columns, each filled from the table it refers to.
    #[serde(default)]
    pub lookups: BTreeMap<String, Lookup>,
    /// `fact`, `view`: columns computed over all rows of a member after each change to one of them.
    pub refresh: Option<Refresh>,
    /// Columns that the database fills, and what the view does not say of its own.
    #[serde(default)]
    pub columns: BTreeMap<String, ColumnDeclaration>,
    /// Indexes beyond those that the engine needs, by name.
    #[serde(default)]
    pub indexes: BTreeMap<String, Vec<String>>,
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

/// What is said of one column.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ColumnDeclaration {
    /// SQL type; by default that of the view's FHIR type, or of what a lookup refers to.
    #[serde(rename = "type")]
    pub sql_type: Option<String>,
    #[serde(default)]
    pub not_null: bool,
    /// SQL expression of a refreshed column's first value.
    pub default: Option<String>,
    /// SQL expression over the row's columns by which the database computes it.
    #[serde(rename = "as")]
    pub computed: Option<String>,
    /// The column's comment; by default the description in the view.
    pub description: Option<String>,
}

impl Declaration {
    pub(crate) fn deletes(&self) -> Deletes {
        self.deletes.unwrap_or(self.kind.deletes())
    }
}

/// A declaration with its compiled view.
pub(crate) struct Declared {
    pub declaration: Declaration,
    pub view: View,
    /// Whether records hold a FHIR resource, whose id is a UUID of ours.
    pub of_resources: bool,
    /// What the files hold, as a number: another one is another table.
    pub fingerprint: String,
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

/// Reads every declaration in `views/warehouse` of `shapes`, dimensions before facts and then by name; all
/// problems together.
pub(crate) fn load(shapes: &Path, registry: &Registry) -> Result<Vec<Declared>, Vec<Problem>> {
    let dir = shapes.join("views/warehouse");
    let mut problems = Vec::new();
    let mut tables = Vec::new();
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) => return Err(vec![Problem { file: dir, message: error.to_string() }]),
    };
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == EXTENSION));
    files.sort();
    if files.is_empty() {
        problems.push(Problem { file: dir, message: "no table is declared here".into() });
    }
    for file in files {
        match read(&file, registry) {
            Ok(table) => tables.push((file, table)),
            Err((file, message)) => problems.push(Problem { file, message }),
        }
    }
    let all: Vec<&Declared> = tables.iter().map(|(_, table)| table).collect();
    for (file, table) in &tables {
        let wrong = check::check(table, &all);
        problems.extend(wrong.into_iter().map(|message| Problem { file: file.clone(), message }));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut tables: Vec<Declared> = tables.into_iter().map(|(_, table)| table).collect();
    tables.sort_by_key(|table| (!table.declaration.kind.is_dimension(), table.declaration.table.clone()));
    Ok(tables)
}

fn read(file: &Path, registry: &Registry) -> Result<Declared, (PathBuf, String)> {
    let text =
        |file: &Path| std::fs::read_to_string(file).map_err(|error| (file.to_owned(), error.to_string()));
    let yaml = text(file)?;
    let declaration: Declaration =
        serde_yaml_ng::from_str(&yaml).map_err(|error| (file.to_owned(), error.to_string()))?;
    let schema = registry.schema(&declaration.input).ok_or_else(|| {
        (file.to_owned(), format!("input: no topic {} is declared with a schema", declaration.input))
    })?;
    // A resource inside the record is FHIR; a record without one is viewed itself, by the fields it has.
    let of_resources = schema.field("resource").is_some();
    let env = match of_resources {
        true => Env::fhir().definitions(fhirehose_fhir::element_type),
        false => Env::plain().columns(schema.fields.iter().map(|field| field.name.as_str())),
    };
    let definition = file.with_extension("json");
    let json = text(&definition)?;
    let view = View::compile(&json, &env).map_err(|error| (definition.clone(), error.to_string()))?;
    let fingerprint = fhirehose_fhir::id("", "table", &declaration.table, &[&yaml, &json], None).to_string();
    Ok(Declared { declaration, view, of_resources, fingerprint })
}
