//! `normalize-cdc`: row changes in, FHIR and samples out.

use std::collections::{HashMap, HashSet};

use anyhow::Result;
use fhirehose_demo::ids;
use serde::Deserialize;

use super::session::{Driven, Ends, Refusals, Seen, Session};
use super::vitals::{Change, Measured, SOURCE, TENANT, TOPIC, VitalSigns};
use crate::flow::{Flow, Live, Run, Target};
use crate::ledger::accounts::{Entry, Sequences, compare, digest};
use crate::ledger::avro::{Decoder, Fields, text};
use crate::ledger::topics::{Record, Topics};
use crate::ledger::{Breaches, Invariant, Violation};
use crate::world::World;

const OBSERVATION: &str = "fhir.observation";
const SAMPLE: &str = "vitals.sample";
const LETTERS: &str = "cdc.clinical_data.vital_signs.normalize-cdc.dlq";
const TABLE: &str = "clinical_data.vital_signs";
/// Every Observation a row can become, by LOINC code.
const CODES: [&str; 11] = [
    "85354-9", "8867-4", "9279-1", "2708-6", "3151-8", "8310-5", "8302-2", "29463-7", "39156-5", "72514-3",
    "9269-2",
];

pub struct Cdc;

impl Flow for Cdc {
    fn name(&self) -> &'static str {
        "normalize-cdc"
    }

    fn target(&self) -> Target {
        Target::Kafka
    }

    fn inputs(&self) -> Vec<String> {
        vec![TOPIC.to_owned()]
    }

    fn open(&self, world: &World, run: &Run) -> Result<Box<dyn Live>> {
        let ends = Ends {
            group: self.name(),
            subscribed: change_topics(&Topics::connect(world)?)?,
            inputs: self.inputs(),
            tables: Vec::new(),
            changelog: None,
            outputs: [OBSERVATION, SAMPLE, LETTERS].map(str::to_owned).to_vec(),
        };
        let source = VitalSigns::new(run, Topics::connect(world)?.partitions(TOPIC)?);
        Driven::open(world, run, self.inputs(), ends, source, check)
    }
}

/// Topics of tables, of every source.
pub(super) fn change_topics(topics: &Topics) -> Result<Vec<String>> {
    let mut names = topics.names()?;
    names.retain(|name| name.starts_with("cdc.") && name.split('.').count() > 3 && !name.ends_with(".dlq"));
    Ok(names)
}

fn check(session: &Session) -> Result<Vec<Violation>> {
    let mut breaches = Breaches::default();
    let (mut expected, mut refusals) = (Expected::default(), Refusals::default());
    session.read_inputs(&mut breaches, |topic, seen| {
        if !expected.take(&seen) {
            refusals.expect(topic, &seen.record);
        }
    })?;
    let mut found = Found::default();
    let mut decoder = session.decoder();
    session.read_outputs(&mut breaches, |topic, record, breaches| match topic {
        LETTERS => refusals.found(topic, &record, breaches),
        // Others write these topics too.
        _ if !record.key.starts_with("chaos/") => {}
        _ => found.take(&mut decoder, topic, &record, breaches),
    })?;
    refusals.check(&mut breaches);
    let Expected { observations, samples, aborted, .. } = &expected;
    compare(OBSERVATION, observations, &found.observations, aborted, &mut breaches);
    compare(SAMPLE, samples, &found.samples, aborted, &mut breaches);
    Ok(breaches.into_vec())
}

/// What the inputs must become, computed in the plainest way.
#[derive(Default)]
struct Expected {
    observations: Sequences,
    samples: Sequences,
    aborted: HashSet<i64>,
    /// The furthest position of each partition: what is not beyond it was sent before.
    marks: HashMap<i32, i64>,
}

impl Expected {
    /// False where the input has to be refused.
    fn take(&mut self, Seen { record, aborted }: &Seen) -> bool {
        let Some(value) = &record.value else { return true };
        let change = Change::read(value);
        if *aborted {
            self.aborted.extend(change.map(|change| change.source.ts_ms));
            return true;
        }
        let Some(change) = change else { return false };
        let mark = self.marks.entry(record.partition).or_insert(-1);
        if change.source.pos <= *mark {
            return true;
        }
        *mark = change.source.pos;
        if change.after.as_ref().is_some_and(refused) {
            return false;
        }
        let made = change.after.as_ref().map(outputs).unwrap_or_default();
        let withdrawn = match (&change.before, &*change.op) {
            (Some(before), "d") => everything(before),
            (Some(before), _) => outputs(before).into_iter().map(|(key, _)| key).collect(),
            (None, _) => Vec::new(),
        };
        let at = (record.partition, record.offset);
        for key in withdrawn.into_iter().filter(|key| !made.iter().any(|(kept, _)| kept == key)) {
            self.add(key, Entry { origin: change.source.ts_ms, content: None, at });
        }
        for (key, content) in made {
            self.add(key, Entry { origin: change.source.ts_ms, content: Some(content), at });
        }
        true
    }

    fn add(&mut self, (topic, key): Key, entry: Entry) {
        let sequences = if topic == SAMPLE { &mut self.samples } else { &mut self.observations };
        sequences.entry(key).or_default().push(entry);
    }
}

type Key = (&'static str, String);

/// Values that cannot be, and codes nobody knows.
fn refused(row: &Measured) -> bool {
    row.heart_rate.is_some_and(|rate| !(10.0..=350.0).contains(&rate))
        || row.temperature_site.as_deref().is_some_and(|site| site != "oral")
}

/// Keys of what a row becomes, with digests of the values that are compared.
fn outputs(row: &Measured) -> Vec<(Key, u64)> {
    let parsed = |text: &Option<String>| text.as_deref().and_then(|text| text.parse::<f64>().ok());
    let (heart_rate, temperature, saturation) =
        (row.heart_rate, parsed(&row.temperature), parsed(&row.oxygen_saturation));
    let all = [("8867-4", heart_rate), ("8310-5", temperature), ("2708-6", saturation)];
    let patient = ids::row(TENANT, SOURCE, "clinical_data.patients", &row.patient_id, None);
    let mut outputs: Vec<_> = (all.into_iter())
        .filter_map(|(code, value)| Some((code, value?)))
        .map(|(code, value)| (observation(row, code), digest((code, value.to_string(), &patient))))
        .collect();
    if !outputs.is_empty() {
        let values = [heart_rate, temperature, saturation].map(|value| value.map(|v| v.to_string()));
        outputs.push((sample(row), digest((&patient, &row.id, values))));
    }
    outputs
}

/// Keys of whatever a row can have become.
fn everything(row: &Measured) -> Vec<Key> {
    CODES.iter().map(|code| observation(row, code)).chain([sample(row)]).collect()
}

fn observation(row: &Measured, code: &str) -> Key {
    (OBSERVATION, format!("{TENANT}/{}", ids::row(TENANT, SOURCE, TABLE, &row.id, Some(code))))
}

fn sample(row: &Measured) -> Key {
    (SAMPLE, format!("{TENANT}/row:{}/{}", row.id, row.at_ms()))
}

/// What came out.
#[derive(Default)]
struct Found {
    observations: Sequences,
    samples: Sequences,
}

impl Found {
    fn take(&mut self, decoder: &mut Decoder, topic: &str, record: &Record, breaches: &mut Breaches) {
        let Ok(content) = record.value.as_deref().map(|value| content(decoder, topic, value)).transpose()
        else {
            let place = format!("{topic} {} at [{}] {}", record.key, record.partition, record.offset);
            return breaches.add(Invariant::I6, "output that cannot be read", place);
        };
        let origin = record.header("fhirehose-source-ts").and_then(|ts| ts.parse().ok()).unwrap_or(-1);
        let entry = Entry { origin, content, at: (record.partition, record.offset) };
        let sequences = if topic == SAMPLE { &mut self.samples } else { &mut self.observations };
        sequences.entry(record.key.clone()).or_default().push(entry);
    }
}

/// The values that are compared.
fn content(decoder: &mut Decoder, topic: &str, value: &[u8]) -> Result<u64> {
    let fields = decoder.fields(value)?;
    if topic == SAMPLE { Ok(sample_content(&fields)) } else { observation_content(&fields) }
}

pub(super) fn sample_content(fields: &Fields) -> u64 {
    let values = ["heart_rate", "temperature", "spo2"].map(|name| fields.get(name).cloned());
    digest((text(fields, "patient_id"), text(fields, "source_event_id"), values))
}

pub(super) fn observation_content(fields: &Fields) -> Result<u64> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Observation {
        code: Code,
        subject: Subject,
        value_quantity: Option<Quantity>,
    }
    #[derive(Deserialize)]
    struct Code {
        coding: Vec<Coding>,
    }
    #[derive(Deserialize)]
    struct Coding {
        code: String,
    }
    #[derive(Deserialize)]
    struct Subject {
        reference: String,
    }
    #[derive(Deserialize)]
    struct Quantity {
        value: f64,
    }
    let found: Observation = serde_json::from_str(text(fields, "resource"))?;
    let code = found.code.coding.first().map_or("", |coding| &coding.code);
    let value = found.value_quantity.map(|quantity| quantity.value.to_string()).unwrap_or_default();
    let patient = found.subject.reference.trim_start_matches("Patient/");
    Ok(digest((code, value, patient)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use super::*;
    use crate::flow::Begin;
    use crate::flows::session::Source;
    use crate::ledger::load::Input;

    fn source(poison: f64) -> VitalSigns {
        let run =
            Run { seed: 3, tag: "t".into(), rate: 1.0, poison, dir: PathBuf::new(), begin: Begin::AtEnds };
        VitalSigns::new(&run, 2)
    }

    /// As the topic would hold them.
    fn written(inputs: impl IntoIterator<Item = Input>) -> Vec<Seen> {
        let mut next: BTreeMap<i32, i64> = BTreeMap::new();
        let mut seen = |input: Input| {
            let partition = input.partition.unwrap_or_default();
            let offset = next.entry(partition).or_insert(-1);
            *offset += 1;
            let key = String::from_utf8(input.key).unwrap();
            let record = Record { partition, offset: *offset, key, value: input.value, ..Record::default() };
            Seen { record, aborted: false }
        };
        inputs.into_iter().map(&mut seen).collect()
    }

    fn steps(source: &mut VitalSigns, count: usize) -> Vec<Input> {
        (0..count).flat_map(|_| source.step().unwrap()).collect()
    }

    #[test]
    fn the_same_seed_makes_the_same_load_but_for_the_time() {
        let keys = || steps(&mut source(0.01), 3_000).into_iter().map(|input| input.key).collect::<Vec<_>>();
        assert_eq!(keys(), keys());
    }

    #[test]
    fn a_good_load_has_everything_and_nothing_to_refuse() {
        let inputs = written(steps(&mut source(0.0), 6_000));
        let mut expected = Expected::default();
        let (mut ops, mut again) = (HashMap::new(), 0);
        for seen in &inputs {
            if let Some(change) = seen.record.value.as_deref().map(|value| Change::read(value).unwrap()) {
                *ops.entry(change.op).or_insert(0) += 1;
                let mark = expected.marks.get(&seen.record.partition);
                again += usize::from(mark.is_some_and(|mark| change.source.pos <= *mark));
            }
            assert!(expected.take(seen));
        }
        assert!(["c", "u", "d"].iter().all(|op| ops[*op] > 300), "{ops:?}");
        assert!(again > 50 && again < inputs.len() / 3, "{again} sent again");
        let twice = expected.samples.values().flatten().map(|entry| entry.origin).collect::<Vec<_>>();
        assert!(expected.samples.len() > 2_000 && twice.len() > expected.samples.len());
    }

    #[test]
    fn every_poison_is_refused() {
        let mut expected = Expected::default();
        let inputs = written(steps(&mut source(1.0), 600));
        let fresh = inputs.iter().filter(|seen| {
            let change = seen.record.value.as_deref().and_then(Change::read);
            let mark = expected.marks.get(&seen.record.partition).copied().unwrap_or(-1);
            let again = change.is_some_and(|change| change.source.pos <= mark);
            !expected.take(seen) && !again
        });
        // Those sent again are dropped, where they can be read.
        assert!(fresh.count() > 500);
        assert!(expected.samples.is_empty() && expected.observations.is_empty());
    }

    #[test]
    fn what_is_sent_again_makes_nothing() {
        let once = written(steps(&mut source(0.0), 1));
        let twice = written(steps(&mut source(0.0), 1).into_iter().chain(steps(&mut source(0.0), 1)));
        let samples = |inputs: &[Seen]| {
            let mut expected = Expected::default();
            assert!(inputs.iter().all(|seen| expected.take(seen)));
            expected.samples.values().map(Vec::len).sum::<usize>()
        };
        assert_eq!((samples(&once), samples(&twice)), (1, 1));
    }
}
