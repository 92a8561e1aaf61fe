//! sink-warehouse: dimensions whose versions come in any order, facts that point at them, deletes and poison.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use postgres::Transaction;

use super::avro::{Schemas, Shape};
use super::stores::{Inbox, PostgresRun, load, now_ms};
use super::warehouse_inputs::{Generator, PATIENT, TOPICS};
use super::warehouse_rows::{
    PATIENT_CHANGE, PATIENT_VALUES, PROVIDER_CHANGE, PROVIDER_VALUES, delete_print, judge, tables,
    version_print,
};
use crate::flow::{Flow, Halt, Live, Run, Target};
use crate::ledger::postgres::{cell, each};
use crate::ledger::scd2::{Change, Keys, Pointer, Stay, Version, intervals, readmissions, unlike};
use crate::ledger::state::Books;
use crate::ledger::topics::{Record, Topics};
use crate::ledger::{Breaches, Violation};
use crate::world::World;

const NAME: &str = "sink-warehouse";
/// Read by the sink, and not written by the run.
const IDLE: [&str; 1] = ["enriched.condition"];
/// While it works one in so many readings is looked at, other ones each time.
const SLOTS: u64 = 16;

pub struct Warehouse;

impl Flow for Warehouse {
    fn name(&self) -> &'static str {
        NAME
    }

    fn target(&self) -> Target {
        Target::Postgres
    }

    fn inputs(&self) -> Vec<String> {
        TOPICS.map(str::to_owned).to_vec()
    }

    fn open(&self, world: &World, run: &Run) -> Result<Box<dyn Live>> {
        let mut schemas = Schemas::default();
        let mut shapes = BTreeMap::new();
        for topic in TOPICS {
            let (id, text) = schemas.add(&world.registry, topic)?;
            shapes.insert(topic, Shape::of(id, &text)?);
        }
        let judge = Box::new(move |topic: &str, record: &Record| judge(topic, record, &schemas));
        let tables = tables();
        let inbox = Inbox::open(world, run, NAME, &TOPICS, &IDLE, tables.len(), judge)?;
        Ok(Box::new(Running {
            partitions: Topics::connect(world)?.partitions(PATIENT)?,
            store: PostgresRun::open(inbox, world, run, &IDLE, tables)?,
            world: world.clone(),
            run: run.clone(),
            shapes,
            looks: AtomicU64::new(0),
        }))
    }
}

struct Running {
    world: World,
    run: Run,
    partitions: i32,
    shapes: BTreeMap<&'static str, Shape>,
    store: PostgresRun,
    looks: AtomicU64,
}

impl Running {
    /// I7, at any moment; of the readings those that the condition picks.
    fn look(&self, asked: &mut Transaction<'_>, readings: &str, found: &mut Breaches) -> Result<()> {
        let tenant = &*self.run.tag;
        let (patients, of_patients) = dimension(asked, tenant, "patient", PATIENT_VALUES)?;
        let (providers, of_providers) = dimension(asked, tenant, "provider", PROVIDER_VALUES)?;
        intervals("dim.patient_dimension", &patients, found);
        intervals("dim.provider_dimension", &providers, found);
        let mut of_facilities = Keys::default();
        let facilities =
            "SELECT facility_key, facility_id::text FROM dim.facility_dimension WHERE tenant_id = $1";
        each(asked, facilities, tenant, |row| {
            of_facilities.add(row.try_get(0)?, row.try_get(1)?, i64::MIN);
            Ok(())
        })?;
        for (keys, column, id) in [
            (&of_patients, "patient_key", "patient_id"),
            (&of_providers, "provider_key", "provider_id"),
            (&of_facilities, "facility_key", "facility_id"),
        ] {
            let sql = format!(
                "SELECT encounter_id::text, {id}::text, {column},
                     (extract(epoch FROM coalesce(admission_ts, source_ts)) * 1000)::int8
                 FROM fact.encounter_fact WHERE tenant_id = $1"
            );
            keys.check("fact.encounter_fact", &pointers(asked, tenant, &sql)?, found);
        }
        for (keys, column, id) in
            [(&of_patients, "patient_key", "patient_id"), (&of_facilities, "facility_key", "facility_id")]
        {
            let sql = format!(
                "SELECT sample_id, {id}::text, {column}, (extract(epoch FROM observed_at) * 1000)::int8
                 FROM fact.vital_signs_fact WHERE tenant_id = $1 {readings}"
            );
            keys.check("fact.vital_signs_fact", &pointers(asked, tenant, &sql)?, found);
        }
        Ok(())
    }

    /// I6: the dimensions again from their changes, keys to encounters that are there, and readmissions.
    fn recompute(&self, asked: &mut Transaction<'_>, books: &Books, found: &mut Breaches) -> Result<()> {
        let tenant = &*self.run.tag;
        for (name, kind, table, values) in [
            ("dim.patient_dimension", "patient", PATIENT_CHANGE, PATIENT_VALUES),
            ("dim.provider_dimension", "provider", PROVIDER_CHANGE, PROVIDER_VALUES),
        ] {
            let (rows, _) = dimension(asked, tenant, kind, values)?;
            unlike(name, changes(books, table, delete_print(values)), &rows, found);
        }
        let mut encounters = Keys::default();
        let mut stays = Vec::new();
        let sql = "SELECT encounter_key, encounter_id::text, patient_id::text,
                       coalesce(encounter_class = 'IMP' AND status NOT IN ('cancelled', 'entered-in-error'), false),
                       coalesce(mortality, false), (extract(epoch FROM admission_ts) * 1000)::int8,
                       (extract(epoch FROM discharge_ts) * 1000)::int8, readmission_30_days
                   FROM fact.encounter_fact WHERE tenant_id = $1";
        each(asked, sql, tenant, |row| {
            let id: String = row.try_get(1)?;
            encounters.add(row.try_get(0)?, &id, i64::MIN);
            stays.push(Stay {
                id,
                patient: row.try_get(2)?,
                counts: row.try_get(3)?,
                died: row.try_get(4)?,
                from: row.try_get(5)?,
                to: row.try_get(6)?,
                readmitted: row.try_get(7)?,
            });
            Ok(())
        })?;
        readmissions(&stays, found);
        // One that has not come, or was deleted, has a key all the same.
        let sql = "SELECT v.sample_id, v.encounter_id::text, v.encounter_key, 0::int8 FROM fact.vital_signs_fact AS v
                   LEFT JOIN fact.encounter_fact AS e USING (tenant_id, encounter_id)
                   WHERE v.tenant_id = $1 AND (v.encounter_id IS NULL OR e.encounter_id IS NOT NULL)";
        encounters.check("fact.vital_signs_fact", &pointers(asked, tenant, sql)?, found);
        Ok(())
    }
}

impl Live for Running {
    fn load(&self, stop: &Halt) -> Result<u64> {
        let run = &self.run;
        let mut inputs =
            Generator::new(run.seed, &run.tag, run.poison, self.partitions, &self.shapes, now_ms());
        load(&self.world, run, stop, || inputs.next())
    }

    fn watch(&self) -> Vec<Violation> {
        let slot = self.looks.fetch_add(1, Ordering::Relaxed) % SLOTS;
        let readings = format!("AND vital_signs_key % {SLOTS} = {slot}");
        self.store.watch(&|asked, _, found| self.look(asked, &readings, found))
    }

    fn progress(&self) -> Result<BTreeMap<String, i64>> {
        self.store.progress()
    }

    fn check(&self) -> Result<Vec<Violation>> {
        self.store.check(&|asked, books, found| {
            self.look(asked, "", found)?;
            self.recompute(asked, books, found)
        })
    }
}

/// The rows of a versioned dimension, and its keys.
fn dimension(
    asked: &mut Transaction<'_>,
    tenant: &str,
    kind: &str,
    values: &str,
) -> Result<(Vec<Version>, Keys)> {
    let sql = format!(
        "SELECT {kind}_key, {kind}_id::text, (extract(epoch FROM valid_from) * 1000)::int8,
             (extract(epoch FROM valid_to) * 1000)::int8, is_current, is_deleted,
             (extract(epoch FROM source_ts) * 1000)::int8, version, coalesce(attr_hash, 0) <> 0, {values}
         FROM dim.{kind}_dimension WHERE tenant_id = $1"
    );
    let (mut rows, mut keys) = (Vec::new(), Keys::default());
    each(asked, &sql, tenant, |row| {
        let (member, from): (String, i64) = (row.try_get(1)?, row.try_get(2)?);
        keys.add(row.try_get(0)?, &member, from);
        let values = (9..row.len()).map(|at| cell(row, at)).collect::<Result<Vec<_>>>()?;
        rows.push(Version {
            member,
            from,
            to: row.try_get(3)?,
            current: row.try_get(4)?,
            deleted: row.try_get(5)?,
            source_ts: row.try_get(6)?,
            version: row.try_get(7)?,
            print: row.try_get::<_, bool>(8)?.then(|| version_print(values)),
        });
        Ok(())
    })?;
    Ok((rows, keys))
}

fn pointers(asked: &mut Transaction<'_>, tenant: &str, sql: &str) -> Result<Vec<Pointer>> {
    let mut found = Vec::new();
    each(asked, sql, tenant, |row| {
        found.push(Pointer {
            fact: row.try_get(0)?,
            member: row.try_get(1)?,
            key: row.try_get(2)?,
            at: row.try_get(3)?,
        });
        Ok(())
    })?;
    Ok(found)
}

/// A table of changes, as folded, by member.
fn changes(books: &Books, table: usize, delete: u64) -> BTreeMap<String, Vec<Change>> {
    let mut members: BTreeMap<String, Vec<Change>> = BTreeMap::new();
    for key in books.keys(table) {
        let (Some((member, source_ts)), Some((version, print))) =
            (key.split_once('/'), books.held(table, key))
        else {
            continue;
        };
        let change = Change {
            source_ts: source_ts.parse().unwrap_or(0),
            version,
            print: print.filter(|print| *print != delete),
        };
        members.entry(member.to_owned()).or_default().push(change);
    }
    members
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::ledger::state::Want;

    /// The bytes are those of the schemas, and each kind of input is judged as it was meant.
    #[test]
    fn inputs_are_judged_as_meant() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas/avro");
        let (mut schemas, mut shapes) = (Schemas::default(), BTreeMap::new());
        for (id, topic) in (1..).zip(TOPICS) {
            let text = std::fs::read_to_string(root.join(format!("{topic}-value.avsc"))).unwrap();
            schemas.know(&id.into(), &text).unwrap();
            shapes.insert(topic, Shape::of(id, &text).unwrap());
        }
        for (poison, bad) in [(0.0, false), (1.0, true), (0.3, false)] {
            let mut inputs = Generator::new(3, "t", poison, 6, &shapes, now_ms());
            let mut made = [0; 5];
            for offset in 0..2_000 {
                let input = inputs.next();
                let record = Record {
                    offset,
                    key: String::from_utf8(input.key).unwrap(),
                    value: input.value,
                    headers: input
                        .headers
                        .into_iter()
                        .map(|(name, value)| (name.to_owned(), value))
                        .collect(),
                    ..Record::default()
                };
                match judge(&input.topic, &record, &schemas) {
                    Want::Put { table, .. } => made[table] += 1,
                    Want::Reject(_) => assert!(poison > 0.0, "offset {offset}"),
                    _ => {}
                }
            }
            assert_eq!(made.iter().all(|count| *count > 20), !bad, "{made:?}");
            assert!(!bad || made == [0; 5], "{made:?}");
        }
    }
}
