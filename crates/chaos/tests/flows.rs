//! Every flow, for a few seconds and without a fault, on the real stack with two processes of the product: what
//! has not been processed yet is found missing, and once it has been, nothing is wrong. On a stack of its own:
//! `set -a; . .stack/env; set +a; FHIREHOSE_TEST_FLOW=all cargo test -p fhirehose-chaos --test flows -- --nocapture`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread::{scope, sleep};
use std::time::{Duration, Instant, SystemTime};

use fhirehose_chaos::flow::{Begin, Flow, Halt, Live, Run};
use fhirehose_chaos::flows;
use fhirehose_chaos::ledger::Violation;
use fhirehose_chaos::world::World;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The binary of this build, or the one that is named.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(named) = std::env::var_os("FHIREHOSE_BINARY") {
            return named.into();
        }
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--locked", "--package", "fhirehose", "--bin", "fhirehose"]);
        assert!(build.current_dir(root()).status().unwrap().success(), "the product does not build");
        let here = std::env::current_exe().unwrap();
        here.parent().and_then(Path::parent).unwrap().join("fhirehose")
    })
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(root()).args(["--config", "crates/chaos/chaos.toml"]).args(arguments);
    command.env("FHIREHOSE__KAFKA__REPLICATION_FACTOR", "1").stdin(Stdio::null());
    command
}

/// Ends with the test.
struct Process {
    child: Child,
    listen: String,
}

impl Process {
    fn start(flow: &str, number: usize, logs: &Path) -> Process {
        let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let log = File::create(logs.join(format!("{flow}-{number}.log"))).unwrap();
        let mut command =
            command(&["run", flow, "--instance", &format!("flows-{number}"), "--listen", &listen]);
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        Process { child, listen }
    }

    fn ready(&self) -> bool {
        ureq::get(format!("http://{}/readyz", self.listen)).call().is_ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ended already is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Waits until nothing moves for three seconds, looking at what must hold meanwhile.
fn quiet(live: &dyn Live) -> Vec<Violation> {
    let (mut seen, mut since, mut found) = (None, Instant::now(), Vec::new());
    while since.elapsed() < Duration::from_secs(3) {
        found.extend(live.watch());
        let now = live.progress().ok();
        if now.is_none() || now != seen {
            (seen, since) = (now, Instant::now());
        }
        sleep(Duration::from_millis(300));
    }
    found
}

/// Drives it for so long; what must hold all the time is looked at meanwhile.
fn load(live: &dyn Live, time: Duration) -> u64 {
    let stop = Halt::default();
    scope(|threads| {
        let records = threads.spawn(|| live.load(&stop).unwrap());
        let begun = Instant::now();
        while begun.elapsed() < time {
            let found = live.watch();
            assert!(found.is_empty(), "{found:#?}");
            sleep(Duration::from_millis(300));
        }
        stop.halt();
        records.join().unwrap()
    })
}

fn drive(flow: &dyn Flow, world: &World) {
    let name = flow.name();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    let dir = std::env::temp_dir().join(format!("fhirehose-flows-{name}-{now}"));
    fs::create_dir_all(&dir).unwrap();
    let open = |tag: String| {
        let run = Run { seed: 4, tag, rate: 300.0, poison: 0.01, dir: dir.clone(), begin: Begin::AtEnds };
        flow.open(world, &run).unwrap()
    };

    let unread = open(format!("f{now}a"));
    let records = load(&*unread, Duration::from_secs(2));
    assert!(records > 300, "{name}: {records} records");
    let missing = unread.check().unwrap();
    assert!(!missing.is_empty(), "{name}: nothing was processed, and nothing is missing");
    for breach in missing {
        eprintln!("{name}, before: {} {} of {records} {}", breach.invariant, breach.count, breach.what);
    }

    let live = open(format!("f{now}b"));
    let processes: Vec<_> = (0..2).map(|number| Process::start(name, number, &dir)).collect();
    let begun = Instant::now();
    while !processes.iter().all(Process::ready) {
        assert!(begun.elapsed() < Duration::from_secs(90), "{name} is not ready: {}", dir.display());
        sleep(Duration::from_millis(200));
    }
    load(&*live, Duration::from_secs(5));
    let begun = Instant::now();
    loop {
        let watched = quiet(&*live);
        assert!(watched.is_empty(), "{name}: {watched:#?}");
        let found = live.check().unwrap();
        if found.is_empty() {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(90), "{name}, {}: {found:#?}", dir.display());
    }
    drop(processes);
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn every_flow_without_faults() {
    let Ok(only) = std::env::var("FHIREHOSE_TEST_FLOW") else {
        eprintln!(
            "SKIPPED: name a flow, or `all`, in FHIREHOSE_TEST_FLOW; it wants a stack that nobody else uses"
        );
        return;
    };
    let world = World::from_env(root()).unwrap();
    for prepare in ["topics", "migrate"] {
        let output = command(&[prepare, "apply"]).output().unwrap();
        assert!(output.status.success(), "{prepare}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let wanted: Vec<_> =
        flows::all().into_iter().filter(|flow| only == "all" || only == flow.name()).collect();
    assert!(!wanted.is_empty(), "no flow {only}");
    for flow in wanted {
        drive(flow, &world);
        eprintln!("{}: no violation", flow.name());
    }
}
