//! The servers of the stack as processes: stopped, killed, frozen and brought back by `cargo xtask stack`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

pub mod kafka;
pub mod postgres;
mod wire;

/// The stack that `FHIREHOSE_STACK_DIR` names. Services have the names of `cargo xtask stack`.
#[derive(Clone, Debug)]
pub struct Servers {
    xtask: PathBuf,
    dir: PathBuf,
}

impl Servers {
    pub fn from_env() -> Result<Servers> {
        let var = |name: &str| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .with_context(|| format!("{name} is not set: run this by `cargo xtask chaos`"))
        };
        Ok(Servers { xtask: var("FHIREHOSE_XTASK")?, dir: var("FHIREHOSE_STACK_DIR")? })
    }

    /// The stack's folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// kill -9.
    pub fn kill(&self, service: &str) -> Result<()> {
        self.stack("kill", service)
    }

    /// Asked to finish and leave.
    pub fn stop(&self, service: &str) -> Result<()> {
        self.stack("down", service)
    }

    /// Starts it where it does not run, and returns when it is healthy.
    pub fn up(&self, service: &str) -> Result<()> {
        self.stack("up", service)
    }

    /// Asked to leave, and started again.
    pub fn restart(&self, service: &str) -> Result<()> {
        self.stack("restart", service)
    }

    /// SIGSTOP: its connections stay open, and it says nothing.
    pub fn freeze(&self, service: &str) -> Result<()> {
        self.signal(service, "STOP")
    }

    pub fn thaw(&self, service: &str) -> Result<()> {
        self.signal(service, "CONT")
    }

    /// Whether it runs at all, healthy or not.
    pub fn runs(&self, service: &str) -> bool {
        self.pid(service).is_ok_and(|pid| fs::exists(format!("/proc/{pid}")).unwrap_or(false))
    }

    fn stack(&self, command: &str, service: &str) -> Result<()> {
        let output = Command::new(&self.xtask)
            .args(["stack", command, service])
            .env("FHIREHOSE_STACK_DIR", &self.dir)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {}", self.xtask.display()))?;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        ensure!(output.status.success(), "`stack {command} {service}` failed:\n{said}");
        Ok(())
    }

    fn pid(&self, service: &str) -> Result<u32> {
        let file = self.dir.join("run").join(format!("{service}.pid"));
        let text = fs::read_to_string(&file).with_context(|| format!("{service} does not run"))?;
        let pid = text.split_whitespace().next().and_then(|pid| pid.parse().ok());
        pid.with_context(|| format!("{} is damaged", file.display()))
    }

    /// To the server and its children: PostgreSQL serves each client by one.
    fn signal(&self, service: &str, signal: &str) -> Result<()> {
        let parent = self.pid(service)?;
        let entries = fs::read_dir("/proc")?.flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let family = pids.filter(|pid| *pid == parent || parent_of(*pid) == Some(parent));
        let status = Command::new("kill")
            .arg(format!("-{signal}"))
            .args(family.map(|pid| pid.to_string()))
            .stderr(Stdio::null())
            .status()?;
        // A child may have ended meanwhile; the server itself must be there.
        if !status.success() && !self.runs(service) {
            bail!("{service} does not run");
        }
        Ok(())
    }
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold blanks: fields count from the last ')'.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}
