use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use mysql::prelude::Queryable;
use mysql::{Conn, Opts, OptsBuilder};

use super::{Changes, load};
use crate::Error;
use crate::error::Doing;

const DDL: &str = include_str!("../../sql/hospital.sql");
/// A database that says: this hospital is ours. Only servers that hold it are ever dropped from.
const MARKER: &str = "fhirehose_simulation";

/// A connection to a server that plays a hospital.
pub struct Hospital {
    pub(super) conn: Conn,
    pub(super) zone: TimeZone,
}

impl Hospital {
    /// Connects; `zone` names the time zone in which the hospital writes its DATETIME columns.
    pub fn open(url: &str, zone: &str) -> Result<Self, Error> {
        let opts = Opts::from_url(url)
            .map_err(|_| Error::Usage("--url must look like mysql://user:password@host:port".into()))?;
        let opts = OptsBuilder::from_opts(opts)
            .tcp_connect_timeout(Some(std::time::Duration::from_secs(5)))
            .init(vec!["SET time_zone = '+00:00'", "SET NAMES utf8mb4"]);
        let conn = Conn::new(opts).doing("connecting")?;
        Ok(Self { conn, zone: TimeZone::get(zone)? })
    }

    /// Drops the simulated hospital, if this server holds one; any other is left alone.
    pub fn drop(&mut self) -> Result<(), Error> {
        if self.is_ours()? {
            for database in ["clinical_data", "identity_management", "business_operations", MARKER] {
                self.conn
                    .query_drop(format!("DROP DATABASE IF EXISTS {database}"))
                    .doing("dropping the hospital")?;
            }
        }
        Ok(())
    }

    /// Creates the tables. `false` if this server holds a simulated hospital already; an error if it holds
    /// one that is not ours.
    pub fn create(&mut self) -> Result<bool, Error> {
        if self.is_ours()? {
            return Ok(false);
        }
        let others: u64 = self
            .conn
            .query_first(
                "SELECT count(*) FROM information_schema.tables
                 WHERE table_schema IN ('clinical_data', 'identity_management', 'business_operations')",
            )
            .doing("looking for tables")?
            .unwrap_or(0);
        if others > 0 {
            return Err(Error::Usage(format!(
                "this server holds {others} tables that were not made by this command: use an empty server"
            )));
        }
        for statement in DDL.split(";\n") {
            let code: String =
                statement.lines().filter(|line| !line.starts_with("--")).collect::<Vec<_>>().join("\n");
            if !code.trim().is_empty() {
                self.conn.query_drop(code).doing("creating the tables")?;
            }
        }
        for statement in [
            format!("CREATE DATABASE {MARKER}"),
            format!("CREATE TABLE {MARKER}.hospital (runs INT NOT NULL)"),
            format!("INSERT INTO {MARKER}.hospital VALUES (0)"),
        ] {
            self.conn.query_drop(statement).doing("marking the hospital as simulated")?;
        }
        Ok(true)
    }

    /// Writes the initial load into empty tables and returns the number of rows. Row ids come from `id_seed`
    /// alone, so hospitals of different `seed` may share them.
    pub fn load(&mut self, patients: u32, seed: u64, id_seed: u64) -> Result<u64, Error> {
        load::run(self, patients, seed, id_seed)
    }

    /// A stream of changes to what the server holds now. Every call continues with the next run of `seed`.
    pub fn changes(mut self, seed: u64, bad_share: f64) -> Result<Changes, Error> {
        self.conn
            .query_drop(format!("UPDATE {MARKER}.hospital SET runs = runs + 1"))
            .doing("counting the run")?;
        let run: u64 = self
            .conn
            .query_first(format!("SELECT runs FROM {MARKER}.hospital"))
            .doing("counting the run")?
            .ok_or_else(|| Error::Usage("the simulated hospital is damaged: use --reset".into()))?;
        Changes::start(self, seed, run, bad_share)
    }

    /// Row ids and ages in years of the patients the load made who live, in the order of their record numbers.
    pub fn patients(&mut self) -> Result<Vec<(String, i32)>, Error> {
        let found: Vec<(String, i32)> = self
            .conn
            .query(
                "SELECT id, timestampdiff(YEAR, date_of_birth, current_date) FROM clinical_data.patients
                 WHERE is_active AND NOT is_deceased AND mrn LIKE 'MRN-0-%' ORDER BY mrn",
            )
            .doing("reading the patients")?;
        if found.is_empty() {
            return Err(Error::Usage(
                "the hospital has no patients: run `fhirehose simulate hospital` first".into(),
            ));
        }
        Ok(found)
    }

    /// The hospital's wall clock, to the second.
    pub(super) fn now(&self) -> Result<DateTime, Error> {
        let now = Timestamp::now().to_zoned(self.zone.clone()).datetime();
        Ok(now.checked_sub(i64::from(now.subsec_nanosecond()).nanoseconds())?)
    }

    fn is_ours(&mut self) -> Result<bool, Error> {
        let found: Option<u8> = self
            .conn
            .exec_first("SELECT 1 FROM information_schema.tables WHERE table_schema = ?", (MARKER,))
            .doing("looking for tables")?;
        Ok(found.is_some())
    }
}
