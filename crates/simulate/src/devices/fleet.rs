//! The devices of one hospital and what each sends next.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use super::DevicesArgs;
use super::assignment::{Assigner, Assignment};
use super::messages::{self, Sensor};
use super::publish::Publisher;
use crate::hospital::Hospital;
use crate::vitals::Physiology;
use crate::{Error, people};

/// One set of measurements of one device at one moment; what was not measured is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    pub device: String,
    /// Row id of the patient wearing the device at that moment; `None` when no one is assigned.
    pub patient: Option<String>,
    /// Milliseconds since the epoch.
    pub at_ms: i64,
    pub heart_rate: Option<i32>,
    pub systolic: Option<i32>,
    pub diastolic: Option<i32>,
    /// Percent.
    pub saturation: Option<i32>,
    /// Degrees Celsius.
    pub temperature: Option<String>,
    /// Kilograms.
    pub weight: Option<String>,
    /// mg/dL.
    pub glucose: Option<i32>,
}

/// What a message said. `assigned`: whether someone wore the device, announced or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    Reading(Reading),
    Heartbeat { device: String, at_ms: i64, battery: u32, steps: u32, assigned: bool },
    Emergency { device: String, at_ms: i64, kind: &'static str, assigned: bool },
}

enum Kind {
    Sensor(Sensor),
    Watch,
}

struct Device {
    kind: Kind,
    id: String,
    /// Row ids of the patients who wear it, each from a moment (milliseconds since the epoch) on.
    worn: Vec<(i64, String)>,
    body: Physiology,
    /// Its assignment is announced only half-way through.
    late: bool,
    last_second: i64,
    messages: u32,
    /// Readings a watch has sent, for its batch.
    recent: VecDeque<Reading>,
}

impl Device {
    fn patient_at(&self, at_ms: i64) -> Option<String> {
        self.worn.iter().rev().find(|(from, _)| *from <= at_ms).map(|(_, patient)| patient.clone())
    }
}

/// The devices of one hospital, connected to Kafka.
pub struct Fleet {
    devices: Vec<Device>,
    gateways: Vec<String>,
    next: usize,
    rng: ChaCha8Rng,
    publisher: Publisher,
    assigner: Assigner,
    tenant: String,
    source: String,
    zone: TimeZone,
    /// To the second.
    started_ms: i64,
    half: Duration,
    late_announced: bool,
}

impl Fleet {
    /// Gives the devices to patients of the hospital and announces the assignments: nine in ten at once, the
    /// others half-way through the run; one device changes hands and one is nobody's.
    pub fn open(args: &DevicesArgs) -> Result<Self, Error> {
        let patients = Hospital::open(&args.url, &args.zone)?.patients()?;
        let mut rng = ChaCha8Rng::seed_from_u64(args.seed ^ 0xdead_10cc);
        let now = Timestamp::now();
        let midnight_ms = now.as_second().div_euclid(86_400) * 86_400_000;
        let since_ms = midnight_ms - 30 * 86_400_000;
        let changes_hands_ms = now.checked_add((args.seconds as i64 * 3 / 5).seconds())?.as_millisecond();
        let count = args.devices as usize;
        let devices = (0..count)
            .map(|number| {
                let (patient, age) = patients[number % patients.len()].clone();
                let kind = match Sensor::ALL.get(number % 8) {
                    Some(sensor) => Kind::Sensor(*sensor),
                    None => Kind::Watch,
                };
                let body = Physiology::of(&patient, age);
                let worn = if number == 1 {
                    let next = patients[(number + 1) % patients.len()].0.clone();
                    vec![(since_ms, patient), (changes_hands_ms, next)]
                } else if number == 10 {
                    Vec::new()
                } else {
                    vec![(since_ms, patient)]
                };
                Device {
                    id: match kind {
                        Kind::Sensor(_) => people::mac(&mut rng),
                        Kind::Watch => people::imei(&mut rng),
                    },
                    kind,
                    worn,
                    body,
                    late: number % 10 == 7,
                    last_second: 0,
                    messages: 0,
                    recent: VecDeque::new(),
                }
            })
            .collect();
        let mut fleet = Self {
            devices,
            gateways: (0..4).map(|_| people::mac(&mut rng)).collect(),
            next: 0,
            rng,
            publisher: Publisher::connect(&args.brokers)?,
            assigner: Assigner::open(&args.shapes, &args.registry)?,
            tenant: args.tenant.clone(),
            source: args.source.clone(),
            zone: TimeZone::get(&args.zone)?,
            started_ms: now.as_second() * 1000,
            half: Duration::from_secs(args.seconds / 2),
            late_announced: false,
        };
        fleet.announce(false)?;
        Ok(fleet)
    }

    /// Sends the next device's next message. `elapsed` is the time since the run began.
    pub fn step(&mut self, elapsed: Duration) -> Result<Vec<Sent>, Error> {
        if elapsed >= self.half && !self.late_announced {
            self.announce(true)?;
        }
        let number = self.next % self.devices.len();
        self.next += 1;
        let now = Timestamp::now();
        if self.devices[number].last_second == now.as_second() {
            return Ok(Vec::new());
        }
        self.devices[number].last_second = now.as_second();
        self.devices[number].messages += 1;
        match self.devices[number].kind {
            Kind::Sensor(sensor) => self.sensor_message(number, sensor, now),
            Kind::Watch => self.watch_message(number, now),
        }
    }

    /// Whether someone wears the device and that has been announced.
    pub fn is_known(&self, device: &str) -> bool {
        let found = self.devices.iter().find(|known| known.id == device);
        found.is_some_and(|device| !device.worn.is_empty() && (!device.late || self.late_announced))
    }

    /// Announces what is still to be announced and waits until all is delivered.
    pub fn finish(&mut self) -> Result<(), Error> {
        if !self.late_announced {
            self.announce(true)?;
        }
        self.publisher.flush()
    }

    fn announce(&mut self, late: bool) -> Result<(), Error> {
        for device in self.devices.iter().filter(|device| device.late == late) {
            for (at, (from_ms, patient)) in device.worn.iter().enumerate() {
                self.assigner.send(
                    &self.publisher,
                    &Assignment {
                        device: &device.id,
                        tenant: &self.tenant,
                        source: &self.source,
                        patient,
                        from_ms: *from_ms,
                        to_ms: device.worn.get(at + 1).map(|(next, _)| *next),
                    },
                )?;
            }
        }
        self.late_announced |= late;
        self.publisher.flush()
    }

    fn sensor_message(&mut self, number: usize, sensor: Sensor, now: Timestamp) -> Result<Vec<Sent>, Error> {
        let second_ms = now.as_second() * 1000;
        // A gateway whose clock is years ahead: the product must take the record's time instead.
        let skewed = self.rng.random_bool(0.01);
        let earlier = !skewed && self.rng.random_bool(0.1);
        let mut readings = vec![self.sensor_reading(number, sensor, second_ms)];
        if earlier {
            // Taken while the gateway was away, before the run, at a time of its own.
            let at_ms = self.started_ms - 1_800_000 - i64::from(self.devices[number].messages) * 60_000;
            readings.push(self.sensor_reading(number, sensor, at_ms));
        }
        let gateway = self.gateways[number % self.gateways.len()].clone();
        let at_ms = now.as_millisecond();
        let scanned = |reading: &Reading| if skewed { 1_836_942_771 } else { reading.at_ms / 1000 };
        let items: Vec<(i64, &Reading)> =
            readings.iter().map(|reading| (scanned(reading), reading)).collect();
        let message = messages::ava4(sensor, number, &gateway, &self.devices[number].id, &items, now);
        self.publish("device.ava4", "dusun_pub", &gateway, &message, at_ms)?;
        if skewed {
            readings[0].at_ms = at_ms;
            readings[0].patient = self.devices[number].patient_at(at_ms);
        }
        Ok(readings.into_iter().map(Sent::Reading).collect())
    }

    fn sensor_reading(&mut self, number: usize, sensor: Sensor, at_ms: i64) -> Reading {
        let device = &self.devices[number];
        let v = device.body.measure(&mut self.rng);
        let mut reading = Reading {
            device: device.id.clone(),
            patient: device.patient_at(at_ms),
            at_ms,
            ..Reading::default()
        };
        match sensor {
            Sensor::BloodPressure => {
                reading.systolic = Some(v.systolic);
                reading.diastolic = Some(v.diastolic);
                reading.heart_rate = Some(v.heart_rate);
            }
            Sensor::Oximeter => {
                reading.saturation = Some(v.saturation);
                reading.heart_rate = Some(v.heart_rate);
            }
            Sensor::Thermometer => reading.temperature = Some(v.temperature),
            Sensor::Scale => reading.weight = Some(format!("{:.1}", device.body.weight)),
            Sensor::Glucometer => reading.glucose = Some(v.glucose),
        }
        reading
    }

    /// Mostly readings; every fifth a heartbeat, every tenth the batch, and an emergency now and then.
    fn watch_message(&mut self, number: usize, now: Timestamp) -> Result<Vec<Sent>, Error> {
        let (imei, turn) = (self.devices[number].id.clone(), self.devices[number].messages);
        let (at_ms, second_ms) = (now.as_millisecond(), now.as_second() * 1000);
        if self.rng.random_bool(0.01) {
            let (name, status, kind) = if self.rng.random_bool(0.5) {
                ("iMEDE_watch/SOS", "SOS", "sos")
            } else {
                ("iMEDE_watch/fallDown", "FALL DOWN", "fall")
            };
            self.publish("device.kati", name, &imei, &messages::kati_emergency(&imei, status), at_ms)?;
            let assigned = self.devices[number].patient_at(at_ms).is_some();
            return Ok(vec![Sent::Emergency { device: imei, at_ms, kind, assigned }]);
        }
        if turn % 5 == 0 {
            let (battery, steps) = (100 - turn % 90, turn * 37);
            let message = messages::kati_heartbeat(&imei, second_ms, battery, steps, &self.zone);
            self.publish("device.kati", "iMEDE_watch/hb", &imei, &message, at_ms)?;
            let assigned = self.devices[number].patient_at(second_ms).is_some();
            return Ok(vec![Sent::Heartbeat { device: imei, at_ms: second_ms, battery, steps, assigned }]);
        }
        if turn % 10 == 9 {
            let missed_ms = self.started_ms - 7_200_000 - i64::from(turn) * 60_000;
            let missed = self.watch_reading(number, missed_ms);
            let mut readings: Vec<Reading> = self.devices[number].recent.drain(..).collect();
            readings.push(missed);
            let message = messages::kati_batch(&imei, &readings, now, &self.zone);
            self.publish("device.kati", "iMEDE_watch/AP55", &imei, &message, at_ms)?;
            return Ok(readings.into_iter().map(Sent::Reading).collect());
        }
        let reading = self.watch_reading(number, second_ms);
        let message = messages::kati_vital_sign(&imei, &reading, &self.zone);
        self.publish("device.kati", "iMEDE_watch/VitalSign", &imei, &message, at_ms)?;
        self.devices[number].recent.push_back(reading.clone());
        Ok(vec![Sent::Reading(reading)])
    }

    fn watch_reading(&mut self, number: usize, at_ms: i64) -> Reading {
        let device = &self.devices[number];
        let v = device.body.measure(&mut self.rng);
        let cuff = self.rng.random_bool(0.85);
        Reading {
            device: device.id.clone(),
            patient: device.patient_at(at_ms),
            at_ms,
            heart_rate: Some(v.heart_rate),
            systolic: cuff.then_some(v.systolic),
            diastolic: cuff.then_some(v.diastolic),
            saturation: Some(v.saturation),
            temperature: Some(v.temperature),
            ..Reading::default()
        }
    }

    fn publish(&self, topic: &str, mqtt: &str, key: &str, message: &Value, at_ms: i64) -> Result<(), Error> {
        self.publisher.send(topic, key, message.to_string().as_bytes(), Some(at_ms), Some(mqtt))
    }
}
