//! sink-timescale: readings by the thousands, newer versions of earlier ones, deletes, old times and poison.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use super::avro::{Schemas, Shape, loosened};
use super::stores::{Inbox, PostgresRun, Table, load, now_ms};
use super::timescale_inputs::{Generator, SAMPLES, Schemata, TOPICS, judge};
use crate::flow::{Flow, Halt, Live, Run, Target};
use crate::ledger::Violation;
use crate::ledger::topics::Topics;
use crate::world::World;

const NAME: &str = "sink-timescale";
/// The tables of the topics, and their keys as record keys have them.
const TABLES: [(&str, &str, &str); 3] = [
    ("vital_signs_timeseries", "public.vital_signs_timeseries", "tenant_id || '/' || device_id"),
    ("device_metrics", "public.device_metrics", "tenant_id || '/' || device_id"),
    ("device_alerts", "public.device_alerts", "device_id || '/' || kind"),
];

pub struct Timescale;

impl Flow for Timescale {
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
        let (mut ids, mut texts) = (Vec::new(), Vec::new());
        for topic in TOPICS {
            let (id, text) = schemas.add(&world.registry, topic)?;
            ids.push(id);
            texts.push(text);
        }
        let loose = loosened(&texts[SAMPLES], "LooseSample", "patient_id")?;
        let loose = schemas.register(&world.registry, "chaos.loose.vitals", &loose)?;
        let schemata = schemata(&ids, &texts, loose)?;
        let tables =
            TABLES.iter().zip(&texts).map(|(table, text)| rows_of(table, text)).collect::<Result<_>>()?;
        let judge = Box::new(move |topic: &str, record: &_| judge(topic, record, &schemas, now_ms()));
        let inbox = Inbox::open(world, run, NAME, &TOPICS, &[], TABLES.len(), judge)?;
        Ok(Box::new(Running {
            partitions: Topics::connect(world)?.partitions(TOPICS[SAMPLES])?,
            store: PostgresRun::open(inbox, world, run, &[], tables)?,
            world: world.clone(),
            run: run.clone(),
            schemata,
        }))
    }
}

fn schemata(ids: &[u32], texts: &[String], loose: u32) -> Result<Schemata> {
    let ([sample, metrics, alert], [_, of_metrics, of_alert]) = (ids, texts) else {
        bail!("not a schema for each topic");
    };
    let (metrics, alert) = (Shape::of(*metrics, of_metrics)?, Shape::of(*alert, of_alert)?);
    Ok(Schemata { sample: *sample, loose, metrics, alert })
}

/// A table whose columns are the fields of its topic's schema, in their order.
fn rows_of((name, from, key): &(&'static str, &'static str, &str), schema: &str) -> Result<Table> {
    let columns = columns(schema)?.join(", ");
    let rows = format!(
        "SELECT {key} || '/' || (extract(epoch FROM observed_at) * 1000)::int8, version, {columns}, source_ts
         FROM {from} WHERE tenant_id = $1"
    );
    Ok(Table { name, from, rows })
}

struct Running {
    world: World,
    run: Run,
    schemata: Schemata,
    partitions: i32,
    store: PostgresRun,
}

impl Live for Running {
    fn load(&self, stop: &Halt) -> Result<u64> {
        let (run, now) = (&self.run, now_ms());
        let mut inputs = Generator::new(run.seed, &run.tag, run.poison, self.partitions, &self.schemata, now);
        load(&self.world, run, stop, || inputs.next(now_ms()))
    }

    fn watch(&self) -> Vec<Violation> {
        self.store.watch(&|_, _, _| Ok(()))
    }

    fn progress(&self) -> Result<BTreeMap<String, i64>> {
        self.store.progress()
    }

    fn check(&self) -> Result<Vec<Violation>> {
        self.store.check(&|_, _, _| Ok(()))
    }
}

/// The table's columns in the order of the schema's fields.
fn columns(schema: &str) -> Result<Vec<String>> {
    let json: serde_json::Value = serde_json::from_str(schema)?;
    let fields = json["fields"].as_array().into_iter().flatten();
    let column = |name: &str| if name == "tenant" { "tenant_id".to_owned() } else { name.to_owned() };
    Ok(fields.filter_map(|field| field["name"].as_str()).map(column).collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::ledger::state::Want;
    use crate::ledger::topics::Record;

    /// The bytes written by hand are those of the schema, and each kind of input is judged as it was meant.
    #[test]
    fn inputs_are_judged_as_meant() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas/avro");
        let text = |topic: &str| std::fs::read_to_string(root.join(format!("{topic}-value.avsc"))).unwrap();
        let texts = TOPICS.map(text).to_vec();
        let mut schemas = Schemas::default();
        for (id, text) in (1..).zip(&texts) {
            schemas.know(&id.into(), text).unwrap();
        }
        let loose = loosened(&texts[SAMPLES], "LooseSample", "patient_id").unwrap();
        schemas.know(&9.into(), &loose).unwrap();
        let schemata = schemata(&[1, 2, 3], &texts, 9).unwrap();
        assert_eq!(columns(&texts[SAMPLES]).unwrap()[0], "tenant_id");
        let now = now_ms();
        for (poison, bad) in [(0.0, false), (1.0, true)] {
            let mut inputs = Generator::new(3, "t", poison, 6, &schemata, now);
            let mut wants = [0; 6];
            for offset in 0..2_000 {
                let input = inputs.next(now);
                let record = Record {
                    offset,
                    key: String::from_utf8(input.key).unwrap(),
                    value: input.value,
                    ..Record::default()
                };
                let want = judge(&input.topic, &record, &schemas, now);
                assert_eq!(matches!(want, Want::Reject(_)), bad, "offset {offset}");
                let kind = match want {
                    Want::Put { table, key, .. } => {
                        assert_eq!(*key, *record.key);
                        table
                    }
                    Want::Remove { .. } => 3,
                    Want::Drop => 4,
                    Want::Reject(_) => 5,
                };
                wants[kind] += 1;
            }
            assert!(bad || wants[..5].iter().all(|count| *count > 0), "{wants:?}");
        }
    }
}
