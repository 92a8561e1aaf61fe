//! What the sinks make of the examples, to snapshots: every row and document of the tenant they belong to.

use fhirehose_demo::checks::ALIAS;
use serde_json::{Value, json};

use crate::end_to_end::World;

/// Differ from run to run: where a record stood in its topic, when it was sent, and when the row was written.
const VOLATILE: [&str; 6] =
    ["version", "source_ts", "loaded_at", "ingested_at", "updated_at", "source_position"];

const TABLES: [&str; 7] = [
    "vital_signs_timeseries",
    "dim.patient_dimension",
    "dim.provider_dimension",
    "dim.facility_dimension",
    "fact.encounter_fact",
    "fact.diagnosis_fact",
    "fact.vital_signs_fact",
];

pub fn check(world: &World, tenant: &str) {
    let mut postgres = postgres::Client::connect(&world.stack.postgres, postgres::NoTls).unwrap();
    for table in TABLES {
        let sql = format!("SELECT to_jsonb(t)::text FROM {table} AS t WHERE tenant_id = $1");
        let rows = postgres.query(&sql, &[&tenant]).unwrap();
        assert!(!rows.is_empty(), "{table} holds nothing of the examples");
        snapshot(table, rows.iter().map(|row| serde_json::from_str(row.get(0)).unwrap()).collect());
    }
    let query = json!({"size": 1000, "query": {"term": {"tenant": tenant}}});
    let url = format!("{}/{ALIAS}/_search", world.stack.search);
    let found: Value = ureq::post(url).send_json(query).unwrap().body_mut().read_json().unwrap();
    let hits = found["hits"]["hits"].as_array().unwrap();
    assert!(!hits.is_empty(), "the search index holds nothing of the examples");
    snapshot("search", hits.iter().map(|hit| hit["_source"].clone()).collect());
}

fn snapshot(name: &str, rows: Vec<Value>) {
    let mut lines: Vec<_> = rows.into_iter().map(stable).collect();
    lines.sort();
    insta::assert_snapshot!(format!("store.{name}"), lines.join("\n"));
}

/// One line, columns by name, without those that are empty or volatile.
fn stable(row: Value) -> String {
    let Value::Object(columns) = row else { panic!("a row is an object") };
    let mut kept: Vec<_> = columns
        .into_iter()
        .filter(|(name, value)| !value.is_null() && !VOLATILE.contains(&name.as_str()))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    kept.sort();
    kept.join(" ")
}
