//! sink-timescale: readings by the thousands, newer versions of earlier ones, deletes, old times and poison.

use std::collections::BTreeMap;

use anyhow::Result;

use super::avro::{Schemas, loosened};
use super::stores::{Inbox, PostgresRun, Table, load, now_ms};
use super::timescale_inputs::{Generator, SchemaIds, TOPIC, judge};
use crate::flow::{Flow, Halt, Live, Run, Target};
use crate::ledger::Violation;
use crate::ledger::topics::Topics;
use crate::world::World;

const NAME: &str = "sink-timescale";
/// Read by the sink, and not written by the run.
const IDLE: [&str; 2] = ["device.metrics", "alert.emergency"];

pub struct Timescale;

impl Flow for Timescale {
    fn name(&self) -> &'static str {
        NAME
    }

    fn target(&self) -> Target {
        Target::Postgres
    }

    fn inputs(&self) -> Vec<String> {
        vec![TOPIC.to_owned()]
    }

    fn open(&self, world: &World, run: &Run) -> Result<Box<dyn Live>> {
        let mut schemas = Schemas::default();
        let (sample, text) = schemas.add(&world.registry, TOPIC)?;
        let loose_text = loosened(&text, "LooseSample", "patient_id")?;
        let ids = SchemaIds {
            sample,
            loose: schemas.register(&world.registry, "chaos.loose.vitals", &loose_text)?,
        };
        let columns = columns(&text)?;
        let partitions = Topics::connect(world)?.partitions(TOPIC)?;
        let judging = schemas.clone();
        let judge = Box::new(move |_: &str, record: &_| judge(record, &judging, now_ms()));
        let inbox = Inbox::open(world, NAME, &[TOPIC], &IDLE, 1, judge)?;
        let table = Table {
            name: "vital_signs_timeseries",
            from: "public.vital_signs_timeseries",
            rows: format!(
                "SELECT tenant_id || '/' || device_id || '/' || (extract(epoch FROM observed_at) * 1000)::int8,
                     version, {}, source_ts
                 FROM public.vital_signs_timeseries WHERE tenant_id = $1",
                columns.join(", ")
            ),
        };
        let store = PostgresRun::open(inbox, world, run, &IDLE, vec![table])?;
        Ok(Box::new(Running { world: world.clone(), run: run.clone(), ids, partitions, store }))
    }
}

struct Running {
    world: World,
    run: Run,
    ids: SchemaIds,
    partitions: i32,
    store: PostgresRun,
}

impl Live for Running {
    fn load(&self, stop: &Halt) -> Result<u64> {
        let (run, now) = (&self.run, now_ms());
        let mut inputs = Generator::new(run.seed, &run.tag, run.poison, self.partitions, self.ids, now);
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
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas/avro/vitals.sample-value.avsc");
        let text = std::fs::read_to_string(file).unwrap();
        let mut schemas = Schemas::default();
        schemas.know(&1.into(), &text).unwrap();
        schemas.know(&2.into(), &loosened(&text, "LooseSample", "patient_id").unwrap()).unwrap();
        assert_eq!(columns(&text).unwrap()[0], "tenant_id");
        let now = now_ms();
        for (poison, bad) in [(0.0, false), (1.0, true)] {
            let ids = SchemaIds { sample: 1, loose: 2 };
            let mut inputs = Generator::new(3, "t", poison, 6, ids, now);
            let mut wants = [0; 4];
            for offset in 0..2_000 {
                let input = inputs.next(now);
                let record = Record {
                    offset,
                    key: String::from_utf8(input.key).unwrap(),
                    value: input.value,
                    ..Record::default()
                };
                let want = judge(&record, &schemas, now);
                assert_eq!(matches!(want, Want::Reject(_)), bad, "offset {offset}");
                let kind = match want {
                    Want::Put { key, .. } => {
                        assert_eq!(*key, *record.key);
                        0
                    }
                    Want::Remove { .. } => 1,
                    Want::Drop => 2,
                    Want::Reject(_) => 3,
                };
                wants[kind] += 1;
            }
            assert!(bad || wants[..3].iter().all(|count| *count > 0), "{wants:?}");
        }
    }
}
