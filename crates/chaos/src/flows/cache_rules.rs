//! `invalidate-cache`: row changes in, keys of stale cache entries out. A change that is sent again evicts again,
//! which harms nobody.

use std::collections::HashSet;

use anyhow::Result;

use super::cdc::change_topics;
use super::session::{Driven, Ends, Refusals, Seen, Session};
use super::vitals::{Change, Measured, SOURCE, TENANT, TOPIC, VitalSigns};
use crate::flow::{Flow, Live, Run, Target};
use crate::ledger::accounts::{Entry, Sequences, compare, digest};
use crate::ledger::avro::{Decoder, text};
use crate::ledger::topics::{Record, Topics};
use crate::ledger::{Breaches, Invariant, Violation};
use crate::world::World;

const OUTPUT: &str = "cache.invalidation";
const LETTERS: &str = "cdc.clinical_data.vital_signs.invalidate-cache.dlq";

pub struct CacheRules;

impl Flow for CacheRules {
    fn name(&self) -> &'static str {
        "invalidate-cache"
    }

    fn target(&self) -> Target {
        Target::Kafka
    }

    fn inputs(&self) -> Vec<String> {
        vec![TOPIC.to_owned()]
    }

    fn open(&self, world: &World, run: &Run) -> Result<Box<dyn Live>> {
        let topics = Topics::connect(world)?;
        let ends = Ends {
            group: self.name(),
            subscribed: change_topics(&topics)?,
            inputs: self.inputs(),
            tables: Vec::new(),
            changelog: None,
            outputs: vec![OUTPUT.to_owned(), LETTERS.to_owned()],
        };
        let source = VitalSigns::new(run, topics.partitions(TOPIC)?);
        Driven::open(world, run, self.inputs(), ends, source, check)
    }
}

fn check(session: &Session) -> Result<Vec<Violation>> {
    let mut breaches = Breaches::default();
    let mut refusals = Refusals::default();
    let (mut expected, mut aborted) = (Sequences::new(), HashSet::new());
    session.read_inputs(&mut breaches, |topic, seen| {
        if !take(&seen, &mut expected, &mut aborted) {
            refusals.expect(topic, &seen.record);
        }
    })?;
    let mut found = Sequences::new();
    let mut decoder = session.decoder();
    session.read_outputs(&mut breaches, |topic, record, breaches| match topic {
        LETTERS => refusals.found(topic, &record, breaches),
        _ => match entry(&mut decoder, &record) {
            // Others write this topic too.
            Ok(None) => {}
            Ok(Some(entry)) => found.entry(record.key).or_default().push(entry),
            Err(_) => {
                let place = format!("{topic} [{}] {}", record.partition, record.offset);
                breaches.add(Invariant::I6, "output that cannot be read", place);
            }
        },
    })?;
    refusals.check(&mut breaches);
    compare(OUTPUT, &expected, &found, &aborted, &mut breaches);
    Ok(breaches.into_vec())
}

/// Adds what an input must become; false where it must be refused.
fn take(Seen { record, aborted }: &Seen, expected: &mut Sequences, of_aborted: &mut HashSet<i64>) -> bool {
    let Some(value) = &record.value else { return true };
    let change = Change::read(value);
    if *aborted {
        of_aborted.extend(change.map(|change| change.source.ts_ms));
        return true;
    }
    let Some(change) = change else { return false };
    let mut keys: Vec<String> = Vec::new();
    for row in [&change.before, &change.after].into_iter().flatten() {
        keys.extend(stale(row).into_iter().filter(|key| !keys.contains(key)).collect::<Vec<_>>());
    }
    let content = digest((&change.op, change.source.pos.to_string()));
    let at = (record.partition, record.offset);
    for key in keys {
        let entry = Entry { origin: change.source.ts_ms, content: Some(content), at };
        expected.entry(key).or_default().push(entry);
    }
    true
}

/// The keys that `mappings/cache.yaml` names for a row of vital signs.
fn stale(row: &Measured) -> [String; 2] {
    [
        format!("patient:{TENANT}:{}:vitals", row.patient_id),
        format!("encounter:{TENANT}:{}:vitals", row.encounter_id),
    ]
}

/// `None` where another source's.
fn entry(decoder: &mut Decoder, record: &Record) -> Result<Option<Entry>> {
    let fields = decoder.fields(record.value.as_deref().unwrap_or_default())?;
    if text(&fields, "source") != SOURCE {
        return Ok(None);
    }
    // `<binlog file>/<position>/<row>`.
    let position = text(&fields, "source_position").split('/').nth(1).unwrap_or_default();
    let content = digest((text(&fields, "op"), position));
    let origin = text(&fields, "source_ts").parse()?;
    Ok(Some(Entry { origin, content: Some(content), at: (record.partition, record.offset) }))
}
