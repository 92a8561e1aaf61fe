//! Who and what a hospital holds now, as far as changing it needs to know.

use std::collections::VecDeque;

use jiff::civil::Date;
use mysql::prelude::Queryable;

use super::server::Hospital;
use crate::Error;
use crate::error::Doing;
use crate::people::Sex;

pub(super) struct Person {
    pub id: String,
    pub sex: Sex,
    pub birth: Date,
}

/// An encounter in progress.
pub(super) struct Stay {
    pub id: String,
    pub patient: String,
    pub birth: Date,
    pub sex: Sex,
}

/// A row of vital signs that may still be corrected.
pub(super) struct Reading {
    pub id: String,
    pub manual: bool,
}

#[derive(Default)]
pub(super) struct Roster {
    pub facilities: Vec<String>,
    pub staff: Vec<String>,
    pub people: Vec<Person>,
    pub stays: Vec<Stay>,
    /// Active diagnoses of one-off illnesses: id.
    pub illnesses: Vec<String>,
    pub readings: VecDeque<Reading>,
    /// Registered in this run and not yet seen by anyone: may be undone.
    pub unseen: Vec<String>,
}

/// Readings that may still be corrected; older ones are left alone.
const CORRECTABLE: usize = 400;

impl Roster {
    pub fn read(hospital: &mut Hospital) -> Result<Self, Error> {
        let conn = &mut hospital.conn;
        let doing = "reading what the hospital holds";
        let facilities: Vec<String> = conn
            .query("SELECT id FROM business_operations.facilities ORDER BY facility_code")
            .doing(doing)?;
        let staff: Vec<String> =
            conn.query("SELECT id FROM identity_management.users ORDER BY username").doing(doing)?;
        let people: Vec<(String, String, String)> = conn
            .query(
                "SELECT id, gender, CAST(date_of_birth AS CHAR) FROM clinical_data.patients
                 WHERE is_active AND NOT is_deceased ORDER BY mrn",
            )
            .doing(doing)?;
        let stays: Vec<(String, String, String, String)> = conn
            .query(
                "SELECT e.id, p.id, p.gender, CAST(p.date_of_birth AS CHAR)
                 FROM clinical_data.encounters e JOIN clinical_data.patients p ON p.id = e.patient_id
                 WHERE e.status = 'in_progress' AND NOT p.is_deceased ORDER BY e.encounter_number",
            )
            .doing(doing)?;
        let illnesses: Vec<String> = conn
            .query(
                "SELECT id FROM clinical_data.diagnoses
                 WHERE clinical_status = 'active' AND diagnosis_code RLIKE '^[ABJKLNRST]' ORDER BY id",
            )
            .doing(doing)?;
        let readings: Vec<(String, bool)> = conn
            .query(
                "SELECT id, device_id IS NULL FROM clinical_data.vital_signs
                 WHERE heart_rate <= 350 AND blood_pressure_diastolic < blood_pressure_systolic
                 ORDER BY observation_time DESC, id LIMIT 400",
            )
            .doing(doing)?;
        if facilities.is_empty() || staff.is_empty() || people.is_empty() {
            return Err(Error::Usage("the simulated hospital is empty: use --reset".into()));
        }
        let person = |id: String, sex: &str, birth: &str| {
            Ok::<_, Error>(Person { id, sex: sex_of(sex), birth: birth.parse()? })
        };
        Ok(Self {
            facilities,
            staff,
            people: people
                .into_iter()
                .map(|(id, sex, birth)| person(id, &sex, &birth))
                .collect::<Result<_, _>>()?,
            stays: stays
                .into_iter()
                .map(|(id, patient, sex, birth)| {
                    Ok(Stay { id, patient, sex: sex_of(&sex), birth: birth.parse()? })
                })
                .collect::<Result<_, Error>>()?,
            illnesses,
            readings: readings.into_iter().rev().map(|(id, manual)| Reading { id, manual }).collect(),
            unseen: Vec::new(),
        })
    }

    pub fn read_now(&mut self, reading: Reading) {
        self.readings.push_back(reading);
        if self.readings.len() > CORRECTABLE {
            self.readings.pop_front();
        }
    }
}

fn sex_of(text: &str) -> Sex {
    if text == "female" { Sex::Female } else { Sex::Male }
}
