//! Row changes of `clinical_data.vital_signs` as Debezium's JSON converter writes them, and what a change says
//! when it is read back.

use std::collections::VecDeque;
use std::sync::Arc;

use anyhow::Result;
use jiff::Timestamp;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::Deserialize;

use crate::flow::Run;
use crate::flows::session::Source;
use crate::ledger::load::Input;

pub(super) const TOPIC: &str = "cdc.chaos.clinical_data.vital_signs";
pub(super) const TENANT: &str = "chaos";
pub(super) const SOURCE: &str = "chaos";
/// Africa/Khartoum, where the source's clock stands.
const ZONE_SECONDS: i64 = 7200;
/// Rows a partition's log goes on changing.
const LIVE: usize = 400;
/// Records Debezium may send again: many, so that a restart of the product often falls among them.
const AGAIN: usize = 300;

/// The logs of a run, one a partition: a row stays where it began.
pub(super) struct VitalSigns {
    tag: String,
    topic: Arc<str>,
    poison: f64,
    rng: ChaCha8Rng,
    logs: Vec<Log>,
    turn: usize,
    /// Counts changes: position in the binlog, and the time the source committed, both never the same twice.
    changes: i64,
    began: Timestamp,
}

#[derive(Default)]
struct Log {
    rows: Vec<Row>,
    made: u64,
    sent: VecDeque<Input>,
    /// What is being sent again, record by record as everything is.
    again: VecDeque<Input>,
}

#[derive(Clone)]
struct Row {
    id: String,
    patient: u64,
    at: i64,
    heart_rate: Option<u32>,
    tenths: u32,
    saturation: Option<u32>,
    site: &'static str,
}

impl VitalSigns {
    pub fn new(run: &Run, partitions: i32) -> VitalSigns {
        VitalSigns {
            tag: run.tag.clone(),
            topic: TOPIC.into(),
            poison: run.poison,
            rng: ChaCha8Rng::seed_from_u64(run.seed),
            logs: (0..partitions.max(1)).map(|_| Log::default()).collect(),
            turn: 0,
            changes: 0,
            began: Timestamp::now(),
        }
    }

    fn row(&mut self, log: usize) -> Row {
        let rng = &mut self.rng;
        let number = self.logs[log].made;
        self.logs[log].made += 1;
        Row {
            id: format!("{}-{log}-{number}", self.tag),
            patient: rng.random_range(0..40),
            at: self.began.as_second() - rng.random_range(0..3600),
            heart_rate: Some(rng.random_range(40..200)),
            tenths: rng.random_range(350..420),
            saturation: rng.random_bool(0.3).then(|| rng.random_range(80..100)),
            site: "oral",
        }
    }

    fn change(&mut self, log: usize, op: char, before: Option<&Row>, after: Option<&Row>) -> Input {
        self.changes += 1;
        let ts = self.began.as_millisecond() - 600_000 + self.changes;
        let id = before.or(after).map_or("", |row| &row.id);
        let mut value = String::with_capacity(2_000);
        value.push_str("{\"before\":");
        self.write_row(&mut value, log, before);
        value.push_str(",\"after\":");
        self.write_row(&mut value, log, after);
        value.push_str(&format!(
            r#","source":{{"version":"3.5.0.Final","connector":"mariadb","name":"cdc.{SOURCE}","ts_ms":{ts},"snapshot":"false","db":"clinical_data","sequence":null,"ts_us":{ts}000,"ts_ns":{ts}000000,"table":"vital_signs","server_id":101,"gtid":"0-101-{change}","file":"binlog.000007","pos":{pos},"row":0,"thread":null,"query":null}},"transaction":null,"op":"{op}","ts_ms":{ts},"ts_us":{ts}000,"ts_ns":{ts}000000}}"#,
            change = self.changes,
            pos = self.changes * 64,
        ));
        self.input(log, format!("{{\"id\":\"{id}\"}}"), Some(value.into_bytes()))
    }

    fn write_row(&self, to: &mut String, log: usize, row: Option<&Row>) {
        let Some(row) = row else { return to.push_str("null") };
        let time = Timestamp::from_second(row.at + ZONE_SECONDS).unwrap_or_default();
        let created = Timestamp::from_second(row.at).unwrap_or_default();
        let (heart_rate, saturation) = (number(row.heart_rate), quoted(row.saturation));
        to.push_str(&format!(
            r#"{{"id":"{id}","patient_id":"{tag}-{log}-p{patient}","encounter_id":"{tag}-{log}-e{patient}","observation_time":"{time}","temperature":"{whole}.{tenth}","temperature_site":"{site}","heart_rate":{heart_rate},"respiratory_rate":null,"blood_pressure_systolic":null,"blood_pressure_diastolic":null,"blood_pressure_position":null,"oxygen_saturation":{saturation},"oxygen_flow_rate":null,"oxygen_delivery_method":null,"height":null,"weight":null,"bmi":null,"pain_score":null,"glasgow_coma_scale":null,"recorded_by":"{tag}-u1","device_id":null,"is_manual_entry":1,"notes":null,"created_at":"{created}"}}"#,
            id = row.id,
            tag = self.tag,
            patient = row.patient,
            whole = row.tenths / 10,
            tenth = row.tenths % 10,
            site = row.site,
        ));
    }

    fn input(&self, log: usize, key: String, value: Option<Vec<u8>>) -> Input {
        let partition = i32::try_from(log).ok();
        Input { topic: self.topic.clone(), partition, key: key.into_bytes(), value, ..Input::default() }
    }

    /// A change that must be refused, of a row nobody changes again.
    fn poison(&mut self, log: usize) -> Input {
        let mut row = self.row(log);
        let kind = self.rng.random_range(0..400);
        match kind {
            0 => {
                let mut input = self.change(log, 'c', None, Some(&row));
                // Above what the product takes, below what the topic does.
                let notes = vec![b'x'; 10_000_000];
                if let Some(value) = &mut input.value {
                    let at = value.windows(12).position(|part| part == b"\"notes\":null").unwrap_or(0);
                    value.splice(at + 8..at + 12, [b"\"".to_vec(), notes, b"\"".to_vec()].concat());
                }
                input
            }
            1..100 => {
                row.heart_rate = Some(900);
                self.change(log, 'c', None, Some(&row))
            }
            100..200 => {
                row.site = "nowhere";
                self.change(log, 'c', None, Some(&row))
            }
            200..300 => {
                let mut input = self.change(log, 'c', None, Some(&row));
                let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
                let text = String::from_utf8_lossy(input.value.as_deref().unwrap_or_default())
                    .replace("\"notes\":null", &format!("\"notes\":{deep}"));
                input.value = Some(text.into_bytes());
                input
            }
            _ => {
                let mut input = self.change(log, 'c', None, Some(&row));
                if let Some(value) = &mut input.value {
                    value.truncate(self.rng.random_range(1..value.len()));
                }
                input
            }
        }
    }

    fn update(&mut self, log: usize) -> Input {
        let index = self.rng.random_range(0..self.logs[log].rows.len());
        let before = self.logs[log].rows[index].clone();
        let mut after = before.clone();
        match self.rng.random_range(0..10) {
            0 => after.heart_rate = None,
            1 => after.at -= 60,
            2 => after.saturation = Some(self.rng.random_range(80..100)),
            3 => after.saturation = None,
            4 => after.tenths = self.rng.random_range(350..420),
            _ => after.heart_rate = Some(self.rng.random_range(40..200)),
        }
        self.logs[log].rows[index] = after.clone();
        self.change(log, 'u', Some(&before), Some(&after))
    }

    /// The next changes of a log, as its source makes them.
    fn fresh(&mut self, log: usize) -> Vec<Input> {
        if self.rng.random_bool(self.poison) {
            return vec![self.poison(log)];
        }
        let rows = self.logs[log].rows.len();
        let wanted = if rows >= LIVE { 70..100 } else { 0..100 };
        match self.rng.random_range(wanted) {
            0..55 => {}
            55..90 if rows > 0 => return vec![self.update(log)],
            90.. if rows > 0 => {
                let index = self.rng.random_range(0..rows);
                let gone = self.logs[log].rows.swap_remove(index);
                let delete = self.change(log, 'd', Some(&gone), None);
                let tombstone = Input { value: None, ..delete.clone() };
                return vec![delete, tombstone];
            }
            _ => {}
        }
        let row = self.row(log);
        let create = self.change(log, 'c', None, Some(&row));
        self.logs[log].rows.push(row);
        vec![create]
    }
}

impl Source for VitalSigns {
    fn step(&mut self) -> Result<Vec<Input>> {
        self.turn = (self.turn + 1) % self.logs.len();
        let log = self.turn;
        // A connector that restarts sends a stretch again, as it was, and goes on after it.
        let sent = self.logs[log].sent.len();
        if sent > 0 && self.rng.random_ratio(1, 1000) {
            let from = self.rng.random_range(0..sent);
            self.logs[log].again = self.logs[log].sent.range(from..).cloned().collect();
        }
        if let Some(input) = self.logs[log].again.pop_front() {
            return Ok(vec![input]);
        }
        let inputs = self.fresh(log);
        let sent = &mut self.logs[log].sent;
        sent.extend(
            inputs.iter().filter(|input| input.value.as_ref().is_none_or(|v| v.len() < 9_000)).cloned(),
        );
        while sent.len() > AGAIN {
            sent.pop_front();
        }
        Ok(inputs)
    }

    fn partitions(&mut self, count: i32) {
        let count = usize::try_from(count).unwrap_or_default();
        self.logs.resize_with(count.max(self.logs.len()), Log::default);
    }

    fn unseen(&mut self) -> Result<Vec<Input>> {
        let log = self.turn;
        let row = self.row(log);
        Ok(vec![self.change(log, 'c', None, Some(&row))])
    }
}

fn number(value: Option<u32>) -> String {
    value.map_or_else(|| "null".to_owned(), |value| value.to_string())
}

fn quoted(value: Option<u32>) -> String {
    value.map_or_else(|| "null".to_owned(), |value| format!("\"{value}.00\""))
}

/// A change as it was read back: only what outputs are made of.
#[derive(Deserialize)]
pub(super) struct Change {
    pub op: String,
    pub before: Option<Measured>,
    pub after: Option<Measured>,
    pub source: Position,
}

#[derive(Deserialize)]
pub(super) struct Position {
    pub ts_ms: i64,
    pub pos: i64,
}

#[derive(Deserialize)]
pub(super) struct Measured {
    pub id: String,
    pub patient_id: String,
    pub encounter_id: String,
    observation_time: String,
    pub temperature: Option<String>,
    pub temperature_site: Option<String>,
    pub heart_rate: Option<f64>,
    pub oxygen_saturation: Option<String>,
    /// Only text is a note.
    #[serde(rename = "notes")]
    _notes: Option<String>,
}

impl Change {
    /// `None` for what is no readable change.
    pub fn read(value: &[u8]) -> Option<Change> {
        if value.len() > 1_000_000 { None } else { serde_json::from_slice(value).ok() }
    }
}

impl Measured {
    /// When it was measured, milliseconds since the epoch: the column holds what a clock in the zone showed.
    pub fn at_ms(&self) -> i64 {
        let local: Option<Timestamp> = self.observation_time.parse().ok();
        local.map_or(0, |local| local.as_millisecond() - ZONE_SECONDS * 1000)
    }
}
