//! The cache: entries are put in before the minute by the rules for fillers, and afterwards those of changed
//! rows must be gone and all others must still be there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use redis::{Client, Commands, Connection, Script};

use crate::compare::{Check, Rows};
use crate::stack::Stack;
use crate::truth::{Hospital, SourceRow};

const LIFE_MS: u64 = 6 * 3_600_000;

/// What was put in, and the sources at that time.
pub struct Cache {
    url: String,
    filled: BTreeSet<String>,
    before: Vec<Hospital>,
}

impl Cache {
    /// Fills an entry for every row of `before`. Entries as new as the last change are refused for some
    /// seconds, since a database tells the time of a change only roughly: those are offered again.
    pub fn fill(stack: &Stack, shapes: &Path, before: Vec<Hospital>) -> Result<Self> {
        let file = shapes.join("processors/sink-redis/scripts/fill.lua");
        let script = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let script = Script::new(&script);
        let mut redis = connect(&stack.redis)?;
        let filled: BTreeSet<String> = before.iter().flat_map(keys_of).collect();
        let mut left: Vec<&String> = filled.iter().collect();
        let begun = Instant::now();
        while !left.is_empty() {
            let read_at_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64;
            let mut refused = Vec::new();
            for key in left {
                let took: bool =
                    (script.key(key).arg("demo").arg(read_at_ms).arg(LIFE_MS)).invoke(&mut redis)?;
                if !took {
                    refused.push(key);
                }
            }
            if begun.elapsed() > Duration::from_secs(30) {
                bail!("{} entries cannot be filled", refused.len());
            }
            if !refused.is_empty() {
                sleep(Duration::from_secs(1));
            }
            left = refused;
        }
        Ok(Self { url: stack.redis.clone(), filled, before })
    }

    pub fn checks(&self, after: &[Hospital]) -> Result<Check> {
        let evicted: BTreeSet<String> =
            self.before.iter().zip(after).flat_map(|(before, after)| stale_keys(before, after)).collect();
        let mut redis = connect(&self.url)?;
        let (mut expected, mut found) = (Rows::new(), Rows::new());
        for key in &self.filled {
            if !evicted.contains(key) {
                expected.insert(key.clone(), Vec::new());
            }
            if holds(&mut redis, key)? {
                found.insert(key.clone(), Vec::new());
            }
        }
        Ok(Check { store: "cache", what: "entries left", columns: &[], expected, found })
    }
}

pub fn connect(url: &str) -> Result<Connection> {
    Client::open(url)?.get_connection().context("connecting to Redis")
}

/// Whether the entry has a value; a mark of its eviction may stand in its place.
pub fn holds(redis: &mut Connection, key: &str) -> Result<bool> {
    Ok(redis.hexists(key, "value")?)
}

fn keys_of(hospital: &Hospital) -> impl Iterator<Item = String> {
    let tenant = hospital.site.tenant;
    let ids = |rows: &[SourceRow]| rows.iter().map(|row| row.id().to_owned()).collect::<Vec<_>>();
    let patients = ids(&hospital.patients).into_iter().flat_map(move |id| {
        ["", ":encounters", ":diagnoses", ":vitals"].map(|what| format!("patient:{tenant}:{id}{what}"))
    });
    let others = [
        ("encounter", ids(&hospital.encounters)),
        ("facility", ids(&hospital.facilities)),
        ("practitioner", ids(&hospital.users)),
    ];
    let others = others
        .into_iter()
        .flat_map(move |(what, ids)| ids.into_iter().map(move |id| format!("{what}:{tenant}:{id}")));
    patients.chain(others)
}

/// Keys of what is shown of the rows that changed.
fn stale_keys(before: &Hospital, after: &Hospital) -> BTreeSet<String> {
    let tenant = after.site.tenant;
    let mut keys = BTreeSet::new();
    for row in changed(&before.patients, &after.patients) {
        for what in ["", ":encounters", ":diagnoses", ":vitals"] {
            keys.insert(format!("patient:{tenant}:{}{what}", row.id()));
        }
    }
    for row in changed(&before.encounters, &after.encounters) {
        keys.insert(format!("encounter:{tenant}:{}", row.id()));
        keys.insert(format!("patient:{tenant}:{}:encounters", row.text("patient_id")));
    }
    for row in changed(&before.diagnoses, &after.diagnoses) {
        keys.insert(format!("patient:{tenant}:{}:diagnoses", row.text("patient_id")));
    }
    let readings = [(&before.vital_signs, &after.vital_signs), (&before.impossible, &after.impossible)];
    for row in readings.into_iter().flat_map(|(before, after)| changed(before, after)) {
        keys.insert(format!("patient:{tenant}:{}:vitals", row.text("patient_id")));
    }
    // A row that came and went in between made the same entries stale.
    for (table, patient) in &after.inserted {
        let what = match *table {
            "clinical_data.encounters" => "encounters",
            "clinical_data.diagnoses" => "diagnoses",
            _ => "vitals",
        };
        keys.insert(format!("patient:{tenant}:{patient}:{what}"));
    }
    for row in changed(&before.facilities, &after.facilities) {
        keys.insert(format!("facility:{tenant}:{}", row.id()));
    }
    for row in changed(&before.users, &after.users) {
        keys.insert(format!("practitioner:{tenant}:{}", row.id()));
    }
    keys
}

/// Rows that are new, gone or different, as they were and as they are.
fn changed<'a>(before: &'a [SourceRow], after: &'a [SourceRow]) -> Vec<&'a SourceRow> {
    let by_id = |rows: &'a [SourceRow]| rows.iter().map(|row| (row.id(), row)).collect::<BTreeMap<_, _>>();
    let (old, new) = (by_id(before), by_id(after));
    let gone = old.iter().filter(|(id, row)| new.get(*id) != Some(row)).map(|(_, row)| *row);
    let come = new.iter().filter(|(id, row)| old.get(*id) != Some(row)).map(|(_, row)| *row);
    gone.chain(come).collect()
}
