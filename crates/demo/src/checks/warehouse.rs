//! The star schema: current dimension members and facts, each bound to the members it names.

use std::collections::BTreeMap;

use anyhow::Result;

use super::fhir::encounter_class;
use super::timescale::samples;
use crate::compare::{Check, Rows, number};
use crate::postgres_rows::{connect, rows};
use crate::truth::{Hospital, SourceRow};

const PATIENT: &[&str] = &["mrn", "first_name", "last_name", "date_of_birth", "gender", "city", "is_active"];
const ENCOUNTER: &[&str] = &[
    "patient_id",
    "facility",
    "provider",
    "status",
    "encounter_class",
    "admission_ts",
    "readmission_30_days",
];
const VITAL_SIGNS: &[&str] =
    &["patient_id", "heart_rate", "respiratory_rate", "systolic", "diastolic", "temperature"];

pub fn checks(url: &str, hospitals: &[Hospital]) -> Result<Vec<Check>> {
    let mut client = connect(url)?;
    let mut find = |sql: &str| rows(&mut client, sql);
    let check = |what, columns, expected, found| Check { store: "warehouse", what, columns, expected, found };
    let live = "is_current AND NOT is_deleted AND NOT is_inferred";
    Ok(vec![
        check(
            "dim.patient_dimension",
            PATIENT,
            patients(hospitals),
            find(&format!(
                "SELECT tenant_id || '/' || patient_id, {} FROM dim.patient_dimension WHERE {live} AND patient_key <> 0",
                PATIENT.join(", ")
            ))?,
        ),
        check(
            "dim.provider_dimension",
            &["first_name", "last_name"],
            members(hospitals, "identity_management.users", |h| &h.users, &["first_name", "last_name"]),
            find(&format!(
                "SELECT tenant_id || '/' || provider_id, first_name, last_name FROM dim.provider_dimension
                 WHERE {live} AND provider_key <> 0"
            ))?,
        ),
        check(
            "dim.facility_dimension",
            &["facility_name", "city"],
            members(hospitals, "business_operations.facilities", |h| &h.facilities, &["facility_name", "city"]),
            find(
                "SELECT tenant_id || '/' || facility_id, facility_name, city FROM dim.facility_dimension
                 WHERE NOT is_deleted AND NOT is_inferred AND facility_key <> 0",
            )?,
        ),
        check(
            "dim.diagnosis_dimension",
            &["description"],
            codes(hospitals),
            find(
                "SELECT tenant_id || '/' || diagnosis_code, description FROM dim.diagnosis_dimension AS d
                 WHERE EXISTS (SELECT FROM fact.diagnosis_fact AS f WHERE f.diagnosis_key = d.diagnosis_key)",
            )?,
        ),
        check(
            "fact.encounter_fact",
            ENCOUNTER,
            encounters(hospitals),
            find(
                "SELECT e.tenant_id || '/' || e.encounter_id, p.patient_id, f.facility_id,
                     CASE WHEN e.provider_key <> 0 THEN v.provider_id END, e.status, e.encounter_class,
                     (extract(epoch FROM e.admission_ts) * 1000)::bigint, e.readmission_30_days
                 FROM fact.encounter_fact AS e JOIN dim.patient_dimension AS p USING (patient_key)
                 JOIN dim.facility_dimension AS f USING (facility_key)
                 JOIN dim.provider_dimension AS v USING (provider_key)",
            )?,
        ),
        check(
            "fact.diagnosis_fact",
            &["patient_id", "code", "clinical_status"],
            diagnoses(hospitals),
            find(
                "SELECT f.tenant_id || '/' || f.diagnosis_id, p.patient_id, d.diagnosis_code, f.clinical_status
                 FROM fact.diagnosis_fact AS f JOIN dim.patient_dimension AS p USING (patient_key)
                 JOIN dim.diagnosis_dimension AS d USING (diagnosis_key)",
            )?,
        ),
        check(
            "fact.vital_signs_fact",
            VITAL_SIGNS,
            vital_signs(hospitals),
            trimmed(find(
                "SELECT f.tenant_id || '/' || f.sample_id, p.patient_id, heart_rate, respiratory_rate, systolic,
                     diastolic, temperature
                 FROM fact.vital_signs_fact AS f JOIN dim.patient_dimension AS p USING (patient_key)",
            )?),
        ),
        check("facts bound to another version's time", &[], Rows::new(), find(OFF_VERSION)?),
    ])
}

/// Facts whose patient version did not hold when they happened.
const OFF_VERSION: &str = "
    SELECT 'encounter ' || e.encounter_id FROM fact.encounter_fact AS e JOIN dim.patient_dimension AS p USING (patient_key)
    WHERE p.patient_key <> 0 AND NOT tstzrange(p.valid_from, p.valid_to) @> e.admission_ts
    UNION ALL
    SELECT 'vital signs ' || f.sample_id FROM fact.vital_signs_fact AS f JOIN dim.patient_dimension AS p USING (patient_key)
    WHERE p.patient_key <> 0 AND NOT tstzrange(p.valid_from, p.valid_to) @> f.observed_at";

fn trimmed(rows: Rows) -> Rows {
    rows.into_iter().map(|(key, values)| (key, values.iter().map(|value| number(value)).collect())).collect()
}

fn each<'a>(
    hospitals: &'a [Hospital],
    rows: impl Fn(&'a Hospital) -> &'a [SourceRow] + 'a,
) -> impl Iterator<Item = (&'a Hospital, &'a SourceRow)> {
    hospitals.iter().flat_map(move |hospital| rows(hospital).iter().map(move |row| (hospital, row)))
}

fn patients(hospitals: &[Hospital]) -> Rows {
    each(hospitals, |h| &h.patients)
        .map(|(hospital, row)| {
            let text = |column: &str| row.text(column).to_owned();
            let values = vec![
                text("mrn"),
                text("first_name"),
                text("last_name"),
                text("date_of_birth"),
                text("gender"),
                text("city"),
                if row.text("is_active") == "1" { "t" } else { "f" }.to_owned(),
            ];
            (format!("{}/{}", hospital.site.tenant, hospital.patient_id(row.id())), values)
        })
        .collect()
}

fn members<'a>(
    hospitals: &'a [Hospital],
    table: &str,
    rows: impl Fn(&'a Hospital) -> &'a [SourceRow] + 'a,
    columns: &[&str],
) -> Rows {
    each(hospitals, rows)
        .map(|(hospital, row)| {
            let values = columns.iter().map(|column| row.text(column).to_owned()).collect();
            (format!("{}/{}", hospital.site.tenant, hospital.id(table, row.id())), values)
        })
        .collect()
}

/// Codes in use, each with its tenant's description.
fn codes(hospitals: &[Hospital]) -> Rows {
    each(hospitals, |h| &h.diagnoses)
        .map(|(hospital, row)| {
            let key = format!("{}/{}", hospital.site.tenant, row.text("diagnosis_code"));
            (key, vec![row.text("diagnosis_description").to_owned()])
        })
        .collect()
}

fn encounters(hospitals: &[Hospital]) -> Rows {
    let mut expected = Rows::new();
    for hospital in hospitals {
        let readmitted = readmitted(hospital);
        for row in &hospital.encounters {
            let provider =
                row.get("attending_provider_id").map(|id| hospital.id("identity_management.users", id));
            let values = vec![
                hospital.patient_id(row.text("patient_id")),
                hospital.id("business_operations.facilities", row.text("facility_id")),
                provider.unwrap_or_default(),
                row.text("status").replace('_', "-"),
                encounter_class(row).to_owned(),
                row.at_ms("admission_date").unwrap_or_default().to_string(),
                if readmitted.contains_key(row.id()) { "t" } else { "f" }.to_owned(),
            ];
            let id = hospital.id("clinical_data.encounters", row.id());
            expected.insert(format!("{}/{id}", hospital.site.tenant), values);
        }
    }
    expected
}

/// Inpatient stays that ended alive and were followed by another within thirty days.
fn readmitted(hospital: &Hospital) -> BTreeMap<&str, ()> {
    const MONTH_MS: i64 = 30 * 86_400_000;
    let counts = |row: &&SourceRow| {
        row.text("class") == "inpatient" && !matches!(row.text("status"), "cancelled" | "entered_in_error")
    };
    let mut by_patient: BTreeMap<&str, Vec<&SourceRow>> = BTreeMap::new();
    for row in hospital.encounters.iter().filter(counts) {
        by_patient.entry(row.text("patient_id")).or_default().push(row);
    }
    let mut found = BTreeMap::new();
    for stays in by_patient.values() {
        for stay in stays.iter().filter(|stay| stay.text("discharge_disposition") != "expired") {
            let Some(end) = stay.at_ms("discharge_date") else { continue };
            let again = stays.iter().filter(|next| next.id() != stay.id()).any(|next| {
                next.at_ms("admission_date").is_some_and(|begin| (0..=MONTH_MS).contains(&(begin - end)))
            });
            if again {
                found.insert(stay.id(), ());
            }
        }
    }
    found
}

fn diagnoses(hospitals: &[Hospital]) -> Rows {
    each(hospitals, |h| &h.diagnoses)
        .map(|(hospital, row)| {
            let in_error = row.text("verification_status") == "entered_in_error";
            let values = vec![
                hospital.patient_id(row.text("patient_id")),
                row.text("diagnosis_code").to_owned(),
                if in_error { "" } else { row.text("clinical_status") }.to_owned(),
            ];
            (format!("{}/{}", hospital.site.tenant, hospital.id("clinical_data.diagnoses", row.id())), values)
        })
        .collect()
}

/// The same wide rows as in the time series, by the columns the fact has.
fn vital_signs(hospitals: &[Hospital]) -> Rows {
    let pick = |values: Vec<String>| [0, 1, 3, 4, 5, 6].map(|column| values[column].clone()).to_vec();
    samples(hospitals).into_iter().map(|(key, values)| (key, pick(values))).collect()
}
