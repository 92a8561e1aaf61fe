//! Brings a database to what the declarations say, or tells what that takes.

use std::path::Path;

use fhirehose_pgsink::migrate::{self, MigrateError, State};
use fhirehose_pgsink::{Connector, StoreError};
use fhirehose_topics::Registry;
use postgres::Client;

use crate::catalog::{self, Difference};
use crate::declaration::{self, Declared, Kind, Problem};
use crate::spec::{self, TableSpec};

/// Components of `schemas/sql` that the declared tables rest on.
pub(crate) const BEFORE: &[&str] = &["offsets", "calendar"];
/// Components that rest on the declared tables.
pub(crate) const AFTER: &[&str] = &["reporting"];

/// Why a database is not brought to the declarations.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    #[error("{}", lines(.0))]
    Declarations(Vec<Problem>),
    #[error("not possible without loss, so nothing was changed:\n{}", lines(.0))]
    Refused(Vec<String>),
    #[error("{table}: {message}")]
    Table { table: String, message: String },
    #[error(transparent)]
    Files(#[from] MigrateError),
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pending {
    /// A migration file, `component/NNNN_name`.
    File(String),
    /// Statements on a declared table, and what they leave as it is.
    Table { table: String, sql: Vec<String>, notes: Vec<String> },
}

/// All there is to do, in order, and what is declared and cannot be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub pending: Vec<Pending>,
    /// What differs, and what to do.
    pub refused: Vec<String>,
}

fn lines(of: &[impl ToString]) -> String {
    of.iter().map(|line| format!("  {}", line.to_string())).collect::<Vec<_>>().join("\n")
}

/// What `apply` would do; changes nothing.
pub fn plan(url: &str, shapes: &Path, registry: &Registry) -> Result<Plan, MigrationError> {
    let specs = specs(shapes, registry)?;
    let dir = shapes.join("schemas/sql");
    let connector = Connector::new(url, "fhirehose-migrate").map_err(MigrateError::from)?;
    let mut client = connector.connect().map_err(MigrateError::from)?;
    let files = |components: &[&str], client: &mut Client| -> Result<Vec<Pending>, MigrationError> {
        let steps = migrate::steps(client, &dir, components)?.into_iter();
        Ok(steps.filter(|step| step.state == State::Pending).map(|step| Pending::File(step.name)).collect())
    };
    let mut plan = Plan { pending: files(BEFORE, &mut client)?, refused: Vec::new() };
    for (kind, spec) in &specs {
        let Difference { sql, notes, refused } = compare(&mut client, spec)?;
        plan.refused.extend(refused.iter().map(|what| format!("{what}: {}", advice(*kind, spec))));
        if !sql.is_empty() {
            plan.pending.push(Pending::Table { table: spec.name.clone(), sql, notes });
        }
    }
    plan.pending.extend(files(AFTER, &mut client)?);
    Ok(plan)
}

/// Applies what is pending, calling `applied` after each. All tables are compared before one is changed; each is
/// changed in a transaction. Several runners wait for each other.
pub fn apply(
    url: &str,
    shapes: &Path,
    registry: &Registry,
    mut applied: impl FnMut(&str),
) -> Result<(), MigrationError> {
    let specs = specs(shapes, registry)?;
    let dir = shapes.join("schemas/sql");
    let mut client = migrate::locked(url)?;
    migrate::apply_on(&mut client, &dir, BEFORE, |step| applied(&step.name))?;
    let (mut changes, mut refused) = (Vec::new(), Vec::new());
    for (kind, spec) in &specs {
        let difference = compare(&mut client, spec)?;
        refused.extend(difference.refused.iter().map(|what| format!("{what}: {}", advice(*kind, spec))));
        changes.push((spec, difference.sql));
    }
    if !refused.is_empty() {
        return Err(MigrationError::Refused(refused));
    }
    for (spec, sql) in changes.iter().filter(|(_, sql)| !sql.is_empty()) {
        let failed = failed(&spec.name);
        let mut transaction = client.transaction().map_err(&failed)?;
        for statement in sql {
            transaction.batch_execute(statement).map_err(&failed)?;
        }
        transaction.commit().map_err(&failed)?;
        applied(&spec.name);
    }
    migrate::apply_on(&mut client, &dir, AFTER, |step| applied(&step.name))?;
    Ok(())
}

/// The declared tables and their columns in Markdown.
pub fn describe(shapes: &Path, registry: &Registry) -> Result<String, MigrationError> {
    let declared = declaration::load(shapes, registry).map_err(MigrationError::Declarations)?;
    let all: Vec<&Declared> = declared.iter().collect();
    let mut text = String::new();
    for declared in &all {
        let declaration = &declared.declaration;
        for spec in spec::tables(declared, &all) {
            let kind = match declaration.changes.as_ref() == Some(&spec.name) {
                true => format!("changes of `{}`", declaration.table),
                false => format!("kind {:?}", declaration.kind).to_lowercase(),
            };
            text.push_str(&format!("## {}\n\n", spec.name));
            text.extend(spec.comment.iter().map(|comment| format!("{comment}. ")));
            text.push_str(&format!("From `{}`, {kind}.\n\n", declaration.input));
            text.push_str("| column | type | from | |\n|---|---|---|---|\n");
            for column in &spec.columns {
                let null = if column.not_null { ", not null" } else { "" };
                let comment = column.comment.as_deref().unwrap_or_default();
                let cells = [&column.from, comment].map(|cell| cell.replace('|', "\\|").replace('\n', " "));
                let [from, comment] = cells;
                text.push_str(&format!(
                    "| `{}` | {}{null} | {from} | {comment} |\n",
                    column.name, column.sql_type
                ));
            }
            text.push('\n');
        }
    }
    Ok(text)
}

fn specs(shapes: &Path, registry: &Registry) -> Result<Vec<(Kind, TableSpec)>, MigrationError> {
    let declared = declaration::load(shapes, registry).map_err(MigrationError::Declarations)?;
    let all: Vec<&Declared> = declared.iter().collect();
    let tables = |declared: &&Declared| {
        let kind = declared.declaration.kind;
        spec::tables(declared, &all).into_iter().map(move |spec| (kind, spec)).collect::<Vec<_>>()
    };
    Ok(all.iter().flat_map(tables).collect())
}

fn compare(client: &mut Client, spec: &TableSpec) -> Result<Difference, MigrationError> {
    catalog::difference(client, spec).map_err(failed(&spec.name))
}

pub(crate) fn failed(table: &str) -> impl Fn(postgres::Error) -> MigrationError {
    let table = table.to_owned();
    move |error| MigrationError::Table { table: table.clone(), message: StoreError::from(error).to_string() }
}

fn advice(kind: Kind, spec: &TableSpec) -> String {
    match kind {
        // The topic keeps the last version of a resource, the table all of them.
        Kind::Scd2 => {
            "its history is nowhere else, so write a migration in schemas/sql/calendar that changes it".into()
        }
        _ => format!("`fhirehose rebuild {}` builds the table anew beside it and swaps the two", spec.name),
    }
}
