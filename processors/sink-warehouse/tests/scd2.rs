//! Any order of arrival of a patient's changes, in any batches, ends in the same intervals, which are those a
//! plain model computes from the sorted changes; and every fact points at the version of its own time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::cell::RefCell;

use postgres::Client;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use support::{Worker, encounter, id, migrated, patient};

const DAY: i64 = 86_400_000;
const CITIES: [&str; 3] = ["Khartoum", "Kassala", "Omdurman"];

/// What happened to the patient on a day: moved to a city, or was deleted.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    City(usize),
    Deleted,
}

/// Days after the epoch on which something changed, in order; a second change of a day is a newer version.
type History = Vec<(i64, Change)>;

fn history() -> impl Strategy<Value = History> {
    let change = prop_oneof![4 => (0..CITIES.len()).prop_map(Change::City), 1 => Just(Change::Deleted)];
    proptest::collection::vec((0..12_i64, change), 1..10).prop_map(|mut changes| {
        changes.sort_by_key(|(day, _)| *day);
        changes
    })
}

/// City, first day (`None`: the calendar's), day after the last, whether that is a delete, whether it is newest.
type Version<City> = (Option<City>, Option<i64>, Option<i64>, bool, bool);

/// The intervals of a history, computed the slow and plain way.
fn intervals(history: &History) -> Vec<Version<&'static str>> {
    // The last change of a day is the day's.
    let mut days: History = Vec::new();
    for (day, change) in history {
        days.retain(|(other, _)| other != day);
        days.push((*day, *change));
    }
    let mut versions: Vec<Version<&'static str>> = Vec::new();
    let mut open = false;
    for (day, change) in &days {
        match change {
            Change::City(city) => {
                let city = Some(CITIES[*city]);
                if open && versions.last().is_some_and(|last| last.0 == city) {
                    continue;
                }
                if let Some(last) = versions.last_mut().filter(|_| open) {
                    last.2 = Some(*day);
                }
                let first = (!versions.is_empty()).then_some(*day);
                versions.push((city, first, None, false, false));
                open = true;
            }
            Change::Deleted => {
                if let Some(last) = versions.last_mut().filter(|_| open) {
                    (last.2, last.3) = (Some(*day), true);
                }
                open = false;
            }
        }
    }
    if versions.is_empty() {
        versions.push((None, None, Some(days[0].0), true, false));
    }
    versions.last_mut().unwrap().4 = true;
    versions
}

fn found(client: &mut Client, tenant: &str) -> Vec<Version<String>> {
    let day = |column: &str| {
        format!(
            "CASE WHEN {column} = '1900-01-01' THEN NULL ELSE (extract(epoch FROM {column}) / 86400)::bigint END"
        )
    };
    let sql = format!(
        "SELECT city, {}, {}, is_deleted, is_current FROM dim.patient_dimension WHERE tenant_id = $1 ORDER BY valid_from",
        day("valid_from"),
        day("valid_to")
    );
    let rows = client.query(&sql, &[&tenant]).unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4))).collect()
}

/// Facts of a tenant that do not point at the version with the greatest start at or before their time.
fn astray(client: &mut Client, tenant: &str) -> i64 {
    let sql = "SELECT count(*) FROM fact.encounter_fact e WHERE tenant_id = $1 AND patient_key IS DISTINCT FROM \
         (SELECT p.patient_key FROM dim.patient_dimension p WHERE p.tenant_id = e.tenant_id \
          AND p.patient_id = e.patient_id AND p.valid_from <= e.admission_ts ORDER BY p.valid_from DESC LIMIT 1)";
    client.query_one(sql, &[&tenant]).unwrap().get(0)
}

#[test]
fn any_order_of_arrival_ends_in_the_same_intervals() {
    let database = migrated("wh_scd2");
    let state = RefCell::new((Worker::new(&database, "t", 0), database.connect(), 0));
    // What arrives: changes and, between them, encounters on each day; where a batch ends after it.
    let arrivals = history().prop_flat_map(|history| {
        let changes = (0..history.len()).map(Some);
        let order: Vec<Option<usize>> = changes.chain(std::iter::repeat_n(None, 13)).collect();
        let order = Just(order).prop_shuffle();
        (Just(history), order, proptest::collection::vec(proptest::bool::weighted(0.3), 23))
    });
    let mut runner = TestRunner::new(Config { cases: 120, failure_persistence: None, ..Config::default() });
    runner
        .run(&arrivals, |(history, order, ends)| {
            let (worker, client, case) = &mut *state.borrow_mut();
            *case += 1;
            let tenant = format!("case-{case}");
            let mut day_of_next_fact = 0;
            for (arrival, end) in order.iter().zip(&ends) {
                match arrival {
                    Some(index) => {
                        let (day, change) = history[*index];
                        let version = 1 + *index as i64;
                        match change {
                            Change::City(city) => {
                                worker.resource(&tenant, version, day * DAY, &patient(1, CITIES[city]));
                            }
                            Change::Deleted => {
                                worker.delete("patient", &tenant, &id("Patient", 1), version, day * DAY)
                            }
                        }
                    }
                    None => {
                        // One fact before all changes, then one at noon of each day.
                        let start = match day_of_next_fact {
                            0 => "1950-05-05T00:00:00Z".to_owned(),
                            day => format!("1970-01-{day:02}T12:00:00Z"),
                        };
                        worker.resource(&tenant, 1, 0, &encounter(day_of_next_fact, 1, "AMB", &start, None));
                        day_of_next_fact += 1;
                    }
                }
                if *end {
                    worker.flush();
                }
            }
            worker.flush();
            let expected = intervals(&history);
            let found = found(client, &tenant);
            let found: Vec<_> = found.iter().map(|v| (v.0.as_deref(), v.1, v.2, v.3, v.4)).collect();
            prop_assert_eq!(found, expected, "history {:?}", history);
            prop_assert_eq!(astray(client, &tenant), 0);
            Ok(())
        })
        .unwrap();
}
