//! Inputs of sink-timescale: made from the seed, and judged from their bytes alone.

use std::sync::Arc;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use uuid::Uuid;

use super::avro::{Datum, Field, Schemas, Shape, named};
use super::stores::{RECORD_MAX_BYTES, SOURCE_TS, TOO_LARGE, UNKNOWN_SCHEMA, letter_print, long_text};
use crate::ledger::load::Input;
use crate::ledger::postgres::Cell;
use crate::ledger::state::{Row, Want, print};
use crate::ledger::topics::Record;

/// Every input of the sink, so that its partitions are work for more than one instance.
pub const TOPICS: [&str; 3] = ["vitals.sample", "device.metrics", "alert.emergency"];
/// Their numbers are those of the tables.
pub const SAMPLES: usize = 0;
const METRICS: usize = 1;
const ALERTS: usize = 2;
/// More than an index of PostgreSQL takes, also compressed.
const UNINDEXABLE: usize = 9_000;
const INDEXABLE: usize = 1_000;
/// Devices of every topic in turn, as many of each.
const DEVICES: usize = 54;
/// What all alerts are.
const ALERT: &str = "sos";
const DAY_MS: i64 = 86_400_000;
const RETENTION_DAYS: i64 = 1095;
/// As the files in topics/ have it.
const EPOCH: i64 = 1;

/// The writer's schemas.
pub struct Schemata {
    pub sample: u32,
    /// The same, but the patient may be null.
    pub loose: u32,
    pub metrics: Shape,
    pub alert: Shape,
}

struct Device {
    /// Which topic it writes to.
    topic: usize,
    id: String,
    patient: String,
    partition: i32,
    next_ms: i64,
    sent: Vec<i64>,
}

pub struct Generator<'s> {
    random: ChaCha8Rng,
    topics: [Arc<str>; 3],
    tenant: String,
    schemas: &'s Schemata,
    poison: f64,
    devices: Vec<Device>,
    start_ms: i64,
    made: u64,
}

impl<'s> Generator<'s> {
    pub fn new(
        seed: u64,
        tenant: &str,
        poison: f64,
        partitions: i32,
        schemas: &'s Schemata,
        now_ms: i64,
    ) -> Generator<'s> {
        let start_ms = now_ms - 6 * 3_600_000;
        let device = |at: usize| Device {
            topic: at % TOPICS.len(),
            // Alerts have no tenant in their key.
            id: format!("{tenant}-d{at}"),
            patient: Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{tenant}/{at}").as_bytes()).to_string(),
            partition: (at / TOPICS.len()) as i32 % partitions.max(1),
            next_ms: start_ms,
            sent: Vec::new(),
        };
        Generator {
            random: ChaCha8Rng::seed_from_u64(seed),
            topics: TOPICS.map(Arc::from),
            tenant: tenant.to_owned(),
            schemas,
            poison,
            devices: (0..DEVICES).map(device).collect(),
            start_ms,
            made: 0,
        }
    }

    pub fn next(&mut self, now_ms: i64) -> Input {
        self.made += 1;
        let at = self.random.random_range(0..DEVICES);
        if self.random.random_bool(self.poison) {
            return self.poisoned(at, now_ms);
        }
        let kind = self.random.random_range(0..1000);
        let earlier = self.earlier(at);
        match (kind, earlier) {
            // A newer version of a reading.
            (0..80, Some(ms)) => self.sample(at, ms, now_ms),
            (80..110, Some(ms)) => self.tombstone(at, ms, now_ms),
            // Of a reading that never was.
            (110..113, _) => self.tombstone(at, self.start_ms - 1, now_ms),
            (113..130, _) => {
                let ms = self.start_ms - self.random.random_range(DAY_MS..10 * DAY_MS);
                self.sample(at, ms, now_ms)
            }
            // Past the retention.
            (130..133, _) => self.sample(at, now_ms - 3650 * DAY_MS, now_ms),
            _ => {
                let step = self.random.random_range(200..1500);
                let device = &mut self.devices[at];
                device.next_ms += step;
                let ms = device.next_ms;
                device.sent.push(ms);
                self.sample(at, ms, now_ms)
            }
        }
    }

    fn earlier(&mut self, at: usize) -> Option<i64> {
        let sent = &self.devices[at].sent;
        (!sent.is_empty()).then(|| sent[self.random.random_range(0..sent.len())])
    }

    fn key(&self, at: usize, ms: i64) -> Vec<u8> {
        let Device { topic, id, .. } = &self.devices[at];
        match *topic {
            ALERTS => format!("{id}/{ALERT}/{ms}").into_bytes(),
            _ => format!("{}/{id}/{ms}", self.tenant).into_bytes(),
        }
    }

    fn made(&self, at: usize, key: Vec<u8>, value: Option<Vec<u8>>, now_ms: i64) -> Input {
        let headers = vec![(SOURCE_TS, now_ms.to_string())];
        Input {
            topic: self.topics[self.devices[at].topic].clone(),
            partition: Some(self.devices[at].partition),
            key,
            value,
            headers,
            timestamp: None,
        }
    }

    fn value(&mut self, at: usize, device: &str, patient: &str, ms: i64) -> Vec<u8> {
        let topic = self.devices[at].topic;
        if topic != SAMPLES {
            let battery = Field::Long(self.random.random_range(0..100));
            let shape = if topic == METRICS { &self.schemas.metrics } else { &self.schemas.alert };
            return shape.write(&[
                ("tenant", Field::Text(&self.tenant)),
                ("patient_id", Field::Text(patient)),
                ("device_id", Field::Text(device)),
                ("kind", Field::Text(ALERT)),
                ("observed_at", Field::Long(ms)),
                ("vendor", Field::Text("chaos")),
                ("battery", battery),
            ]);
        }
        let heart_rate = f64::from(self.random.random_range(45..180));
        let temperature = f64::from(self.random.random_range(3500..4100)) / 100.0;
        self.fields(Datum::of(self.schemas.sample).text(&self.tenant).text(patient), device, ms)
            .some_double(temperature)
            .some_double(heart_rate)
            .empty(4 + at % 2)
            .some_double(temperature + heart_rate)
            .empty(18 - at % 2)
            .end()
    }

    /// From the device to whether it was typed in.
    fn fields(&self, begun: Datum, device: &str, ms: i64) -> Datum {
        let event = self.made.to_string();
        begun.text(device).long(ms).empty(2).text("chaos").text(&event).empty(1)
    }

    fn sample(&mut self, at: usize, ms: i64, now_ms: i64) -> Input {
        let (device, patient) = (self.devices[at].id.clone(), self.devices[at].patient.clone());
        let value = self.value(at, &device, &patient, ms);
        self.made(at, self.key(at, ms), Some(value), now_ms)
    }

    fn tombstone(&self, at: usize, ms: i64, now_ms: i64) -> Input {
        self.made(at, self.key(at, ms), None, now_ms)
    }

    /// What must be rejected, under keys of good readings too: those must stay as they are.
    fn poisoned(&mut self, at: usize, now_ms: i64) -> Input {
        let ms = self.earlier(at).unwrap_or(self.start_ms);
        let key = self.key(at, ms);
        let (device, patient) = (self.devices[at].id.clone(), self.devices[at].patient.clone());
        let mut good = self.value(at, &device, &patient, ms);
        let value = match self.random.random_range(0..40) {
            0..8 => {
                let length = self.random.random_range(1..good.len());
                good.truncate(length);
                good
            }
            8..14 => {
                good.push(0);
                good
            }
            14..20 => {
                good[1..5].copy_from_slice(&UNKNOWN_SCHEMA.to_be_bytes());
                good
            }
            20..26 if self.devices[at].topic == SAMPLES => {
                // The patient's union: null.
                let begun = Datum::of(self.schemas.loose).text(&self.tenant).empty(1);
                self.fields(begun, &device, ms).empty(25).end()
            }
            26..32 => self.value(at, &device, "not-a-uuid", ms),
            32..36 => {
                let device = long_text(&mut self.random, UNINDEXABLE);
                self.value(at, &device, &patient, ms)
            }
            36 => {
                good.resize(TOO_LARGE, b'x');
                good
            }
            // A delete whose key names no reading.
            37 => return self.made(at, format!("{}/x", self.tenant).into_bytes(), None, now_ms),
            38 => return self.made(at, Vec::new(), None, now_ms),
            _ => b"not Avro at all".to_vec(),
        };
        self.made(at, key, Some(value), now_ms)
    }
}

/// What the sink must do with a record, by the documented rules.
pub fn judge(topic: &str, record: &Record, schemas: &Schemas, now_ms: i64) -> Want {
    let Some(table) = TOPICS.iter().position(|known| *known == topic) else { return Want::Drop };
    let version = (EPOCH << 56) | (record.offset << 8);
    let reject = || Want::Reject(letter_print(record));
    let Some(value) = &record.value else {
        let parts: Vec<&str> = record.key.split('/').collect();
        let names_a_reading = parts.len() >= 3 && parts.last().is_some_and(|ms| ms.parse::<i64>().is_ok());
        let key = record.key.as_str().into();
        return if names_a_reading { Want::Remove { table, key, version } } else { reject() };
    };
    let read = || schemas.read(value).filter(|_| value.len() <= RECORD_MAX_BYTES);
    let Some(fields) = read() else { return reject() };
    let named = |name| named(&fields, name);
    let (Some(Cell::Text(tenant)), Some(patient), Some(Cell::Text(device)), Some(Cell::Int(ms))) =
        (named("tenant"), named("patient_id"), named("device_id"), named("observed_at"))
    else {
        return reject();
    };
    let is_someone = match patient {
        Cell::Text(patient) => Uuid::try_parse(patient).is_ok(),
        _ => table != SAMPLES,
    };
    if !is_someone || device.len() > INDEXABLE {
        return reject();
    }
    if *ms < now_ms - RETENTION_DAYS * DAY_MS {
        return Want::Drop;
    }
    let key = match named("kind") {
        Some(Cell::Text(kind)) => format!("{device}/{kind}/{ms}").into(),
        _ => format!("{tenant}/{device}/{ms}").into(),
    };
    let mut cells: Vec<Cell> = fields.iter().map(|(_, cell)| cell.clone()).collect();
    let source_ts = record.header(SOURCE_TS).and_then(|text| text.parse().ok());
    cells.push(Cell::Int(source_ts.unwrap_or(record.timestamp)));
    Want::Put { table, key, row: Row { version, print: print(&cells) } }
}
