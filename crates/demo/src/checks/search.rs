//! The search index: every live patient, practitioner and condition, and nothing deleted, through its alias.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::compare::{Check, Rows};
use crate::truth::{Hospital, SourceRow};

pub const ALIAS: &str = "clinical_search";
/// The index behind it that holds conditions.
const CONDITIONS: &str = "clinical_conditions_v1";

pub fn checks(url: &str, hospitals: &[Hospital]) -> Result<Vec<Check>> {
    let found = documents(url)?;
    let check = |what: &'static str, index: &str, expected: Rows| Check {
        store: "search",
        what,
        columns: &["tenant"],
        expected,
        found: (found.iter().filter(|document| document.index.starts_with(index)))
            .map(|document| (document.id.clone(), vec![document.tenant.clone()]))
            .collect(),
    };
    Ok(vec![
        check(
            "patients",
            "clinical_patients",
            expected(hospitals, "clinical_data.patients", |h| &h.patients),
        ),
        check(
            "practitioners",
            "clinical_practitioners",
            expected(hospitals, "identity_management.users", |h| &h.users),
        ),
        check(
            "conditions",
            "clinical_conditions",
            expected(hospitals, "clinical_data.diagnoses", |h| &h.diagnoses),
        ),
    ])
}

fn expected<'a>(
    hospitals: &'a [Hospital],
    table: &str,
    rows: impl Fn(&'a Hospital) -> &'a [SourceRow],
) -> Rows {
    let mut expected = Rows::new();
    for hospital in hospitals {
        for row in rows(hospital) {
            let key = format!("{}|{}", hospital.site.tenant, hospital.id(table, row.id()));
            expected.insert(key, vec![hospital.site.tenant.to_owned()]);
        }
    }
    expected
}

struct Document {
    index: String,
    id: String,
    tenant: String,
}

/// Every document the alias shows.
fn documents(url: &str) -> Result<Vec<Document>> {
    let url = url.trim_end_matches('/');
    ureq::post(format!("{url}/{ALIAS}/_refresh")).send_empty()?;
    let mut page: Value = ureq::post(format!("{url}/{ALIAS}/_search?scroll=1m"))
        .send_json(json!({"size": 5000, "sort": ["_doc"], "_source": ["tenant"]}))?
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
        for hit in hits {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            all.push(Document {
                index: text(&hit["_index"]),
                id: text(&hit["_id"]),
                tenant: text(&hit["_source"]["tenant"]),
            });
        }
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
