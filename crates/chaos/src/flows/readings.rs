//! What a message of a device says, read in the plainest way.

use std::sync::Arc;

use fhirehose_demo::ids;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::Deserialize;

use super::messages::{SENSORS, TOPIC_HEADER, ZONE_SECONDS};
use crate::ledger::topics::Record;

/// A reading of a message.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    /// The message.
    pub at: (Arc<str>, i32, i64),
    /// Its number in the message.
    pub item: usize,
    /// Kafka's time of the message.
    pub sent: i64,
    pub device: String,
    pub at_ms: i64,
    pub heart_rate: Option<f64>,
    pub temperature: Option<f64>,
    pub saturation: Option<f64>,
    /// Battery and steps, where it is a reading of the device itself.
    pub state: Option<[i64; 2]>,
}

impl Reading {
    pub fn says_something(&self) -> bool {
        self.state.is_some() || self.measured().next().is_some()
    }

    /// LOINC codes and values.
    pub fn measured(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let all = [("8867-4", self.heart_rate), ("8310-5", self.temperature), ("2708-6", self.saturation)];
        all.into_iter().filter_map(|(code, value)| Some((code, value?)))
    }

    pub fn observation_id(&self, tenant: &str, code: &str) -> String {
        let vendor = if &*self.at.0 == SENSORS { "ava4" } else { "kati" };
        ids::reading(tenant, vendor, &self.device, code, self.at_ms)
    }

    pub fn parked_key(&self) -> String {
        let (topic, partition, offset) = &self.at;
        format!("{}/{topic}/{partition}/{offset}/{}", self.device, self.item)
    }
}

/// `None` for a message that must be refused.
pub(super) fn readings(topic: &str, record: &Record) -> Option<Vec<Reading>> {
    let value = record.value.as_deref()?;
    let kind = record.header(TOPIC_HEADER)?.rsplit('/').next()?;
    let at = (topic.into(), record.partition, record.offset);
    let base = Reading { at, sent: record.timestamp, ..Reading::default() };
    let all = match kind {
        "VitalSign" => {
            let read: Measures = serde_json::from_slice(value).ok()?;
            vec![read.reading(&base, read.imei.as_deref()?, local_ms(read.time.as_deref()?)?)]
        }
        "AP55" => {
            let read: Batch = serde_json::from_slice(value).ok()?;
            let items = read.data.iter().enumerate();
            items
                .map(|(item, one)| {
                    let base = Reading { item, ..base.clone() };
                    Some(one.reading(&base, &read.imei, one.timestamp? * 1000))
                })
                .collect::<Option<_>>()?
        }
        "hb" => {
            let read: Heartbeat = serde_json::from_slice(value).ok()?;
            let (at_ms, state) = (local_ms(&read.time)?, Some([read.battery, read.step]));
            vec![Reading { device: read.imei, at_ms, state, ..base }]
        }
        "dusun_pub" => {
            let read: Relayed = serde_json::from_slice(value).ok()?;
            let items = read.data.value.device_list.into_iter().enumerate();
            items
                .map(|(item, one)| Reading {
                    item,
                    device: one.ble_addr,
                    at_ms: one.scan_time * 1000,
                    temperature: Some(one.temp),
                    ..base.clone()
                })
                .collect()
        }
        _ => return None,
    };
    let possible = |reading: &Reading| reading.heart_rate.is_none_or(|rate| (10.0..=350.0).contains(&rate));
    all.iter().all(possible).then_some(all)
}

#[derive(Deserialize)]
struct Batch {
    #[serde(rename = "IMEI")]
    imei: String,
    data: Vec<Measures>,
}

/// A message of its own, or an item of the batch, which has another time.
#[derive(Deserialize)]
struct Measures {
    #[serde(rename = "IMEI")]
    imei: Option<String>,
    #[serde(rename = "timeStamps")]
    time: Option<String>,
    timestamp: Option<i64>,
    #[serde(rename = "heartRate")]
    heart_rate: f64,
    #[serde(rename = "bodyTemperature")]
    body_temperature: f64,
    #[serde(rename = "spO2")]
    saturation: f64,
}

impl Measures {
    fn reading(&self, base: &Reading, device: &str, at_ms: i64) -> Reading {
        // A zero is a reading that failed.
        let some = |value: f64| (value > 0.0).then_some(value);
        Reading {
            device: device.to_owned(),
            at_ms,
            heart_rate: some(self.heart_rate),
            temperature: some(self.body_temperature),
            saturation: some(self.saturation),
            ..base.clone()
        }
    }
}

#[derive(Deserialize)]
struct Heartbeat {
    #[serde(rename = "IMEI")]
    imei: String,
    #[serde(rename = "timeStamps")]
    time: String,
    battery: i64,
    step: i64,
}

#[derive(Deserialize)]
struct Relayed {
    data: RelayedData,
}

#[derive(Deserialize)]
struct RelayedData {
    value: RelayedValue,
}

#[derive(Deserialize)]
struct RelayedValue {
    device_list: Vec<RelayedItem>,
}

#[derive(Deserialize)]
struct RelayedItem {
    scan_time: i64,
    ble_addr: String,
    temp: f64,
}

/// A watch's clock, milliseconds since the epoch.
fn local_ms(text: &str) -> Option<i64> {
    let time = DateTime::strptime("%d/%m/%Y %H:%M:%S", text).ok()?;
    let utc = time.to_zoned(TimeZone::UTC).ok()?.timestamp();
    Some(utc.as_millisecond() - ZONE_SECONDS * 1000)
}
