//! The servers the bench works on, the product's binary, and processes that end with the bench.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use fhirehose_pgsink::Connector;
use fhirehose_runtime::{RegistryConfig, SchemaRegistry};
use fhirehose_topics::{Registry, Schema};
use postgres::Client;

use crate::changes::Changes;

/// Addresses, from the environment the stack's env file gives.
pub struct Stack {
    pub root: PathBuf,
    pub brokers: String,
    registry: String,
    pub postgres: String,
    /// Folder of this program and of the product's.
    programs: PathBuf,
    logs: PathBuf,
}

/// A program that is asked to end when it is dropped.
pub struct Running(Child);

impl Stack {
    pub fn of_environment(root: &Path) -> Result<Stack> {
        let variable = |name: &str| {
            std::env::var(name).with_context(|| {
                format!("{name} is not set: run `cargo xtask bench`, or export the stack's env file")
            })
        };
        let own = std::env::current_exe()?;
        let programs = own.parent().context("this program is in no folder")?.to_owned();
        let logs = programs.join("bench-logs");
        fs::create_dir_all(&logs)?;
        Ok(Stack {
            root: root.to_owned(),
            brokers: variable("FHIREHOSE__KAFKA__BROKERS")?,
            registry: variable("FHIREHOSE__REGISTRY__URL")?,
            postgres: variable("FHIREHOSE__POSTGRES__URL")?,
            programs,
            logs,
        })
    }

    fn product(&self) -> Command {
        let mut command = Command::new(self.programs.join("fhirehose"));
        command.arg("--config").arg(self.root.join("benches/bench.toml"));
        command.arg("--shapes").arg(&self.root).stdin(Stdio::null());
        command
    }

    /// Creates topics, schemas and tables.
    pub fn prepare(&self) -> Result<()> {
        for arguments in [["topics", "apply"], ["migrate", "apply"]] {
            let output = self.product().args(arguments).output().context("starting fhirehose")?;
            if !output.status.success() {
                bail!(
                    "fhirehose {} failed: {}",
                    arguments.join(" "),
                    String::from_utf8_lossy(&output.stderr)
                );
            }
        }
        Ok(())
    }

    pub fn registry(&self) -> Result<SchemaRegistry> {
        Ok(SchemaRegistry::new(&RegistryConfig { url: self.registry.clone(), ..Default::default() })?)
    }

    /// Changes whose Avro schemas are registered.
    pub fn changes(&self) -> Result<Changes> {
        let registry = self.registry()?;
        Changes::load(&self.root, |subject, schema| {
            registry.register(subject, schema)?;
            Ok(registry.id_of(subject, schema)?)
        })
    }

    /// `fhirehose run <processor>`, with its admin server on this port.
    pub fn run(&self, processor: &str, port: u16) -> Result<Running> {
        self.run_as(processor, processor, port, &[])
    }

    /// The same with a log of this name and other settings.
    pub fn run_as(
        &self,
        processor: &str,
        name: &str,
        port: u16,
        settings: &[(&str, &str)],
    ) -> Result<Running> {
        let mut command = self.product();
        command.args(["run", processor]).env("FHIREHOSE__ADMIN__LISTEN", format!("127.0.0.1:{port}"));
        command.envs(settings.iter().copied());
        self.spawn(command, name)
    }

    /// Ids of our schemas in the registry, by subject.
    pub fn schema_ids(&self, topics: &Registry) -> Result<HashMap<String, u32>> {
        let registry = self.registry()?;
        let schemas = topics.iter().filter_map(|topic| topic.schema.as_deref());
        let id =
            |schema: &Schema| Ok((schema.subject.clone(), registry.id_of(&schema.subject, &schema.json)?));
        schemas.map(id).collect()
    }

    /// An empty folder for what a process saves.
    pub fn state(&self) -> Result<PathBuf> {
        let folder = self.programs.join("bench-state");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir(&folder)?;
        Ok(folder)
    }

    /// The copier, as a process of its own.
    pub fn run_copier(&self, group: &str, transactional: bool) -> Result<Running> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--root").arg(&self.root).args(["copy", "--group", group]);
        if transactional {
            command.arg("--transactional");
        }
        self.spawn(command, group)
    }

    fn spawn(&self, mut command: Command, name: &str) -> Result<Running> {
        let log = File::create(self.logs.join(format!("{name}.log")))?;
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        Ok(Running(child.with_context(|| format!("starting {name}"))?))
    }

    /// The last lines a program has written.
    pub fn log(&self, name: &str) -> String {
        let text = fs::read_to_string(self.logs.join(format!("{name}.log"))).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }

    /// An empty database; the URL of it and a connection.
    pub fn database(&self, name: &str) -> Result<(String, Client)> {
        let mut admin = Connector::new(&self.postgres, "bench")?.connect()?;
        admin.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))?;
        admin.batch_execute(&format!("CREATE DATABASE {name}"))?;
        let (server, _) = self.postgres.rsplit_once('/').context("the URL names a database")?;
        let url = format!("{server}/{name}");
        let client = Connector::new(&url, "bench")?.connect()?;
        Ok((url, client))
    }
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Ends it as `kill -9` does.
    pub fn kill(&mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    /// Asks it to end, without waiting.
    pub fn ask_to_end(&self) -> Result<()> {
        Command::new("kill").arg(self.pid().to_string()).status().context("running kill")?;
        Ok(())
    }

    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.0.try_wait()?.is_some())
    }

    /// An error if it has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.0.try_wait()? {
            Some(status) => bail!("it has ended ({status})"),
            None => Ok(()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.has_ended().unwrap_or(true) {
            return;
        }
        let asked = self.ask_to_end();
        let begun = Instant::now();
        while asked.is_ok() && begun.elapsed() < Duration::from_secs(15) {
            if self.has_ended().unwrap_or(true) {
                return;
            }
            sleep(Duration::from_millis(20));
        }
        // Gone already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
