//! What goes wrong inside PostgreSQL. Errors of a full disk, a deadlock or a failed serialization are raised by a
//! trigger on the table of offsets, which every transaction of a sink writes: the server's own word for it, at a
//! moment that can be chosen, without filling the disk of the machine the tests run on.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use postgres::{Client, NoTls};

/// The table that each transaction of a sink updates.
const OFFSETS: &str = "fhirehose.sink_offsets";
const MARK: &str = "fhirehose.chaos_trips";

/// An error that a transaction of the product meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trip {
    /// 53100.
    DiskFull,
    /// 40P01.
    Deadlock,
    /// 40001.
    Serialization,
    /// The backend ends itself, as after `pg_terminate_backend`.
    Terminate,
}

/// When in the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// While it writes its offsets.
    Writing,
    /// Inside its `COMMIT`, from a deferred trigger.
    Committing,
}

#[derive(Clone, Debug)]
pub struct Postgres {
    url: String,
}

impl Trip {
    fn statement(self) -> &'static str {
        match self {
            Trip::DiskFull => "RAISE EXCEPTION 'no space left on device' USING ERRCODE = '53100'",
            Trip::Deadlock => "RAISE EXCEPTION 'deadlock detected' USING ERRCODE = '40P01'",
            Trip::Serialization => "RAISE EXCEPTION 'could not serialize access' USING ERRCODE = '40001'",
            Trip::Terminate => "PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(1)",
        }
    }
}

impl Postgres {
    /// `url` is the harness's own, past the proxy, of the owner of the tables.
    pub fn new(url: &str) -> Postgres {
        Postgres { url: url.to_owned() }
    }

    fn client(&self) -> Result<Client> {
        let mut config: postgres::Config = self.url.parse().context("the URL of PostgreSQL")?;
        config
            .application_name("fhirehose-chaos")
            .options("-c default_transaction_read_only=off -c lock_timeout=20s")
            .connect_timeout(Duration::from_secs(5));
        config.connect(NoTls).context("connecting to PostgreSQL")
    }

    /// Ends every backend that serves this application (a sink connects under its processor's name); how many.
    pub fn terminate(&self, application: &str) -> Result<usize> {
        let ended = self.client()?.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1",
            &[&application],
        )?;
        Ok(ended.len())
    }

    /// Lets the next `times` transactions that move offsets fail so. [`Postgres::heal`] ends it.
    pub fn trip(&self, trip: Trip, when: When, times: u32) -> Result<()> {
        self.heal()?;
        // A sequence counts what is rolled back too.
        let trigger = match when {
            When::Writing => format!("CREATE TRIGGER chaos BEFORE UPDATE ON {OFFSETS} FOR EACH STATEMENT"),
            When::Committing => format!(
                "CREATE CONSTRAINT TRIGGER chaos AFTER UPDATE ON {OFFSETS} DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
            ),
        };
        self.client()?.batch_execute(&format!(
            "CREATE SEQUENCE {MARK};
             CREATE FUNCTION fhirehose.chaos_trip() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF nextval('{MARK}') <= {times} THEN {}; END IF;
                 RETURN NULL;
             END $$;
             {trigger} EXECUTE FUNCTION fhirehose.chaos_trip()",
            trip.statement()
        ))?;
        Ok(())
    }

    /// How often the trigger has failed a transaction since it was set, at least.
    pub fn tripped(&self) -> Result<i64> {
        let row = self.client()?.query_one(&format!("SELECT last_value, is_called FROM {MARK}"), &[])?;
        Ok(if row.get(1) { row.get(0) } else { 0 })
    }

    /// Takes back what [`Postgres::trip`] and [`Postgres::read_only`] did.
    pub fn heal(&self) -> Result<()> {
        self.client()?.batch_execute(&format!(
            "DROP TRIGGER IF EXISTS chaos ON {OFFSETS};
             DROP FUNCTION IF EXISTS fhirehose.chaos_trip;
             DROP SEQUENCE IF EXISTS {MARK}"
        ))?;
        self.set_read_only(false)
    }

    /// New sessions cannot write, and those there are end: what clients see of a server that has become a standby.
    pub fn read_only(&self, application: &str) -> Result<()> {
        self.set_read_only(true)?;
        self.terminate(application).map(drop)
    }

    fn set_read_only(&self, on: bool) -> Result<()> {
        let mut client = self.client()?;
        let database: String = client.query_one("SELECT quote_ident(current_database())", &[])?.get(0);
        let change =
            if on { "SET default_transaction_read_only = on" } else { "RESET default_transaction_read_only" };
        client.batch_execute(&format!("ALTER DATABASE {database} {change}"))?;
        Ok(())
    }

    /// Holds an exclusive lock on the table for so long, counted from when it was got, and returns after.
    pub fn hold_lock(&self, table: &str, time: Duration) -> Result<()> {
        let mut client = self.client()?;
        let mut transaction = client.transaction()?;
        transaction.batch_execute(&format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))?;
        let begun = Instant::now();
        std::thread::sleep(time.saturating_sub(begun.elapsed()));
        transaction.rollback()?;
        Ok(())
    }
}
