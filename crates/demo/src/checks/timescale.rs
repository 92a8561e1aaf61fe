//! The hypertables: one row per row of vital signs, one per reading of a device that someone wore.

use anyhow::Result;
use fhirehose_simulate::devices::Sent;

use crate::compare::{Check, Rows, number};
use crate::postgres_rows::{connect, rows};
use crate::truth::Hospital;

const COLUMNS: &[&str] = &[
    "patient_id",
    "heart_rate",
    "pulse_rate",
    "respiratory_rate",
    "systolic",
    "diastolic",
    "temperature",
    "spo2",
    "height",
    "weight",
    "bmi",
    "glucose",
    "pain_score",
    "gcs",
];

pub fn checks(url: &str, hospitals: &[Hospital]) -> Result<Vec<Check>> {
    let mut client = connect(url)?;
    let key = "tenant_id || '/' || device_id || '/' || (extract(epoch FROM observed_at) * 1000)::bigint";
    let found =
        rows(&mut client, &format!("SELECT {key}, {} FROM vital_signs_timeseries", COLUMNS.join(", ")))?;
    let metrics = rows(&mut client, &format!("SELECT {key}, battery, steps FROM device_metrics"))?;
    let alerts = rows(
        &mut client,
        "SELECT device_id || '/' || kind || '/' || (extract(epoch FROM observed_at) * 1000)::bigint FROM device_alerts",
    )?;
    let check = |what, columns, expected, found| Check { store: "timescale", what, columns, expected, found };
    Ok(vec![
        check("vital_signs_timeseries", COLUMNS, samples(hospitals), found),
        check("device_metrics", &["battery", "steps"], heartbeats(hospitals), metrics),
        check("device_alerts", &[], emergencies(hospitals), alerts),
    ])
}

/// The wide rows of both planes, by tenant, device and time; the values in the order of the columns above.
pub fn samples(hospitals: &[Hospital]) -> Rows {
    let mut expected = Rows::new();
    for hospital in hospitals {
        let tenant = hospital.site.tenant;
        for row in &hospital.vital_signs {
            let device = row.get("device_id").map_or_else(|| format!("row:{}", row.id()), str::to_owned);
            let at_ms = row.at_ms("observation_time").unwrap_or_default();
            let value = |column: &str| number(row.text(column));
            let values = vec![
                hospital.patient_id(row.text("patient_id")),
                value("heart_rate"),
                String::new(),
                value("respiratory_rate"),
                value("blood_pressure_systolic"),
                value("blood_pressure_diastolic"),
                value("temperature"),
                value("oxygen_saturation"),
                value("height"),
                value("weight"),
                value("bmi"),
                String::new(),
                value("pain_score"),
                value("glasgow_coma_scale"),
            ];
            expected.insert(format!("{tenant}/{device}/{at_ms}"), values);
        }
        for reading in hospital.readings().values() {
            // A cuff or an oximeter tells a pulse; a watch a heart rate.
            let watch = reading.device.len() == 15;
            let whole = |value: Option<i32>| value.map(|value| value.to_string()).unwrap_or_default();
            let decimal = |value: &Option<String>| number(value.as_deref().unwrap_or_default());
            let values = vec![
                reading.patient.as_deref().map(|row| hospital.patient_id(row)).unwrap_or_default(),
                whole(reading.heart_rate.filter(|_| watch)),
                whole(reading.heart_rate.filter(|_| !watch)),
                String::new(),
                whole(reading.systolic),
                whole(reading.diastolic),
                decimal(&reading.temperature),
                whole(reading.saturation),
                String::new(),
                decimal(&reading.weight),
                String::new(),
                whole(reading.glucose),
                String::new(),
                String::new(),
            ];
            expected.insert(format!("{tenant}/{}/{}", reading.device, reading.at_ms), values);
        }
    }
    expected
}

fn heartbeats(hospitals: &[Hospital]) -> Rows {
    let mut expected = Rows::new();
    for hospital in hospitals {
        for sent in &hospital.sent {
            if let Sent::Heartbeat { device, at_ms, battery, steps, assigned: true } = sent {
                let key = format!("{}/{device}/{at_ms}", hospital.site.tenant);
                expected.insert(key, vec![battery.to_string(), steps.to_string()]);
            }
        }
    }
    expected
}

fn emergencies(hospitals: &[Hospital]) -> Rows {
    let sent = hospitals.iter().flat_map(|hospital| &hospital.sent);
    sent.filter_map(|sent| match sent {
        Sent::Emergency { device, at_ms, kind, .. } => Some((format!("{device}/{kind}/{at_ms}"), Vec::new())),
        _ => None,
    })
    .collect()
}
