//! `normalize-device`: messages of devices in, readings of whoever wore them out; what nobody wore is parked.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::Result;

use super::cdc::{observation_content, sample_content};
use super::messages::{ASSIGNMENTS, Messages, SENSORS, WATCHES};
use super::readings::{Reading, readings};
use super::session::{Driven, Ends, Refusals, Session};
use crate::flow::{Flow, Live, Run, Target};
use crate::ledger::accounts::{Entry, Sequences, compare, digest, parked};
use crate::ledger::avro::{Decoder, text};
use crate::ledger::topics::Record;
use crate::ledger::{Breaches, Invariant, Violation};
use crate::world::World;

const OBSERVATION: &str = "fhir.observation";
const SAMPLE: &str = "vitals.sample";
const METRICS: &str = "device.metrics";
const PARKED: &str = "normalize-device.parked";

pub struct Device;

impl Flow for Device {
    fn name(&self) -> &'static str {
        "normalize-device"
    }

    fn target(&self) -> Target {
        Target::Kafka
    }

    fn inputs(&self) -> Vec<String> {
        [WATCHES, SENSORS].map(str::to_owned).to_vec()
    }

    fn open(&self, world: &World, run: &Run) -> Result<Box<dyn Live>> {
        let letters = [WATCHES, SENSORS].map(|input| format!("{input}.normalize-device.dlq"));
        let ends = Ends {
            group: self.name(),
            subscribed: self.inputs(),
            inputs: self.inputs(),
            tables: vec![ASSIGNMENTS.to_owned()],
            changelog: Some(PARKED),
            outputs: [OBSERVATION, SAMPLE, METRICS].map(str::to_owned).into_iter().chain(letters).collect(),
        };
        let source = Messages::new(&world.registry, run)?;
        let tenant = run.tag.clone();
        Driven::open(world, run, self.inputs(), ends, source, move |session| check(session, &tenant))
    }
}

fn check(session: &Session, tenant: &str) -> Result<Vec<Violation>> {
    let mut breaches = Breaches::default();
    let mut refusals = Refusals::default();
    let (mut all, mut worn, mut aborted) = (Vec::new(), Worn::default(), HashSet::new());
    let mut decoder = session.decoder();
    session.read_inputs(&mut breaches, |topic, seen| {
        let record = &seen.record;
        if topic == ASSIGNMENTS {
            if !seen.aborted {
                worn.take(&mut decoder, record);
            }
        } else if seen.aborted {
            aborted.insert(record.timestamp);
        } else {
            match readings(topic, record) {
                Some(readings) => all.extend(readings),
                None => refusals.expect(topic, record),
            }
        }
    })?;
    let expected = Expected::of(tenant, &all, &worn);
    let mut found: HashMap<&str, Sequences> = HashMap::new();
    let ours = format!("{tenant}/");
    session.read_outputs(&mut breaches, |topic, record, breaches| {
        let topic = match topic {
            OBSERVATION => OBSERVATION,
            SAMPLE => SAMPLE,
            METRICS => METRICS,
            letters => return refusals.found(letters, &record, breaches),
        };
        if record.key.starts_with(&ours) {
            match entry(&mut decoder, topic, &record) {
                Ok(entry) => found.entry(topic).or_default().entry(record.key).or_default().push(entry),
                Err(_) => {
                    let place = format!("{topic} at [{}] {}", record.partition, record.offset);
                    breaches.add(Invariant::I6, "output that cannot be read", place);
                }
            }
        }
    })?;
    refusals.check(&mut breaches);
    for (topic, expected) in &expected.outputs {
        compare(topic, expected, &found.remove(topic).unwrap_or_default(), &aborted, &mut breaches);
    }
    let mut changelog = Vec::new();
    session.read_changelog(|record| changelog.push((record.key, record.value.is_some())))?;
    parked(&expected.parked, &changelog, &mut breaches);
    Ok(breaches.into_vec())
}

/// Who wore which device from when to when.
#[derive(Default)]
struct Worn(HashMap<String, Vec<(i64, Option<i64>, String)>>);

impl Worn {
    fn take(&mut self, decoder: &mut Decoder, record: &Record) {
        let Some(Ok(fields)) = record.value.as_deref().map(|value| decoder.fields(value)) else { return };
        let number = |name: &str| text(&fields, name).parse::<i64>().ok();
        let device = text(&fields, "device_id").to_owned();
        let who = text(&fields, "patient_id").to_owned();
        let from = number("valid_from").unwrap_or_default();
        self.0.entry(device).or_default().push((from, number("valid_to"), who));
    }

    fn at(&self, device: &str, time: i64) -> Option<&str> {
        let spells = self.0.get(device)?.iter();
        let within = spells.filter(|(from, to, _)| *from <= time && to.is_none_or(|to| time < to));
        within.max_by_key(|(from, _, _)| *from).map(|(_, _, who)| &**who)
    }
}

struct Expected {
    outputs: BTreeMap<&'static str, Sequences>,
    /// Keys of the changelog: `<device>/<topic>/<partition>/<offset>/<item>`.
    parked: HashSet<String>,
}

impl Expected {
    fn of(tenant: &str, readings: &[Reading], worn: &Worn) -> Expected {
        let outputs = [OBSERVATION, SAMPLE, METRICS].map(|topic| (topic, Sequences::new()));
        let mut expected = Expected { outputs: BTreeMap::from(outputs), parked: HashSet::new() };
        for reading in readings.iter().filter(|reading| reading.says_something()) {
            match worn.at(&reading.device, reading.at_ms) {
                Some(patient) => expected.outputs_of(tenant, reading, patient),
                None => drop(expected.parked.insert(reading.parked_key())),
            }
        }
        expected
    }

    fn outputs_of(&mut self, tenant: &str, reading: &Reading, patient: &str) {
        let at = (reading.at.1, reading.at.2);
        let mut put = |topic, key: String, content| {
            let entry = Entry { origin: reading.sent, content: Some(content), at };
            self.outputs.entry(topic).or_default().entry(format!("{tenant}/{key}")).or_default().push(entry);
        };
        for (code, value) in reading.measured() {
            let id = reading.observation_id(tenant, code);
            put(OBSERVATION, id, digest((code, value.to_string(), patient)));
        }
        let key = format!("{}/{}", reading.device, reading.at_ms);
        match reading.state {
            Some(state) => put(METRICS, key, digest((patient, state.map(|number| number.to_string())))),
            None => {
                let values = [reading.heart_rate, reading.temperature, reading.saturation];
                let values = values.map(|value| value.map(|value| value.to_string()));
                let event = format!("{}/{}", reading.device, reading.at_ms);
                put(SAMPLE, key, digest((patient, &event, values)));
            }
        }
    }
}

fn entry(decoder: &mut Decoder, topic: &str, record: &Record) -> Result<Entry> {
    let fields = decoder.fields(record.value.as_deref().unwrap_or_default())?;
    let content = match topic {
        OBSERVATION => observation_content(&fields)?,
        SAMPLE => sample_content(&fields),
        _ => digest((text(&fields, "patient_id"), [text(&fields, "battery"), text(&fields, "steps")])),
    };
    let origin = record.header("fhirehose-source-ts").and_then(|ts| ts.parse().ok()).unwrap_or(-1);
    Ok(Entry { origin, content: Some(content), at: (record.partition, record.offset) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(device: &str, second: i64, offset: i64) -> Reading {
        Reading {
            at: (WATCHES.into(), 1, offset),
            sent: offset,
            device: device.to_owned(),
            at_ms: second * 1000,
            heart_rate: Some(70.0),
            ..Reading::default()
        }
    }

    #[test]
    fn readings_are_of_whoever_wore_the_device_then() {
        let mut worn = Worn::default();
        worn.0.insert("1".into(), vec![(0, Some(5000), "a".into()), (5000, None, "b".into())]);
        let all = [reading("1", 4, 10), reading("1", 5, 11), reading("2", 4, 12), reading("1", 4, 13)];
        let expected = Expected::of("t", &all, &worn);
        let samples = &expected.outputs[SAMPLE];
        assert_eq!(samples.keys().collect::<Vec<_>>(), ["t/1/4000", "t/1/5000"]);
        let origins: Vec<_> = samples["t/1/4000"].iter().map(|entry| entry.origin).collect();
        assert_eq!(origins, [10, 13]);
        assert_ne!(samples["t/1/4000"][0].content, samples["t/1/5000"][0].content);
        assert_eq!(expected.parked, HashSet::from(["2/device.kati/1/12/0".to_owned()]));
    }
}
