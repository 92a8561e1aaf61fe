//! Own migration runner: `schemas/sql/<component>/NNNN_name.sql`, applied in order under an advisory lock, each
//! in a transaction with the row that remembers its checksum.
//!
//! Marks in a file, each on a line of its own: `-- fhirehose: no-transaction` for one statement that cannot
//! run in a transaction (it must be repeatable: a crash may leave it done and not remembered);
//! `-- fhirehose: edition timescale|apache` for files of one TimescaleDB edition;
//! `-- fhirehose: was <component>/NNNN_name`: a database in which that earlier file was applied needs this one
//! no more.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use openssl::sha::sha256;
use postgres::Client;

use crate::{Connector, StoreError};

/// Any constant: the lock that all runners on a database take.
const LOCK: i64 = 0x6668_6972_686f_7365;

/// Why migrations cannot be planned or applied.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    #[error("{path}: {message}")]
    File { path: PathBuf, message: String },
    #[error("{migration} was edited after it was applied: write a new migration instead")]
    Edited { migration: String },
    #[error("{migration} is applied in the database and has no file: the files are older than the database")]
    NoFile { migration: String },
    #[error("{migration}: {message}")]
    Failed { migration: String, message: String },
    #[error("migrations are pending: {}: run `fhirehose migrate apply`", .0.join(", "))]
    Pending(Vec<String>),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<postgres::Error> for MigrateError {
    fn from(error: postgres::Error) -> Self {
        MigrateError::Store(error.into())
    }
}

impl From<fhirehose_stream::Fault> for MigrateError {
    fn from(fault: fhirehose_stream::Fault) -> Self {
        MigrateError::Store(fault.into())
    }
}

/// Which TimescaleDB runs: the one under Apache's licence has neither compression, continuous aggregates nor
/// policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edition {
    Timescale,
    Apache,
}

impl Edition {
    /// The edition of this database; `None` where TimescaleDB is not loaded.
    pub fn of(client: &mut Client) -> Result<Option<Edition>, postgres::Error> {
        let row = client.query_one("SELECT current_setting('timescaledb.license', true)", &[])?;
        Ok(match row.try_get::<_, Option<String>>(0)?.as_deref() {
            Some("timescale") => Some(Edition::Timescale),
            Some("apache") => Some(Edition::Apache),
            _ => None,
        })
    }
}

/// What is to be done about one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Applied,
    Pending,
    /// For the other edition of TimescaleDB.
    OtherEdition,
}

/// One migration file and its state in a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// `component/NNNN_name`.
    pub name: String,
    pub state: State,
    sql: String,
    checksum: String,
    marks: Marks,
}

/// What a file says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Marks {
    transaction: bool,
    edition: Option<Edition>,
    /// The file that it replaces.
    was: Option<String>,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Applied => "applied",
            State::Pending => "pending",
            State::OtherEdition => "for the other TimescaleDB edition",
        };
        write!(f, "{} ({state})", self.name)
    }
}

/// The components a time series database needs, in order.
pub const TIMESCALE: &[&str] = &["offsets", "timescale"];
/// All files of the components with their state; changes nothing. `dir` is `schemas/sql`.
pub fn plan(url: &str, dir: &Path, components: &[&str]) -> Result<Vec<Step>, MigrateError> {
    steps(&mut Connector::new(url, "fhirehose-migrate")?.connect()?, dir, components)
}

/// Applies what is pending, in order, calling `applied` after each file; several runners wait for each other.
pub fn apply(
    url: &str,
    dir: &Path,
    components: &[&str],
    applied: impl FnMut(&Step),
) -> Result<Vec<Step>, MigrateError> {
    apply_on(&mut locked(url)?, dir, components, applied)
}

/// A connection that holds the lock all runners take, until it is dropped; waits for it.
pub fn locked(url: &str) -> Result<Client, MigrateError> {
    let mut client = Connector::new(url, "fhirehose-migrate")?.connect()?;
    // DDL on large tables takes its time, and waiting for another runner too. The lock goes with the connection.
    client.batch_execute("SET statement_timeout = 0; SET lock_timeout = '10min'")?;
    client.execute("SELECT pg_advisory_lock($1)", &[&LOCK])?;
    Ok(client)
}

/// As [`apply`], on a connection that [`locked`] made.
pub fn apply_on(
    client: &mut Client,
    dir: &Path,
    components: &[&str],
    mut applied: impl FnMut(&Step),
) -> Result<Vec<Step>, MigrateError> {
    client.batch_execute(
        "CREATE SCHEMA IF NOT EXISTS fhirehose;
         CREATE TABLE IF NOT EXISTS fhirehose.migrations (
             name text PRIMARY KEY, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())",
    )?;
    let mut steps = steps(client, dir, components)?;
    for step in &mut steps {
        // Asked each time: an earlier file may have made the extension.
        if step.marks.edition.is_some() {
            step.state = state_for_edition(step, Edition::of(client)?);
        }
        if step.state == State::Pending {
            run(client, step)?;
            step.state = State::Applied;
            applied(step);
        }
    }
    Ok(steps)
}

/// Fails, naming them, where files of the components are not applied yet. Sinks call it before they start.
pub fn require(client: &mut Client, dir: &Path, components: &[&str]) -> Result<(), MigrateError> {
    let pending = steps(client, dir, components)?.into_iter().filter(|step| step.state == State::Pending);
    let names: Vec<String> = pending.map(|step| step.name).collect();
    if names.is_empty() { Ok(()) } else { Err(MigrateError::Pending(names)) }
}

fn run(client: &mut Client, step: &Step) -> Result<(), MigrateError> {
    const REMEMBER: &str = "INSERT INTO fhirehose.migrations (name, checksum) VALUES ($1, $2)";
    let failed = |error: postgres::Error| MigrateError::Failed {
        migration: step.name.clone(),
        message: StoreError::from(error).to_string(),
    };
    if step.marks.transaction {
        let mut transaction = client.transaction()?;
        transaction.batch_execute(&step.sql).map_err(failed)?;
        transaction.execute(REMEMBER, &[&step.name, &step.checksum])?;
        transaction.commit().map_err(failed)?;
    } else {
        client.batch_execute(&step.sql).map_err(failed)?;
        client.execute(REMEMBER, &[&step.name, &step.checksum])?;
    }
    Ok(())
}

/// All files of the components with their state, on a connection; changes nothing.
pub fn steps(client: &mut Client, dir: &Path, components: &[&str]) -> Result<Vec<Step>, MigrateError> {
    let mut applied = BTreeMap::new();
    if client
        .query_one("SELECT to_regclass('fhirehose.migrations') IS NOT NULL", &[])?
        .try_get::<_, bool>(0)?
    {
        for row in client.query("SELECT name, checksum FROM fhirehose.migrations", &[])? {
            applied.insert(row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?);
        }
    }
    let edition = Edition::of(client)?;
    let all: BTreeSet<String> = applied.keys().cloned().collect();
    let mut steps = Vec::new();
    for component in components {
        for mut step in read(dir, component)? {
            step.state = match applied.remove(&step.name) {
                Some(checksum) if checksum == step.checksum => State::Applied,
                Some(_) => return Err(MigrateError::Edited { migration: step.name }),
                None if step.marks.was.as_ref().is_some_and(|was| all.contains(was)) => State::Applied,
                None => state_for_edition(&step, edition),
            };
            steps.push(step);
        }
        if let Some((name, _)) = applied.iter().find(|(name, _)| name.starts_with(&format!("{component}/"))) {
            return Err(MigrateError::NoFile { migration: name.clone() });
        }
    }
    Ok(steps)
}

fn state_for_edition(step: &Step, edition: Option<Edition>) -> State {
    match step.marks.edition {
        _ if step.state == State::Applied => State::Applied,
        // Without the extension loaded the file before, which makes it, fails first and says so.
        Some(wanted) if edition.is_some_and(|edition| edition != wanted) => State::OtherEdition,
        _ => State::Pending,
    }
}

/// The files of one component, in order of their names.
fn read(dir: &Path, component: &str) -> Result<Vec<Step>, MigrateError> {
    let folder = dir.join(component);
    let wrong = |path: &Path, message: String| MigrateError::File { path: path.to_owned(), message };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(&folder).map_err(|error| wrong(&folder, error.to_string()))? {
        paths.push(entry.map_err(|error| wrong(&folder, error.to_string()))?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "sql"));
    paths.sort();
    if paths.is_empty() {
        return Err(wrong(&folder, "no migration is here".into()));
    }
    let mut steps: Vec<Step> = Vec::new();
    for path in paths {
        let sql = std::fs::read_to_string(&path).map_err(|error| wrong(&path, error.to_string()))?;
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let number = stem.get(..5).unwrap_or_default();
        if !(number.ends_with('_') && number[..4].bytes().all(|digit| digit.is_ascii_digit())) {
            return Err(wrong(&path, "the name must be NNNN_name.sql".into()));
        }
        let name = format!("{component}/{stem}");
        let twin = format!("{component}/{number}");
        if steps.iter().any(|step| step.name.starts_with(&twin)) {
            return Err(wrong(&path, format!("there are two migrations {number}…")));
        }
        let marks = marks(&sql).map_err(|message| wrong(&path, message))?;
        let checksum = sha256(sql.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        steps.push(Step { name, state: State::Pending, sql, checksum, marks });
    }
    Ok(steps)
}

fn marks(sql: &str) -> Result<Marks, String> {
    let mut marks = Marks { transaction: true, edition: None, was: None };
    for mark in sql.lines().filter_map(|line| line.strip_prefix("-- fhirehose:")) {
        match mark.trim().split_once(' ') {
            None if mark.trim() == "no-transaction" => marks.transaction = false,
            Some(("edition", "timescale")) => marks.edition = Some(Edition::Timescale),
            Some(("edition", "apache")) => marks.edition = Some(Edition::Apache),
            Some(("was", name)) => marks.was = Some(name.to_owned()),
            _ => {
                return Err(format!(
                    "unknown mark `{}`: no-transaction, edition timescale, edition apache, was <component>/NNNN_name",
                    mark.trim()
                ));
            }
        }
    }
    Ok(marks)
}
