//! The reference store of `enrich` through its real path: how long a process takes to have it, read from the
//! topic and from a snapshot, and what an entry costs in memory.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::admin::is_ready;
use crate::changes::{Format, Table};
use crate::figure::{Figure, Goal, Section, Spread, Unit};
use crate::kafka::{Group, Writer};
use crate::machine::memory;
use crate::shapes::{Shapes, batch, outputs_of, process};
use crate::stack::Stack;

const ROUNDS: usize = 3;
const PORT: u16 = 9484;
/// Beyond the numbers of rows that other figures write.
const FIRST: u64 = 10_000_000;
/// Rows made at a time.
const CHUNK: u64 = 1_000;
const PATIENCE: Duration = Duration::from_secs(600);

/// One start of the process.
struct Start {
    ready: Duration,
    mebibytes: f64,
    /// To end, with the snapshot written.
    ended: Duration,
}

pub fn measure(stack: &Stack, shapes: &Shapes, targets: u64) -> Result<Section> {
    let folder = stack.state()?;
    skip(stack)?;
    let bare = [rounds(stack, &folder, true)?, rounds(stack, &folder, false)?];
    let bare_size = size(&folder)?;
    let bytes = fill(stack, shapes, targets)? as f64 / targets as f64;
    skip(stack)?;
    let read = rounds(stack, &folder, true)?;
    let restored = rounds(stack, &folder, false)?;
    let saved = size(&folder)? - bare_size;
    fs::remove_dir_all(&folder)?;
    if saved < targets as f64 {
        bail!("the patients were there before: begin with an empty stack");
    }

    let seconds = |starts: &[Start], of: fn(&Start) -> Duration| -> Vec<f64> {
        starts.iter().map(|start| of(start).as_secs_f64()).collect()
    };
    let ready = |start: &Start| start.ready;
    let ended = |start: &Start| start.ended;
    let median = |rounds: &[f64]| Spread::of(rounds).median;
    let resident = |starts: &[Start]| median(&starts.iter().map(|start| start.mebibytes).collect::<Vec<_>>());
    // Each less that of the same way without the patients.
    let each = |starts: &[Start], bare: &[Start]| -> Vec<f64> {
        let empty = resident(bare);
        starts.iter().map(|start| (start.mebibytes - empty) * 1_048_576.0 / targets as f64).collect()
    };
    let alone = |bare: &[Start]| format!("without the patients {:.2} s", median(&seconds(bare, ready)));
    let figure = |what: &str, measured: String, rounds: &[f64], unit, goal| Figure {
        what: what.into(),
        measured,
        value: Spread::of(rounds),
        unit,
        goal,
    };
    let of_file = format!("the snapshot has {:.0} bytes per patient", saved / targets as f64);
    Ok(Section {
        title: "Reference store of enrich",
        how: format!(
            "`fhirehose run enrich` after {targets} patients were written to `fhir.patient` ({bytes:.0} bytes each, before \
             compression), its group at the topics' ends: from the start of the process until it is ready, {ROUNDS} times \
             without a snapshot and {ROUNDS} times with the one the stop before has written. Memory is the resident set of \
             the process once it is ready, less that of the same process before the patients were there ({:.0} MiB), per \
             patient.",
            resident(&bare[0])
        ),
        figures: vec![
            figure(
                "start to ready, read from the topic",
                alone(&bare[0]),
                &seconds(&read, ready),
                Unit::Seconds,
                Goal::None,
            ),
            figure(
                "start to ready, from the snapshot",
                alone(&bare[1]),
                &seconds(&restored, ready),
                Unit::Seconds,
                Goal::None,
            ),
            figure(
                "asked to end until ended, snapshot written",
                format!("without the patients {:.2} s; {of_file}", median(&seconds(&bare[1], ended))),
                &seconds(&restored, ended),
                Unit::Seconds,
                Goal::None,
            ),
            figure(
                "memory per entry, read from the topic",
                "what fetching and decoding took and the allocator has kept is counted in".into(),
                &each(&read, &bare[0]),
                Unit::Bytes,
                Goal::AtMost(150.0),
            ),
            figure(
                "memory per entry, from the snapshot",
                "key, values and their place in the table".into(),
                &each(&restored, &bare[1]),
                Unit::Bytes,
                Goal::AtMost(150.0),
            ),
        ],
    })
}

/// Bytes of the snapshots in the folder.
fn size(folder: &Path) -> Result<f64> {
    let files = fs::read_dir(folder)?.map(|file| Ok(file?.metadata()?.len() as f64));
    files.sum()
}

/// Leaves nothing to enrich: the tables alone are measured.
fn skip(stack: &Stack) -> Result<()> {
    Group::of(&stack.brokers, "enrich", |topic| topic.starts_with("fhir."))?.skip()
}

/// Writes the patients; returns the bytes of their records.
fn fill(stack: &Stack, shapes: &Shapes, targets: u64) -> Result<usize> {
    let mut normalize = shapes.normalize_cdc_with(&stack.schema_ids(&shapes.topics)?)?;
    let writer = Writer::connect(&stack.brokers)?;
    let mut bytes = 0;
    for first in (FIRST..FIRST + targets).step_by(CHUNK as usize) {
        let row = |number| shapes.changes.change(Table::Patients, Format::Json, number, 1_790_812_800_000);
        let last = (first + CHUNK).min(FIRST + targets);
        let rows = (first..last).map(row).collect::<Result<Vec<_>>>()?;
        let mut out = Default::default();
        process(&mut normalize, &batch(&rows), &mut out)?;
        for record in outputs_of("fhir.patient", &out, 0).iter() {
            let (key, value) = (record.key().unwrap_or_default(), record.value().unwrap_or_default());
            bytes += key.len() + value.len();
            writer.send(record.topic(), key, value, None)?;
        }
    }
    writer.flush()?;
    Ok(bytes)
}

fn rounds(stack: &Stack, folder: &Path, from_topic: bool) -> Result<Vec<Start>> {
    let mut starts = Vec::new();
    for _ in 0..ROUNDS {
        if from_topic {
            fs::remove_dir_all(folder)?;
            fs::create_dir(folder)?;
        }
        let begun = Instant::now();
        let state = folder.to_str().context("the state folder's name")?;
        let mut running =
            stack.run_as("enrich", "enrich", PORT, &[("FHIREHOSE__RUNTIME__STATE_DIR", state)])?;
        while !is_ready(PORT) {
            running.check().with_context(|| stack.log("enrich"))?;
            if begun.elapsed() > PATIENCE {
                bail!("enrich is not ready: {}", stack.log("enrich"));
            }
            sleep(Duration::from_millis(20));
        }
        let ready = begun.elapsed();
        sleep(Duration::from_secs(2));
        let (mebibytes, _) = memory(running.pid())?;
        let asked = Instant::now();
        running.ask_to_end()?;
        while !running.has_ended()? {
            sleep(Duration::from_millis(10));
        }
        starts.push(Start { ready, mebibytes, ended: asked.elapsed() });
    }
    Ok(starts)
}
