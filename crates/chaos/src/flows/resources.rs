//! Patients, encounters and observations as `normalize-cdc` would write them, for `enrich`: facts that refer to
//! targets which are there, which come later, and which never come.

use std::sync::Arc;

use anyhow::Result;
use apache_avro::types::Value as Avro;
use jiff::Timestamp;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::flow::Run;
use crate::flows::session::Source;
use crate::ledger::avro::Encoder;
use crate::ledger::load::Input;

pub(super) const PATIENT: &str = "fhir.patient";
pub(super) const ENCOUNTER: &str = "fhir.encounter";
pub(super) const OBSERVATION: &str = "fhir.observation";
/// Targets that are referred to before they come.
const AHEAD: usize = 6;
/// Observations that are written again and again.
const LIVE: usize = 400;
/// Targets are read whole by every instance at every start: so many a second are enough.
const TARGETS_PER_SECOND: f64 = 30.0;
/// This patient never comes.
const NEVER: &str = "never";

pub(super) struct Resources {
    tenant: String,
    poison: f64,
    targets: f64,
    rng: ChaCha8Rng,
    encoder: Encoder,
    topics: [Arc<str>; 3],
    patients: usize,
    encounters: usize,
    observations: usize,
    live: Vec<usize>,
    /// Counts writes: tells the versions of a resource apart.
    writes: u64,
    began: i64,
}

impl Resources {
    pub fn new(registry: &str, run: &Run) -> Result<Resources> {
        Ok(Resources {
            tenant: run.tag.clone(),
            poison: run.poison,
            targets: (TARGETS_PER_SECOND / run.rate.max(1.0)).min(0.2),
            rng: ChaCha8Rng::seed_from_u64(run.seed),
            // The envelopes of all resources have the same fields.
            encoder: Encoder::of(registry, OBSERVATION)?,
            topics: [PATIENT, ENCOUNTER, OBSERVATION].map(Arc::from),
            patients: 0,
            encounters: 0,
            observations: 0,
            live: Vec::new(),
            writes: 0,
            began: Timestamp::now().as_millisecond(),
        })
    }

    fn input(&self, topic: usize, id: &str, value: Option<Vec<u8>>) -> Input {
        let key = format!("{}/{id}", self.tenant).into_bytes();
        Input { topic: self.topics[topic].clone(), key, value, ..Input::default() }
    }

    fn write(&mut self, topic: usize, id: &str, resource: String) -> Result<Input> {
        self.writes += 1;
        let text = |text: &str| Avro::String(text.to_owned());
        let updated = self.began + i64::try_from(self.writes)?;
        let value = self.encoder.encode(vec![
            ("tenant", text(&self.tenant)),
            ("id", text(id)),
            ("version_id", Avro::String(self.writes.to_string())),
            ("last_updated", Avro::TimestampMillis(updated)),
            ("source", text("chaos")),
            ("source_position", text("")),
            ("mapping", text("chaos")),
            ("mapping_version", Avro::Int(1)),
            ("flags", Avro::Array(Vec::new())),
            ("resource", Avro::Bytes(resource.into_bytes())),
        ])?;
        Ok(self.input(topic, id, Some(value)))
    }

    /// The version stands in what is copied: the family name.
    fn patient(&mut self, number: usize) -> Result<Input> {
        let (id, version) = (format!("p{number}"), self.writes + 1);
        let resource = format!(
            r#"{{"resourceType":"Patient","id":"{id}","name":[{{"use":"official","family":"{version}","given":["P"]}}],"gender":"unknown"}}"#
        );
        self.write(0, &id, resource)
    }

    /// The version stands in what is copied: the class.
    fn encounter(&mut self, number: usize) -> Result<Input> {
        let (id, version, patient) = (format!("e{number}"), self.writes + 1, self.some_patient());
        let resource = format!(
            r#"{{"resourceType":"Encounter","id":"{id}","status":"in-progress","class":{{"code":"{version}"}},"subject":{{"reference":"Patient/{patient}"}}}}"#
        );
        self.write(1, &id, resource)
    }

    fn observation(&mut self, number: usize) -> Result<Input> {
        let (id, patient) = (format!("o{number}"), self.some_patient());
        let encounter = self.rng.random_range(0..self.encounters + AHEAD);
        let encounter = match self.rng.random_bool(0.5) {
            true => format!(r#","encounter":{{"reference":"Encounter/e{encounter}"}}"#),
            false => String::new(),
        };
        let value = self.rng.random_range(40..200);
        let resource = format!(
            r#"{{"resourceType":"Observation","id":"{id}","status":"final","code":{{"coding":[{{"system":"http://loinc.org","code":"8867-4"}}]}},"subject":{{"reference":"Patient/{patient}"}}{encounter},"valueQuantity":{{"value":{value},"code":"/min"}}}}"#
        );
        self.write(2, &id, resource)
    }

    fn some_patient(&mut self) -> String {
        if self.rng.random_ratio(1, 400) {
            return NEVER.to_owned();
        }
        format!("p{}", self.rng.random_range(0..self.patients + AHEAD))
    }

    fn target(&mut self) -> Result<Input> {
        let patient = self.rng.random_bool(0.5);
        let known = if patient { self.patients } else { self.encounters };
        let number = match self.rng.random_range(0..10) {
            0 if known > 0 => {
                let id = format!("{}{}", if patient { 'p' } else { 'e' }, self.rng.random_range(0..known));
                return Ok(self.input(usize::from(!patient), &id, None));
            }
            1..6 if known > 0 => self.rng.random_range(0..known),
            _ => known,
        };
        match patient {
            true => {
                self.patients = self.patients.max(number + 1);
                self.patient(number)
            }
            false => {
                self.encounters = self.encounters.max(number + 1);
                self.encounter(number)
            }
        }
    }

    fn fact(&mut self) -> Result<Input> {
        let number = match self.rng.random_range(0..100) {
            0..60 if self.live.len() < LIVE => {
                self.observations += 1;
                self.live.push(self.observations);
                self.observations
            }
            97.. if !self.live.is_empty() => {
                let index = self.rng.random_range(0..self.live.len());
                let gone = self.live.swap_remove(index);
                return Ok(self.input(2, &format!("o{gone}"), None));
            }
            _ if self.live.is_empty() => 0,
            _ => self.live[self.rng.random_range(0..self.live.len())],
        };
        self.observation(number)
    }

    /// A record that must be refused, of an observation of its own.
    fn poison(&mut self) -> Result<Input> {
        self.observations += 1;
        let mut input = self.observation(self.observations)?;
        match (self.rng.random_range(0..3), &mut input.value) {
            (0, Some(value)) => value.truncate(self.rng.random_range(1..value.len())),
            // No schema has this id.
            (1, Some(value)) => value[1..5].copy_from_slice(&[0x7f, 0xff, 0xff, 0xf0]),
            _ => {
                input = self.write(2, &format!("o{}", self.observations), "{\"resourceType\":".to_owned())?
            }
        }
        Ok(input)
    }

    fn next(&mut self) -> Result<Input> {
        if self.rng.random_bool(self.poison) {
            self.poison()
        } else if self.rng.random_bool(self.targets) {
            self.target()
        } else {
            self.fact()
        }
    }
}

impl Source for Resources {
    fn step(&mut self) -> Result<Vec<Input>> {
        Ok(vec![self.next()?])
    }

    fn unseen(&mut self) -> Result<Vec<Input>> {
        let patient = self.rng.random_range(0..self.patients + 1);
        Ok(vec![self.patient(patient)?, self.fact()?])
    }

    /// Who was promised comes, but for one.
    fn last(&mut self) -> Result<Vec<Input>> {
        let (patients, encounters) = (self.patients, self.encounters);
        let mut inputs = Vec::new();
        for ahead in 0..AHEAD {
            inputs.push(self.patient(patients + ahead)?);
            self.patients += 1;
            inputs.push(self.encounter(encounters + ahead)?);
        }
        Ok(inputs)
    }
}
