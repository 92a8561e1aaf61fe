//! Messages of watches and thermometers as their vendors write them, and who wears the devices: most from the
//! beginning, some handed on, some told only later, one never.

use std::sync::Arc;

use anyhow::Result;
use apache_avro::types::Value as Avro;
use jiff::Timestamp;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::flow::Run;
use crate::flows::session::Source;
use crate::ledger::accounts::digest;
use crate::ledger::avro::Encoder;
use crate::ledger::load::Input;

pub(super) const WATCHES: &str = "device.kati";
pub(super) const SENSORS: &str = "device.ava4";
pub(super) const ASSIGNMENTS: &str = "device.assignment";
pub(super) const TOPIC_HEADER: &str = "mqtt-topic";
/// Africa/Khartoum, where the watches' clocks stand.
pub(super) const ZONE_SECONDS: i64 = 7200;

const DEVICES: usize = 200;
/// Devices whose assignment comes while the load goes on, in a second.
const ASSIGNED_PER_SECOND: f64 = 4.0;

pub(super) struct Messages {
    tenant: String,
    rate: f64,
    poison: f64,
    rng: ChaCha8Rng,
    encoder: Encoder,
    topics: [Arc<str>; 3],
    devices: Vec<Device>,
    /// Devices that are assigned later.
    late: Vec<usize>,
    /// Assignments that everything begins with.
    first: Vec<Input>,
    /// When the first reading was measured, seconds since the epoch.
    from: i64,
    /// Kafka's time of the last message, milliseconds: never the same twice, so it tells the message.
    sent: i64,
}

#[derive(Clone, Default)]
struct Device {
    id: String,
    /// A watch; else a thermometer.
    watch: bool,
    /// Readings so far, one for each second.
    readings: i64,
    /// What the hourly batch repeats: times and heart rates.
    last: Vec<(i64, u32)>,
}

impl Messages {
    pub fn new(registry: &str, run: &Run) -> Result<Messages> {
        let number = digest(&run.tag) % 10_000_000_000;
        let device = |index: usize| {
            let watch = !index.is_multiple_of(5);
            let id =
                if watch { format!("{number:010}{index:05}") } else { format!("{number:08X}{index:04X}") };
            Device { id: id[id.len() - if watch { 15 } else { 12 }..].to_owned(), watch, ..Device::default() }
        };
        let now = Timestamp::now();
        let mut made = Messages {
            tenant: run.tag.clone(),
            rate: run.rate,
            poison: run.poison,
            rng: ChaCha8Rng::seed_from_u64(run.seed),
            encoder: Encoder::of(registry, ASSIGNMENTS)?,
            topics: [WATCHES, SENSORS, ASSIGNMENTS].map(Arc::from),
            devices: (0..DEVICES).map(device).collect(),
            late: Vec::new(),
            first: Vec::new(),
            from: now.as_second() - 2 * 3600,
            sent: now.as_millisecond() - 600_000,
        };
        for index in 1..DEVICES {
            // Five in a row are a thermometer and four watches.
            match index / 5 % 10 {
                0..6 => made.first.push(made.assignment(index, 0, None, "a")?),
                // Handed on after half a minute of readings.
                6 | 7 => {
                    made.first.push(made.assignment(index, 0, Some(30), "a")?);
                    made.first.push(made.assignment(index, 30, None, "b")?);
                }
                _ => made.late.push(index),
            }
        }
        Ok(made)
    }

    fn assignment(&self, index: usize, from: i64, to: Option<i64>, wearer: &str) -> Result<Input> {
        let at = |seconds: i64| Avro::TimestampMillis((self.from + seconds) * 1000);
        let (id, text) = (&self.devices[index].id, |text: String| Avro::String(text));
        let value = self.encoder.encode(vec![
            ("device_id", text(id.clone())),
            ("tenant", text(self.tenant.clone())),
            ("patient_id", text(format!("{wearer}-{index}"))),
            ("facility_id", Avro::Union(0, Box::new(Avro::Null))),
            ("valid_from", at(from)),
            (
                "valid_to",
                to.map_or(Avro::Union(0, Box::new(Avro::Null)), |to| Avro::Union(1, Box::new(at(to)))),
            ),
        ])?;
        let key = format!("{id}/{}", (self.from + from) * 1000).into_bytes();
        Ok(Input { topic: self.topics[2].clone(), key, value: Some(value), ..Input::default() })
    }

    /// A message of a device, and the header that tells its kind.
    fn input(&mut self, index: usize, kind: &str, body: String) -> Input {
        self.sent += 1;
        let device = &self.devices[index];
        Input {
            topic: self.topics[usize::from(!device.watch)].clone(),
            partition: None,
            key: device.id.clone().into_bytes(),
            value: Some(body.into_bytes()),
            headers: vec![(TOPIC_HEADER, kind.to_owned())],
            timestamp: Some(self.sent),
        }
    }

    fn message(&mut self, index: usize) -> Input {
        let at = self.from + self.devices[index].readings;
        self.devices[index].readings += 1;
        if !self.devices[index].watch {
            return self.temperature(index, at);
        }
        match self.rng.random_range(0..10) {
            0 if !self.devices[index].last.is_empty() => self.batch(index),
            1 => self.heartbeat(index, at),
            _ => {
                let heart_rate = self.rng.random_range(40..200);
                let last = &mut self.devices[index].last;
                last.push((at, heart_rate));
                if last.len() > 3 {
                    last.remove(0);
                }
                self.vital_signs(index, at, heart_rate)
            }
        }
    }

    fn vital_signs(&mut self, index: usize, at: i64, heart_rate: u32) -> Input {
        let (time, id) = (local(at), &self.devices[index].id);
        let saturation = if self.rng.random_bool(0.3) { self.rng.random_range(80..100) } else { 0 };
        let tenths = self.rng.random_range(350..420);
        let body = format!(
            r#"{{"IMEI":"{id}","signalGSM":80,"battery":76,"location":{{}},"timeStamps":"{time}","heartRate":{heart_rate},"bloodPressure":{{"bp_sys":0,"bp_dia":0}},"bodyTemperature":{}.{},"spO2":{saturation}}}"#,
            tenths / 10,
            tenths % 10,
        );
        self.input(index, "iMEDE_watch/VitalSign", body)
    }

    /// Sends readings again that were sent before, with the heart rate alone.
    fn batch(&mut self, index: usize) -> Input {
        let device = &self.devices[index];
        let items: Vec<String> = (device.last.iter())
            .map(|(at, heart_rate)| {
                format!(
                    r#"{{"timestamp":{at},"heartRate":{heart_rate},"bloodPressure":{{"bp_sys":0,"bp_dia":0}},"spO2":0,"bodyTemperature":0}}"#
                )
            })
            .collect();
        let body = format!(
            r#"{{"IMEI":"{}","location":{{}},"timeStamps":"{}","num_datas":{},"data":[{}]}}"#,
            device.id,
            local(self.from + device.readings),
            items.len(),
            items.join(","),
        );
        self.input(index, "iMEDE_watch/AP55", body)
    }

    fn heartbeat(&mut self, index: usize, at: i64) -> Input {
        let (time, id) = (local(at), &self.devices[index].id);
        let (battery, steps) = (self.rng.random_range(0..100), self.rng.random_range(0..20_000));
        let body = format!(
            r#"{{"IMEI":"{id}","signalGSM":72,"battery":{battery},"satellites":4,"workingMode":2,"timeStamps":"{time}","step":{steps}}}"#
        );
        self.input(index, "iMEDE_watch/hb", body)
    }

    fn temperature(&mut self, index: usize, at: i64) -> Input {
        let (id, tenths) = (&self.devices[index].id, self.rng.random_range(350..420));
        let body = format!(
            r#"{{"from":"BLE","to":"CLOUD","time":{at},"deviceCode":"ava4","mac":"{id}","type":"reportAttribute","device":"IR_TEMO_JUMPER","data":{{"attribute":"IR_TEMO_JUMPER","mac":"{id}","value":{{"device_list":[{{"scan_time":{at},"ble_addr":"{id}","scan_rssi":-58,"temp":{}.{},"mode":"Head"}}]}}}}}}"#,
            tenths / 10,
            tenths % 10,
        );
        self.input(index, "dusun_pub", body)
    }

    /// A message of a watch that must be refused.
    fn poison(&mut self) -> Input {
        let index = self.rng.random_range(0..DEVICES / 5) * 5 + 1;
        let at = self.from + self.devices[index].readings;
        let (time, kind) = (local(at), self.rng.random_range(0..4));
        match kind {
            0 => self.vital_signs(index, at, 900),
            1 => self.input(index, "iMEDE_watch/nothing", format!("{{\"timeStamps\":\"{time}\"}}")),
            2 => self.input(index, "iMEDE_watch/hb", format!("{}{}", "[".repeat(200), "]".repeat(200))),
            _ => {
                let mut input = self.heartbeat(index, at);
                if let Some(value) = &mut input.value {
                    value.truncate(self.rng.random_range(1..value.len()));
                }
                input
            }
        }
    }
}

impl Source for Messages {
    fn step(&mut self) -> Result<Vec<Input>> {
        let mut inputs = std::mem::take(&mut self.first);
        if self.rng.random_bool((ASSIGNED_PER_SECOND / self.rate).min(0.3))
            && let Some(index) = self.late.pop()
        {
            inputs.push(self.assignment(index, 0, None, "late")?);
        }
        // The first device is never assigned: what is parked for good is read at every start.
        let index = if self.rng.random_ratio(1, 500) { 0 } else { self.rng.random_range(1..DEVICES) };
        let poison = self.rng.random_bool(self.poison);
        inputs.push(if poison { self.poison() } else { self.message(index) });
        Ok(inputs)
    }

    fn unseen(&mut self) -> Result<Vec<Input>> {
        Ok(vec![self.assignment(0, 0, None, "nobody")?, self.message(1)])
    }

    fn last(&mut self) -> Result<Vec<Input>> {
        std::mem::take(&mut self.late)
            .into_iter()
            .map(|index| self.assignment(index, 0, None, "late"))
            .collect()
    }
}

/// As a watch shows it.
fn local(at: i64) -> String {
    let time = Timestamp::from_second(at + ZONE_SECONDS).unwrap_or_default();
    time.strftime("%d/%m/%Y %H:%M:%S").to_string()
}
