//! The product as a user runs it: its own binary, its own commands.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

pub struct Product {
    binary: PathBuf,
    shapes: PathBuf,
    logs: PathBuf,
    /// In a process group of its own, so that it outlives the terminal's.
    detached: bool,
}

/// `fhirehose run all`, stopped when dropped.
pub struct Running {
    child: Child,
    log: PathBuf,
    listen: String,
    pub admin: String,
}

impl Product {
    pub fn new(binary: PathBuf, shapes: PathBuf, logs: PathBuf, detached: bool) -> Result<Self> {
        if !binary.is_file() {
            bail!("{} does not exist: build it with `cargo build --release -p fhirehose`", binary.display());
        }
        fs::create_dir_all(&logs).with_context(|| format!("creating {}", logs.display()))?;
        Ok(Self { binary, shapes, logs, detached })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(["--config".as_ref(), self.shapes.join("crates/demo/demo.toml").as_os_str()])
            .args(["--shapes".as_ref(), self.shapes.as_os_str()])
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end; its output is shown only when it fails.
    pub fn run(&self, arguments: &[&str]) -> Result<()> {
        let output = self.command().args(arguments).output().context("starting fhirehose")?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let tail: Vec<&str> = said.lines().rev().take(20).collect();
        bail!(
            "`fhirehose {}` failed ({}):\n{}",
            arguments.join(" "),
            output.status,
            tail.into_iter().rev().collect::<Vec<_>>().join("\n")
        )
    }

    /// Starts every processor in one process and waits until it is ready.
    pub fn start(&self) -> Result<Running> {
        let log = self.logs.join("fhirehose.log");
        File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        // The default port, unless somebody else has it.
        let port = [9464, 0].into_iter().find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok());
        let listen = port.context("no free port")?.local_addr()?.to_string();
        let child = self.spawn(&listen, &log)?;
        let mut running = Running { child, log, admin: format!("http://{listen}"), listen };
        let begun = Instant::now();
        while !running.is_ready() {
            running.check()?;
            if begun.elapsed() > Duration::from_secs(60) {
                bail!("fhirehose is not ready after 60 s; its last lines:\n{}", tail(&running.log));
            }
            sleep(Duration::from_millis(200));
        }
        Ok(running)
    }

    fn spawn(&self, listen: &str, log: &Path) -> Result<Child> {
        let file =
            File::options().append(true).open(log).with_context(|| format!("opening {}", log.display()))?;
        let mut command = self.command();
        if self.detached {
            command.process_group(0);
        }
        command.args(["run", "all"]).env("FHIREHOSE__ADMIN__LISTEN", listen);
        command.stdout(file.try_clone()?).stderr(file).spawn().context("starting fhirehose")
    }
}

impl Running {
    fn is_ready(&self) -> bool {
        ureq::get(format!("{}/readyz", self.admin)).call().is_ok()
    }

    /// Starts it again if somebody killed it, as an orchestrator would; `true` if so. An error if it ended
    /// by itself.
    pub fn keep_up(&mut self, product: &Product) -> Result<bool> {
        match self.child.try_wait()? {
            Some(status) if status.code().is_none() => {
                self.child = product.spawn(&self.listen, &self.log)?;
                Ok(true)
            }
            _ => self.check().map(|()| false),
        }
    }

    /// An error if the process has ended.
    fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("fhirehose ended ({status}); its last lines:\n{}", tail(&self.log)),
            None => Ok(()),
        }
    }

    pub fn status(&self) -> Result<Value> {
        Ok(ureq::get(format!("{}/admin/status", self.admin)).call()?.body_mut().read_json()?)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it run on after this program.
    pub fn leave(self) {
        std::mem::forget(self);
    }
}

impl Drop for Running {
    /// SIGTERM, as an orchestrator would, and a hard end only if that is ignored.
    fn drop(&mut self) {
        let asked = Command::new("kill").arg(self.child.id().to_string()).status();
        let begun = Instant::now();
        while asked.is_ok() && begun.elapsed() < Duration::from_secs(15) {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            sleep(Duration::from_millis(50));
        }
        // Gone already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(20).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
