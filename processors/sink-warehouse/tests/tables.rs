//! Tables from their declarations on a real PostgreSQL: made, compared, changed, refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use fhirehose_pgsink::migrate;
use fhirehose_stream::Verdict;
use serde_json::json;
use sink_warehouse::{MigrationError, Pending, Plan};
use support::{Shapes, TestDatabase, Worker, encounter, id, migrated, patient, root, texts};

const DAY: i64 = 86_400_000;

/// The shapes of the repository, of which tables can be declared otherwise.
struct Copied(tempfile::TempDir);

impl Copied {
    fn new() -> Copied {
        let dir = tempfile::tempdir().unwrap();
        for name in ["topics", "schemas"] {
            std::os::unix::fs::symlink(root().join(name).canonicalize().unwrap(), dir.path().join(name))
                .unwrap();
        }
        let views = dir.path().join("views/warehouse");
        fs::create_dir_all(&views).unwrap();
        for entry in fs::read_dir(root().join("views/warehouse")).unwrap() {
            let from = entry.unwrap().path();
            fs::copy(&from, views.join(from.file_name().unwrap())).unwrap();
        }
        Copied(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path().join("views/warehouse").join(name)
    }

    /// Replaces text that must be there.
    fn edit(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.file(name)).unwrap();
        assert!(text.contains(from), "{name} has no {from}");
        fs::write(self.file(name), text.replace(from, to)).unwrap();
    }

    fn plan(&self, database: &TestDatabase) -> Plan {
        sink_warehouse::plan(&database.url, self.path(), &Shapes::load().registry).unwrap()
    }

    fn apply(&self, database: &TestDatabase) -> Result<Vec<String>, MigrationError> {
        let mut applied = Vec::new();
        let registry = Shapes::load().registry;
        sink_warehouse::apply(&database.url, self.path(), &registry, |what| applied.push(what.to_owned()))?;
        Ok(applied)
    }
}

fn statements(plan: &Plan) -> Vec<String> {
    let sql = |pending: &Pending| match pending {
        Pending::File(name) => vec![name.clone()],
        Pending::Table { sql, .. } => sql.clone(),
    };
    plan.pending.iter().flat_map(sql).collect()
}

/// The tables were made by hand-written SQL once: databases of that time are as declared.
#[test]
fn a_database_of_the_hand_written_tables_has_nothing_pending() {
    let database = TestDatabase::create("wh_by_hand");
    let by_hand = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hand_written");
    migrate::apply(&database.url, &root().join("schemas/sql"), &["offsets"], |_| {}).unwrap();
    migrate::apply(&database.url, &by_hand, &["warehouse"], |_| {}).unwrap();
    let shapes = Copied::new();
    assert_eq!(shapes.plan(&database), Plan::default());
    assert!(shapes.apply(&database).unwrap().is_empty());
    // And it is written as ever.
    let mut worker = Worker::new(&database, "t", 0);
    worker.resource("t1", 256, DAY, &patient(1, "Khartoum"));
    worker.resource("t1", 256, DAY, &encounter(1, 1, "AMB", "2026-01-02T00:30:00Z", None));
    assert!(worker.flush().iter().all(|verdict| matches!(verdict, Verdict::Emit(_))));
}

#[test]
fn an_empty_database_is_made_once_by_any_number_of_runners() {
    let database = TestDatabase::create("wh_runners");
    let shapes = Copied::new();
    let first = statements(&shapes.plan(&database));
    assert!(first.iter().any(|sql| sql.starts_with("CREATE TABLE fact.encounter_fact")), "{first:?}");
    let runs: Vec<Vec<String>> = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..3).map(|_| scope.spawn(|| shapes.apply(&database).unwrap())).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    let applied: Vec<&String> = runs.iter().flatten().collect();
    assert_eq!(applied.iter().filter(|what| **what == "fact.encounter_fact").count(), 1, "{applied:?}");
    assert_eq!(shapes.plan(&database), Plan::default());
    let zero = "SELECT (SELECT count(*) FROM dim.patient_dimension WHERE patient_key = 0)::text || \
         (SELECT count(*) FROM dim.diagnosis_dimension WHERE diagnosis_key = 0)::text";
    assert_eq!(texts(&mut database.connect(), zero), ["11"]);
}

#[test]
fn a_changed_declaration_is_a_plan_and_then_nothing() {
    let database = migrated("wh_changed");
    let shapes = Copied::new();
    assert_eq!(shapes.plan(&database), Plan::default());
    shapes.edit(
        "facility_dimension.json",
        r#"{"name": "facility_name","#,
        r#"{"name": "phone", "path": "telecom.first().value", "type": "string", "description": "Where it's called"},
           {"name": "facility_name","#,
    );
    shapes.edit(
        "facility_dimension.yaml",
        "id: [facility_id]",
        "id: [facility_id]\ndescription: Houses\ncolumns:\n  total_beds: {type: bigint}",
    );
    shapes.edit(
        "encounter_fact.yaml",
        "[facility_key, admission_ts]",
        "[facility_key]\n  encounter_fact_status: [status]",
    );
    let plan = shapes.plan(&database);
    assert!(plan.refused.is_empty(), "{:?}", plan.refused);
    assert_eq!(
        statements(&plan),
        [
            "ALTER TABLE dim.facility_dimension ADD COLUMN phone text",
            "ALTER TABLE dim.facility_dimension ALTER total_beds TYPE bigint",
            "COMMENT ON TABLE dim.facility_dimension IS 'Houses'",
            "COMMENT ON COLUMN dim.facility_dimension.phone IS 'Where it''s called'",
            "DROP INDEX fact.encounter_fact_facility",
            "CREATE INDEX encounter_fact_facility ON fact.encounter_fact (facility_key)",
            "CREATE INDEX encounter_fact_status ON fact.encounter_fact (status)",
        ]
    );
    assert_eq!(shapes.plan(&database), plan, "a plan changes nothing");
    assert_eq!(shapes.apply(&database).unwrap(), ["dim.facility_dimension", "fact.encounter_fact"]);
    assert_eq!(shapes.plan(&database), Plan::default());
}

#[test]
fn what_would_lose_something_is_refused_and_nothing_is_changed() {
    let database = migrated("wh_refused_plan");
    let shapes = Copied::new();
    shapes.edit("facility_dimension.json", r#"{"name": "icu_beds""#, r#"{"name": "beds_of_icu""#);
    shapes.edit("vital_signs_fact.yaml", "columns:", "columns:\n  spo2: {type: integer}");
    shapes.edit("diagnosis_fact.yaml", "key: diagnosis_fact_key", "key: fact_key");
    shapes.edit("encounter_fact.yaml", "3600, 2", "3600, 1");
    let plan = shapes.plan(&database);
    let refused = plan.refused.join("\n");
    for said in [
        "dim.facility_dimension.icu_beds is no longer declared: `fhirehose rebuild dim.facility_dimension`",
        "fact.vital_signs_fact.spo2 is numeric, and declared as integer: `fhirehose rebuild fact.vital_signs_fact`",
        "fact.diagnosis_fact lacks PRIMARY KEY (fact_key)",
        "fact.diagnosis_fact has PRIMARY KEY (diagnosis_fact_key)",
        "fact.encounter_fact.length_of_stay_hours is computed in another way",
    ] {
        assert!(refused.contains(said), "{said}\n{refused}");
    }
    let error = shapes.apply(&database).unwrap_err();
    assert!(matches!(&error, MigrationError::Refused(_)), "{error}");
    assert_eq!(Copied::new().plan(&database), Plan::default(), "beds_of_icu was not added");
    // A dimension's versions are nowhere else.
    let versions = Copied::new();
    versions.edit("patient_dimension.yaml", "deceased_date: {type: date}", "deceased_date: {type: text}");
    let refused = versions.plan(&database).refused.join("\n");
    assert!(refused.contains("dim.patient_dimension.deceased_date is date"), "{refused}");
    assert!(refused.contains("dim.patient_change.deceased_date is date"), "{refused}");
    assert!(!refused.contains("fhirehose rebuild"), "{refused}");
}

const CONTACTS: &str = r#"{"resource": "Patient", "select": [
    {"column": [{"name": "patient", "path": "getResourceKey()", "type": "id"}]},
    {"forEach": "telecom", "column": [
        {"name": "contact_system", "path": "system", "type": "code"},
        {"name": "contact_value", "path": "value", "type": "string"},
        {"name": "since", "path": "period.start", "type": "dateTime"}]}]}"#;

const DECLARED: &str = "table: fact.patient_contact\nkind: view\ninput: enriched.patient\nkey: contact_key\n\
    id: [patient_id]\nevent_time: since\nlookups:\n  patient_key: {table: dim.patient_dimension, id: [patient]}\n";

fn with_contacts(n: u32, contacts: &[&str]) -> serde_json::Value {
    let mut patient = patient(n, "Khartoum");
    let contact = |value: &&str| json!({"system": "phone", "value": value, "period": {"start": "2026-01-02T00:00:00Z"}});
    patient["telecom"] = contacts.iter().map(contact).collect();
    patient
}

#[test]
fn the_rows_of_a_view_are_replaced_together_by_version() {
    let database = migrated("wh_view");
    let shapes = Copied::new();
    fs::write(shapes.file("patient_contact.json"), CONTACTS).unwrap();
    fs::write(shapes.file("patient_contact.yaml"), DECLARED).unwrap();
    assert_eq!(shapes.apply(&database).unwrap(), ["fact.patient_contact"]);
    let mut worker = Worker::over(&database, "t", 0, shapes.path());
    let mut client = database.connect();
    let mut rows = || {
        let sql = "SELECT concat_ws(' ', c.row_nr, c.contact_value, c.version, d.mrn) FROM fact.patient_contact AS c \
             LEFT JOIN dim.patient_dimension AS d USING (patient_key) ORDER BY c.patient_id, row_nr";
        texts(&mut client, sql)
    };
    worker.resource("t1", 100, DAY, &with_contacts(1, &["a", "b", "c"]));
    worker.flush();
    assert_eq!(rows(), ["0 a 100 MRN1", "1 b 100 MRN1", "2 c 100 MRN1"]);
    // In one batch: an older version after the newest, and twice the newest.
    worker.resource("t1", 300, DAY, &with_contacts(1, &["x", "y"]));
    worker.resource("t1", 200, DAY, &with_contacts(1, &["o", "p", "q", "r"]));
    worker.resource("t1", 300, DAY, &with_contacts(1, &["x", "y"]));
    worker.flush();
    assert_eq!(rows(), ["0 x 300 MRN1", "1 y 300 MRN1"]);
    worker.resource("t1", 250, DAY, &with_contacts(1, &["o", "p", "q", "r"]));
    worker.flush();
    assert_eq!(rows(), ["0 x 300 MRN1", "1 y 300 MRN1"], "an older version changes nothing");
    worker.resource("t1", 400, DAY, &with_contacts(1, &[]));
    worker.flush();
    assert!(rows().is_empty(), "the view has no row of it any more");
    worker.resource("t1", 500, DAY, &with_contacts(1, &["z"]));
    worker.delete("patient", "t1", &id("Patient", 1), 600, DAY);
    worker.resource("t1", 550, DAY, &with_contacts(2, &["w"]));
    worker.flush();
    assert_eq!(rows().len(), 1, "{:?}", rows());
}

#[test]
fn deletes_mark_or_keep_rows_where_that_is_declared() {
    let database = TestDatabase::create("wh_marks");
    let shapes = Copied::new();
    shapes.edit("encounter_fact.yaml", "kind: fact", "kind: fact\ndeletes: mark");
    fs::write(shapes.file("patient_contact.json"), CONTACTS).unwrap();
    fs::write(shapes.file("patient_contact.yaml"), format!("{DECLARED}deletes: keep\n")).unwrap();
    shapes.apply(&database).unwrap();
    let mut worker = Worker::over(&database, "t", 0, shapes.path());
    worker.resource("t1", 100, DAY, &with_contacts(1, &["a", "b"]));
    worker.resource("t1", 100, DAY, &encounter(1, 1, "AMB", "2026-01-05T00:00:00Z", None));
    worker.flush();
    worker.delete("patient", "t1", &id("Patient", 1), 200, 2 * DAY);
    worker.delete("encounter", "t1", &id("Encounter", 1), 200, 2 * DAY);
    worker.flush();
    let mut client = database.connect();
    let marked = "SELECT concat_ws(' ', is_deleted, version) FROM fact.encounter_fact";
    assert_eq!(texts(&mut client, marked), ["t 200"]);
    assert_eq!(texts(&mut client, "SELECT count(*)::text FROM fact.patient_contact"), ["2"]);
    worker.resource("t1", 300, 3 * DAY, &encounter(1, 1, "AMB", "2026-01-05T00:00:00Z", None));
    worker.flush();
    assert_eq!(texts(&mut client, marked), ["f 300"]);
}
