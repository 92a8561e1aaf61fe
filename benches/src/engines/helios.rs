//! The runner of the crate helios-sof, which is not installed by us: its build takes gigabytes and most of an hour.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value as Json;

use super::peer::{Peer, Turn};
use crate::machine::children_cpu;

/// Its program `sof-cli`.
pub const PROGRAM: &str = "FHIREHOSE_BENCH_HELIOS";
/// How often a turn's file holds all resources, so that starting the program matters little.
pub const COPIES: usize = 25;

/// `sof-cli`, started anew for each pass.
pub struct Helios {
    name: String,
    program: PathBuf,
    cases: Vec<Case>,
    folder: PathBuf,
}

struct Case {
    view: PathBuf,
    once: PathBuf,
    often: PathBuf,
}

impl Helios {
    /// Where the program is named; `cases` as the scripts get them.
    pub fn of_environment(cases: &[Json]) -> Result<Option<Helios>> {
        let Some(program) = std::env::var_os(PROGRAM).map(PathBuf::from) else { return Ok(None) };
        let told = Command::new(&program).arg("--version").output();
        let told = told.with_context(|| format!("{PROGRAM}: {}", program.display()))?;
        let version = String::from_utf8_lossy(&told.stdout).trim().to_owned();
        let folder = std::env::temp_dir().join(format!("fhirehose-bench-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let write = |(number, case): (usize, &Json)| -> Result<Case> {
            let file = |name: &str, text: String| -> Result<PathBuf> {
                let file = folder.join(format!("{number}-{name}"));
                fs::write(&file, text)?;
                Ok(file)
            };
            let resources = case["resources"].as_array().context("a case has resources")?;
            let lines: String =
                resources.iter().filter_map(Json::as_str).map(|line| format!("{line}\n")).collect();
            Ok(Case {
                view: file("view.json", case["view"].to_string())?,
                often: file("often.ndjson", lines.repeat(COPIES))?,
                once: file("once.ndjson", lines)?,
            })
        };
        let cases = cases.iter().enumerate().map(write).collect::<Result<_>>()?;
        let name = if version.is_empty() { "sof-cli".to_owned() } else { version };
        Ok(Some(Helios { name, program, cases, folder }))
    }

    fn rows(&self, case: usize, often: bool) -> Result<Vec<u8>> {
        let case = self.cases.get(case).context("no such case")?;
        let input = if often { &case.often } else { &case.once };
        let mut command = Command::new(&self.program);
        command.arg("--view").arg(&case.view).arg("--bundle").arg(input);
        let output = command.args(["--format", "ndjson", "--threads", "1"]).stderr(Stdio::null()).output()?;
        if !output.status.success() {
            bail!("it ended with {}", output.status);
        }
        Ok(output.stdout)
    }
}

fn lines(rows: &[u8]) -> impl Iterator<Item = &[u8]> {
    rows.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

impl Peer for Helios {
    fn name(&self) -> &str {
        &self.name
    }

    fn made(&mut self, case: usize) -> Result<Vec<Json>, String> {
        let rows = self.rows(case, false).map_err(|error| error.to_string())?;
        lines(&rows).map(|row| serde_json::from_slice(row).map_err(|error| error.to_string())).collect()
    }

    fn turn(&mut self, case: usize, seconds: f64) -> Result<Turn> {
        let begun = children_cpu()?;
        let mut turn = Turn { count: 0.0, cpu: 0.0 };
        while turn.cpu < seconds {
            turn.count += lines(&self.rows(case, true)?).count() as f64;
            turn.cpu = children_cpu()? - begun;
        }
        Ok(turn)
    }
}

impl Drop for Helios {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.folder));
    }
}
