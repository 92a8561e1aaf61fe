//! Contestants that are programs of their own.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value as Json;

/// Where `cargo xtask bench shapes` has put the packages.
const PEERS: &str = "FHIREHOSE_BENCH_PEERS";

/// How many things were made in how many CPU seconds.
#[derive(Clone, Copy)]
pub struct Turn {
    pub count: f64,
    pub cpu: f64,
}

/// A contestant against ours.
pub trait Peer {
    /// Name and version.
    fn name(&self) -> &str;

    /// What it makes of a case, or why nothing.
    fn made(&mut self, case: usize) -> Result<Vec<Json>, String>;

    /// Works on a case for at least so many CPU seconds.
    fn turn(&mut self, case: usize, seconds: f64) -> Result<Turn>;
}

/// A script of `benches/peers` that does not end between its turns; how it is spoken to is in `turns.py`.
pub struct Script {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    answers: Vec<Json>,
}

/// A package that the scripts run on, by the folder it is installed in: its name and version.
#[derive(Clone, Copy)]
pub enum Package {
    Python(&'static str),
    Node(&'static str),
}

impl Script {
    /// Starts a script and lets it make all cases once.
    pub fn start(root: &Path, package: Package, script: &str, cases: &[Json]) -> Result<Script> {
        let (Package::Python(folder) | Package::Node(folder)) = package;
        let folder = packages()?.join(folder);
        let mut command = match package {
            Package::Python(_) => Command::new(folder.join("bin/python")),
            Package::Node(_) => Command::new("node"),
        };
        command.arg(root.join("benches/peers").join(script)).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.env("NODE_PATH", folder.join("node_modules")).env("PYTHONDONTWRITEBYTECODE", "1");
        let mut child = command.spawn().with_context(|| format!("cannot start {script}"))?;
        let (input, output) = (child.stdin.take(), child.stdout.take().context("no standard output")?);
        let name = folder.file_name().unwrap_or_default().to_string_lossy().replace('-', " ");
        let mut started = Script { name, child, input, output: BufReader::new(output), answers: Vec::new() };
        let cases = Json::Array(cases.to_vec());
        let Json::Array(answers) = started.ask(&cases.to_string()).with_context(|| script.to_owned())? else {
            bail!("{script}: no list of what it made");
        };
        started.answers = answers;
        Ok(started)
    }

    fn ask(&mut self, line: &str) -> Result<Json> {
        let input = self.input.as_mut().context("it was told to end")?;
        let asked = writeln!(input, "{line}").and_then(|()| input.flush());
        let mut answer = String::new();
        if asked.is_err() || self.output.read_line(&mut answer)? == 0 {
            bail!("{} ended without an answer", self.name);
        }
        Ok(serde_json::from_str(&answer)?)
    }
}

impl Peer for Script {
    fn name(&self) -> &str {
        &self.name
    }

    fn made(&mut self, case: usize) -> Result<Vec<Json>, String> {
        let answer = self.answers.get(case).ok_or("it knows of no such case")?;
        if let Some(error) = answer["error"].as_str() {
            return Err(error.to_owned());
        }
        let made = answer["made"].as_array().ok_or("it has not said what it made")?;
        // Where texts are what is made, what they hold counts.
        let read = |made: &Json| match made {
            Json::String(text) => serde_json::from_str(text).map_err(|error| error.to_string()),
            made => Ok(made.clone()),
        };
        made.iter().map(read).collect()
    }

    fn turn(&mut self, case: usize, seconds: f64) -> Result<Turn> {
        let told = self.ask(&format!("{case} {seconds}"))?;
        let number = |name: &str| told[name].as_f64().with_context(|| format!("a turn without {name}"));
        Ok(Turn { count: number("count")?, cpu: number("cpu")? })
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        // It ends with its input, or at once where it is still at work.
        self.input = None;
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn packages() -> Result<PathBuf> {
    let folder = std::env::var_os(PEERS).map(PathBuf::from);
    folder.with_context(|| {
        format!("{PEERS} is not set: `cargo xtask bench shapes` installs the peers and sets it")
    })
}
