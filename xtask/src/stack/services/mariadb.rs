//! A MariaDB server: one hospital's database, with the binary log that Debezium reads.
use std::fs;
use std::process::Command;

use anyhow::Result;

use super::Service;
use crate::shell;
use crate::stack::layout::Stack;

/// One hospital. Both run the same server with different data.
pub struct Hospital {
    pub name: &'static str,
    about: &'static str,
    /// One name: of the port and of the source.
    ports: &'static [&'static str],
    /// Distinguishes servers and Debezium's own connections to them.
    server_id: u32,
    variable: &'static str,
    /// Which file of `deploy/connect` says how its rows are written to Kafka.
    pub converter: &'static str,
}

pub static HOSPITAL_A: Hospital = Hospital {
    name: "hospital-a",
    about: "MariaDB 10.11, the first hospital",
    ports: &["hospital_a"],
    server_id: 101,
    variable: "STACK_HOSPITAL_A_URL",
    converter: "avro.json",
};
pub static HOSPITAL_B: Hospital = Hospital {
    name: "hospital-b",
    about: "MariaDB 10.11, the second hospital",
    ports: &["hospital_b"],
    server_id: 102,
    variable: "STACK_HOSPITAL_B_URL",
    converter: "json.json",
};

/// Run before the first connection is taken, at every start. The server listens on the loopback only.
const USERS: &str = "\
SET sql_log_bin = 0;
CREATE USER IF NOT EXISTS 'root'@'127.0.0.1' IDENTIFIED BY '';
GRANT ALL PRIVILEGES ON *.* TO 'root'@'127.0.0.1' WITH GRANT OPTION;
CREATE USER IF NOT EXISTS 'debezium'@'127.0.0.1' IDENTIFIED BY 'debezium';
GRANT SELECT, RELOAD, SHOW DATABASES, LOCK TABLES, REPLICATION SLAVE, REPLICATION CLIENT, BINLOG MONITOR, SLAVE MONITOR ON *.* TO 'debezium'@'127.0.0.1';
";

impl Hospital {
    fn port(&self, stack: &Stack) -> Result<u16> {
        stack.port(self.source())
    }

    /// The name of this source in topics and in the product's configuration, and of its port.
    pub fn source(&self) -> &'static str {
        self.ports[0]
    }

    /// Debezium reads the log as a replica, which needs an id that no other replica or server has.
    pub fn connector_server_id(&self) -> u32 {
        self.server_id + 1000
    }
}

impl Service for Hospital {
    fn name(&self) -> &'static str {
        self.name
    }
    fn about(&self) -> &'static str {
        self.about
    }
    fn debian_packages(&self) -> &'static [&'static str] {
        &["mariadb-server"]
    }
    fn ports(&self) -> &'static [&'static str] {
        self.ports
    }

    fn command(&self, stack: &Stack) -> Result<Command> {
        let user = if shell::is_root() { &["--user=root"][..] } else { &[] };
        // A folder of its own: a starting server deletes what looks like leftover temporary tables, of others too.
        let temporary = stack.dir.join("run").join(format!("{}.tmp", self.name));
        fs::create_dir_all(&temporary)?;
        let data = stack.data_made_by(self.name, |data| {
            let mut install = Command::new("mariadb-install-db");
            install.env("TMPDIR", &temporary);
            install.arg("--no-defaults").arg(format!("--datadir={}", data.display())).args(user);
            shell::capture(install.args(["--auth-root-authentication-method=normal", "--skip-test-db"]))
                .map(drop)
        })?;
        let users = data.join("users.sql");
        fs::write(&users, USERS)?;
        let mut command = Command::new("/usr/sbin/mariadbd");
        command
            .arg("--no-defaults")
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--tmpdir={}", temporary.display()))
            .arg(format!("--init-file={}", users.display()))
            .arg(format!("--port={}", self.port(stack)?))
            .arg(format!("--server-id={}", self.server_id))
            .args(user)
            .args([
                "--bind-address=127.0.0.1",
                "--skip-name-resolve",
                // Relative to the data folder: a socket's path may not be longer than 107 bytes.
                "--socket=mariadbd.sock",
                "--pid-file=mariadbd.pid",
                "--log-bin=binlog",
                "--binlog-format=ROW",
                "--binlog-row-image=FULL",
                "--default-time-zone=+00:00",
                "--character-set-server=utf8mb4",
                "--collation-server=utf8mb4_unicode_ci",
                // A small machine's settings: little memory, and the log reaches the disk once a second.
                "--innodb-buffer-pool-size=128M",
                "--innodb-flush-log-at-trx-commit=2",
                "--performance-schema=OFF",
            ]);
        Ok(command)
    }

    fn is_ready(&self, stack: &Stack) -> Result<bool> {
        let mut ping = Command::new("mariadb-admin");
        ping.args([
            "--no-defaults",
            "--protocol=tcp",
            "--host=127.0.0.1",
            "--user=root",
            "--connect-timeout=5",
        ])
        .arg(format!("--port={}", self.port(stack)?))
        .arg("ping");
        Ok(shell::capture(&mut ping).is_ok())
    }

    fn env(&self, stack: &Stack) -> Result<Vec<(&'static str, String)>> {
        Ok(vec![(self.variable, format!("mysql://root@127.0.0.1:{}", self.port(stack)?))])
    }
}
