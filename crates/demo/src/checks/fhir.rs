//! FHIR topics: what every row and every reading becomes.

use std::collections::BTreeMap;

use anyhow::Result;
use fhirehose_simulate::devices::{Reading, Sent};
use jiff::Timestamp;
use serde_json::Value;

use crate::compare::{Check, Rows, number};
use crate::ids;
use crate::topics::Topics;
use crate::truth::{Hospital, SourceRow};

/// Takes the compared values out of a resource.
type Values = fn(&Value) -> Vec<String>;

pub fn checks(topics: &mut Topics, hospitals: &[Hospital]) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    let resources: [(&str, &str, &'static [&'static str], Rows, Values); 6] = [
        (
            "patient",
            "fhir.patient",
            &["family", "birthDate", "gender", "city"],
            patients(hospitals),
            patient_values,
        ),
        (
            "encounter",
            "fhir.encounter",
            &["status", "class", "start"],
            encounters(hospitals),
            encounter_values,
        ),
        ("condition", "fhir.condition", &["code", "clinicalStatus"], conditions(hospitals), condition_values),
        ("organization", "fhir.organization", &["name"], organizations(hospitals), organization_values),
        ("practitioner", "fhir.practitioner", &["family"], practitioners(hospitals), practitioner_values),
        ("observation", "fhir.observation", &["code", "value"], observations(hospitals), observation_values),
    ];
    for (resource, what, columns, expected, values) in resources {
        let content = topics.read(what)?;
        let mut found = Rows::new();
        for (key, bytes) in &content {
            found.insert(key.clone(), values(&topics.resource(bytes)?));
        }
        // Enrichment: one live record for each resource, every reference to a known one resolved.
        let enriched = topics.read(&format!("enriched.{resource}"))?;
        let mut resolved = Rows::new();
        for (key, bytes) in &enriched {
            let record = topics.record(bytes)?;
            // A reference that is absent has no id.
            let lost = record.iter().filter(|(name, value)| {
                let id = name.strip_suffix("_resolved").map(|of| format!("{of}_id"));
                id.is_some_and(|id| record.contains_key(&id)) && *value != "true"
            });
            let lost = lost.count();
            resolved.insert(key.clone(), vec![lost.to_string()]);
        }
        let wanted = expected.keys().map(|key| (key.clone(), vec!["0".to_owned()])).collect();
        checks.push(Check { store: "kafka fhir", what, columns, expected, found });
        checks.push(Check {
            store: "kafka enriched",
            what: resource,
            columns: &["unresolved"],
            expected: wanted,
            found: resolved,
        });
    }
    checks.push(rejected(topics, hospitals)?);
    Ok(checks)
}

/// Impossible rows end in a dead-letter topic, each once, and no others do.
fn rejected(topics: &Topics, hospitals: &[Hospital]) -> Result<Check> {
    let impossible = hospitals.iter().flat_map(|hospital| &hospital.impossible);
    let expected = impossible.map(|row| (row.id().to_owned(), vec!["1".to_owned()])).collect();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for topic in topics.names()?.iter().filter(|name| name.ends_with(".dlq")) {
        topics.each(topic, |key, _| {
            *counts.entry(row_id(&key).unwrap_or(topic).to_owned()).or_default() += 1
        })?;
    }
    let found = counts.into_iter().map(|(id, count)| (id, vec![count.to_string()])).collect();
    Ok(Check { store: "kafka dead letters", what: "impossible rows", columns: &["records"], expected, found })
}

/// The row id in a key of Debezium's, Avro or JSON: 36 characters with dashes in their places.
fn row_id(key: &str) -> Option<&str> {
    let is_id = |text: &&str| {
        text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
    };
    (0..key.len()).filter_map(|from| key.get(from..from + 36)).find(is_id)
}

fn keyed<'a>(
    hospitals: &'a [Hospital],
    table: &'a str,
    rows: impl Fn(&'a Hospital) -> &'a [SourceRow] + 'a,
    values: impl Fn(&SourceRow) -> Vec<String> + 'a,
) -> Rows {
    let all = hospitals.iter().flat_map(|hospital| rows(hospital).iter().map(move |row| (hospital, row)));
    all.map(|(hospital, row)| {
        (format!("{}/{}", hospital.site.tenant, hospital.id(table, row.id())), values(row))
    })
    .collect()
}

fn patients(hospitals: &[Hospital]) -> Rows {
    keyed(
        hospitals,
        "clinical_data.patients",
        |h| &h.patients,
        |row| {
            ["last_name", "date_of_birth", "gender", "city"]
                .map(|column| row.text(column).to_owned())
                .to_vec()
        },
    )
}

fn patient_values(resource: &Value) -> Vec<String> {
    ["/name/0/family", "/birthDate", "/gender", "/address/0/city"].map(|path| text(resource, path)).to_vec()
}

fn encounters(hospitals: &[Hospital]) -> Rows {
    keyed(
        hospitals,
        "clinical_data.encounters",
        |h| &h.encounters,
        |row| {
            let start = row.at_ms("admission_date").map(|ms| ms.to_string()).unwrap_or_default();
            vec![row.text("status").replace('_', "-"), encounter_class(row).to_owned(), start]
        },
    )
}

/// Code of v3-ActCode.
pub fn encounter_class(row: &SourceRow) -> &str {
    match (row.text("encounter_type"), row.text("class")) {
        ("home_health", _) => "HH",
        (_, "ambulatory") => "AMB",
        (_, "emergency") => "EMER",
        (_, "inpatient") => "IMP",
        (_, "observation") => "OBSENC",
        (_, "virtual") => "VR",
        (_, other) => other,
    }
}

fn encounter_values(resource: &Value) -> Vec<String> {
    let start = text(resource, "/period/start").parse::<Timestamp>();
    let start = start.map(|at| at.as_millisecond().to_string()).unwrap_or_default();
    vec![text(resource, "/status"), text(resource, "/class/code"), start]
}

fn conditions(hospitals: &[Hospital]) -> Rows {
    keyed(
        hospitals,
        "clinical_data.diagnoses",
        |h| &h.diagnoses,
        |row| {
            let in_error = row.text("verification_status") == "entered_in_error";
            let status = if in_error { "" } else { row.text("clinical_status") };
            vec![row.text("diagnosis_code").to_owned(), status.to_owned()]
        },
    )
}

fn condition_values(resource: &Value) -> Vec<String> {
    vec![text(resource, "/code/coding/0/code"), text(resource, "/clinicalStatus/coding/0/code")]
}

fn organizations(hospitals: &[Hospital]) -> Rows {
    keyed(
        hospitals,
        "business_operations.facilities",
        |h| &h.facilities,
        |row| vec![row.text("facility_name").to_owned()],
    )
}

fn organization_values(resource: &Value) -> Vec<String> {
    vec![text(resource, "/name")]
}

fn practitioners(hospitals: &[Hospital]) -> Rows {
    keyed(hospitals, "identity_management.users", |h| &h.users, |row| vec![row.text("last_name").to_owned()])
}

fn practitioner_values(resource: &Value) -> Vec<String> {
    vec![text(resource, "/name/0/family")]
}

/// LOINC code and source column of the plain measurements of a row.
const MEASUREMENTS: &[(&str, &str)] = &[
    ("8867-4", "heart_rate"),
    ("9279-1", "respiratory_rate"),
    ("2708-6", "oxygen_saturation"),
    ("8310-5", "temperature"),
    ("8302-2", "height"),
    ("29463-7", "weight"),
    ("39156-5", "bmi"),
    ("72514-3", "pain_score"),
    ("9269-2", "glasgow_coma_scale"),
];
const PANEL: &str = "85354-9";

fn observations(hospitals: &[Hospital]) -> Rows {
    let mut rows = Rows::new();
    for hospital in hospitals {
        let (tenant, source) = (hospital.site.tenant, hospital.site.source);
        for row in &hospital.vital_signs {
            let mut put = |loinc: &str, value: String| {
                let id = ids::row(tenant, source, "clinical_data.vital_signs", row.id(), Some(loinc));
                rows.insert(format!("{tenant}/{id}"), vec![loinc.to_owned(), value]);
            };
            for (loinc, column) in MEASUREMENTS {
                if let Some(value) = row.get(column) {
                    put(loinc, number(value));
                }
            }
            // Oxygen given, measured or not; room air is none.
            let method = row.get("oxygen_delivery_method").filter(|method| *method != "room_air");
            if row.get("oxygen_flow_rate").or(method).is_some() {
                put("3151-8", number(row.text("oxygen_flow_rate")));
            }
            let pressure = (row.get("blood_pressure_systolic"), row.get("blood_pressure_diastolic"));
            if pressure != (None, None) {
                put(PANEL, format!("{}/{}", pressure.0.unwrap_or_default(), pressure.1.unwrap_or_default()));
            }
        }
        for reading in hospital.readings().values() {
            for (loinc, value) in measured(reading) {
                let id = ids::reading(tenant, vendor(&reading.device), &reading.device, loinc, reading.at_ms);
                rows.insert(format!("{tenant}/{id}"), vec![loinc.to_owned(), value]);
            }
        }
        for sent in &hospital.sent {
            if let Sent::Emergency { device, at_ms, kind, assigned: true } = sent {
                let id =
                    ids::reading(tenant, vendor(device), device, &format!("device-event-{kind}"), *at_ms);
                rows.insert(format!("{tenant}/{id}"), vec![(*kind).to_owned(), String::new()]);
            }
        }
    }
    rows
}

/// A watch is known by its IMEI, fifteen digits; a sensor by its hardware address, twelve.
fn vendor(device: &str) -> &'static str {
    if device.len() == 15 { "kati" } else { "ava4" }
}

fn measured(reading: &Reading) -> Vec<(&'static str, String)> {
    let mut all = Vec::new();
    let whole =
        [("8867-4", reading.heart_rate), ("2708-6", reading.saturation), ("41653-7", reading.glucose)];
    all.extend(whole.into_iter().filter_map(|(loinc, value)| Some((loinc, value?.to_string()))));
    if reading.weight.is_some() {
        all.push(("bioimpedance", fhirehose_simulate::devices::IMPEDANCE.to_string()));
    }
    let decimal = [("8310-5", &reading.temperature), ("29463-7", &reading.weight)];
    all.extend(decimal.into_iter().filter_map(|(loinc, value)| Some((loinc, number(value.as_deref()?)))));
    if let (Some(systolic), Some(diastolic)) = (reading.systolic, reading.diastolic) {
        all.push((PANEL, format!("{systolic}/{diastolic}")));
    }
    all
}

fn observation_values(resource: &Value) -> Vec<String> {
    let code = text(resource, "/code/coding/0/code");
    let value = if code == PANEL {
        let component = |loinc: &str| {
            let parts = resource["component"].as_array();
            let part = parts.into_iter().flatten().find(|part| text(part, "/code/coding/0/code") == loinc);
            part.map(|part| number(&text(part, "/valueQuantity/value"))).unwrap_or_default()
        };
        format!("{}/{}", component("8480-6"), component("8462-4"))
    } else {
        let plain = ["/valueQuantity/value", "/valueInteger"].map(|path| text(resource, path));
        number(plain.iter().find(|text| !text.is_empty()).map_or("", String::as_str))
    };
    vec![code, value]
}

/// Text or number at a JSON pointer; empty where there is none.
fn text(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::row_id;

    #[test]
    fn ids_are_found_in_keys_of_both_formats() {
        let id = "10d1fd3c-27ac-5d96-8985-b170a1771ddd";
        assert_eq!(row_id(&format!("{{\"id\":\"{id}\"}}")), Some(id));
        assert_eq!(row_id(&format!("\0\0\0\0\u{7}H{id}")), Some(id));
        assert_eq!(row_id("020D51BB2448/1792627200000"), None);
    }
}
