//! The star schema on a real PostgreSQL: dimensions, facts, lookups, deletes, refreshed columns.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use fhirehose_stream::{Reason, Sink, Verdict};
use serde_json::json;
use support::{Shapes, TestDatabase, Worker, encounter, id, migrated, patient, root, texts};

const DAY: i64 = 86_400_000;

#[test]
fn every_table_is_filled_from_its_view() {
    let database = migrated("wh_all");
    let mut worker = Worker::new(&database, "t", 0);
    worker.resource("t1", 256, DAY, &patient(1, "Khartoum"));
    let organization = json!({
        "resourceType": "Organization", "id": id("Organization", 1), "active": true, "name": "Teaching Hospital",
        "extension": [{"url": "urn:fhirehose:extension:total-beds", "valueInteger": 400}],
        "identifier": [{"type": {"coding": [{"code": "FI"}]}, "value": "KTH"}],
        "address": [{"city": "Khartoum"}],
    });
    worker.resource("t1", 256, DAY, &organization);
    let practitioner = json!({
        "resourceType": "Practitioner", "id": id("Practitioner", 1), "active": true,
        "name": [{"family": "Osman", "given": ["Sara"]}],
    });
    worker.resource("t1", 256, DAY, &practitioner);
    worker.resource(
        "t1",
        256,
        DAY,
        &encounter(1, 1, "IMP", "2026-01-02T00:30:00+02:00", Some("2026-01-03T12:30:00+02:00")),
    );
    let condition = json!({
        "resourceType": "Condition", "id": id("Condition", 1),
        "clinicalStatus": {"coding": [{"code": "active"}]}, "verificationStatus": {"coding": [{"code": "confirmed"}]},
        "category": [{"coding": [{"system": "urn:fhirehose:codes:diagnosis-type", "code": "primary"}]}],
        "code": {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": "I10"}], "text": "Essential (primary) hypertension"},
        "subject": {"reference": format!("Patient/{}", id("Patient", 1))},
        "encounter": {"reference": format!("Encounter/{}", id("Encounter", 1))},
        "recordedDate": "2026-01-02T08:00:00Z", "onsetDateTime": "2025-12",
    });
    worker.resource("t1", 256, DAY, &condition);
    let sample = json!({
        "tenant": "t1", "patient_id": id("Patient", 1), "device_id": "row:1", "observed_at": 1_767_312_000_000_i64,
        "encounter_id": id("Encounter", 1), "source": "hospital_a", "source_event_id": "row-1", "heart_rate": 72.0,
        "temperature": 36.6, "pain_score": 2, "is_manual": true, "flags": [],
    });
    worker.push("vitals.sample", "t1/row:1/1767312000000", Some(&sample), &[]);
    let verdicts = worker.flush();
    assert!(verdicts.iter().all(|verdict| matches!(verdict, Verdict::Emit(_))), "{verdicts:?}");

    let mut client = database.connect();
    assert_eq!(
        texts(
            &mut client,
            "SELECT concat_ws(' ', p.mrn, p.first_name, p.last_name, p.date_of_birth, p.city, f.facility_name, f.total_beds, \
             f.facility_code, d.last_name, e.admission_date_key, e.admission_time_key, e.discharge_date_key, e.encounter_class, \
             e.length_of_stay_hours, e.length_of_stay_days, e.mortality, e.source_event_id) \
             FROM fact.encounter_fact e JOIN dim.patient_dimension p USING (patient_key) \
             JOIN dim.facility_dimension f USING (facility_key) JOIN dim.provider_dimension d USING (provider_key)",
        ),
        [
            "MRN1 Amna Alhadi 1980-02-03 Khartoum Teaching Hospital 400 KTH Osman 20260101 2230 20260103 IMP 36.00 1.50 f v256"
        ]
    );
    assert_eq!(
        texts(
            &mut client,
            "SELECT concat_ws(' ', d.diagnosis_code, d.description, d.category, f.diagnosis_type, f.diagnosis_date_key, \
             f.onset_date, f.clinical_status, e.encounter_id = f.encounter_id, f.provider_key) \
             FROM fact.diagnosis_fact f JOIN dim.diagnosis_dimension d USING (diagnosis_key) \
             JOIN fact.encounter_fact e USING (encounter_key)",
        ),
        ["I10 Essential (primary) hypertension Circulatory system primary 20260102 2025-12-01 active t 0"]
    );
    assert_eq!(
        texts(
            &mut client,
            "SELECT concat_ws(' ', v.heart_rate, v.temperature, v.pain_score, v.is_manual, v.date_key, v.time_key, \
             v.facility_key, v.source_event_id, v.sample_id, p.mrn, e.encounter_class) FROM fact.vital_signs_fact v \
             JOIN dim.patient_dimension p USING (patient_key) JOIN fact.encounter_fact e USING (encounter_key)",
        ),
        ["72 36.6 2 t 20260102 0 0 row-1 row:1/1767312000000 MRN1 IMP"]
    );
    assert_eq!(
        texts(
            &mut client,
            "SELECT concat_ws(' ', mrn, total_encounters, last_encounter_date, age > 40) FROM reporting.v_patient_demographics"
        ),
        ["MRN1 1 2026-01-01 t"]
    );
    assert_eq!(
        texts(
            &mut client,
            "SELECT concat_ws(' ', year, month, facility_name, encounter_type, encounter_count, avg_los_days, readmission_rate) FROM reporting.v_encounter_summary"
        ),
        ["2026 1 Teaching Hospital inpatient 1 1.50 0.0000"]
    );
}

#[test]
fn a_fact_before_its_dimensions_infers_them_and_they_are_completed_with_their_keys() {
    let database = migrated("wh_infer");
    let mut worker = Worker::new(&database, "t", 0);
    worker.resource("t1", 256, DAY, &encounter(1, 1, "AMB", "2026-01-02T00:30:00Z", None));
    worker.flush();
    let mut client = database.connect();
    let inferred = "SELECT concat_ws(' ', p.is_inferred, f.is_inferred, d.is_inferred, p.mrn) FROM fact.encounter_fact e \
         JOIN dim.patient_dimension p USING (patient_key) JOIN dim.facility_dimension f USING (facility_key) \
         JOIN dim.provider_dimension d USING (provider_key)";
    let keys = "SELECT concat_ws(' ', patient_key, provider_key, facility_key) FROM fact.encounter_fact";
    assert_eq!(texts(&mut client, inferred), ["t t t"]);
    let before = texts(&mut client, keys);
    worker.resource("t1", 512, 20 * DAY, &patient(1, "Khartoum"));
    worker.resource(
        "t1",
        512,
        DAY,
        &json!({"resourceType": "Organization", "id": id("Organization", 1), "name": "H"}),
    );
    worker.resource("t1", 512, DAY, &json!({"resourceType": "Practitioner", "id": id("Practitioner", 1)}));
    worker.flush();
    assert_eq!(texts(&mut client, inferred), ["f f f MRN1"]);
    assert_eq!(texts(&mut client, keys), before);
    assert_eq!(
        texts(&mut client, "SELECT count(*)::text FROM dim.patient_dimension WHERE patient_key <> 0"),
        ["1"]
    );
}

#[test]
fn a_late_version_splits_the_interval_and_takes_the_facts_of_its_time() {
    let database = migrated("wh_late");
    let mut worker = Worker::new(&database, "t", 0);
    let day = |n: i64| 1_767_225_600_000 + n * DAY; // 2026-01-01 and after
    worker.resource("t1", 100, day(0), &patient(1, "Khartoum"));
    worker.resource("t1", 300, day(20), &patient(1, "Kassala"));
    for (n, start) in [(1, "2025-06-01"), (2, "2026-01-05"), (3, "2026-01-15"), (4, "2026-01-25")] {
        worker.resource("t1", 100, day(0), &encounter(n, 1, "AMB", &format!("{start}T00:00:00Z"), None));
    }
    worker.flush();
    let cities = "SELECT p.city FROM fact.encounter_fact e JOIN dim.patient_dimension p USING (patient_key) ORDER BY admission_ts";
    let mut client = database.connect();
    assert_eq!(texts(&mut client, cities), ["Khartoum", "Khartoum", "Khartoum", "Kassala"]);
    worker.resource("t1", 200, day(10), &patient(1, "Omdurman"));
    worker.flush();
    assert_eq!(texts(&mut client, cities), ["Khartoum", "Khartoum", "Omdurman", "Kassala"]);
    assert_eq!(
        texts(
            &mut client,
            "SELECT concat_ws(' ', city, valid_from::date, valid_to::date, source_ts::date, is_current) \
             FROM dim.patient_dimension WHERE patient_key <> 0 ORDER BY valid_from",
        ),
        [
            "Khartoum 1900-01-01 2026-01-11 2026-01-01 f",
            "Omdurman 2026-01-11 2026-01-21 2026-01-11 f",
            "Kassala 2026-01-21 2026-01-21 t",
        ]
    );
}

#[test]
fn deletes_reach_every_kind_and_do_not_come_back() {
    let database = migrated("wh_delete");
    let mut worker = Worker::new(&database, "t", 0);
    worker.resource("t1", 100, DAY, &patient(1, "Khartoum"));
    worker.resource("t1", 100, DAY, &encounter(1, 1, "AMB", "2026-01-05T00:00:00Z", None));
    worker.resource(
        "t1",
        100,
        DAY,
        &json!({"resourceType": "Organization", "id": id("Organization", 1), "name": "H"}),
    );
    worker.flush();
    worker.delete("encounter", "t1", &id("Encounter", 1), 200, 2 * DAY);
    worker.delete("patient", "t1", &id("Patient", 1), 200, 2 * DAY);
    worker.delete("organization", "t1", &id("Organization", 1), 200, 2 * DAY);
    worker.flush();
    let mut client = database.connect();
    assert_eq!(texts(&mut client, "SELECT count(*)::text FROM fact.encounter_fact"), ["0"]);
    assert_eq!(
        texts(
            &mut client,
            "SELECT concat_ws(' ', city, valid_to::date, is_current, is_deleted) FROM dim.patient_dimension WHERE patient_key <> 0"
        ),
        ["Khartoum 1970-01-03 t t"]
    );
    assert_eq!(
        texts(
            &mut client,
            "SELECT concat_ws(' ', facility_name, is_deleted) FROM dim.facility_dimension WHERE facility_key <> 0"
        ),
        ["H t"]
    );
    assert!(texts(&mut client, "SELECT mrn FROM reporting.v_patient_demographics").is_empty());

    // Made again, then in one batch changed, deleted and made once more.
    worker.resource("t1", 300, 3 * DAY, &patient(1, "Khartoum"));
    worker.resource("t1", 300, 3 * DAY, &encounter(1, 1, "AMB", "2026-01-05T00:00:00Z", None));
    worker.delete("encounter", "t1", &id("Encounter", 1), 400, 4 * DAY);
    worker.resource("t1", 500, 5 * DAY, &encounter(1, 1, "EMER", "2026-01-05T00:00:00Z", None));
    worker.flush();
    assert_eq!(texts(&mut client, "SELECT encounter_class FROM fact.encounter_fact"), ["EMER"]);
    assert_eq!(
        texts(
            &mut client,
            "SELECT concat_ws(' ', valid_from::date, coalesce(valid_to::date::text, 'open'), is_current, is_deleted) FROM dim.patient_dimension WHERE patient_key <> 0 ORDER BY valid_from"
        ),
        ["1900-01-01 1970-01-03 f t", "1970-01-04 open t f"]
    );
}

#[test]
fn readmissions_are_computed_anew_when_stays_arrive_late_change_and_go() {
    let database = migrated("wh_readmission");
    let mut worker = Worker::new(&database, "t", 0);
    let flags = "SELECT readmission_30_days::text FROM fact.encounter_fact ORDER BY admission_ts";
    let mut client = database.connect();
    worker.resource(
        "t1",
        100,
        DAY,
        &encounter(1, 1, "IMP", "2026-01-01T00:00:00Z", Some("2026-01-05T00:00:00Z")),
    );
    worker.resource(
        "t1",
        100,
        DAY,
        &encounter(3, 1, "IMP", "2026-03-01T00:00:00Z", Some("2026-03-05T00:00:00Z")),
    );
    worker.resource("t1", 100, DAY, &encounter(4, 2, "IMP", "2026-03-06T00:00:00Z", None));
    worker.flush();
    assert_eq!(texts(&mut client, flags), ["false", "false", "false"]);
    worker.resource(
        "t1",
        100,
        DAY,
        &encounter(2, 1, "IMP", "2026-02-03T00:00:00Z", Some("2026-02-04T00:00:00Z")),
    );
    worker.flush();
    assert_eq!(
        texts(&mut client, flags),
        ["true", "true", "false", "false"],
        "both earlier stays were followed"
    );
    worker.delete("encounter", "t1", &id("Encounter", 2), 200, DAY);
    worker.flush();
    assert_eq!(texts(&mut client, flags), ["false", "false", "false"]);
    // The stay turns out to be another patient's.
    worker.resource(
        "t1",
        300,
        DAY,
        &encounter(1, 2, "IMP", "2026-02-20T00:00:00Z", Some("2026-02-25T00:00:00Z")),
    );
    worker.flush();
    assert_eq!(texts(&mut client, flags), ["true", "false", "false"]);
}

#[test]
fn reading_everything_again_changes_nothing() {
    let database = migrated("wh_replay");
    let feed = |worker: &mut Worker| {
        for round in 0..3 {
            for n in 0..5 {
                let (version, at) = (100 * (round + 1), DAY * (round + 1));
                worker.resource(
                    "t1",
                    version,
                    at,
                    &patient(n, if round == 1 { "Kassala" } else { "Khartoum" }),
                );
                worker.resource("t1", version, at, &encounter(n, n, "IMP", "1970-01-02T12:00:00Z", None));
            }
            worker.delete("encounter", "t1", &id("Encounter", 4), 1000, DAY);
            worker.flush();
        }
    };
    let rows = "SELECT md5(string_agg(r, ',' ORDER BY r)) FROM (SELECT p::text AS r FROM dim.patient_dimension p \
         UNION ALL SELECT p::text FROM dim.patient_change p UNION ALL SELECT f::text FROM dim.facility_dimension f \
         UNION ALL SELECT e::text FROM fact.encounter_fact e) AS all_rows";
    feed(&mut Worker::new(&database, "first", 0));
    let mut client = database.connect();
    let before = texts(&mut client, rows);
    feed(&mut Worker::new(&database, "second", 0));
    assert_eq!(texts(&mut client, rows), before, "loaded_at included: not one row was written again");
}

#[test]
fn a_bad_record_leaves_no_trace_and_the_rest_is_written() {
    let database = migrated("wh_bad");
    let mut worker = Worker::new(&database, "t", 0);
    worker.resource("t1", 100, DAY, &patient(1, "Khartoum"));
    let mut wrong = encounter(1, 7, "AMB", "2026-01-05T00:00:00Z", None);
    wrong["period"]["end"] = json!("yesterday");
    worker.resource("t1", 100, DAY, &wrong);
    let mut stranger = encounter(2, 7, "AMB", "2026-01-05T00:00:00Z", None);
    stranger["subject"]["reference"] = json!("Patient/Qanarywala");
    worker.resource("t1", 100, DAY, &stranger);
    worker.push("enriched.encounter", "t1/x", None, &[]);
    worker.push("enriched.encounter", "nonsense", None, &[]);
    worker.resource("t1", 100, DAY, &encounter(3, 1, "AMB", "2026-01-05T00:00:00Z", None));
    let verdicts = worker.flush();
    let judged: Vec<String> = verdicts
        .iter()
        .map(|verdict| match verdict {
            Verdict::Reject(rejection) => format!("{} {}", rejection.reason.label(), rejection.detail),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(
        judged,
        [
            "Emit(1)",
            "wrong_type fact.encounter_fact.discharge_ts",
            "wrong_type fact.encounter_fact.patient_id",
            "missing_element fhirehose-version",
            "missing_key key",
            "Emit(1)",
        ]
    );
    assert!(!format!("{verdicts:?}").contains("Qanarywala"));
    let mut client = database.connect();
    assert_eq!(texts(&mut client, "SELECT count(*)::text FROM fact.encounter_fact"), ["1"]);
    assert_eq!(
        texts(&mut client, "SELECT mrn FROM dim.patient_dimension WHERE patient_key <> 0"),
        ["MRN1"],
        "none was inferred for a rejected row"
    );
}

#[test]
fn of_several_deletes_in_a_batch_the_newest_counts() {
    let database = migrated("wh_deletes");
    let mut worker = Worker::new(&database, "t", 0);
    for n in 1..=3 {
        let organization =
            json!({"resourceType": "Organization", "id": id("Organization", n), "name": "Teaching"});
        worker.resource("t1", 100, DAY, &organization);
    }
    worker.flush();
    for (n, versions) in [(1, [200, 300, 400]), (2, [400, 300, 200]), (3, [300, 400, 200])] {
        for version in versions {
            worker.delete("organization", "t1", &id("Organization", n), version, version * DAY);
        }
    }
    worker.flush();
    let rows = "SELECT concat_ws(' ', is_deleted, version, extract(epoch FROM source_ts)::int8 / 86400) \
                FROM dim.facility_dimension WHERE facility_key <> 0";
    assert_eq!(texts(&mut database.connect(), rows), ["t 400 400", "t 400 400", "t 400 400"]);
}

/// Patients with a condition each; the fifth has this code, the others `I10`. What came of them.
fn conditions(database: &TestDatabase, fifth: &str) -> Vec<Verdict> {
    let mut worker = Worker::new(database, "t", 0);
    for n in 0..9 {
        worker.resource("t1", 100, DAY, &patient(n, "Khartoum"));
        let code = if n == 4 { fifth } else { "I10" };
        let condition = json!({
            "resourceType": "Condition", "id": id("Condition", n),
            "code": {"coding": [{"system": "http://hl7.org/fhir/sid/icd-10-cm", "code": code}]},
            "subject": {"reference": format!("Patient/{}", id("Patient", n))},
        });
        worker.resource("t1", 100, DAY, &condition);
    }
    worker.flush()
}

/// The fifth condition's rejection; the others are in their tables, and nothing of that one is.
fn fifth_rejected(database: &TestDatabase, verdicts: &[Verdict]) -> (Reason, String) {
    let rejected: Vec<_> =
        verdicts.iter().enumerate().filter(|(_, verdict)| matches!(verdict, Verdict::Reject(_))).collect();
    let [(9, Verdict::Reject(rejection))] = rejected.as_slice() else { panic!("{rejected:?}") };
    let counts = "SELECT concat_ws(' ', (SELECT count(*) FROM fact.diagnosis_fact), \
         (SELECT count(*) FROM dim.diagnosis_dimension), \
         (SELECT count(*) FROM dim.patient_dimension WHERE NOT is_inferred))";
    assert_eq!(texts(&mut database.connect(), counts), ["8 2 10"]);
    (rejection.reason, rejection.detail.clone())
}

#[test]
fn a_row_the_database_refuses_is_found_among_good_ones() {
    let database = migrated("wh_refused");
    let check = "ALTER TABLE dim.diagnosis_dimension ADD CONSTRAINT known CHECK (diagnosis_code <> 'Z99')";
    database.connect().batch_execute(check).unwrap();
    let verdicts = conditions(&database, "Z99");
    let told = "SQLSTATE 23514, table diagnosis_dimension, constraint known";
    assert_eq!(fifth_rejected(&database, &verdicts), (Reason::StoreRejected, told.to_owned()));
}

#[test]
fn a_key_that_no_index_takes_is_rejected_without_asking_the_database() {
    let database = migrated("wh_long_key");
    let verdicts = conditions(&database, &"9".repeat(1_001));
    let told = "dim.diagnosis_dimension.diagnosis_code";
    assert_eq!(fifth_rejected(&database, &verdicts), (Reason::WrongType, told.to_owned()));
}

#[test]
fn tenants_never_share_a_row() {
    let database = migrated("wh_tenants");
    let mut worker = Worker::new(&database, "t", 0);
    for (tenant, city) in [("t1", "Khartoum"), ("t2", "Omdurman")] {
        worker.resource(tenant, 100, DAY, &patient(1, city));
        worker.resource(tenant, 100, DAY, &encounter(1, 1, "AMB", "2026-01-05T00:00:00Z", None));
    }
    worker.flush();
    worker.delete("patient", "t2", &id("Patient", 1), 200, 2 * DAY);
    worker.flush();
    let mut client = database.connect();
    assert_eq!(
        texts(
            &mut client,
            "SELECT concat_ws(' ', e.tenant_id, p.tenant_id, city, p.is_deleted) FROM fact.encounter_fact e JOIN dim.patient_dimension p USING (patient_key) ORDER BY 1"
        ),
        ["t1 t1 Khartoum f", "t2 t2 Omdurman t"]
    );
}

#[test]
fn two_instances_on_the_same_members_agree() {
    let database = migrated("wh_two");
    let work = |partition: i32| {
        let mut worker = Worker::new(&database, "t", partition);
        let mut retries = 0;
        for round in 0..20_i64 {
            for n in 0..30_u32 {
                // Patients belong to one instance each, encounters refer across.
                if n % 2 == partition as u32 {
                    let city = format!("city {}", round % 4);
                    worker.resource("t1", 100 * (round + 1), DAY * round, &patient(n, &city));
                }
                let number = n + 30 * (round as u32 * 2 + partition as u32);
                let start = format!("1970-01-{:02}T12:00:00Z", 1 + round % 28);
                worker.resource("t1", 100, DAY, &encounter(number, n, "IMP", &start, None));
            }
            retries += worker.flush_with_retries();
        }
        retries
    };
    let retries: u32 = std::thread::scope(|scope| {
        let runs: Vec<_> = (0..2).map(|partition| scope.spawn(move || work(partition))).collect();
        runs.into_iter().map(|run| run.join().unwrap()).sum()
    });
    assert_eq!(retries, 0, "locks are taken in one order: no deadlock");
    let mut client = database.connect();
    let wrong = texts(
        &mut client,
        "SELECT e.encounter_id::text FROM fact.encounter_fact e WHERE patient_key <> (SELECT p.patient_key \
         FROM dim.patient_dimension p WHERE p.tenant_id = e.tenant_id AND p.patient_id = e.patient_id \
         AND p.valid_from <= e.admission_ts ORDER BY p.valid_from DESC LIMIT 1)",
    );
    assert!(wrong.is_empty(), "{} facts point at another version than the one of their time", wrong.len());
    assert_eq!(texts(&mut client, "SELECT count(*)::text FROM fact.encounter_fact"), ["1200"]);
    assert_eq!(
        texts(
            &mut client,
            "SELECT count(*)::text FROM dim.patient_dimension WHERE is_current AND patient_key <> 0"
        ),
        ["30"]
    );
    assert_eq!(
        texts(&mut client, "SELECT count(*)::text FROM dim.patient_dimension WHERE is_inferred"),
        ["0"]
    );
}

#[test]
fn a_declaration_that_does_not_fit_the_database_is_refused_with_names() {
    let database = migrated("wh_shape");
    database
        .connect()
        .batch_execute(
            "ALTER TABLE dim.facility_dimension DROP COLUMN icu_beds; ALTER TABLE dim.facility_dimension ADD COLUMN phone text",
        )
        .unwrap();
    let shapes = Shapes::load();
    let mut sink = sink_warehouse::new(&database.url, "t", &root(), shapes.registry, shapes.schemas).unwrap();
    let fault = sink.claim(&[]).map(|_| ()).expect_err("refused");
    assert!(fault.what.contains("dim.facility_dimension has no column icu_beds"), "{fault}");
    assert!(
        fault.what.contains("neither the view nor the declaration fills dim.facility_dimension.phone"),
        "{fault}"
    );
}

#[test]
fn a_wrong_declaration_is_refused_with_file_and_reason() {
    let shapes = Shapes::load();
    let dir = tempfile::tempdir().unwrap();
    let views = dir.path().join("views/warehouse");
    std::fs::create_dir_all(&views).unwrap();
    let view = r#"{"resource": "Patient", "select": [{"column": [{"name": "city", "path": "address.first().city", "type": "string"}]}]}"#;
    for (yaml, json, said) in [
        (
            "table: dim.a\nkind: scd1\ninput: enriched.patient\nkey: k\nid: [a]\nkeys: 1",
            view,
            "unknown field",
        ),
        (
            "table: dim.a\nkind: scd1\ninput: enriched.patients\nkey: k\nid: [a]",
            view,
            "no topic enriched.patients",
        ),
        ("table: dim.a\nkind: scd2\ninput: enriched.patient\nkey: k\nid: [a]", view, "needs both"),
        (
            "table: \"dim.a; drop\"\nkind: scd1\ninput: enriched.patient\nkey: k\nid: [a]",
            view,
            "must be schema.name",
        ),
        (
            "table: fact.a\nkind: fact\ninput: enriched.patient\nkey: k\nid: [a]\nevent_time: seen",
            view,
            "no column seen",
        ),
        (
            "table: fact.a\nkind: fact\ninput: enriched.patient\nkey: k\nid: [a]\nlookups: {b: {table: dim.b, id: [city]}}",
            view,
            "no table dim.b",
        ),
        (
            "table: dim.a\nkind: scd1\ninput: enriched.patient\nkey: k\nid: [a]",
            "{\"resource\": \"Patient\", \"select\": [{\"column\": [{\"name\": \"c\", \"path\": \"nosuch()\"}]}]}",
            "a.json",
        ),
        (
            "table: dim.a\nkind: scd1\ninput: enriched.patient\nkey: k\nid: [a]\ndeletes: remove",
            view,
            "can mark, keep",
        ),
        (
            "table: dim.a\nkind: scd1\ninput: enriched.patient\nkey: k\nid: [a]\ncolumns: {b: {type: text}}",
            view,
            "filled by nothing",
        ),
        (
            "table: dim.a\nkind: scd1\ninput: enriched.patient\nkey: k\nid: [a]\ncolumns: {city: {type: blob}}",
            view,
            "type blob",
        ),
        (
            "table: dim.a\nkind: scd1\ninput: enriched.patient\nkey: k\nid: [a]\nindexes: {i: [town]}",
            view,
            "no column town",
        ),
        (
            "table: dim.a\nkind: scd1\ninput: enriched.patient\nkey: k\nid: [a]",
            "{\"resource\": \"Patient\", \"select\": [{\"column\": [{\"name\": \"c\", \"path\": \"name.famly\", \"type\": \"string\"}]}]}",
            "no element famly",
        ),
        (
            "table: dim.a\nkind: scd1\ninput: vitals.sample\nkey: k\nid: [a]",
            "{\"resource\": \"V\", \"select\": [{\"column\": [{\"name\": \"c\", \"path\": \"pulse_rat\"}]}]}",
            "pulse_rat",
        ),
    ] {
        std::fs::write(views.join("a.yaml"), yaml).unwrap();
        std::fs::write(views.join("a.json"), json).unwrap();
        let fault = sink_warehouse::new(
            "postgres://nowhere/x",
            "t",
            dir.path(),
            shapes.registry.clone(),
            shapes.schemas.clone(),
        )
        .map(|_| ())
        .expect_err(said);
        assert!(fault.what.contains(said), "{said}: {fault}");
    }
}
