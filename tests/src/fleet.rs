//! The real binary in processes of its own, as many as asked for, killed, asked to stop and started again.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use fhirehose_testkit::root;
use serde_json::Value;

use crate::kafka::Kafka;

/// The binary of this build.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        // `cargo test` builds binaries only of packages that have integration tests of their own.
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--locked", "--workspace", "--bin", "fhirehose"]);
        assert!(build.current_dir(root()).status().unwrap().success(), "the product does not build");
        // target/debug/deps/<this test>
        let here = std::env::current_exe().unwrap();
        here.parent().and_then(Path::parent).unwrap().join("fhirehose")
    })
}

/// `fhirehose` with the tests' configuration.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(root()).args(["--config", "tests/product.toml"]).args(arguments);
    command.stdin(Stdio::null());
    command
}

/// Runs a command that must succeed, and returns what it said.
pub fn say(arguments: &[&str]) -> String {
    let output = command(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "fhirehose {}: {said}", arguments.join(" "));
    said
}

/// Runs a command of `cargo xtask stack` on the stack under test.
pub fn stack(arguments: &[&str]) {
    let mut command = match std::env::var_os("FHIREHOSE_XTASK") {
        Some(xtask) => Command::new(xtask),
        None => {
            let mut cargo = Command::new(env!("CARGO"));
            cargo.arg("xtask");
            cargo
        }
    };
    let output = command.current_dir(root()).arg("stack").args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "stack {}: {said}", arguments.join(" "));
}

/// One process of the product.
pub struct Process {
    /// What it was told to run, such as `enrich`, or `all`.
    pub runs: String,
    instance: String,
    more: Vec<String>,
    listen: String,
    pub log: PathBuf,
    child: Child,
}

impl Process {
    pub fn start(logs: &Path, runs: &str, number: usize, more: &[&str]) -> Process {
        fs::create_dir_all(logs).unwrap();
        let port = free_address();
        let instance = format!("test-{runs}-{number}");
        let log = logs.join(format!("{instance}.log"));
        let more: Vec<String> = more.iter().map(|text| (*text).to_owned()).collect();
        let child = spawn(runs, &instance, &port.to_string(), &log, &more);
        Process { runs: runs.to_owned(), instance, more, listen: port.to_string(), log, child }
    }

    /// kill -9, and a start anew at once, as an orchestrator would.
    pub fn kill_and_restart(&mut self) {
        self.still_runs();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = spawn(&self.runs, &self.instance, &self.listen, &self.log, &self.more);
    }

    /// SIGTERM; it must drain, commit and leave: within ten seconds, and twice that on a busy machine.
    pub fn stop(&mut self) {
        self.still_runs();
        let begun = Instant::now();
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "{} stopped with {status}:\n{}", self.instance, self.tail());
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{} does not stop", self.instance);
            sleep(Duration::from_millis(50));
        }
    }

    pub fn stop_and_restart(&mut self) {
        self.stop();
        self.start_again();
    }

    /// After [`Process::stop`].
    pub fn start_again(&mut self) {
        self.child = spawn(&self.runs, &self.instance, &self.listen, &self.log, &self.more);
    }

    pub fn get(&self, path: &str) -> Option<String> {
        let answer = ureq::get(format!("http://{}{path}", self.listen)).call();
        answer.ok()?.body_mut().read_to_string().ok()
    }

    pub fn ready(&self) -> bool {
        self.get("/readyz").is_some()
    }

    /// Each processor's part of `/admin/status`.
    pub fn status(&self) -> Option<Vec<Value>> {
        let json: Value = serde_json::from_str(&self.get("/admin/status")?).ok()?;
        json["processors"].as_array().cloned()
    }

    pub fn still_runs(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("{} ended by itself ({status}):\n{}", self.instance, self.tail());
        }
    }

    fn tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(15).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

/// Below the ports that Linux gives to outgoing connections: nobody takes it while the process is started again.
fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + u16::try_from(std::process::id() % 9_000).unwrap();
    loop {
        let address = SocketAddr::from(([127, 0, 0, 1], first + NEXT.fetch_add(1, Ordering::Relaxed)));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ended already is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn spawn(runs: &str, instance: &str, listen: &str, log: &Path, more: &[String]) -> Child {
    let file = File::options().create(true).append(true).open(log).unwrap();
    let mut command = command(&["run", runs, "--instance", instance, "--listen", listen]);
    command.args(more).stdout(file.try_clone().unwrap()).stderr(file).spawn().unwrap()
}

/// Waits until something is so.
pub fn eventually(what: &str, seconds: u64, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(seconds), "not within {seconds} s: {what}");
        sleep(Duration::from_millis(100));
    }
}

pub fn all_ready(processes: &mut [Process]) {
    eventually("every process is ready", 120, || {
        processes.iter_mut().for_each(Process::still_runs);
        processes.iter().all(Process::ready)
    });
}

/// Waits until topics of each prefix hold so many records, nothing has been written for three seconds and no
/// process has anything left to read.
pub fn quiet(processes: &mut [Process], kafka: &Kafka, wanted: &[(String, i64)], seconds: u64) {
    let begun = Instant::now();
    let (mut end, mut since) = (-1, Instant::now());
    while since.elapsed() < Duration::from_secs(3) {
        processes.iter_mut().for_each(Process::still_runs);
        let lag = lag(processes);
        let now = kafka.end_of(|name| name.contains('.') && !name.starts_with("connect."));
        let short =
            wanted.iter().any(|(prefix, records)| kafka.end_of(|name| name.starts_with(prefix)) < *records);
        if now != end || lag != 0 || short {
            (end, since) = (now, Instant::now());
        }
        assert!(
            begun.elapsed() < Duration::from_secs(seconds),
            "after {seconds} s still {lag} records behind{}; see {}",
            if short { ", and Debezium has not sent everything" } else { "" },
            processes[0].log.parent().unwrap().display()
        );
        sleep(Duration::from_millis(200));
    }
}

fn lag(processes: &[Process]) -> i64 {
    let of = |process: &Process| -> i64 {
        let Some(status) = process.status() else { return 1 };
        status.iter().map(|processor| processor["lag_records"].as_i64().unwrap_or(1)).sum()
    };
    processes.iter().map(of).sum()
}

/// No guarantee was seen broken, by a process that runs or by one that was killed, and nothing has vanished:
/// every record read has become something, or was dropped, rejected or parked.
pub fn assert_no_violation(processes: &[Process]) {
    let mut read = 0;
    for process in processes {
        for processor in process.status().unwrap() {
            let counts = |part: &str| -> u64 {
                match &processor[part] {
                    Value::Object(reasons) => reasons.values().map(|count| count.as_u64().unwrap()).sum(),
                    count => count.as_u64().unwrap(),
                }
            };
            assert_eq!(counts("violations"), 0, "{processor}");
            let done: u64 = ["emitted_from", "dropped", "rejected", "parked"].map(counts).iter().sum();
            assert_eq!(counts("records_in"), done, "{processor}");
            assert!(
                processor["violations"].as_object().is_some_and(|kinds| !kinds.is_empty()),
                "{processor}"
            );
            read += done;
        }
        let log = fs::read_to_string(&process.log).unwrap();
        let told: Vec<_> = log.lines().filter(|line| line.contains("a guarantee did not hold")).collect();
        assert!(told.is_empty(), "{told:?}");
    }
    assert!(read > 0, "nothing was read");
}
