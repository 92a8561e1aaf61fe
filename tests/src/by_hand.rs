//! Rows changed by hand in a hospital's database, and looked for in every store.

use fhirehose_demo::truth::Hospital;
use fhirehose_demo::{checks, ids};
use fhirehose_stream::Reason;
use mysql::prelude::Queryable;
use postgres::NoTls;
use redis::Commands;
use serde_json::{Value, json};

use crate::end_to_end::World;
use crate::fleet::eventually;

const PATIENT: &str = "0a000000-0000-4000-8000-00000000ab01";
const MOVED: &str = "0a000000-0000-4000-8000-00000000ab02";
const READING: &str = "0a000000-0000-4000-8000-00000000ab03";
const DIAGNOSIS: &str = "0a000000-0000-4000-8000-00000000ab04";
const WRONG: &str = "0a000000-0000-4000-8000-00000000ab05";

struct Stores<'w> {
    world: &'w World,
    postgres: postgres::Client,
    redis: redis::Connection,
}

impl Stores<'_> {
    /// One value of the warehouse or the time series, as text.
    fn sql(&mut self, query: &str) -> Option<String> {
        let rows = self.postgres.query(query, &[]).unwrap();
        rows.first().and_then(|row| row.get::<_, Option<String>>(0))
    }

    fn hits(&self, query: Value) -> Vec<Value> {
        let url = format!("{}/{}/_search", self.world.stack.search, checks::ALIAS);
        let found: Value = ureq::post(url).send_json(query).unwrap().body_mut().read_json().unwrap();
        found["hits"]["hits"].as_array().unwrap().iter().map(|hit| hit["_source"].clone()).collect()
    }

    /// The last resource of a key, if it is not deleted.
    fn resource(&self, topic: &str, key: &str) -> Option<Value> {
        let last = self.world.kafka.read(topic).into_iter().rfind(|record| record.key() == key)?;
        Some(serde_json::from_str(&self.world.kafka.resource(&last.value?)).unwrap())
    }
}

pub fn check(world: &World) {
    let site = world.stack.sites[0].clone();
    let mut stores = Stores {
        world,
        postgres: postgres::Client::connect(&world.stack.postgres, NoTls).unwrap(),
        redis: redis::Client::open(&*world.stack.redis).unwrap().get_connection().unwrap(),
    };
    let mut source = mysql::Conn::new(mysql::Opts::from_url(&site.url).unwrap()).unwrap();
    let mut change = |sql: String| source.query_drop(sql).unwrap();
    let id = |table: &str, row: &str| ids::row(site.tenant, site.source, table, row, None);
    let key = |row: &str| format!("{}/{}", site.tenant, id("clinical_data.patients", row));

    // Insert.
    change(format!(
        "INSERT INTO clinical_data.patients (id, mrn, first_name, last_name, date_of_birth, gender, city)
         VALUES ('{PATIENT}', 'HAND-1', 'Salma', 'Handwritten', '1980-01-02', 'female', 'Omdurman')"
    ));
    change(format!(
        "INSERT INTO clinical_data.vital_signs (id, patient_id, observation_time, heart_rate)
         VALUES ('{READING}', '{PATIENT}', '2026-11-01 10:00:00', 61)"
    ));
    change(format!(
        "INSERT INTO clinical_data.diagnoses (id, patient_id, diagnosis_code, diagnosis_description, diagnosis_type)
         VALUES ('{DIAGNOSIS}', '{PATIENT}', 'I10', 'Essential (primary) hypertension', 'primary')"
    ));
    let heart_rate =
        format!("SELECT heart_rate::text FROM vital_signs_timeseries WHERE device_id = 'row:{READING}'");
    let city = format!(
        "SELECT city FROM dim.patient_dimension WHERE patient_id = '{}' AND is_current AND NOT is_deleted",
        id("clinical_data.patients", PATIENT)
    );
    let diagnosis = json!({"query": {"match": {"subject_name": "Handwritten"}}});
    eventually("the inserted rows are in every store", 30, || {
        stores.sql(&heart_rate).is_some_and(|rate| rate.starts_with("61"))
            && stores.sql(&city).as_deref() == Some("Omdurman")
            && stores.hits(diagnosis.clone()).iter().any(|hit| hit["code"] == "I10")
            && stores.resource("fhir.patient", &key(PATIENT)).is_some()
    });

    // Update. Something stale in the cache must go.
    let cached = format!("patient:{}:{PATIENT}", site.tenant);
    let () = stores.redis.hset(&cached, "value", "stale").unwrap();
    // The database's log keeps the time of a change in whole seconds.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    change(format!("UPDATE clinical_data.patients SET city = 'Port Sudan' WHERE id = '{PATIENT}'"));
    change(format!("UPDATE clinical_data.vital_signs SET heart_rate = 62 WHERE id = '{READING}'"));
    eventually("the updates are in every store", 30, || {
        stores.sql(&heart_rate).is_some_and(|rate| rate.starts_with("62"))
            && stores.sql(&city).as_deref() == Some("Port Sudan")
            && !is_cached(&mut stores.redis, &cached)
            && stores.resource("fhir.patient", &key(PATIENT)).unwrap()["address"][0]["city"] == "Port Sudan"
    });
    let interval = format!(
        "SELECT count(*)::text FROM dim.patient_dimension WHERE patient_id = '{}'",
        id("clinical_data.patients", PATIENT)
    );
    assert_eq!(stores.sql(&interval).as_deref(), Some("2"), "history of where the patient lived");

    // A new primary key is a delete and a create.
    change(format!("UPDATE clinical_data.patients SET id = '{MOVED}' WHERE id = '{PATIENT}'"));
    eventually("the patient is known by the new key alone", 30, || {
        stores.resource("fhir.patient", &key(PATIENT)).is_none()
            && stores.resource("fhir.patient", &key(MOVED)).is_some()
    });

    // A value no concept map knows: somebody added it to the table. It is rejected, and no other row is.
    change(
        "ALTER TABLE clinical_data.patients MODIFY gender ENUM('male','female','other','unknown','undisclosed') NOT NULL"
            .into(),
    );
    change(format!(
        "INSERT INTO clinical_data.patients (id, mrn, first_name, last_name, date_of_birth, gender)
         VALUES ('{WRONG}', 'HAND-2', 'Un', 'Known', '1990-01-02', 'undisclosed')"
    ));
    let letter = || {
        let letters = world.kafka.read("cdc.clinical_data.patients.normalize-cdc.dlq");
        letters.into_iter().find(|letter| contains(letter.key.as_deref(), WRONG))
    };
    eventually("the unknown value is dead-lettered", 30, || letter().is_some());
    let letter = letter().unwrap();
    assert_eq!(letter.header("fhirehose-dlq-reason"), Reason::UnknownCode.label());
    assert!(letter.header("fhirehose-dlq-detail").contains("gender"), "it says where");
    assert!(!letter.headers.iter().any(|(_, value)| contains(Some(value), "undisclosed")), "and not what");
    assert!(stores.resource("fhir.patient", &key(WRONG)).is_none());
    // Set right at the source, it flows.
    change(format!("UPDATE clinical_data.patients SET gender = 'unknown' WHERE id = '{WRONG}'"));
    eventually("the corrected row flows", 30, || stores.resource("fhir.patient", &key(WRONG)).is_some());
    change(format!("DELETE FROM clinical_data.patients WHERE id = '{WRONG}'"));

    // Delete.
    for (table, row) in [("diagnoses", DIAGNOSIS), ("vital_signs", READING), ("patients", MOVED)] {
        change(format!("DELETE FROM clinical_data.{table} WHERE id = '{row}'"));
    }
    eventually("the deletes are in every store", 30, || {
        stores.sql(&heart_rate).is_none()
            && stores.hits(diagnosis.clone()).is_empty()
            && stores.resource("fhir.patient", &key(MOVED)).is_none()
            && stores.sql(&city).is_none()
    });
    // Nothing else moved: what the tables hold is what the topics hold.
    let hospital = Hospital::read(&site, Vec::new(), Default::default()).unwrap();
    let live = world.kafka.read("fhir.patient").into_iter().fold(
        std::collections::BTreeMap::new(),
        |mut live, record| {
            live.insert(record.key(), record.value.is_some());
            live
        },
    );
    let of_tenant = live.iter().filter(|(key, live)| **live && key.starts_with(site.tenant)).count();
    assert_eq!(of_tenant, hospital.patients.len());
}

fn is_cached(redis: &mut redis::Connection, key: &str) -> bool {
    redis.hexists(key, "value").unwrap()
}

fn contains(value: Option<&[u8]>, text: &str) -> bool {
    value.is_some_and(|value| value.windows(text.len()).any(|window| window == text.as_bytes()))
}
