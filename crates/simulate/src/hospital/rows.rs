//! Rows as the generator makes them, in the order of the columns it fills.

use jiff::civil::{Date, DateTime};
use mysql::Value;
use mysql::prelude::Queryable;
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::Error;
use crate::diagnoses::Diagnosis;
use crate::error::Doing;
use crate::people::{self, Sex, pick};
use crate::vitals::Physiology;

/// A table and the columns an insert fills; the others have defaults or are generated.
pub(super) struct Table {
    pub name: &'static str,
    pub columns: &'static str,
}

pub(super) const FACILITIES: Table = Table {
    name: "business_operations.facilities",
    columns: "id, facility_code, facility_name, facility_type, npi, tax_id, license_number, accreditation, \
              address_line1, city, state, postal_code, phone, email, website, total_beds, available_beds, \
              icu_beds, emergency_beds, operating_hours, services_offered, is_24_7",
};
pub(super) const USERS: Table = Table {
    name: "identity_management.users",
    columns: "id, username, email, email_verified, password_hash, password_salt, password_reset_token, \
              first_name, middle_name, last_name, display_name, phone, date_of_birth, gender, \
              two_factor_secret, security_questions, last_login_ip",
};
pub(super) const PATIENTS: Table = Table {
    name: "clinical_data.patients",
    columns: "id, mrn, first_name, middle_name, last_name, date_of_birth, gender, sudan_national_id, blood_type, \
              marital_status, race, primary_language, email, phone, emergency_contact_name, \
              emergency_contact_phone, emergency_contact_relationship, address_line1, address_line2, city, state, \
              postal_code, created_by",
};
pub(super) const ENCOUNTERS: Table = Table {
    name: "clinical_data.encounters",
    columns: "id, patient_id, encounter_number, encounter_type, status, class, priority, admission_date, \
              discharge_date, facility_id, attending_provider_id, referring_provider_id, chief_complaint, \
              discharge_disposition",
};
pub(super) const DIAGNOSES: Table = Table {
    name: "clinical_data.diagnoses",
    columns: "id, patient_id, encounter_id, diagnosis_code, diagnosis_description, diagnosis_type, \
              clinical_status, verification_status, severity, onset_date, abatement_date, diagnosed_by",
};
pub(super) const VITAL_SIGNS: Table = Table {
    name: "clinical_data.vital_signs",
    columns: "id, patient_id, encounter_id, observation_time, temperature, temperature_site, heart_rate, \
              respiratory_rate, blood_pressure_systolic, blood_pressure_diastolic, blood_pressure_position, \
              oxygen_saturation, oxygen_flow_rate, oxygen_delivery_method, height, weight, pain_score, \
              glasgow_coma_scale, recorded_by, device_id, is_manual_entry",
};

impl Table {
    /// Whose row it is.
    pub fn patient(&self, row: &Row) -> Option<String> {
        let place = self.columns.split(',').position(|name| name.trim() == "patient_id")?;
        match row.get(place) {
            Some(Value::Bytes(id)) => Some(String::from_utf8_lossy(id).into_owned()),
            _ => None,
        }
    }

    /// Sets a value of a row of this table; a column it does not fill is an error of ours.
    pub fn set(&self, row: &mut Row, column: &str, value: Value) {
        let place = self.columns.split(',').position(|name| name.trim() == column);
        debug_assert!(place.is_some(), "no column {column}");
        if let Some(slot) = place.and_then(|place| row.get_mut(place)) {
            *slot = value;
        }
    }
}

pub(super) type Row = Vec<Value>;

/// Inserts rows in statements of at most 200, all in the caller's transaction.
pub(super) fn insert(conn: &mut impl Queryable, table: &Table, rows: Vec<Row>) -> Result<u32, Error> {
    let count = rows.len() as u32;
    let width = table.columns.split(',').count();
    let group = format!("({})", vec!["?"; width].join(","));
    let mut rows = rows.into_iter().peekable();
    while rows.peek().is_some() {
        let values: Vec<Value> = rows.by_ref().take(200).flatten().collect();
        let groups = vec![group.as_str(); values.len() / width].join(",");
        conn.exec_drop(format!("INSERT INTO {} ({}) VALUES {groups}", table.name, table.columns), values)
            .doing("inserting rows")?;
    }
    Ok(count)
}

macro_rules! row {
    ($($value:expr),* $(,)?) => { vec![$(mysql::Value::from($value)),*] };
}
pub(super) use row;

pub(super) fn time(at: DateTime) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

pub(super) fn facility(rng: &mut ChaCha8Rng, id: &str, number: usize, seed: u64) -> Row {
    const KINDS: &[(&str, &str, i32)] = &[
        ("Teaching Hospital", "hospital", 600),
        ("Maternity Hospital", "hospital", 220),
        ("Outpatient Clinic", "clinic", 0),
        ("Urgent Care Centre", "urgent_care", 20),
        ("Central Laboratory", "lab", 0),
        ("Rehabilitation Centre", "rehabilitation", 60),
    ];
    let (kind, facility_type, beds) = KINDS[number % KINDS.len()];
    let place = people::address(rng);
    let round_the_clock = beds >= 200;
    let hours = if round_the_clock { r#"{"daily":"00:00-24:00"}"# } else { r#"{"sun-thu":"08:00-16:00"}"# };
    row![
        id,
        format!("FAC-{seed:02}-{number:02}"),
        format!("{} {kind}", place.city),
        facility_type,
        people::npi(rng),
        format!("TAX-{:06}", rng.random_range(0..1_000_000)),
        format!("LIC-{:05}", rng.random_range(0..100_000)),
        rng.random_bool(0.5).then_some("Federal Ministry of Health"),
        place.line1,
        place.city,
        place.state,
        place.postal_code,
        people::phone(rng),
        format!("office{number}@hospital{seed}.example.org"),
        format!("https://hospital{seed}.example.org/{number}"),
        beds,
        beds / 4,
        beds / 20,
        beds / 15,
        hours,
        r#"["consultation","laboratory"]"#,
        round_the_clock,
    ]
}

/// A member of staff. The secret columns hold text that is easy to look for where it must not be.
pub(super) fn user(rng: &mut ChaCha8Rng, id: &str, number: usize, today: Date) -> Result<Row, Error> {
    let sex = Sex::random(rng);
    let name = people::name(rng, sex);
    let title = if rng.random_bool(0.7) { "Dr." } else { "Nurse" };
    let secret = |what: &str| format!("never-leaves-the-source-{what}-{number}");
    Ok(row![
        id,
        format!("staff{number:04}"),
        format!("staff{number:04}@staff.example.org"),
        rng.random_bool(0.9),
        secret("hash"),
        secret("salt"),
        secret("token"),
        name.first.clone(),
        name.middle,
        name.last.clone(),
        format!("{title} {} {}", name.first, name.last),
        people::phone(rng),
        people::birth_date(rng, today, 24, 64)?.to_string(),
        sex.as_str(),
        secret("totp"),
        format!(r#"{{"pet":"{}"}}"#, secret("answer")),
        "192.0.2.17",
    ])
}

pub(super) fn patient(
    rng: &mut ChaCha8Rng,
    id: &str,
    mrn: String,
    sex: Sex,
    birth: Date,
    today: Date,
    by: &str,
) -> Row {
    let name = people::name(rng, sex);
    let place = people::address(rng);
    let adult = today.year() - birth.year() > 18;
    let marital =
        if adult { *pick(rng, &["single", "married", "married", "divorced", "widowed"]) } else { "single" };
    let relative = Sex::random(rng);
    let contact = people::name(rng, relative);
    row![
        id,
        mrn,
        name.first,
        name.middle,
        name.last,
        birth.to_string(),
        sex.as_str(),
        rng.random_bool(0.8).then(|| people::national_id(rng)),
        *pick(rng, &["A+", "A-", "B+", "B-", "AB+", "AB-", "O+", "O-", "unknown"]),
        marital,
        rng.random_bool(0.2).then_some("Sudanese"),
        name.language,
        (adult && rng.random_bool(0.5)).then(|| format!("p{}@mail.example.org", &id[..8])),
        rng.random_bool(0.9).then(|| people::phone(rng)),
        format!("{} {}", contact.first, contact.last),
        people::phone(rng),
        *pick(rng, &["father", "mother", "spouse", "sibling", "child"]),
        place.line1,
        place.line2,
        place.city,
        place.state,
        place.postal_code,
        by,
    ]
}

/// What a diagnosis row says about its course.
pub(super) struct Course {
    pub kind: &'static str,
    pub clinical: &'static str,
    pub onset: Date,
    pub abated: Option<Date>,
}

pub(super) fn diagnosis(
    rng: &mut ChaCha8Rng,
    id: &str,
    (patient, encounter, by): (&str, &str, &str),
    what: &Diagnosis,
    course: &Course,
) -> Row {
    row![
        id,
        patient,
        encounter,
        what.code,
        what.description,
        course.kind,
        course.clinical,
        *pick(rng, &["confirmed", "confirmed", "confirmed", "confirmed", "provisional", "differential"]),
        rng.random_bool(0.8).then(|| *pick(rng, &["mild", "moderate", "moderate", "severe", "critical"])),
        course.onset.to_string(),
        course.abated.map(|date| date.to_string()),
        by,
    ]
}

/// One row of vital signs: most have all the usual ones, some only a pulse or a temperature.
pub(super) fn vital_signs(
    rng: &mut ChaCha8Rng,
    id: &str,
    (patient, encounter, by): (&str, &str, &str),
    at: DateTime,
    body: &Physiology,
    device: Option<&str>,
) -> Row {
    let v = body.measure(rng);
    let full = rng.random_bool(0.75);
    let (mut has, manual) = (|share: f64| full || rng.random_bool(share), device.is_none());
    let (temperature, pressure, breaths, saturation) = (has(0.5), has(0.4), has(0.3), has(0.4));
    let oxygen = saturation && v.saturation < 94;
    let measured = rng.random_bool(0.25);
    row![
        id,
        patient,
        encounter,
        time(at),
        temperature.then_some(v.temperature),
        temperature.then(|| *pick(rng, &["oral", "axillary", "tympanic", "temporal"])),
        v.heart_rate,
        breaths.then_some(v.respiratory_rate),
        pressure.then_some(v.systolic),
        pressure.then_some(v.diastolic),
        pressure.then(|| *pick(rng, &["sitting", "supine", "lying", "standing"])),
        saturation.then(|| format!("{}.00", v.saturation)),
        oxygen.then_some("2.00"),
        saturation.then_some(if oxygen { "nasal_cannula" } else { "room_air" }),
        measured.then(|| format!("{:.2}", body.height)),
        measured.then(|| format!("{:.2}", body.weight)),
        rng.random_bool(0.3).then(|| rng.random_range(0..=8)),
        rng.random_bool(0.2).then(|| rng.random_range(13..=15)),
        manual.then_some(by),
        device,
        manual,
    ]
}
