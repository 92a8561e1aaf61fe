//! The stream of changes: what happens in a hospital, one transaction at a time.

use std::collections::HashMap;
use std::time::Instant;

use jiff::civil::{Date, DateTime};
use mysql::prelude::Queryable;
use mysql::{TxOpts, Value};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::roster::{Person, Reading, Roster, Stay};
use super::rows::{self, Course, Row, Table, insert, row, time};
use super::server::Hospital;
use crate::Error;
use crate::diagnoses::{self, complaint};
use crate::error::Doing;
use crate::ids::Ids;
use crate::people::{self, Sex, pick};
use crate::vitals::Physiology;

/// Changes to one hospital, a transaction per [`step`](Self::step). The order of what happens depends on the
/// seed, the run and what the server held at the start, and not on the clock.
pub struct Changes {
    hospital: Hospital,
    roster: Roster,
    rng: ChaCha8Rng,
    ids: Ids,
    run: u64,
    counter: u64,
    bad_share: f64,
    /// Last second a monitor wrote a row: a monitor never writes two in one second.
    monitors: HashMap<String, DateTime>,
}

/// One committed transaction.
pub struct Done {
    pub rows: u32,
    /// When the server had answered the commit.
    pub committed: Instant,
    pub touched: Vec<Touched>,
    /// Table and patient of every clinical row inserted: it may be gone again before anyone looks.
    pub inserted: Vec<(&'static str, String)>,
}

/// A row of a committed transaction that can be looked for downstream, by its source id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    PatientRegistered(String),
    PatientMoved(String),
    EncounterStarted(String),
    DiagnosisMade(String),
    /// Typed by hand, not written by a monitor.
    VitalSignsTyped(String),
}

/// A statement that changes exactly one row.
enum Statement {
    Insert(&'static Table, Row),
    Other(&'static str, Vec<Value>),
}

#[derive(Default)]
struct Plan {
    statements: Vec<Statement>,
    touched: Vec<Touched>,
}

impl Plan {
    fn insert(&mut self, table: &'static Table, row: Row) {
        self.statements.push(Statement::Insert(table, row));
    }

    fn other(&mut self, sql: &'static str, values: Vec<Value>) {
        self.statements.push(Statement::Other(sql, values));
    }
}

/// Happenings and how often each is drawn.
type Happening = fn(&mut Changes, &mut Plan, DateTime) -> Result<(), Error>;
const HAPPENINGS: &[(u32, Happening)] = &[
    (42, Changes::ward_round),
    (14, Changes::admission),
    (6, Changes::registration),
    (9, Changes::discharge),
    (9, Changes::move_house),
    (3, Changes::new_phone),
    (6, Changes::recovery),
    (7, Changes::correction),
    (3, Changes::vital_signs_deleted),
    (2, Changes::diagnosis_deleted),
    (1, Changes::diagnosis_rekeyed),
    (1, Changes::vital_signs_rekeyed),
    (1, Changes::registration_undone),
    (1, Changes::staff_change),
    (1, Changes::beds_change),
];

impl Changes {
    pub(super) fn start(mut hospital: Hospital, seed: u64, run: u64, bad_share: f64) -> Result<Self, Error> {
        let stream = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(run);
        Ok(Self {
            roster: Roster::read(&mut hospital)?,
            hospital,
            rng: ChaCha8Rng::seed_from_u64(stream),
            ids: Ids::new(stream),
            run,
            counter: 0,
            bad_share,
            monitors: HashMap::new(),
        })
    }

    /// Makes something happen, in one transaction.
    pub fn step(&mut self) -> Result<Done, Error> {
        let now = self.hospital.now()?;
        let mut plan = Plan::default();
        while plan.statements.is_empty() {
            let crowded = self.roster.stays.len() > self.roster.people.len() / 3;
            let happening = HAPPENINGS.choose_weighted(&mut self.rng, |(weight, _)| *weight);
            let happening =
                if crowded { Self::discharge } else { happening.map_or(HAPPENINGS[0].1, |h| h.1) };
            happening(self, &mut plan, now)?;
        }
        let rows = plan.statements.len() as u32;
        let mut inserted = Vec::new();
        let mut tx =
            self.hospital.conn.start_transaction(TxOpts::default()).doing("beginning a transaction")?;
        for statement in plan.statements {
            match statement {
                Statement::Insert(table, row) => {
                    if let Some(patient) = table.patient(&row) {
                        inserted.push((table.name, patient));
                    }
                    insert(&mut tx, table, vec![row])?;
                }
                Statement::Other(sql, values) => tx.exec_drop(sql, values).doing("changing a row")?,
            }
        }
        tx.commit().doing("committing")?;
        Ok(Done { rows, committed: Instant::now(), touched: plan.touched, inserted })
    }

    /// Vital signs of a few patients who are in.
    fn ward_round(&mut self, plan: &mut Plan, now: DateTime) -> Result<(), Error> {
        let (count, first) = (self.rng.random_range(1..=5), self.rng.random_range(0..1000));
        let stays = self.roster.stays.len();
        for place in 0..count.min(stays) {
            let stay = &self.roster.stays[(first + place) % stays];
            let (encounter, patient, birth) = (stay.id.clone(), stay.patient.clone(), stay.birth);
            self.vital_signs(plan, now, &encounter, &patient, birth);
        }
        Ok(())
    }

    fn vital_signs(&mut self, plan: &mut Plan, now: DateTime, encounter: &str, patient: &str, birth: Date) {
        let body = Physiology::of(patient, i32::from(now.year() - birth.year()));
        let by = pick(&mut self.rng, &self.roster.staff).clone();
        let id = self.ids.next();
        // The bed's monitor, named after the encounter.
        let monitor = self.rng.random_bool(0.3).then(|| encounter.to_owned());
        let monitor = monitor.filter(|monitor| self.monitors.insert(monitor.clone(), now) != Some(now));
        let mut row =
            rows::vital_signs(&mut self.rng, &id, (patient, encounter, &by), now, &body, monitor.as_deref());
        if self.rng.random_bool(self.bad_share) {
            let impossible = Value::from(self.rng.random_range(400..900));
            rows::VITAL_SIGNS.set(&mut row, "heart_rate", impossible);
        } else {
            self.roster.read_now(Reading { id: id.clone(), manual: monitor.is_none() });
            if monitor.is_none() {
                plan.touched.push(Touched::VitalSignsTyped(id));
            }
        }
        plan.insert(&rows::VITAL_SIGNS, row);
    }

    /// Someone known comes in.
    fn admission(&mut self, plan: &mut Plan, now: DateTime) -> Result<(), Error> {
        let person = pick(&mut self.rng, &self.roster.people);
        let (patient, sex, birth) = (person.id.clone(), person.sex, person.birth);
        if self.roster.stays.iter().any(|stay| stay.patient == patient) {
            return Ok(());
        }
        self.roster.unseen.retain(|id| *id != patient);
        self.admit(plan, now, &patient, sex, birth);
        Ok(())
    }

    fn admit(&mut self, plan: &mut Plan, now: DateTime, patient: &str, sex: Sex, birth: Date) {
        let (kind, class) = *pick(
            &mut self.rng,
            &[("emergency", "emergency"), ("inpatient", "inpatient"), ("outpatient", "ambulatory")],
        );
        let age = i32::from(now.year() - birth.year());
        let what = diagnoses::draw(&mut self.rng, sex, age);
        let by = pick(&mut self.rng, &self.roster.staff).clone();
        let (encounter, diagnosis) = (self.ids.next(), self.ids.next());
        self.counter += 1;
        plan.insert(
            &rows::ENCOUNTERS,
            row![
                encounter.as_str(),
                patient,
                format!("E-{}-{:07}", self.run, self.counter),
                kind,
                "in_progress",
                class,
                *pick(&mut self.rng, &["routine", "urgent", "emergent"]),
                time(now),
                Value::NULL,
                pick(&mut self.rng, &self.roster.facilities).as_str(),
                by.as_str(),
                Value::NULL,
                complaint(what),
                Value::NULL,
            ],
        );
        let course = Course { kind: "admitting", clinical: "active", onset: now.date(), abated: None };
        let row = rows::diagnosis(&mut self.rng, &diagnosis, (patient, &encounter, &by), what, &course);
        plan.insert(&rows::DIAGNOSES, row);
        self.vital_signs(plan, now, &encounter, patient, birth);
        plan.touched.push(Touched::EncounterStarted(encounter.clone()));
        plan.touched.push(Touched::DiagnosisMade(diagnosis.clone()));
        if !what.chronic {
            self.roster.illnesses.push(diagnosis);
        }
        self.roster.stays.push(Stay { id: encounter, patient: patient.into(), birth, sex });
    }

    /// Someone new is registered; most are admitted in the same transaction.
    fn registration(&mut self, plan: &mut Plan, now: DateTime) -> Result<(), Error> {
        let id = self.ids.next();
        let sex = Sex::random(&mut self.rng);
        let birth = people::birth_date(&mut self.rng, now.date(), 1, 95)?;
        let by = pick(&mut self.rng, &self.roster.staff).clone();
        self.counter += 1;
        let mrn = format!("MRN-{}-{:06}", self.run, self.counter);
        let row = rows::patient(&mut self.rng, &id, mrn, sex, birth, now.date(), &by);
        plan.insert(&rows::PATIENTS, row);
        plan.touched.push(Touched::PatientRegistered(id.clone()));
        if self.rng.random_bool(0.6) {
            self.admit(plan, now, &id, sex, birth);
        } else {
            self.roster.unseen.push(id.clone());
        }
        self.roster.people.push(Person { id, sex, birth });
        Ok(())
    }

    fn discharge(&mut self, plan: &mut Plan, now: DateTime) -> Result<(), Error> {
        if self.roster.stays.len() <= 10 {
            return Ok(());
        }
        let stay = self.roster.stays.remove(self.rng.random_range(0..self.roster.stays.len()));
        plan.other(
            "UPDATE clinical_data.encounters SET status = 'finished', discharge_date = ?, \
             discharge_disposition = ? WHERE id = ?",
            row![
                time(now),
                *pick(&mut self.rng, &["home", "home", "transfer", "left_ama"]),
                stay.id.as_str()
            ],
        );
        if self.rng.random_bool(0.5) {
            let what = diagnoses::draw(&mut self.rng, stay.sex, i32::from(now.year() - stay.birth.year()));
            let by = pick(&mut self.rng, &self.roster.staff).clone();
            let course = Course { kind: "discharge", clinical: "active", onset: now.date(), abated: None };
            let id = self.ids.next();
            let row = rows::diagnosis(&mut self.rng, &id, (&stay.patient, &stay.id, &by), what, &course);
            plan.insert(&rows::DIAGNOSES, row);
            plan.touched.push(Touched::DiagnosisMade(id));
        }
        Ok(())
    }

    fn move_house(&mut self, plan: &mut Plan, _: DateTime) -> Result<(), Error> {
        let id = pick(&mut self.rng, &self.roster.people).id.clone();
        let place = people::address(&mut self.rng);
        plan.other(
            "UPDATE clinical_data.patients SET address_line1 = ?, address_line2 = ?, city = ?, state = ?, \
             postal_code = ? WHERE id = ?",
            row![place.line1, place.line2, place.city, place.state, place.postal_code, id.as_str()],
        );
        plan.touched.push(Touched::PatientMoved(id));
        Ok(())
    }

    fn new_phone(&mut self, plan: &mut Plan, _: DateTime) -> Result<(), Error> {
        let id = pick(&mut self.rng, &self.roster.people).id.clone();
        let phone = people::phone(&mut self.rng);
        plan.other("UPDATE clinical_data.patients SET phone = ? WHERE id = ?", row![phone, id]);
        Ok(())
    }

    fn recovery(&mut self, plan: &mut Plan, now: DateTime) -> Result<(), Error> {
        let Some(id) = self.take_illness() else { return Ok(()) };
        plan.other(
            "UPDATE clinical_data.diagnoses SET clinical_status = 'resolved', abatement_date = ? WHERE id = ?",
            row![now.date().to_string(), id],
        );
        Ok(())
    }

    /// A value typed wrong is set right, or taken away.
    fn correction(&mut self, plan: &mut Plan, _: DateTime) -> Result<(), Error> {
        let at = self.any(self.roster.readings.len());
        let Some(reading) = self.roster.readings.get(at) else { return Ok(()) };
        let id = reading.id.clone();
        match self.rng.random_range(0..4) {
            0 => plan.other("UPDATE clinical_data.vital_signs SET respiratory_rate = NULL WHERE id = ?", row![id]),
            1 => plan.other(
                "UPDATE clinical_data.vital_signs SET temperature = ?, temperature_site = 'oral' WHERE id = ?",
                row![format!("37.{}", self.rng.random_range(0..10)), id],
            ),
            _ => plan.other(
                "UPDATE clinical_data.vital_signs SET heart_rate = ? WHERE id = ?",
                row![self.rng.random_range(55..110), id],
            ),
        }
        Ok(())
    }

    fn vital_signs_deleted(&mut self, plan: &mut Plan, _: DateTime) -> Result<(), Error> {
        let at = self.any(self.roster.readings.len());
        if let Some(reading) = self.roster.readings.remove(at) {
            plan.other("DELETE FROM clinical_data.vital_signs WHERE id = ?", row![reading.id]);
        }
        Ok(())
    }

    fn diagnosis_deleted(&mut self, plan: &mut Plan, _: DateTime) -> Result<(), Error> {
        if let Some(id) = self.take_illness() {
            plan.other("DELETE FROM clinical_data.diagnoses WHERE id = ?", row![id]);
        }
        Ok(())
    }

    /// A primary key changes: downstream that is a delete and a create.
    fn diagnosis_rekeyed(&mut self, plan: &mut Plan, _: DateTime) -> Result<(), Error> {
        if let Some(id) = self.take_illness() {
            let new = self.ids.next();
            plan.other("UPDATE clinical_data.diagnoses SET id = ? WHERE id = ?", row![new, id]);
        }
        Ok(())
    }

    /// Only rows typed by hand: those a monitor wrote are known downstream by monitor and time, not by id.
    fn vital_signs_rekeyed(&mut self, plan: &mut Plan, _: DateTime) -> Result<(), Error> {
        let at = self.any(self.roster.readings.len());
        if self.roster.readings.get(at).is_some_and(|reading| reading.manual)
            && let Some(reading) = self.roster.readings.remove(at)
        {
            let new = self.ids.next();
            plan.other("UPDATE clinical_data.vital_signs SET id = ? WHERE id = ?", row![new, reading.id]);
        }
        Ok(())
    }

    /// A double registration is deleted again; nothing refers to it yet.
    fn registration_undone(&mut self, plan: &mut Plan, _: DateTime) -> Result<(), Error> {
        if let Some(id) = self.roster.unseen.pop() {
            self.roster.people.retain(|person| person.id != id);
            plan.other("DELETE FROM clinical_data.patients WHERE id = ?", row![id]);
        }
        Ok(())
    }

    fn staff_change(&mut self, plan: &mut Plan, _: DateTime) -> Result<(), Error> {
        let id = pick(&mut self.rng, &self.roster.staff).clone();
        let phone = people::phone(&mut self.rng);
        plan.other("UPDATE identity_management.users SET phone = ? WHERE id = ?", row![phone, id]);
        Ok(())
    }

    fn beds_change(&mut self, plan: &mut Plan, _: DateTime) -> Result<(), Error> {
        let id = pick(&mut self.rng, &self.roster.facilities).clone();
        let beds = self.rng.random_range(0..150);
        plan.other(
            "UPDATE business_operations.facilities SET available_beds = ? WHERE id = ?",
            row![beds, id],
        );
        Ok(())
    }

    fn take_illness(&mut self) -> Option<String> {
        if self.roster.illnesses.is_empty() {
            return None;
        }
        let at = self.any(self.roster.illnesses.len());
        Some(self.roster.illnesses.swap_remove(at))
    }

    /// An index below `len`, or 0.
    fn any(&mut self, len: usize) -> usize {
        if len == 0 { 0 } else { self.rng.random_range(0..len) }
    }
}
