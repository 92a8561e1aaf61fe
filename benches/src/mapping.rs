//! CPU time of normalize-cdc alone: decode, map, encode.

use anyhow::Result;
use fhirehose_codec::{ChangeEvent, decode};
use fhirehose_stream::{Outputs, Processor};
use fhirehose_tape::Tape;

use crate::changes::{Format, Table};
use crate::figure::{Figure, Goal, Section, Spread, Unit};
use crate::machine::thread_cpu;
use crate::shapes::{Shapes, batch, process};

const RECORDS: u64 = 1_000;
const ROUNDS: usize = 7;
/// CPU seconds per round and kind of record.
const ROUND: f64 = 0.3;
const GOAL_MICROSECONDS: f64 = 4.0;

/// A kind of input, and the µs per record of each round.
struct Kind {
    table: Table,
    format: Format,
    outputs: f64,
    bytes: f64,
    whole: Vec<f64>,
    decoding: Vec<f64>,
}

pub fn measure(shapes: &Shapes) -> Result<Section> {
    let mut kinds = Vec::new();
    for table in Table::ALL {
        for format in Format::ALL {
            kinds.push((
                Kind { table, format, outputs: 0.0, bytes: 0.0, whole: Vec::new(), decoding: Vec::new() },
                shapes.normalize_cdc()?,
                batch(
                    &(1..=RECORDS)
                        .map(|n| shapes.changes.change(table, format, n * 7, 1_790_812_800_000))
                        .collect::<Result<Vec<_>>>()?,
                ),
            ));
        }
    }
    let (mut out, mut tape) = (Outputs::default(), Tape::new());
    for _ in 0..ROUNDS {
        for (kind, processor, batch) in &mut kinds {
            kind.outputs = process(processor, batch, &mut out)? as f64 / batch.len() as f64;
            kind.bytes = batch.bytes() as f64 / batch.len() as f64;
            // Undone, the same records are new again.
            processor.aborted();
            kind.whole.push(per_record(batch.len(), || {
                process(processor, batch, &mut out)?;
                processor.aborted();
                Ok(())
            })?);
            kind.decoding.push(per_record(batch.len(), || {
                for record in batch.iter() {
                    decode(record.value().unwrap_or_default(), &*shapes.schemas, &mut tape)?;
                    std::hint::black_box(ChangeEvent::read(&tape)?);
                }
                Ok(())
            })?);
        }
    }
    Ok(Section {
        title: "CPU time of decode, map and encode",
        how: format!(
            "`normalize-cdc` in this process, batches of {RECORDS} new rows, thread CPU time, {ROUNDS} rounds over all \
             kinds in turn. A row of vital signs becomes one Observation per measure and one sample; the goal is \
             read per record written."
        ),
        figures: kinds.into_iter().flat_map(|(kind, ..)| figures(kind)).collect(),
    })
}

fn figures(kind: Kind) -> Vec<Figure> {
    let name = format!("{}, {}", kind.table.name(), kind.format.name());
    let decoding = Spread::of(&kind.decoding).median;
    let per_output: Vec<f64> = kind.whole.iter().map(|us| us / kind.outputs).collect();
    let figure = |what, measured, rounds: &[f64], goal| Figure {
        what,
        measured,
        value: Spread::of(rounds),
        unit: Unit::Microseconds,
        goal,
    };
    let bytes_and_records = format!(
        "{:.0} bytes in, {:.2} records out; decoding alone {decoding:.1} µs",
        kind.bytes, kind.outputs
    );
    if kind.outputs == 1.0 {
        return vec![figure(name, bytes_and_records, &kind.whole, Goal::AtMost(GOAL_MICROSECONDS))];
    }
    vec![
        figure(format!("{name}: per record read"), bytes_and_records, &kind.whole, Goal::None),
        figure(
            format!("{name}: per record written"),
            "the same, divided by the records out".into(),
            &per_output,
            Goal::AtMost(GOAL_MICROSECONDS),
        ),
    ]
}

/// CPU µs per record of a loop that handles `records` at each turn.
fn per_record(records: usize, mut turn: impl FnMut() -> Result<()>) -> Result<f64> {
    let start = thread_cpu()?;
    let mut turns = 0_u32;
    loop {
        turn()?;
        turns += 1;
        let used = thread_cpu()? - start;
        if used > ROUND {
            return Ok(used * 1e6 / f64::from(turns) / records as f64);
        }
    }
}
