//! Messages as the vendors' devices send them, field for field.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Number, Value, json};

use super::fleet::Reading;

/// What a scale tells with every weight, in ohm.
pub const IMPEDANCE: i32 = 501;

/// What kind of sensor hangs on an AVA4 gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sensor {
    BloodPressure,
    Oximeter,
    Thermometer,
    Scale,
    Glucometer,
}

impl Sensor {
    pub const ALL: [Self; 5] =
        [Self::BloodPressure, Self::Oximeter, Self::Thermometer, Self::Scale, Self::Glucometer];

    /// The vendors' names, spelt as they send them.
    fn attribute(self, number: usize) -> &'static str {
        let other = number % 2 == 1;
        match self {
            Self::BloodPressure if other => "BLE_BPG",
            Self::BloodPressure => "BP_BIOLIGTH",
            Self::Oximeter => "Oximeter JUMPER",
            Self::Thermometer => "IR_TEMO_JUMPER",
            Self::Scale => "BodyScale_JUMPER",
            Self::Glucometer if other => "AccuChek_Instant",
            Self::Glucometer => "Contour_Elite",
        }
    }
}

/// A gateway's report of one or more readings of a sensor. `number` picks among spellings seen in the wild.
pub(super) fn ava4(
    sensor: Sensor,
    number: usize,
    gateway: &str,
    device: &str,
    readings: &[(i64, &Reading)],
    sent: Timestamp,
) -> Value {
    let address = if number.is_multiple_of(3) { colons(device) } else { device.to_lowercase() };
    let items: Vec<Value> = readings
        .iter()
        .map(|(scanned, reading)| {
            let mut item = json!({"scan_time": scanned, "ble_addr": address, "scan_rssi": -58});
            for (name, value) in ava4_values(sensor, reading) {
                item[name] = value;
            }
            item
        })
        .collect();
    json!({
        "from": "BLE",
        "to": "CLOUD",
        "time": sent.as_second(),
        "deviceCode": "ava4",
        "mac": colons(gateway),
        "type": "reportAttribute",
        "device": sensor.attribute(number),
        "data": {"attribute": sensor.attribute(number), "mac": address, "value": {"device_list": items}},
    })
}

fn ava4_values(sensor: Sensor, r: &Reading) -> Vec<(&'static str, Value)> {
    match sensor {
        Sensor::BloodPressure => {
            vec![("bp_high", json!(r.systolic)), ("bp_low", json!(r.diastolic)), ("PR", json!(r.heart_rate))]
        }
        Sensor::Oximeter => {
            vec![("spo2", json!(r.saturation)), ("pulse", json!(r.heart_rate)), ("pi", json!(43))]
        }
        Sensor::Thermometer => vec![("temp", number(r.temperature.as_deref())), ("mode", json!("Head"))],
        Sensor::Scale => vec![("weight", number(r.weight.as_deref())), ("resistance", json!(IMPEDANCE))],
        Sensor::Glucometer => vec![
            ("blood_glucose", json!(r.glucose.map(|mg| mg.to_string()))),
            ("marker", json!(if r.at_ms % 2000 == 0 { "Before Meal" } else { "After Meal" })),
        ],
    }
}

/// A watch's own reading. Zeros are how a watch says that it could not measure.
pub(super) fn kati_vital_sign(imei: &str, reading: &Reading, zone: &TimeZone) -> Value {
    let mut message = json!({
        "IMEI": imei,
        "signalGSM": 80,
        "battery": 76,
        "location": {},
        "timeStamps": local(reading.at_ms, zone),
    });
    for (name, value) in kati_values(reading) {
        message[name] = value;
    }
    message
}

/// The hourly batch: readings sent before and some that were not, each with its own time.
pub(super) fn kati_batch(imei: &str, readings: &[Reading], sent: Timestamp, zone: &TimeZone) -> Value {
    let data: Vec<Value> = readings
        .iter()
        .map(|reading| {
            let mut item = json!({"timestamp": reading.at_ms / 1000});
            for (name, value) in kati_values(reading) {
                item[name] = value;
            }
            item
        })
        .collect();
    json!({
        "IMEI": imei,
        "location": {},
        "timeStamps": local(sent.as_millisecond(), zone),
        "num_datas": data.len(),
        "data": data,
    })
}

fn kati_values(r: &Reading) -> [(&'static str, Value); 4] {
    [
        ("heartRate", json!(r.heart_rate.unwrap_or(0))),
        ("bloodPressure", json!({"bp_sys": r.systolic.unwrap_or(0), "bp_dia": r.diastolic.unwrap_or(0)})),
        ("spO2", json!(r.saturation.unwrap_or(0))),
        ("bodyTemperature", number(r.temperature.as_deref().or(Some("0")))),
    ]
}

pub(super) fn kati_heartbeat(imei: &str, at_ms: i64, battery: u32, steps: u32, zone: &TimeZone) -> Value {
    json!({
        "IMEI": imei,
        "signalGSM": 72,
        "battery": battery,
        "satellites": 4,
        "workingMode": 2,
        "timeStamps": local(at_ms, zone),
        "step": steps,
    })
}

/// An emergency; watches send no time with it.
pub(super) fn kati_emergency(imei: &str, status: &str) -> Value {
    json!({"IMEI": imei, "status": status, "location": {}})
}

fn local(at_ms: i64, zone: &TimeZone) -> Value {
    let at = Timestamp::from_millisecond(at_ms).unwrap_or_default().to_zoned(zone.clone());
    json!(at.strftime("%d/%m/%Y %H:%M:%S").to_string())
}

/// A number that keeps its digits.
fn number(text: Option<&str>) -> Value {
    text.and_then(|text| text.parse::<Number>().ok()).map_or(Value::Null, Value::Number)
}

fn colons(mac: &str) -> String {
    mac.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair)).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_writes_its_own_clock() {
        let zone = TimeZone::get("Africa/Khartoum").unwrap();
        assert_eq!(local(1_772_366_400_000, &zone), json!("01/03/2026 14:00:00"));
    }

    #[test]
    fn decimals_keep_their_digits() {
        assert_eq!(number(Some("36.50")).to_string(), "36.50");
    }
}
