use fhirehose_stream::{Fault, Reason, Rejection};
use postgres::Error;
use postgres::error::{DbError, SqlState};

/// Why a write did not happen.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// PostgreSQL, or the way to it, said no.
    #[error("{}", describe(.0))]
    Postgres(#[from] Error),
    /// Found by us; never the fault of one record.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl StoreError {
    /// The rejection of the one record that was written, where the database refused what it holds.
    pub(crate) fn of_row(&self) -> Option<Rejection> {
        let StoreError::Postgres(error) = self else { return None };
        let code = error.code().filter(|code| is_of_row(code))?;
        let detail =
            format!("SQLSTATE {}{}", code.code(), error.as_db_error().map(objects).unwrap_or_default());
        Some(Rejection::new(Reason::StoreRejected, detail))
    }

    /// Whether only another session can do better: this one is with a server that takes no writes (any more), while
    /// `target_session_attrs=read-write` finds the one that does.
    pub(crate) fn is_of_session(&self) -> bool {
        let StoreError::Postgres(error) = self else { return false };
        error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION)
    }

    /// As a fault of the whole batch; `what` says what was being done.
    pub fn into_fault(self, what: &str) -> Fault {
        match self {
            StoreError::Postgres(error) => fault(&error, what),
            StoreError::Fault(fault) => fault,
        }
    }
}

/// Data exceptions, constraint violations and limits (such as an index row's size) are the record's fault.
fn is_of_row(code: &SqlState) -> bool {
    matches!(code.code().get(..2), Some("22" | "23" | "54"))
}

/// Errors that pass: lost connections, shutdown, out of resources, deadlocks, timeouts, fail-over.
fn passes(code: &SqlState) -> bool {
    matches!(code.code().get(..2), Some("08" | "53" | "57" | "58"))
        || matches!(code.code(), "40001" | "40P01" | "55P03" | "25P03" | "25006")
}

/// A driver error as a fault. Says the SQLSTATE and names of tables, columns and constraints, nothing else:
/// PostgreSQL's messages quote values.
pub fn fault(error: &Error, what: &str) -> Fault {
    let text = format!("{what}: {}", describe(error));
    match error.code() {
        Some(code) if passes(code) => Fault::transient(text),
        Some(_) => Fault::fatal(text),
        // Without a SQLSTATE it is the connection or our own use of the driver.
        None if error.is_closed() || is_io(error) => Fault::transient(text),
        None => Fault::fatal(text),
    }
}

/// Whether the connection, not the statement, failed.
pub(crate) fn is_io(error: &Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if cause.is::<std::io::Error>() || cause.is::<openssl::ssl::Error>() {
            return true;
        }
        source = cause.source();
    }
    false
}

fn describe(error: &Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("SQLSTATE {}{}{}", db.code().code(), objects(db), statement(db)),
        None if error.is_closed() => "connection closed".into(),
        // Texts of the driver and the system ("error connecting to server: connection refused"): no values.
        None => {
            let cause =
                std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
            format!("{error}{cause}")
        }
    }
}

/// The database objects an error names.
fn objects(db: &DbError) -> String {
    let named = [("table", db.table()), ("column", db.column()), ("constraint", db.constraint())];
    named.iter().filter_map(|(kind, name)| name.map(|name| format!(", {kind} {name}"))).collect()
}

/// The message, where it can only quote our own SQL: syntax, missing objects, privileges, missing features.
fn statement(db: &DbError) -> String {
    match db.code().code().get(..2) {
        Some("42" | "0A" | "3D" | "3F" | "28") => format!(": {}", db.message()),
        _ => String::new(),
    }
}
