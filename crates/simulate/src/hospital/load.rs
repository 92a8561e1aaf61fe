//! The initial load: two years of a hospital's life, in transactions of one patient each.

use jiff::ToSpan;
use jiff::civil::{Date, DateTime};
use mysql::TxOpts;
use mysql::prelude::Queryable;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::rows::{self, Course, Row, insert, row, time};
use super::server::Hospital;
use crate::Error;
use crate::diagnoses::{self, Diagnosis};
use crate::error::Doing;
use crate::ids::Ids;
use crate::people::{self, Sex, pick};
use crate::vitals::Physiology;

struct Visit {
    kind: &'static str,
    class: &'static str,
    /// Hours it lasts at least and at most.
    hours: (f64, f64),
    /// Vital signs taken at most.
    rounds: i32,
}

const OUTPATIENT: Visit = Visit { kind: "outpatient", class: "ambulatory", hours: (0.4, 1.5), rounds: 1 };
const EMERGENCY: Visit = Visit { kind: "emergency", class: "emergency", hours: (2.0, 10.0), rounds: 4 };
const INPATIENT: Visit = Visit { kind: "inpatient", class: "inpatient", hours: (26.0, 200.0), rounds: 8 };
const VISITS: &[(u32, Visit)] = &[
    (55, OUTPATIENT),
    (18, EMERGENCY),
    (14, INPATIENT),
    (4, Visit { kind: "urgent_care", class: "ambulatory", hours: (1.0, 4.0), rounds: 2 }),
    (3, Visit { kind: "emergency", class: "observation", hours: (6.0, 23.0), rounds: 3 }),
    (4, Visit { kind: "telehealth", class: "virtual", hours: (0.2, 0.6), rounds: 0 }),
    (2, Visit { kind: "home_health", class: "ambulatory", hours: (0.5, 2.0), rounds: 1 }),
];

struct Generator {
    rng: ChaCha8Rng,
    ids: Ids,
    now: DateTime,
    facilities: Vec<String>,
    staff: Vec<String>,
    encounters: u32,
}

/// Everything about one patient, to be written in one transaction.
#[derive(Default)]
struct Chart {
    encounters: Vec<Row>,
    diagnoses: Vec<Row>,
    vital_signs: Vec<Row>,
    died: Option<DateTime>,
}

struct Person<'a> {
    id: &'a str,
    sex: Sex,
    age: i32,
    birth: Date,
    body: Physiology,
}

pub(super) fn run(hospital: &mut Hospital, patients: u32, seed: u64, id_seed: u64) -> Result<u64, Error> {
    let now = hospital.now()?;
    let mut g = Generator {
        rng: ChaCha8Rng::seed_from_u64(seed),
        ids: Ids::new(id_seed),
        now,
        facilities: Vec::new(),
        staff: Vec::new(),
        encounters: 0,
    };
    let mut written = 0;
    let conn = &mut hospital.conn;
    let mut facilities = Vec::new();
    for number in 0..6 {
        let id = g.ids.next();
        facilities.push(rows::facility(&mut g.rng, &id, number, seed));
        g.facilities.push(id);
    }
    written += u64::from(insert(conn, &rows::FACILITIES, facilities)?);
    let mut staff = Vec::new();
    for number in 0..(20 + patients as usize / 25) {
        let id = g.ids.next();
        staff.push(rows::user(&mut g.rng, &id, number, now.date())?);
        g.staff.push(id);
    }
    written += u64::from(insert(conn, &rows::USERS, staff)?);

    for number in 0..patients {
        let id = g.ids.next();
        let sex = Sex::random(&mut g.rng);
        let birth = people::birth_date(&mut g.rng, now.date(), 1, 95)?;
        let age = i32::from(now.year() - birth.year());
        let registrar = pick(&mut g.rng, &g.staff).clone();
        let row =
            rows::patient(&mut g.rng, &id, format!("MRN-0-{number:06}"), sex, birth, now.date(), &registrar);
        let person = Person { id: &id, sex, age, birth, body: Physiology::of(&id, age) };
        let chart = g.chart(&person)?;
        let mut tx = conn.start_transaction(TxOpts::default()).doing("beginning a transaction")?;
        written += u64::from(insert(&mut tx, &rows::PATIENTS, vec![row])?);
        written += u64::from(insert(&mut tx, &rows::ENCOUNTERS, chart.encounters)?);
        written += u64::from(insert(&mut tx, &rows::DIAGNOSES, chart.diagnoses)?);
        written += u64::from(insert(&mut tx, &rows::VITAL_SIGNS, chart.vital_signs)?);
        if let Some(died) = chart.died {
            tx.exec_drop(
                "UPDATE clinical_data.patients SET is_deceased = 1, deceased_date = ? WHERE id = ?",
                (time(died), &id),
            )
            .doing("recording a death")?;
        }
        tx.commit().doing("committing")?;
    }
    Ok(written)
}

impl Generator {
    /// Up to six visits in order of time, the last of which may still be going on.
    fn chart(&mut self, person: &Person<'_>) -> Result<Chart, Error> {
        let mut chart = Chart::default();
        let two_years_ago = self.now.checked_sub(730.days())?;
        let birth = person.birth.to_datetime(jiff::civil::Time::midnight()).checked_add(2.days())?;
        let mut cursor = two_years_ago.max(birth);
        let visits = self.rng.random_range(0..=6);
        for _ in 0..visits {
            let gap = self.rng.random_range(60..60 * 24 * 200_i64);
            let admitted = cursor.checked_add(gap.minutes())?;
            let total: u32 = VISITS.iter().map(|(weight, _)| weight).sum();
            let mut at = self.rng.random_range(0..total);
            let visit = VISITS.iter().find(|(weight, _)| {
                let hit = at < *weight;
                at = at.saturating_sub(*weight);
                hit
            });
            let visit = visit.map_or(&OUTPATIENT, |(_, visit)| visit);
            let minutes = (self.rng.random_range(visit.hours.0..visit.hours.1) * 60.0) as i64;
            let discharged = admitted.checked_add(minutes.minutes())?;
            if discharged.checked_add(1.hours())? > self.now {
                break;
            }
            cursor = discharged.checked_add(1.days())?;
            self.visit(person, visit, admitted, Some(discharged), &mut chart)?;
            if chart.died.is_some() {
                return Ok(chart);
            }
        }
        if self.rng.random_bool(0.15) && cursor.checked_add(6.days())? < self.now {
            let visit = if self.rng.random_bool(0.7) { &INPATIENT } else { &EMERGENCY };
            let longest = if visit.class == "inpatient" { 60 * 24 * 5 } else { 60 * 5_i64 };
            let admitted = self.now.checked_sub(self.rng.random_range(90..longest).minutes())?;
            self.visit(person, visit, admitted, None, &mut chart)?;
        }
        Ok(chart)
    }

    fn visit(
        &mut self,
        person: &Person<'_>,
        visit: &Visit,
        admitted: DateTime,
        discharged: Option<DateTime>,
        chart: &mut Chart,
    ) -> Result<(), Error> {
        let id = self.ids.next();
        let by = pick(&mut self.rng, &self.staff).clone();
        let what = diagnoses::draw(&mut self.rng, person.sex, person.age);
        let facility = pick(&mut self.rng, &self.facilities).clone();
        let cancelled = discharged.is_some() && self.rng.random_bool(0.02);
        let ward = matches!(visit.class, "inpatient" | "emergency");
        let dies = ward && discharged.is_some() && !cancelled && self.rng.random_bool(0.01);
        let disposition = if dies {
            "expired"
        } else {
            *pick(
                &mut self.rng,
                &["home", "home", "home", "home", "transfer", "left_ama", "other", "hospice"],
            )
        };
        if dies {
            chart.died = discharged;
        }
        self.encounters += 1;
        chart.encounters.push(row![
            id.as_str(),
            person.id,
            format!("E-0-{:07}", self.encounters),
            visit.kind,
            if cancelled {
                "cancelled"
            } else if discharged.is_some() {
                "finished"
            } else {
                "in_progress"
            },
            visit.class,
            if ward { *pick(&mut self.rng, &["urgent", "emergent", "elective"]) } else { "routine" },
            time(admitted),
            discharged.map(time),
            facility,
            by.as_str(),
            self.rng.random_bool(0.2).then(|| pick(&mut self.rng, &self.staff).clone()),
            diagnoses::complaint(what),
            (ward && discharged.is_some() && !cancelled).then_some(disposition),
        ]);
        if cancelled {
            return Ok(());
        }
        self.diagnoses(person, (&id, &by), what, admitted, discharged, chart);
        if visit.rounds > 0 {
            self.rounds(person, (&id, &by), visit, admitted, discharged.unwrap_or(self.now), chart)?;
        }
        Ok(())
    }

    fn diagnoses(
        &mut self,
        person: &Person<'_>,
        (encounter, by): (&str, &str),
        first: &Diagnosis,
        admitted: DateTime,
        discharged: Option<DateTime>,
        chart: &mut Chart,
    ) {
        let second = diagnoses::draw(&mut self.rng, person.sex, person.age);
        let with_second = second.code != first.code && self.rng.random_bool(0.4);
        for (what, kind) in
            [(first, "primary"), (second, "secondary")].into_iter().take(1 + usize::from(with_second))
        {
            let over = (!what.chronic).then_some(discharged).flatten();
            let course = Course {
                kind,
                clinical: if over.is_some() { "resolved" } else { "active" },
                onset: admitted.date(),
                abated: over.map(DateTime::date),
            };
            let id = self.ids.next();
            chart.diagnoses.push(rows::diagnosis(
                &mut self.rng,
                &id,
                (person.id, encounter, by),
                what,
                &course,
            ));
        }
    }

    /// Vital signs evenly through the stay, never two in one minute.
    fn rounds(
        &mut self,
        person: &Person<'_>,
        (encounter, by): (&str, &str),
        visit: &Visit,
        admitted: DateTime,
        until: DateTime,
        chart: &mut Chart,
    ) -> Result<(), Error> {
        let minutes = (until.duration_since(admitted).as_secs() / 60).max(10);
        let rounds = i64::from(self.rng.random_range(1..=visit.rounds)).min(minutes / 5);
        let monitor = self.rng.random_bool(0.3).then(|| self.ids.next());
        for round in 0..rounds {
            let at = admitted.checked_add((2 + round * (minutes - 5) / rounds).minutes())?;
            let id = self.ids.next();
            chart.vital_signs.push(rows::vital_signs(
                &mut self.rng,
                &id,
                (person.id, encounter, by),
                at,
                &person.body,
                monitor.as_deref(),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use super::*;
    use crate::hospital::rows::Table;

    fn charts(seed: u64) -> Vec<Chart> {
        let mut g = Generator {
            rng: ChaCha8Rng::seed_from_u64(seed),
            ids: Ids::new(seed),
            now: jiff::civil::date(2026, 3, 1).at(14, 5, 9, 0),
            facilities: vec!["f".into()],
            staff: vec!["s".into()],
            encounters: 0,
        };
        (0..400)
            .map(|number| {
                let id = format!("p{number}");
                let birth = people::birth_date(&mut g.rng, g.now.date(), 1, 95).unwrap();
                let age = i32::from(g.now.year() - birth.year());
                let body = Physiology::of(&id, age);
                g.chart(&Person { id: &id, sex: Sex::Female, age, birth, body }).unwrap()
            })
            .collect()
    }

    fn fields(table: &Table, row: &Row) -> BTreeMap<String, Option<String>> {
        let values = row.iter().map(|value| match value {
            mysql::Value::NULL => None,
            mysql::Value::Bytes(bytes) => Some(String::from_utf8(bytes.clone()).unwrap()),
            other => Some(other.as_sql(true)),
        });
        table.columns.split(',').map(|name| name.trim().to_owned()).zip(values).collect()
    }

    #[test]
    fn the_same_seed_makes_the_same_charts() {
        let print = |charts: Vec<Chart>| {
            charts
                .iter()
                .map(|c| format!("{:?}{:?}{:?}", c.encounters, c.diagnoses, c.vital_signs))
                .collect::<String>()
        };
        assert_eq!(print(charts(5)), print(charts(5)));
        assert_ne!(print(charts(5)), print(charts(6)));
    }

    /// Times as text order as the times they stand for.
    #[test]
    fn charts_make_sense() {
        let (mut open, mut monitors) = (0, HashSet::new());
        for chart in charts(9) {
            let stays: BTreeMap<String, _> = (chart.encounters.iter())
                .map(|row| fields(&rows::ENCOUNTERS, row))
                .map(|stay| (stay["id"].clone().unwrap(), stay))
                .collect();
            for stay in stays.values() {
                let (from, to) = (&stay["admission_date"], &stay["discharge_date"]);
                assert!(to.is_none() || from < to, "{stay:?}");
                assert!(from.as_deref() < Some("2026-03-01 14:05:09"), "{stay:?}");
                assert_eq!(stay["status"].as_deref() == Some("in_progress"), to.is_none(), "{stay:?}");
                open += usize::from(to.is_none());
            }
            for reading in chart.vital_signs.iter().map(|row| fields(&rows::VITAL_SIGNS, row)) {
                let stay = &stays[reading["encounter_id"].as_ref().unwrap()];
                let (at, end) = (&reading["observation_time"], &stay["discharge_date"]);
                assert!(
                    *at >= stay["admission_date"] && (end.is_none() || at <= end),
                    "{reading:?} in {stay:?}"
                );
                let number =
                    |column: &str| reading[column].as_deref().map(|text| text.parse::<i32>().unwrap());
                if let Some(systolic) = number("blood_pressure_systolic") {
                    assert!(number("blood_pressure_diastolic").unwrap() < systolic, "{reading:?}");
                }
                if let Some(monitor) = &reading["device_id"] {
                    assert!(
                        monitors.insert((monitor.clone(), at.clone())),
                        "a monitor wrote twice in a second"
                    );
                }
            }
            for diagnosis in chart.diagnoses.iter().map(|row| fields(&rows::DIAGNOSES, row)) {
                let over = &diagnosis["abatement_date"];
                assert!(over.is_none() || *over >= diagnosis["onset_date"], "{diagnosis:?}");
                assert_eq!(diagnosis["clinical_status"].as_deref() == Some("resolved"), over.is_some());
            }
        }
        assert!(open > 20 && monitors.len() > 50, "{open} open stays, {} monitor readings", monitors.len());
    }
}
