//! One process of the product.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// How long a clean stop may take before the process counts as hung.
const STOP_LIMIT: Duration = Duration::from_secs(45);

/// One process of the product, by whichever pid it runs at the moment.
pub struct Process {
    pub processor: String,
    pub instance: String,
    pub log: PathBuf,
    /// How often it was started.
    pub starts: u32,
    listen: String,
    command: Command,
    child: Child,
}

/// What became of a process since it was last looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tended {
    Runs,
    /// A signal had ended it, and it was started again at once, as an orchestrator would.
    Restarted {
        signal: i32,
    },
    /// It left by itself.
    Ended(ExitStatus),
}

/// What the operating system gives to a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub files: u64,
    pub threads: u64,
    pub resident_kib: u64,
}

impl Process {
    /// Starts it. `once` is the environment of this start alone; `command` has what is there always.
    pub(super) fn start(
        mut command: Command,
        once: &[(String, String)],
        processor: &str,
        instance: &str,
        listen: String,
        log: PathBuf,
    ) -> Result<Process> {
        let always: Vec<_> = once.iter().map(|(name, _)| (name, value_of(&command, name))).collect();
        command.envs(once.iter().map(|(name, value)| (name, value)));
        let child = spawn(&mut command, &log)?;
        for (name, value) in always {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let (processor, instance) = (processor.to_owned(), instance.to_owned());
        Ok(Process { processor, instance, log, starts: 1, listen, command, child })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn admin(&self) -> &str {
        &self.listen
    }

    /// kill -9. [`Process::tend`] or [`Process::restart`] start it again.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().context("killing")?;
        self.child.wait().context("awaiting a killed process").map(drop)
    }

    pub fn freeze(&self) -> Result<()> {
        self.signal("STOP")
    }

    pub fn thaw(&self) -> Result<()> {
        self.signal("CONT")
    }

    /// SIGTERM, and the time until it had drained, committed and left. An error if it did not leave cleanly.
    pub fn stop(&mut self) -> Result<Duration> {
        self.signal("TERM")?;
        self.await_end()
    }

    /// Starts it anew; it must have ended.
    pub fn restart(&mut self) -> Result<()> {
        ensure!(self.child.try_wait()?.is_some(), "{} still runs", self.instance);
        self.child = spawn(&mut self.command, &self.log)?;
        self.starts += 1;
        Ok(())
    }

    /// Starts it again if a signal has ended it. One that left by itself is only told of.
    pub fn tend(&mut self) -> Result<Tended> {
        match self.child.try_wait().context("asking for a process")? {
            None => Ok(Tended::Runs),
            Some(status) => match status.signal() {
                Some(signal) => self.restart().map(|()| Tended::Restarted { signal }),
                None => Ok(Tended::Ended(status)),
            },
        }
    }

    /// Whether a signal sent by a fault point has stopped it: the state of its main thread in /proc.
    pub fn is_frozen(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('T'))
    }

    pub(super) fn signal(&self, name: &str) -> Result<()> {
        let pid = self.pid().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &pid]).stderr(Stdio::null()).status()?;
        ensure!(status.success(), "{} has no process {pid} to send SIG{name} to", self.instance);
        Ok(())
    }

    pub(super) fn await_end(&mut self) -> Result<Duration> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "{} stopped with {status}:\n{}", self.instance, self.tail(15));
                return Ok(begun.elapsed());
            }
            ensure!(begun.elapsed() < STOP_LIMIT, "{} does not stop within {STOP_LIMIT:?}", self.instance);
            sleep(Duration::from_millis(20));
        }
    }

    /// A page of its admin port; `None` if there is no good answer within two seconds.
    pub fn get(&self, path: &str) -> Option<String> {
        let agent: ureq::Agent =
            ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(2))).build().into();
        agent.get(format!("http://{}{path}", self.listen)).call().ok()?.body_mut().read_to_string().ok()
    }

    pub fn ready(&self) -> bool {
        self.get("/readyz").is_some()
    }

    /// Each processor's part of `/admin/status`.
    pub fn status(&self) -> Option<Vec<Value>> {
        let mut status: Value = serde_json::from_str(&self.get("/admin/status")?).ok()?;
        match status["processors"].take() {
            Value::Array(processors) => Some(processors),
            _ => None,
        }
    }

    pub fn lag(&self) -> Option<i64> {
        self.status()?.iter().map(|processor| processor["lag_records"].as_i64()).sum()
    }

    /// Its own counters of broken guarantees that are above zero, by kind; `None` if it does not answer.
    pub fn violations(&self) -> Option<BTreeMap<String, u64>> {
        let mut found = BTreeMap::new();
        for processor in self.status()? {
            for (kind, count) in processor["violations"].as_object()? {
                *found.entry(kind.clone()).or_default() += count.as_u64()?;
            }
        }
        found.retain(|_, count| *count > 0);
        Some(found)
    }

    /// What it has logged about broken guarantees, in all its lives.
    pub fn broken_guarantees(&self) -> Result<Vec<String>> {
        self.lines_with("a guarantee did not hold")
    }

    pub fn lines_with(&self, words: &str) -> Result<Vec<String>> {
        let bytes = fs::read(&self.log).with_context(|| format!("reading {}", self.log.display()))?;
        let text = String::from_utf8_lossy(&bytes);
        Ok(text.lines().filter(|line| line.contains(words)).map(str::to_owned).collect())
    }

    pub fn tail(&self, lines: usize) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Where each of its threads is, into `<instance>.stacks` beside its log, if there is a gdb to tell.
    pub fn stacks(&self) {
        let pid = self.pid().to_string();
        let gdb = Command::new("gdb")
            .args(["-p", &pid, "-batch", "-ex", "thread apply all bt 30"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output();
        if let Ok(output) = gdb {
            // Evidence for eyes: a run does not fail for it.
            drop(fs::write(self.log.with_extension("stacks"), output.stdout));
        }
    }

    pub fn resources(&self) -> Result<Resources> {
        let proc = PathBuf::from(format!("/proc/{}", self.pid()));
        let status = fs::read_to_string(proc.join("status"))?;
        let number = |name: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no such line")?;
            let number = line.split_whitespace().next().context("no number")?;
            number.parse().with_context(|| format!("{name} {number}"))
        };
        Ok(Resources {
            files: fs::read_dir(proc.join("fd"))?.count() as u64,
            threads: number("Threads:")?,
            resident_kib: number("VmRSS:")?,
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ended already is as good. SIGKILL ends a frozen process too.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What the command's environment says beyond this program's own.
fn value_of(command: &Command, name: &str) -> Option<OsString> {
    let found = command.get_envs().find(|(found, _)| *found == name);
    found.and_then(|(_, value)| value).map(OsStr::to_owned)
}

fn spawn(command: &mut Command, log: &Path) -> Result<Child> {
    let opened = File::options().create(true).append(true).open(log);
    let file = opened.with_context(|| format!("opening {}", log.display()))?;
    command.stdout(file.try_clone()?).stderr(file).spawn().context("starting fhirehose")
}
