//! The search index: every live patient, practitioner and condition, and nothing deleted, through its alias.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::compare::{Check, Rows};
use crate::truth::{Hospital, SourceRow};

pub const ALIAS: &str = "clinical_search";
/// The index behind it that holds conditions.
const CONDITIONS: &str = "clinical_conditions_v1";

/// Fields compared, by kind.
const PATIENT: &[&str] = &["tenant", "mrn", "name", "city"];
const PRACTITIONER: &[&str] = &["tenant", "name"];
const CONDITION: &[&str] = &["tenant", "code", "clinical_status", "subject_name"];

pub fn checks(url: &str, hospitals: &[Hospital]) -> Result<Vec<Check>> {
    let found = documents(url)?;
    let check = |what: &'static str, kind: &str, columns: &'static [&'static str], expected: Rows| {
        let of_kind = found.iter().filter(|document| document["_source"]["kind"] == kind);
        let values =
            |document: &Value| columns.iter().map(|column| text(&document["_source"][column])).collect();
        let found = of_kind.map(|document| (text(&document["_id"]), values(document))).collect();
        Check { store: "search", what, columns, expected, found }
    };
    Ok(vec![
        check("patients", "patient", PATIENT, patients(hospitals)),
        check("practitioners", "practitioner", PRACTITIONER, practitioners(hospitals)),
        check("conditions", "condition", CONDITION, conditions(hospitals)),
    ])
}

fn patients(hospitals: &[Hospital]) -> Rows {
    let rows = hospitals.iter().flat_map(|hospital| hospital.patients.iter().map(move |row| (hospital, row)));
    rows.map(|(hospital, row)| {
        let values = [hospital.site.tenant, row.text("mrn"), &full_name(row), row.text("city")];
        (key(hospital, "clinical_data.patients", row), values.map(str::to_owned).to_vec())
    })
    .collect()
}

fn practitioners(hospitals: &[Hospital]) -> Rows {
    let rows = hospitals.iter().flat_map(|hospital| hospital.users.iter().map(move |row| (hospital, row)));
    rows.map(|(hospital, row)| {
        let values = [hospital.site.tenant, row.text("display_name")];
        (key(hospital, "identity_management.users", row), values.map(str::to_owned).to_vec())
    })
    .collect()
}

/// With the patient's name, which came through the reference: if a tenant saw another's patient under the
/// same row id, it would show here.
fn conditions(hospitals: &[Hospital]) -> Rows {
    let mut expected = Rows::new();
    for hospital in hospitals {
        let names: BTreeMap<&str, String> =
            hospital.patients.iter().map(|row| (row.id(), full_name(row))).collect();
        for row in &hospital.diagnoses {
            let name = names.get(row.text("patient_id")).map(String::as_str).unwrap_or_default();
            let values =
                [hospital.site.tenant, row.text("diagnosis_code"), row.text("clinical_status"), name];
            let key = key(hospital, "clinical_data.diagnoses", row);
            expected.insert(key, values.map(str::to_owned).to_vec());
        }
    }
    expected
}

fn full_name(row: &SourceRow) -> String {
    let parts = ["first_name", "middle_name", "last_name"].map(|column| row.text(column));
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

fn key(hospital: &Hospital, table: &str, row: &SourceRow) -> String {
    format!("{}|{}", hospital.site.tenant, hospital.id(table, row.id()))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Documents the alias shows.
pub fn count(url: &str) -> Result<usize> {
    let url = url.trim_end_matches('/');
    ureq::post(format!("{url}/{ALIAS}/_refresh")).send_empty()?;
    let found: Value = ureq::get(format!("{url}/{ALIAS}/_count")).call()?.body_mut().read_json()?;
    Ok(found["count"].as_u64().and_then(|count| usize::try_from(count).ok()).unwrap_or(0))
}

/// Every document the alias shows.
fn documents(url: &str) -> Result<Vec<Value>> {
    let url = url.trim_end_matches('/');
    ureq::post(format!("{url}/{ALIAS}/_refresh")).send_empty()?;
    let mut page: Value = ureq::post(format!("{url}/{ALIAS}/_search?scroll=1m"))
        .send_json(json!({"size": 5000, "sort": ["_doc"], "_source": ["kind", "tenant", "mrn", "name", "city", "code", "clinical_status", "subject_name"]}))?
        .body_mut()
        .with_config()
        .limit(256 << 20)
        .read_json()?;
    let mut all = Vec::new();
    loop {
        let hits = page["hits"]["hits"].as_array().context("the search's answer has no hits")?;
        if hits.is_empty() {
            return Ok(all);
        }
        all.extend(hits.iter().cloned());
        let scroll = page["_scroll_id"].as_str().unwrap_or_default().to_owned();
        page = ureq::post(format!("{url}/_search/scroll"))
            .send_json(json!({"scroll": "1m", "scroll_id": scroll}))?
            .body_mut()
            .with_config()
            .limit(256 << 20)
            .read_json()?;
    }
}

/// Whether a condition can be fetched by its id, without waiting for the next refresh.
pub fn has_condition(url: &str, key: &str) -> Result<bool> {
    let (tenant, id) = key.split_once('/').context("a key without a tenant")?;
    let url = format!("{}/{CONDITIONS}/_doc/{tenant}%7C{id}?_source=false", url.trim_end_matches('/'));
    match ureq::get(url).call() {
        Ok(_) => Ok(true),
        Err(ureq::Error::StatusCode(404)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
