//! The binary under test in processes of its own: started, killed, frozen, asked to stop, and looked at.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

mod process;

pub use process::{Process, Resources, Tended};

/// The library that moves a process's wall clock. Not libfaketime: that knows nothing of C11's `cnd_timedwait`, by
/// which librdkafka waits, so that a client with a moved clock would wait for ever or not at all.
const SKEW: &str = include_str!("skew.c");

/// The processes of one run. Those that still run when it is dropped are killed.
pub struct Fleet {
    binary: PathBuf,
    root: PathBuf,
    dir: PathBuf,
    env: Vec<(String, String)>,
    pub processes: Vec<Process>,
}

/// What one process has that the others do not.
#[derive(Clone, Debug, Default)]
pub struct Setting {
    /// Environment of the process, however often it starts.
    pub env: Vec<(String, String)>,
    /// Environment of its first start alone, such as a fault point that kills it.
    pub once: Vec<(String, String)>,
    /// Arguments after `run <processor>`.
    pub arguments: Vec<String>,
    /// Seconds by which its wall clock is wrong.
    pub clock_off_seconds: i64,
}

impl Fleet {
    /// `env` holds the addresses that the product is to use; logs go to `dir`.
    pub fn new(root: &Path, dir: &Path, env: Vec<(String, String)>) -> Result<Fleet> {
        Fleet::of(binary()?, root, dir, env)
    }

    fn of(binary: PathBuf, root: &Path, dir: &Path, env: Vec<(String, String)>) -> Result<Fleet> {
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        Ok(Fleet { binary, root: root.to_owned(), dir: dir.to_owned(), env, processes: Vec::new() })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .current_dir(&self.root)
            .args(["--config", "crates/chaos/chaos.toml"])
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    /// Runs a command of the product to its end, such as `topics apply`, and returns what it said.
    pub fn say(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command().args(arguments).output().context("starting fhirehose")?;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        ensure!(
            output.status.success(),
            "`fhirehose {}` failed ({}):\n{said}",
            arguments.join(" "),
            output.status
        );
        Ok(said)
    }

    /// Starts one more process, which goes to the end of `processes`; its log is `<dir>/<instance>.log`.
    pub fn start(&mut self, processor: &str, instance: &str, setting: &Setting) -> Result<&mut Process> {
        let listen = free_address()?;
        let mut command = self.command();
        command
            .args(["run", processor, "--instance", instance, "--listen", &listen])
            .args(&setting.arguments)
            .envs(setting.env.iter().map(|(name, value)| (name, value)));
        if setting.clock_off_seconds != 0 {
            skew(&mut command, setting.clock_off_seconds, &self.dir)?;
        }
        let log = self.dir.join(format!("{instance}.log"));
        let process = Process::start(command, &setting.once, processor, instance, listen, log)?;
        self.processes.push(process);
        self.processes.last_mut().context("the process just pushed")
    }

    /// Looks after each process once; see [`Process::tend`].
    pub fn tend(&mut self) -> Result<Vec<(usize, Tended)>> {
        let each = self.processes.iter_mut().enumerate();
        each.map(|(index, process)| Ok((index, process.tend()?))).collect()
    }

    /// Until every process says it is ready. A process that ends by itself meanwhile is an error.
    pub fn await_ready(&mut self, limit: Duration) -> Result<()> {
        let begun = Instant::now();
        loop {
            for (index, tended) in self.tend()? {
                if let Tended::Ended(status) = tended {
                    let process = &self.processes[index];
                    bail!("{} ended by itself ({status}):\n{}", process.instance, process.tail(15));
                }
            }
            match self.processes.iter().find(|process| !process.ready()) {
                None => return Ok(()),
                Some(process) if begun.elapsed() > limit => {
                    bail!("{} is not ready after {limit:?}:\n{}", process.instance, process.tail(15))
                }
                Some(_) => sleep(Duration::from_millis(100)),
            }
        }
    }

    /// Records not yet read by all processes together; `None` while one of them does not answer.
    pub fn lag(&self) -> Option<i64> {
        self.processes.iter().map(Process::lag).sum()
    }

    /// Asks all of them to leave at once; the time each took.
    pub fn stop(&mut self) -> Result<Vec<Duration>> {
        self.processes.iter().try_for_each(|process| process.signal("TERM"))?;
        self.processes.iter_mut().map(Process::await_end).collect()
    }
}

/// An address for a process, now and when it starts again: of ports that the system gives to no client.
fn free_address() -> Result<String> {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 10_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % u32::from(COUNT)) as u16;
    (0..COUNT)
        .map(|_| FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT)
        .map(|port| format!("127.0.0.1:{port}"))
        .find(|address| TcpListener::bind(address).is_ok())
        .context("no port is free for a process of the product")
}

/// The binary `FHIREHOSE_BINARY` names, or the one beside this program.
fn binary() -> Result<PathBuf> {
    let named = std::env::var_os("FHIREHOSE_BINARY").map(PathBuf::from);
    let binary = match named {
        Some(binary) => binary,
        None => std::env::current_exe()?.parent().context("no folder")?.join("fhirehose"),
    };
    ensure!(binary.is_file(), "{} does not exist: `cargo xtask chaos` builds it", binary.display());
    Ok(binary)
}

/// Ends what a harness that was itself ended had left running: processes of the binary under test, or of an earlier
/// copy of it at the same path. They would go on as members of the groups.
pub fn end_leftovers() -> Result<usize> {
    end_processes_of(&binary()?)
}

fn end_processes_of(binary: &Path) -> Result<usize> {
    let binary = fs::canonicalize(binary)?;
    // What Linux adds to the path of a program that has been replaced.
    let replaced = format!("{} (deleted)", binary.display());
    let mut ended = 0;
    for entry in fs::read_dir("/proc")?.flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        // Not ours to look at, or gone by now.
        let Ok(program) = fs::read_link(entry.path().join("exe")) else { continue };
        if program == binary || program.as_os_str() == replaced.as_str() {
            ended += usize::from(Command::new("kill").args(["-9", &pid]).status()?.success());
        }
    }
    Ok(ended)
}

/// Moves the wall clock alone: time-outs run as ever, as on a machine with a wrong date.
fn skew(command: &mut Command, seconds: i64, dir: &Path) -> Result<()> {
    let (source, library) = (dir.join("skew.c"), dir.join("skew.so"));
    fs::write(&source, SKEW)?;
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1", "-o"]).args([&library, &source]);
    let output = cc.output().context("running cc")?;
    ensure!(output.status.success(), "cc: {}", String::from_utf8_lossy(&output.stderr));
    command.env("LD_PRELOAD", library).env("FHIREHOSE_CLOCK_OFF_SECONDS", seconds.to_string());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A program in the binary's place that says what it was given and waits.
    const STAND_IN: &str = "#!/bin/sh
trap 'exit 0' TERM
echo \"$ALWAYS $ONCE $4 $6 end\"
[ \"$ONCE\" = leave ] && exit 3
while :; do sleep 0.02; done
";

    fn fleet() -> (tempfile::TempDir, Fleet) {
        let dir = tempfile::tempdir().unwrap();
        let binary = dir.path().join("stand-in");
        fs::write(&binary, STAND_IN).unwrap();
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
        let env = vec![("ALWAYS".to_owned(), "yes".to_owned()), ("ONCE".to_owned(), "never".to_owned())];
        let fleet = Fleet::of(binary, dir.path(), &dir.path().join("logs"), env).unwrap();
        (dir, fleet)
    }

    fn await_lines(process: &Process, count: usize) -> Vec<String> {
        let begun = Instant::now();
        loop {
            let lines = process.lines_with("end").unwrap();
            if lines.len() >= count {
                return lines;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "{lines:?}");
            sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn a_killed_process_comes_back_without_what_it_was_given_once() {
        let (_dir, mut fleet) = fleet();
        let setting = Setting { once: vec![("ONCE".into(), "first".into())], ..Setting::default() };
        let process = fleet.start("enrich", "a", &setting).unwrap();
        await_lines(process, 1);
        assert_eq!(process.tend().unwrap(), Tended::Runs);
        assert!(process.restart().is_err(), "it still runs");
        process.kill().unwrap();
        assert_eq!(fleet.tend().unwrap(), [(0, Tended::Restarted { signal: 9 })]);
        let process = &fleet.processes[0];
        assert_eq!(await_lines(process, 2), ["yes first enrich a end", "yes never enrich a end"]);
        assert_eq!(process.starts, 2);
        assert_eq!(fleet.lag(), None);
    }

    #[test]
    fn one_that_leaves_by_itself_is_told_and_stays_away() {
        let (_dir, mut fleet) = fleet();
        let setting = Setting { once: vec![("ONCE".into(), "leave".into())], ..Setting::default() };
        fleet.start("enrich", "a", &setting).unwrap();
        let error = fleet.await_ready(Duration::from_secs(10)).unwrap_err().to_string();
        assert!(
            error.contains("ended by itself (exit status: 3)") && error.contains("yes leave enrich"),
            "{error}"
        );
        assert!(
            matches!(fleet.tend().unwrap()[..], [(0, Tended::Ended(status))] if status.code() == Some(3))
        );
        assert!(fleet.processes[0].freeze().is_err());
    }

    #[test]
    fn what_was_left_running_is_ended_also_after_its_program_was_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let binary = dir.path().join("sleeper");
        let sleeper = || {
            fs::copy("/bin/sleep", dir.path().join("new")).unwrap();
            fs::rename(dir.path().join("new"), &binary).unwrap();
            Command::new(&binary).arg("60").spawn().unwrap()
        };
        let mut left = [sleeper(), sleeper()];
        let mut other = Command::new("/bin/sleep").arg("60").spawn().unwrap();
        assert_eq!(end_processes_of(&binary).unwrap(), 2);
        assert!(left.iter_mut().all(|process| !process.wait().unwrap().success()));
        assert_eq!(other.try_wait().unwrap(), None);
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!(end_processes_of(&binary).unwrap(), 0);
    }

    #[test]
    fn processes_are_frozen_thawed_measured_and_stopped() {
        let (_dir, mut fleet) = fleet();
        for instance in ["a", "b"] {
            let process = fleet.start("enrich", instance, &Setting::default()).unwrap();
            await_lines(process, 1);
            process.freeze().unwrap();
            let begun = Instant::now();
            while !process.is_frozen() {
                assert!(begun.elapsed() < Duration::from_secs(5));
            }
            process.thaw().unwrap();
            let resources = process.resources().unwrap();
            assert!(
                resources.files >= 3 && resources.threads == 1 && resources.resident_kib > 0,
                "{resources:?}"
            );
        }
        let took = fleet.stop().unwrap();
        assert!(took.len() == 2 && took.iter().all(|time| *time < Duration::from_secs(5)));
        assert!(matches!(fleet.tend().unwrap()[..], [(0, Tended::Ended(_)), (1, Tended::Ended(_))]));
    }
}
