//! The PostgreSQL sinks against the plainest way to get the same rows into equal tables: binary COPY, and
//! COPY into a temporary table with one upsert.

use std::io::{Read, Write};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use fhirehose_pgsink::migrate;
use fhirehose_stream::{Batch, Outputs, Processor, Sink, TopicPartition, Verdict};
use postgres::Client;

use crate::changes::{Format, Table};
use crate::figure::{Figure, Goal, Section, Spread, Unit};
use crate::shapes::{Shapes, batch, outputs_of, process};
use crate::stack::Stack;

/// Records of a transaction, as in the runtime's default.
const BATCH: u64 = 2_000;
const ROUNDS: u64 = 6;
/// Transactions of a round.
const BATCHES: u64 = 5;
const PIECE: usize = 256 * 1024;
const VERSION_OF_OFFSET: i64 = 1 << 8;

/// A table the sink fills, and its equal that the peer fills.
struct Pair<'a> {
    /// Topic of the records, and the topic whose offsets are in the rows' versions.
    topic: &'a str,
    versions: &'a str,
    table: &'a str,
    key: &'a str,
    /// Whether the peer upserts; else it copies straight.
    upsert: bool,
}

pub fn measure(stack: &Stack, shapes: &Shapes) -> Result<Section> {
    let (url, mut client) = stack.database("bench_timescale")?;
    migrate::apply(&url, &shapes.root.join("schemas/sql"), migrate::TIMESCALE, |_| {})?;
    client.batch_execute(
        "CREATE TABLE public.peer (LIKE public.vital_signs_timeseries INCLUDING ALL); \
         SELECT create_hypertable('public.peer', by_range('observed_at', INTERVAL '1 day'), create_default_indexes => false)",
    )?;
    let (topics, schemas) = (shapes.topics.clone(), shapes.schemas.clone());
    let mut sink = sink_timescale::new(&url, "bench", &shapes.root, topics.clone(), schemas.clone(), 10_000)?;
    let vitals = Pair {
        topic: "vitals.sample",
        versions: "vitals.sample",
        table: "public.vital_signs_timeseries",
        key: "tenant_id, device_id, observed_at",
        upsert: false,
    };
    claim(&mut sink, &[vitals.topic])?;
    let timescale = vitals.compare(shapes, &mut client, &mut sink, &mut |first| samples(shapes, first))?;

    let (url, mut client) = stack.database("bench_warehouse")?;
    sink_warehouse::apply(&url, &shapes.root, &topics, |_| {})?;
    let mut sink = sink_warehouse::new(&url, "bench", &shapes.root, topics, schemas)?;
    let facts = Pair { table: "fact.vital_signs_fact", key: "tenant_id, sample_id", upsert: true, ..vitals };
    claim(&mut sink, &["vitals.sample", "enriched.encounter", "enriched.patient"])?;
    let mut enriched = Enriched::new(shapes)?;
    for first in (0..(ROUNDS + 1) * BATCHES * BATCH).step_by(BATCH as usize) {
        let patients = enriched.rows(Table::Patients, "patient", first)?;
        write(&mut sink, &patients)?;
    }
    client.batch_execute("CREATE TABLE public.peer (LIKE fact.vital_signs_fact INCLUDING ALL)")?;
    let warehouse_vitals =
        facts.compare(shapes, &mut client, &mut sink, &mut |first| samples(shapes, first))?;
    let stays = Pair {
        topic: "enriched.encounter",
        versions: "fhir.encounter",
        table: "fact.encounter_fact",
        key: "tenant_id, encounter_id",
        upsert: true,
    };
    client.batch_execute(
        "DROP TABLE public.peer; CREATE TABLE public.peer (LIKE fact.encounter_fact INCLUDING ALL)",
    )?;
    let warehouse_stays = stays.compare(shapes, &mut client, &mut sink, &mut |first| {
        enriched.rows(Table::Encounters, "encounter", first)
    })?;
    Ok(Section {
        title: "Sinks of PostgreSQL against plain statements",
        how: format!(
            "The sink's own code (decode, check, offsets, transaction) in this process on a database of its own; the peer \
             writes the very rows the sink has written, in ready binary form, into an equal table with equal indexes. \
             Transactions of {BATCH} rows, {ROUNDS} rounds of {BATCHES} transactions each, sink and peer in turn, wall \
             clock with the commit. All rows are new; patients were there before."
        ),
        figures: vec![
            timescale.figure("sink-timescale / binary COPY, rows/s: vital_signs_timeseries", 0.7),
            warehouse_vitals.figure(
                "sink-warehouse / COPY to a temporary table and upsert, rows/s: vital_signs_fact",
                0.8,
            ),
            warehouse_stays.figure("the same: encounter_fact", 0.8),
        ],
    })
}

/// Seconds per round.
#[derive(Default)]
struct Times {
    sink: Vec<f64>,
    peer: Vec<f64>,
}

impl Times {
    fn figure(&self, what: &str, goal: f64) -> Figure {
        let rows = (BATCHES * BATCH) as f64;
        let rate = |times: &[f64]| rows / Spread::of(times).median;
        let ratios: Vec<f64> = self.sink.iter().zip(&self.peer).map(|(sink, peer)| peer / sink).collect();
        Figure {
            what: what.into(),
            measured: format!("{:.0} against {:.0} rows/s", rate(&self.sink), rate(&self.peer)),
            value: Spread::of(&ratios),
            unit: Unit::Share,
            goal: Goal::AtLeast(goal),
        }
    }
}

impl Pair<'_> {
    /// `rows` makes the batch whose first record has that number and offset.
    fn compare(
        &self,
        shapes: &Shapes,
        client: &mut Client,
        sink: &mut dyn Sink,
        rows: &mut dyn FnMut(u64) -> Result<Batch>,
    ) -> Result<Times> {
        let columns = columns(client, self.table)?;
        let names = columns.join(", ");
        let statement = self.prepare(client, &columns)?;
        let version = |offset: u64| -> Result<i64> {
            Ok(shapes.topics.topic(self.versions).context("no such topic")?.version(offset as i64, 0))
        };
        let mut times = Times::default();
        // The first round warms both up.
        for round in 0..=ROUNDS {
            let firsts = (0..BATCHES).map(|batch| (round * BATCHES + batch) * BATCH);
            let batches = firsts.clone().map(&mut *rows).collect::<Result<Vec<_>>>()?;
            let begun = Instant::now();
            for batch in &batches {
                write(sink, batch)?;
            }
            let sink_seconds = begun.elapsed().as_secs_f64();
            let mut pieces = Vec::new();
            for first in firsts {
                let (from, to) = (version(first)?, version(first + BATCH)? - VERSION_OF_OFFSET);
                let mut bytes = Vec::new();
                client
                    .copy_out(&format!(
                        "COPY (SELECT {names} FROM {} WHERE version BETWEEN {from} AND {to} ORDER BY version) \
                         TO STDOUT (FORMAT binary)",
                        self.table
                    ))?
                    .read_to_end(&mut bytes)?;
                pieces.push(bytes);
            }
            let begun = Instant::now();
            let mut written = 0;
            for bytes in &pieces {
                written += self.copy(client, statement.as_ref(), &names, bytes)?;
            }
            let peer_seconds = begun.elapsed().as_secs_f64();
            if written != BATCHES * BATCH {
                bail!("{}: the peer has written {written} of {} rows", self.table, BATCHES * BATCH);
            }
            if round > 0 {
                times.sink.push(sink_seconds);
                times.peer.push(peer_seconds);
            }
        }
        Ok(times)
    }

    fn prepare(&self, client: &mut Client, columns: &[String]) -> Result<Option<postgres::Statement>> {
        if !self.upsert {
            return Ok(None);
        }
        let (names, key) = (columns.join(", "), self.key);
        let set: Vec<String> = columns
            .iter()
            .filter(|name| !key.split(", ").any(|key| key == **name))
            .map(|name| format!("{name} = excluded.{name}"))
            .collect();
        client.batch_execute(&format!(
            "DROP TABLE IF EXISTS stage; \
             CREATE TEMP TABLE stage ON COMMIT DELETE ROWS AS SELECT {names} FROM {} WITH NO DATA",
            self.table
        ))?;
        Ok(Some(client.prepare(&format!(
            "INSERT INTO public.peer AS t ({names}) \
             SELECT DISTINCT ON ({key}) {names} FROM stage ORDER BY {key}, version DESC \
             ON CONFLICT ({key}) DO UPDATE SET {} WHERE t.version < excluded.version",
            set.join(", ")
        ))?))
    }

    /// One transaction of the peer; returns the rows written.
    fn copy(
        &self,
        client: &mut Client,
        upsert: Option<&postgres::Statement>,
        names: &str,
        bytes: &[u8],
    ) -> Result<u64> {
        client.batch_execute("BEGIN")?;
        let target = if upsert.is_some() { "stage" } else { "public.peer" };
        let mut writer = client.copy_in(&format!("COPY {target} ({names}) FROM STDIN (FORMAT binary)"))?;
        for piece in bytes.chunks(PIECE) {
            writer.write_all(piece)?;
        }
        let mut written = writer.finish()?;
        if let Some(upsert) = upsert {
            written = client.execute(upsert, &[])?;
        }
        client.batch_execute("COMMIT")?;
        Ok(written)
    }
}

/// Columns that can be written, but for the one that tells when a row was loaded.
fn columns(client: &mut Client, table: &str) -> Result<Vec<String>> {
    let (schema, name) = table.split_once('.').context("the table has a schema")?;
    let rows = client.query(
        "SELECT column_name::text FROM information_schema.columns WHERE table_schema = $1 AND table_name = $2 \
         AND is_generated = 'NEVER' AND column_name <> 'loaded_at' ORDER BY ordinal_position",
        &[&schema, &name],
    )?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

fn claim(sink: &mut dyn Sink, topics: &[&str]) -> Result<()> {
    let partitions: Vec<_> =
        topics.iter().map(|topic| TopicPartition { topic: (*topic).into(), partition: 0 }).collect();
    sink.claim(&partitions)?;
    Ok(sink.start(&partitions.into_iter().map(|at| (at, 0)).collect::<Vec<_>>())?)
}

/// One transaction of the sink.
fn write(sink: &mut dyn Sink, batch: &Batch) -> Result<()> {
    let verdicts = sink.stage(batch)?;
    sink.commit()?;
    match verdicts.as_slice().iter().find(|verdict| !matches!(verdict, Verdict::Emit(_))) {
        None => Ok(()),
        Some(verdict) => bail!("a record of the bench was not taken: {verdict:?}"),
    }
}

/// Rows of vital signs as `vitals.sample`.
fn samples(shapes: &Shapes, first: u64) -> Result<Batch> {
    let out = normalized(shapes, Table::VitalSigns, first)?;
    Ok(outputs_of("vitals.sample", &out, first as i64))
}

/// What normalize-cdc makes of the rows with these numbers. Each refers to another patient.
fn normalized(shapes: &Shapes, table: Table, first: u64) -> Result<Outputs> {
    let rows = (first..first + BATCH)
        .map(|row| shapes.changes.change(table, Format::Json, row * 10, 1_790_812_800_000))
        .collect::<Result<Vec<_>>>()?;
    let mut out = Outputs::default();
    process(&mut shapes.normalize_cdc()?, &batch(&rows), &mut out)?;
    Ok(out)
}

/// Makes `enriched.*` as enrich does, with the patients it was given before as its reference store.
struct Enriched<'a> {
    shapes: &'a Shapes,
    enrich: enrich::Enrich,
}

impl Enriched<'_> {
    fn new(shapes: &Shapes) -> Result<Enriched<'_>> {
        Ok(Enriched { shapes, enrich: shapes.enrich()? })
    }

    fn rows(&mut self, table: Table, kind: &str, first: u64) -> Result<Batch> {
        let made = normalized(self.shapes, table, first)?;
        let resources = outputs_of(&format!("fhir.{kind}"), &made, first as i64);
        if table == Table::Patients {
            resources.iter().try_for_each(|record| self.enrich.table(record))?;
        }
        let mut out = Outputs::default();
        process(&mut self.enrich, &resources, &mut out)?;
        self.enrich.committed();
        Ok(outputs_of(&format!("enriched.{kind}"), &out, first as i64))
    }
}
