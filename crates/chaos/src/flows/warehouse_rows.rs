//! What sink-warehouse must make of a record, by the documented rules, from its bytes alone; and the SQL that reads
//! the same values back.

use serde_json::Value as Json;
use uuid::Uuid;

use super::avro::{Schemas, named};
use super::stores::{RECORD_MAX_BYTES, SOURCE_TS, Table, VERSION, letter_print};
use super::warehouse_inputs::{ENCOUNTER, ORGANIZATION, PATIENT, PRACTITIONER, VITALS};
use crate::ledger::postgres::Cell;
use crate::ledger::state::{Row, Want, print};
use crate::ledger::topics::Record;

/// Tables by their number in the books.
pub const PATIENT_CHANGE: usize = 0;
pub const PROVIDER_CHANGE: usize = 1;
const FACILITY: usize = 2;
const ENCOUNTER_FACT: usize = 3;
const VITALS_FACT: usize = 4;

/// A version's values, in the order in which both sides hash them.
pub const PATIENT_VALUES: &str = "mrn, first_name, last_name, date_of_birth::text, gender, city, is_active";
pub const PROVIDER_VALUES: &str = "npi, first_name, last_name, gender, is_active";

/// As in topics/vitals.sample.yaml.
const EPOCH: i64 = 1;
/// Longer keys than that are made too long for an index.
const INDEXABLE: usize = 1_000;

pub fn tables() -> Vec<Table> {
    let changes = |table: &str, id: &str, values: &str| {
        format!(
            "SELECT {id} || '/' || (extract(epoch FROM source_ts) * 1000)::int8, version, is_deleted, {values}
             FROM {table} WHERE tenant_id = $1"
        )
    };
    let encounters = "\
        SELECT encounter_id::text, version, patient_id, provider_id, facility_id, admission_ts, discharge_ts,
            encounter_class, status, discharge_disposition, mortality, source_event_id, source_ts
        FROM fact.encounter_fact WHERE tenant_id = $1";
    let facilities = "\
        SELECT facility_id::text, version, is_deleted, source_ts, CASE WHEN NOT is_deleted THEN facility_code END,
            CASE WHEN NOT is_deleted THEN facility_name END, CASE WHEN NOT is_deleted THEN city END,
            CASE WHEN NOT is_deleted THEN is_active END
        FROM dim.facility_dimension WHERE NOT is_inferred AND tenant_id = $1";
    let readings = "\
        SELECT sample_id, version, patient_id, encounter_id, facility_id, device_id, observed_at, heart_rate::float8,
            temperature::float8, num_nonnulls(respiratory_rate, systolic, spo2, pain_score, weight, is_manual),
            source_event_id, source_ts
        FROM fact.vital_signs_fact WHERE tenant_id = $1";
    let table = |name, from, rows| Table { name, from, rows };
    vec![
        table(
            "dim.patient_change",
            "dim.patient_change",
            changes("dim.patient_change", "patient_id", PATIENT_VALUES),
        ),
        table(
            "dim.provider_change",
            "dim.provider_change",
            changes("dim.provider_change", "provider_id", PROVIDER_VALUES),
        ),
        table(
            "dim.facility_dimension",
            "dim.facility_dimension WHERE NOT is_inferred",
            facilities.to_owned(),
        ),
        table("fact.encounter_fact", "fact.encounter_fact", encounters.to_owned()),
        table("fact.vital_signs_fact", "fact.vital_signs_fact", readings.to_owned()),
    ]
}

/// A version's hash, as the tables of changes give it too.
pub fn version_print(values: Vec<Cell>) -> u64 {
    let mut cells = vec![Cell::Bool(false)];
    cells.extend(values);
    print(&cells)
}

/// The hash of a delete among so many values.
pub fn delete_print(values: &str) -> u64 {
    let mut cells = vec![Cell::Bool(true)];
    cells.extend(values.split(", ").map(|_| Cell::Null));
    print(&cells)
}

pub fn judge(topic: &str, record: &Record, schemas: &Schemas) -> Want {
    wanted(topic, record, schemas).unwrap_or_else(|| Want::Reject(letter_print(record)))
}

/// `None` where it must be rejected.
fn wanted(topic: &str, record: &Record, schemas: &Schemas) -> Option<Want> {
    let (_, id) = record.key.split_once('/').filter(|(tenant, id)| !tenant.is_empty() && !id.is_empty())?;
    let header = |name: &str| record.header(name).and_then(|text| text.parse::<i64>().ok());
    let Some(value) = &record.value else {
        let version = match topic {
            VITALS => (EPOCH << 56) | (record.offset << 8),
            _ => header(VERSION)?,
        };
        let source_ts = header(SOURCE_TS).or((topic == VITALS).then_some(record.timestamp))?;
        let put =
            |table, key: String, print| Want::Put { table, key: key.into(), row: Row { version, print } };
        let remove = |table| Want::Remove { table, key: id.into(), version };
        return Some(match topic {
            PATIENT => put(PATIENT_CHANGE, format!("{id}/{source_ts}"), delete_print(PATIENT_VALUES)),
            PRACTITIONER => put(PROVIDER_CHANGE, format!("{id}/{source_ts}"), delete_print(PROVIDER_VALUES)),
            ORGANIZATION => {
                let mut cells = vec![Cell::Bool(true), Cell::Int(source_ts)];
                cells.resize(6, Cell::Null);
                put(FACILITY, id.to_owned(), print(&cells))
            }
            ENCOUNTER => remove(ENCOUNTER_FACT),
            _ => remove(VITALS_FACT),
        });
    };
    let fields = if value.len() > RECORD_MAX_BYTES { None } else { schemas.read(value) }?;
    if topic == VITALS {
        return reading(record, id, &fields);
    }
    let (Cell::Int(version), Cell::Int(source_ts)) =
        (named(&fields, "version")?.clone(), named(&fields, "last_updated")?.clone())
    else {
        return None;
    };
    let Some(Cell::Text(resource)) = named(&fields, "resource") else { return None };
    let resource: Json = serde_json::from_str(resource).ok()?;
    let put = |table, key: String, print| Want::Put { table, key: key.into(), row: Row { version, print } };
    let at = |path: &str| match resource.pointer(path) {
        Some(Json::String(text)) => Cell::text(text),
        Some(Json::Bool(value)) => Cell::Bool(*value),
        _ => Cell::Null,
    };
    let name = ["/name/0/given/0", "/name/0/family"];
    Some(match topic {
        PATIENT => {
            let rest = ["/birthDate", "/gender", "/address/0/city", "/active"];
            let values = ["/identifier/0/value"].into_iter().chain(name).chain(rest).map(at).collect();
            put(PATIENT_CHANGE, format!("{id}/{source_ts}"), version_print(values))
        }
        PRACTITIONER => {
            let paths = ["/identifier/0/value"].into_iter().chain(name).chain(["/gender", "/active"]);
            put(PROVIDER_CHANGE, format!("{id}/{source_ts}"), version_print(paths.map(at).collect()))
        }
        ORGANIZATION => {
            let mut cells = vec![Cell::Bool(false), Cell::Int(source_ts)];
            cells.extend(["/identifier/0/value", "/name", "/address/0/city", "/active"].map(at));
            put(FACILITY, id.to_owned(), print(&cells))
        }
        _ => {
            let refers = |path: &str| match at(path) {
                Cell::Text(reference) => uuid(reference.split_once('/')?.1),
                _ => Some(Cell::Null),
            };
            let disposition = at("/hospitalization/dischargeDisposition/coding/0/code");
            let cells = vec![
                refers("/subject/reference")?,
                refers("/participant/0/individual/reference")?,
                refers("/serviceProvider/reference")?,
                instant(at("/period/start"))?,
                instant(at("/period/end"))?,
                at("/class/code"),
                at("/status"),
                disposition.clone(),
                Cell::Bool(disposition == Cell::text("exp")),
                named(&fields, "version_id")?.clone(),
                Cell::Int(source_ts),
            ];
            put(ENCOUNTER_FACT, id.to_owned(), print(&cells))
        }
    })
}

fn reading(record: &Record, id: &str, fields: &[(String, Cell)]) -> Option<Want> {
    let value = |name| named(fields, name).cloned();
    let key = |name| match value(name)? {
        Cell::Text(text) => uuid(&text),
        _ => Some(Cell::Null),
    };
    let source_ts = record.header(SOURCE_TS).and_then(|text| text.parse().ok()).unwrap_or(record.timestamp);
    let cells = vec![
        key("patient_id")?,
        key("encounter_id")?,
        key("facility_id")?,
        value("device_id")?,
        value("observed_at")?,
        value("heart_rate")?,
        value("temperature")?,
        Cell::Int(0),
        value("source_event_id")?,
        Cell::Int(source_ts),
    ];
    let version = (EPOCH << 56) | (record.offset << 8);
    let row = Row { version, print: print(&cells) };
    (id.len() <= INDEXABLE).then(|| Want::Put { table: VITALS_FACT, key: id.into(), row })
}

fn uuid(text: &str) -> Option<Cell> {
    Uuid::try_parse(text).ok().map(|id| Cell::Text(id.to_string()))
}

fn instant(cell: Cell) -> Option<Cell> {
    match cell {
        Cell::Text(text) => Some(Cell::Int(text.parse::<jiff::Timestamp>().ok()?.as_millisecond())),
        other => Some(other),
    }
}
