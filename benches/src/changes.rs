//! Row changes as Debezium sends them, made from the repository's examples: each with an identity, values and
//! a place in the log of its own, as JSON and as Avro.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use apache_avro::types::Value as Avro;
use apache_avro::{Schema, to_avro_datum};
use serde_json::{Map, Value as Json, json};

/// Tables that changes are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    Patients,
    Encounters,
    Diagnoses,
    VitalSigns,
}

/// What the connector's converter writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Avro,
}

/// A record of a change topic.
pub struct Change {
    pub topic: Arc<str>,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
}

/// The tables and how often they change: of ten changes four are of vital signs and two of each other table.
const MIX: [Table; 10] = {
    use Table::{Diagnoses, Encounters, Patients, VitalSigns};
    [
        Patients, Encounters, VitalSigns, VitalSigns, Diagnoses, Patients, VitalSigns, Encounters,
        VitalSigns, Diagnoses,
    ]
};
/// How many changes of one format in a row, and how many changes ago the patient of a row was admitted.
const TURN: u64 = 10;
const SINCE: u64 = 40 * TURN;
/// 2026-06-01T00:00:00Z: readings begin here, a second apart.
const FIRST_MS: i64 = 1_780_272_000_000;

impl Table {
    pub const ALL: [Table; 4] = [Table::Patients, Table::Encounters, Table::Diagnoses, Table::VitalSigns];

    pub fn name(self) -> &'static str {
        match self {
            Table::Patients => "clinical_data.patients",
            Table::Encounters => "clinical_data.encounters",
            Table::Diagnoses => "clinical_data.diagnoses",
            Table::VitalSigns => "clinical_data.vital_signs",
        }
    }

    fn example(self) -> &'static str {
        match self {
            Table::Patients => "snapshot",
            Table::Encounters => "create-inpatient",
            Table::Diagnoses => "create-hypertension",
            Table::VitalSigns => "create-all-columns",
        }
    }

    fn row_id(self, number: u64) -> String {
        format!("{:08x}-0000-4000-8000-{number:012x}", self as u32)
    }
}

impl Format {
    pub const ALL: [Format; 2] = [Format::Json, Format::Avro];

    pub fn source(self) -> &'static str {
        match self {
            Format::Json => "bench_json",
            Format::Avro => "bench_avro",
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Format::Json => "JSON",
            Format::Avro => "Avro",
        }
    }
}

/// Makes changes.
pub struct Changes {
    tables: Vec<Template>,
    /// Rows that everyone refers to: a facility, a practitioner.
    base: Vec<(&'static str, Json)>,
}

struct Template {
    table: Table,
    topics: [Arc<str>; 2],
    value: Json,
    schema: Schema,
    schema_json: String,
    key_schema: Schema,
    ids: (u32, u32),
}

const KEY_SCHEMA: &str = r#"{"type":"record","name":"Key","fields":[{"name":"id","type":"string"}]}"#;

impl Changes {
    /// Reads the examples. `register` gives the id of a subject's schema.
    pub fn load(root: &Path, mut register: impl FnMut(&str, &str) -> Result<u32>) -> Result<Changes> {
        let read = |table: &str, name: &str| -> Result<Json> {
            let file = root.join(format!("examples/cdc.{table}/{name}.json"));
            let text = std::fs::read(&file).with_context(|| file.display().to_string())?;
            Ok(serde_json::from_slice(&text)?)
        };
        let base = ["business_operations.facilities", "identity_management.users"]
            .into_iter()
            .map(|table| Ok((table, read(table, "snapshot")?)))
            .collect::<Result<Vec<_>>>()?;
        let [facility, user] = [0, 1].map(|at: usize| base[at].1["value"]["after"]["id"].clone());
        let mut tables = Vec::new();
        for table in Table::ALL {
            let mut value = read(table.name(), table.example())?["value"].take();
            value["op"] = "c".into();
            for (name, id) in [
                ("facility_id", &facility),
                ("attending_provider_id", &user),
                ("referring_provider_id", &user),
                ("recorded_by", &user),
                ("diagnosed_by", &user),
            ] {
                if value["after"].get(name).is_some() {
                    value["after"][name] = id.clone();
                }
            }
            let source = &mut value["source"];
            (source["snapshot"], source["server_id"], source["file"]) =
                ("false".into(), 7.into(), "binlog.000001".into());
            let schema_json = envelope_schema(table, &value)?.to_string();
            let topics = Format::ALL.map(|format| format!("cdc.{}.{}", format.source(), table.name()).into());
            let subject = &topics[Format::Avro as usize];
            let ids = (
                register(&format!("{subject}-value"), &schema_json)?,
                register(&format!("{subject}-key"), KEY_SCHEMA)?,
            );
            let (schema, key_schema) = (Schema::parse_str(&schema_json)?, Schema::parse_str(KEY_SCHEMA)?);
            tables.push(Template { table, topics, value, schema, schema_json, key_schema, ids });
        }
        Ok(Changes { tables, base })
    }

    /// Ids and texts of the schemas in [`Format::Avro`] values.
    pub fn schemas(&self) -> impl Iterator<Item = (u32, &str)> {
        let both = |t: &'_ Template| [(t.ids.0, None), (t.ids.1, Some(KEY_SCHEMA))];
        self.tables.iter().flat_map(move |template| {
            both(template).map(|(id, json)| (id, json.unwrap_or(&template.schema_json)))
        })
    }

    /// The rows that all others refer to, for every source.
    pub fn base(&self) -> Vec<Change> {
        let of = |format: Format| {
            self.base.iter().map(move |(table, example)| Change {
                topic: format!("cdc.{}.{table}", format.source()).into(),
                key: example["key"].to_string().into_bytes(),
                value: example["value"].to_string().into_bytes(),
            })
        };
        Format::ALL.into_iter().flat_map(of).collect()
    }

    /// Change `number` of the mix, committed at the source at `at_ms`.
    pub fn mixed(&self, number: u64, at_ms: i64) -> Result<Change> {
        let format = Format::ALL[(number / TURN % 2) as usize];
        self.change(MIX[(number % 10) as usize], format, number, at_ms)
    }

    /// A new row. `number` is its identity and its place in the log.
    pub fn change(&self, table: Table, format: Format, number: u64, at_ms: i64) -> Result<Change> {
        let template = &self.tables[table as usize];
        debug_assert_eq!(template.table, table);
        let mut value = template.value.clone();
        fill(table, &mut value["after"], number);
        let source = &mut value["source"];
        (source["pos"], source["ts_ms"]) = (number.into(), at_ms.into());
        source["gtid"] = format!("0-7-{number}").into();
        (source["ts_us"], source["ts_ns"]) = ((at_ms * 1000).into(), (at_ms * 1_000_000).into());
        value["ts_ms"] = at_ms.into();
        let key = json!({"id": table.row_id(number)});
        let topic = template.topics[format as usize].clone();
        Ok(match format {
            Format::Json => {
                Change { topic, key: key.to_string().into_bytes(), value: value.to_string().into_bytes() }
            }
            Format::Avro => Change {
                topic,
                key: datum(template.ids.1, &template.key_schema, key)?,
                value: datum(template.ids.0, &template.schema, value)?,
            },
        })
    }
}

/// The values of row `number`. As in the simulator a quarter of the vital signs has height and weight, and
/// pain and consciousness are seldom noted.
fn fill(table: Table, row: &mut Json, number: u64) {
    row["id"] = table.row_id(number).into();
    // A patient of the same source.
    let patient = number.checked_sub(SINCE).unwrap_or(number % (2 * TURN)) / TURN * TURN;
    if row.get("patient_id").is_some() {
        row["patient_id"] = Table::Patients.row_id(patient).into();
    }
    if row.get("encounter_id").is_some() {
        row["encounter_id"] = Table::Encounters.row_id(patient + 1).into();
    }
    match table {
        Table::Patients => {
            row["mrn"] = format!("MRN-{number:08}").into();
            row["last_name"] = format!("Family{}", number % 997).into();
        }
        Table::Encounters => row["encounter_number"] = format!("ENC-{number:08}").into(),
        Table::Diagnoses => {}
        Table::VitalSigns => {
            row["observation_time"] = at(FIRST_MS + number as i64 * 1000).into();
            row["heart_rate"] = (60 + number % 40).into();
            row["respiratory_rate"] = (12 + number % 8).into();
            row["blood_pressure_systolic"] = (110 + number % 30).into();
            row["blood_pressure_diastolic"] = (65 + number % 20).into();
            row["temperature"] = format!("36.{}", number % 10).into();
            row["oxygen_saturation"] = format!("9{}.00", 5 + number % 5).into();
            let mut unset = |columns: &[&str]| columns.iter().for_each(|name| row[*name] = Json::Null);
            unset(&["oxygen_flow_rate", "notes"]);
            if !(number / TURN).is_multiple_of(4) {
                unset(&["height", "weight", "bmi"]);
            }
            if number / TURN % 10 > 2 {
                unset(&["pain_score"]);
            }
            if !(number / TURN).is_multiple_of(5) {
                unset(&["glasgow_coma_scale"]);
            }
            row["oxygen_delivery_method"] = "room_air".into();
        }
    }
}

fn at(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).unwrap_or_default().to_string()
}

fn datum(id: u32, schema: &Schema, json: Json) -> Result<Vec<u8>> {
    let mut bytes = vec![0];
    bytes.extend_from_slice(&id.to_be_bytes());
    bytes.extend(to_avro_datum(schema, Avro::from(json).resolve(schema)?)?);
    Ok(bytes)
}

/// A schema of the example's envelope, as Debezium's Avro converter writes one.
fn envelope_schema(table: Table, envelope: &Json) -> Result<Json> {
    let fields = |object: &Json| -> Result<Vec<Json>> {
        let object: &Map<String, Json> = object.as_object().context("an object in the example")?;
        Ok(object
            .iter()
            .map(|(name, value)| {
                let kind = if value.is_number() { "long" } else { "string" };
                match name.as_str() {
                    "id" => json!({"name": name, "type": kind}),
                    _ => json!({"name": name, "type": ["null", kind], "default": null}),
                }
            })
            .collect())
    };
    let row = json!({"type": "record", "name": "Value", "fields": fields(&envelope["after"])?});
    let source = json!({"type": "record", "name": "Source", "fields": fields(&envelope["source"])?});
    let plain = ["ts_ms", "ts_us", "ts_ns"]
        .map(|name| json!({"name": name, "type": ["null", "long"], "default": null}));
    let mut all = vec![
        json!({"name": "before", "type": ["null", row], "default": null}),
        json!({"name": "after", "type": ["null", "Value"], "default": null}),
        json!({"name": "source", "type": source}),
        json!({"name": "transaction", "type": ["null", "string"], "default": null}),
        json!({"name": "op", "type": "string"}),
    ];
    all.extend(plain);
    let namespace = format!("cdc.{}.{}", Format::Avro.source(), table.name());
    Ok(json!({"type": "record", "name": "Envelope", "namespace": namespace, "fields": all}))
}
