//! Starting, recognising and stopping the servers. A pid alone proves nothing after a reboot or a wrap, so a
//! pid file also holds the process's start time: only a process that matches both was started by us.
use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::layout::Stack;
use crate::shell;

/// A process of ours that is alive.
#[derive(Clone, Copy, PartialEq)]
pub struct Process {
    pub pid: u32,
    /// Start time in clock ticks since boot: field 22 of `/proc/<pid>/stat`.
    started: u64,
}

impl Process {
    /// The service's process, if its pid file names one that still runs.
    pub fn of(stack_dir: &Path, service: &str) -> Option<Process> {
        let text = fs::read_to_string(pid_file(stack_dir, service)).ok()?;
        let mut fields = text.split_whitespace();
        let process = Process { pid: fields.next()?.parse().ok()?, started: fields.next()?.parse().ok()? };
        (fields.next()? == boot_id() && process.is_alive()).then_some(process)
    }

    pub fn is_alive(self) -> bool {
        Stat::read(self.pid).is_some_and(|stat| stat.started == self.started && stat.runs())
    }

    /// Seconds since it started.
    pub fn uptime(self) -> Option<f64> {
        let since_boot: f64 =
            fs::read_to_string("/proc/uptime").ok()?.split_whitespace().next()?.parse().ok()?;
        Some(since_boot - self.started as f64 / CLOCK_TICKS)
    }

    /// Memory in MiB, shared pages counted in proportion; with its children (PostgreSQL's backends).
    pub fn memory(self) -> u64 {
        let children = fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            (Stat::read(pid)?.parent == self.pid).then_some(pid)
        });
        std::iter::once(self.pid).chain(children).map(proportional_kib).sum::<u64>() / 1024
    }

    /// Asks with `signal`, waits for `grace`, then kills. Returns whether it had to be killed.
    pub fn stop(self, signal: &str, grace: Duration) -> Result<bool> {
        self.signal(signal)?;
        if self.wait_gone(grace) {
            return Ok(false);
        }
        self.kill()?;
        Ok(true)
    }

    pub fn kill(self) -> Result<()> {
        self.signal("KILL")?;
        if !self.wait_gone(Duration::from_secs(10)) {
            bail!("process {} does not die", self.pid);
        }
        Ok(())
    }

    fn signal(self, signal: &str) -> Result<()> {
        if self.is_alive() {
            shell::capture(Command::new("sh").args(["-c", &format!("kill -{signal} {}", self.pid)]))?;
        }
        Ok(())
    }

    fn wait_gone(self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while self.is_alive() {
            if Instant::now() > end {
                return false;
            }
            sleep(Duration::from_millis(30));
        }
        true
    }
}

/// Ticks per second of the times in `/proc`: 100 on every Linux that Rust's standard library supports.
const CLOCK_TICKS: f64 = 100.0;

/// Starts a server in a session of its own, so that closing the terminal does not reach it. Its output goes to
/// a new log; the previous one is kept beside it.
pub fn start(stack: &Stack, service: &str, command: &Command) -> Result<Child> {
    let log = stack.log(service);
    match fs::rename(&log, log.with_extension("log.1")) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let out = OpenOptions::new().create(true).append(true).open(&log)?;
    let mut detached = Command::new("setsid");
    detached.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => detached.env(name, value),
            None => detached.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        detached.current_dir(dir);
    }
    let child = detached
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(out)
        .spawn()
        .with_context(|| format!("cannot start {service}"))?;
    let started = Stat::read(child.id()).with_context(|| format!("{service} ended at once"))?.started;
    write_synced(&pid_file(&stack.dir, service), &format!("{} {started} {}\n", child.id(), boot_id()))?;
    Ok(child)
}

pub fn forget(stack: &Stack, service: &str) {
    // The file may be gone already; what counts is that it names no process any more.
    let _ = fs::remove_file(pid_file(&stack.dir, service));
}

fn pid_file(stack_dir: &Path, service: &str) -> PathBuf {
    stack_dir.join("run").join(format!("{service}.pid"))
}

fn write_synced(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    File::open(path)?.sync_all()?;
    Ok(())
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

fn proportional_kib(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0)
}

struct Stat {
    state: char,
    parent: u32,
    threads: u32,
    started: u64,
}

impl Stat {
    /// Of a process that is killed the first thread may be gone while others still hold its ports.
    fn runs(&self) -> bool {
        self.state != 'Z' || self.threads > 1
    }

    fn read(pid: u32) -> Option<Stat> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold blanks and parentheses itself: fields count from the last ')'.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        Some(Stat {
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            threads: fields.get(17)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stack in a folder of its own, removed with its processes' logs at the end.
    fn in_a_stack(name: &str, test: impl FnOnce(&Stack)) {
        let dir = std::env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()));
        test(&Stack::open_at(dir.clone()).unwrap());
        fs::remove_dir_all(dir).unwrap();
    }

    fn await_output(stack: &Stack, service: &str) {
        while fs::read_to_string(stack.log(service)).unwrap().is_empty() {
            sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_started_process_is_known_and_stops_when_asked() {
        in_a_stack("stop", |stack| {
            let mut command = Command::new("sh");
            command.args(["-c", "echo started; exec sleep 60"]);
            let mut child = start(stack, "sleeper", &command).unwrap();
            await_output(stack, "sleeper");
            let process = Process::of(&stack.dir, "sleeper").unwrap();
            assert_eq!(process.pid, child.id());
            assert!(!process.stop("TERM", Duration::from_secs(5)).unwrap());
            assert!(Process::of(&stack.dir, "sleeper").is_none());
            assert!(!child.wait().unwrap().success());
            assert_eq!(fs::read_to_string(stack.log("sleeper")).unwrap(), "started\n");
        });
    }

    #[test]
    fn a_process_that_ignores_the_signal_is_killed() {
        in_a_stack("kill", |stack| {
            let mut command = Command::new("sh");
            command.args(["-c", "trap '' TERM; echo deaf; while true; do sleep 0.1; done"]);
            let mut child = start(stack, "deaf", &command).unwrap();
            await_output(stack, "deaf");
            let process = Process::of(&stack.dir, "deaf").unwrap();
            assert!(process.stop("TERM", Duration::from_millis(200)).unwrap());
            assert!(!child.wait().unwrap().success());
        });
    }

    #[test]
    fn a_reused_pid_is_not_ours() {
        in_a_stack("pid", |stack| {
            let (pid, started) = (std::process::id(), Stat::read(std::process::id()).unwrap().started);
            let write = |started: u64, boot: &str| {
                fs::write(pid_file(&stack.dir, "x"), format!("{pid} {started} {boot}\n")).unwrap();
            };
            write(started, &boot_id());
            assert!(Process::of(&stack.dir, "x").is_some());
            write(started + 1, &boot_id());
            assert!(Process::of(&stack.dir, "x").is_none());
            write(started, "another-boot");
            assert!(Process::of(&stack.dir, "x").is_none());
            fs::write(pid_file(&stack.dir, "x"), "damaged").unwrap();
            assert!(Process::of(&stack.dir, "x").is_none());
        });
    }
}
