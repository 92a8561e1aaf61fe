//! PostgreSQL with TimescaleDB: warehouse, time series and the sinks' offsets in one cluster.
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::Service;
use crate::shell;
use crate::stack::layout::Stack;
use crate::stack::timescale;

pub struct Postgres;

const BIN: &str = "/usr/lib/postgresql/15/bin";
/// The database and its owner bear the same name.
const NAME: &str = "fhirehose";

/// PostgreSQL refuses to run as root, so root runs it as the user that Debian's package made. That user need
/// not be able to enter the folders above its data (a clone under /root): one capability lets it pass through.
fn unprivileged(program: &str) -> Command {
    let program = Path::new(BIN).join(program);
    if !shell::is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
        .args(["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"])
        .arg(program);
    command
}

fn client(stack: &Stack, program: &str) -> Result<Command> {
    let mut command = Command::new(Path::new(BIN).join(program));
    command.args(["-h", "127.0.0.1", "-U", NAME, "-p"]).arg(stack.port("postgres")?.to_string());
    Ok(command)
}

impl Service for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }
    fn about(&self) -> &'static str {
        "PostgreSQL 15, TimescaleDB 2.19.3"
    }
    fn debian_packages(&self) -> &'static [&'static str] {
        &["postgresql-15"]
    }
    fn install(&self, stack: &Stack) -> Result<()> {
        timescale::install(&stack.cache)
    }
    fn ports(&self) -> &'static [&'static str] {
        &["postgres"]
    }
    /// Fast shutdown: SIGTERM would wait until the last client left.
    fn stop_signal(&self) -> &'static str {
        "INT"
    }

    fn command(&self, stack: &Stack) -> Result<Command> {
        let data = stack.data_made_by("postgres", |data| {
            fs::set_permissions(data, fs::Permissions::from_mode(0o700))?;
            if shell::is_root() {
                shell::capture(Command::new("chown").arg("postgres:postgres").arg(data))?;
            }
            let mut initdb = unprivileged("initdb");
            initdb.arg("-D").arg(data).args([
                "-U",
                NAME,
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
            ]);
            shell::capture(initdb.current_dir("/")).map(drop)
        })?;
        let mut command = unprivileged("postgres");
        command.current_dir("/").arg("-D").arg(&data).arg("-p").arg(stack.port("postgres")?.to_string());
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "max_connections=300",
            "shared_buffers=256MB",
            "max_wal_size=2GB",
            "timezone=UTC",
            "log_timezone=UTC",
            "shared_preload_libraries=timescaledb",
            "timescaledb.telemetry_level=off",
        ] {
            command.arg("-c").arg(setting);
        }
        Ok(command)
    }

    fn is_ready(&self, stack: &Stack) -> Result<bool> {
        Ok(shell::capture(client(stack, "pg_isready")?.args(["-q", "-d", "postgres"])).is_ok())
    }

    fn after_start(&self, stack: &Stack) -> Result<()> {
        let query = format!("SELECT count(*) FROM pg_database WHERE datname = '{NAME}'");
        let found = shell::capture(client(stack, "psql")?.args(["-d", "postgres", "-Atc", &query]))?;
        if found.trim() == "0" {
            shell::capture(client(stack, "createdb")?.arg(NAME))?;
        }
        Ok(())
    }

    fn env(&self, stack: &Stack) -> Result<Vec<(&'static str, String)>> {
        let url = format!("postgres://{NAME}@127.0.0.1:{}/{NAME}", stack.port("postgres")?);
        Ok(vec![("FHIREHOSE__POSTGRES__URL", url)])
    }
}
