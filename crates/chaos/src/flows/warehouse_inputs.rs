//! Inputs of sink-warehouse: versions of dimensions in and out of order, facts before and after those they name,
//! deletes, repeats and poison.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use uuid::Uuid;

use super::avro::{Field, Shape};
use super::stores::{SOURCE_TS, UNKNOWN_SCHEMA, VERSION, long_text};
use crate::ledger::load::Input;

pub const PATIENT: &str = "enriched.patient";
pub const PRACTITIONER: &str = "enriched.practitioner";
pub const ORGANIZATION: &str = "enriched.organization";
pub const ENCOUNTER: &str = "enriched.encounter";
pub const VITALS: &str = "vitals.sample";
pub const TOPICS: [&str; 5] = [PATIENT, PRACTITIONER, ORGANIZATION, ENCOUNTER, VITALS];

const DAY_MS: i64 = 86_400_000;
/// Days over which changes and facts are spread.
const DAYS: i64 = 400;
const DEVICES: usize = 48;
/// Members named by facts; the last of each never get a record of their own.
const PATIENTS: usize = 160;
const PRACTITIONERS: usize = 40;
const ORGANIZATIONS: usize = 14;
const NAMED_ONLY: usize = 4;
const TEN_MEGABYTES: usize = 10_000_000;
/// More than an index of PostgreSQL takes, also compressed.
const UNINDEXABLE: usize = 9_000;

/// A resource under way.
struct Subject {
    id: String,
    /// Counts its records: its version.
    number: i64,
    source_ts: i64,
    last: Option<Input>,
    gone: bool,
}

pub struct Generator<'s> {
    random: ChaCha8Rng,
    tenant: String,
    poison: f64,
    partitions: i32,
    shapes: &'s BTreeMap<&'static str, Shape>,
    topics: BTreeMap<&'static str, Arc<str>>,
    start_ms: i64,
    patients: Vec<Subject>,
    practitioners: Vec<Subject>,
    organizations: Vec<Subject>,
    encounters: Vec<Subject>,
    /// Times of readings by device.
    readings: Vec<Vec<i64>>,
    made: u64,
}

impl<'s> Generator<'s> {
    pub fn new(
        seed: u64,
        tenant: &str,
        poison: f64,
        partitions: i32,
        shapes: &'s BTreeMap<&'static str, Shape>,
        now_ms: i64,
    ) -> Generator<'s> {
        let start_ms = now_ms - DAYS * DAY_MS;
        let subjects = |kind, count| (0..count).map(|at| subject(tenant, kind, at, start_ms)).collect();
        Generator {
            random: ChaCha8Rng::seed_from_u64(seed),
            poison,
            partitions: partitions.max(1),
            shapes,
            topics: TOPICS.into_iter().map(|topic| (topic, topic.into())).collect(),
            start_ms,
            patients: subjects(PATIENT, PATIENTS),
            practitioners: subjects(PRACTITIONER, PRACTITIONERS),
            organizations: subjects(ORGANIZATION, ORGANIZATIONS),
            encounters: Vec::new(),
            readings: vec![Vec::new(); DEVICES],
            made: 0,
            tenant: tenant.to_owned(),
        }
    }

    pub fn next(&mut self) -> Input {
        self.made += 1;
        if self.random.random_bool(self.poison) {
            return self.poisoned();
        }
        match self.random.random_range(0..100) {
            0..16 => {
                let at = self.random.random_range(0..PATIENTS - NAMED_ONLY);
                self.member(PATIENT, at)
            }
            16..24 => {
                let at = self.random.random_range(0..PRACTITIONERS - NAMED_ONLY);
                self.member(PRACTITIONER, at)
            }
            24..28 => {
                let at = self.random.random_range(0..ORGANIZATIONS - NAMED_ONLY);
                self.member(ORGANIZATION, at)
            }
            28..55 => self.encounter(),
            _ => self.reading(),
        }
    }

    fn subjects(&mut self, topic: &str) -> &mut Vec<Subject> {
        match topic {
            PATIENT => &mut self.patients,
            PRACTITIONER => &mut self.practitioners,
            ORGANIZATION => &mut self.organizations,
            _ => &mut self.encounters,
        }
    }

    fn time(&mut self) -> i64 {
        self.start_ms + self.random.random_range(0..DAYS * DAY_MS)
    }

    fn pick<'v>(&mut self, of: &[&'v str]) -> &'v str {
        of[self.random.random_range(0..of.len())]
    }

    /// The next record of a member: mostly later than those before it, sometimes of a time that was passed over.
    fn member(&mut self, topic: &'static str, at: usize) -> Input {
        let late = topic != ORGANIZATION && self.random.random_bool(0.2);
        let (any, step) = (self.time(), self.random.random_range(1..5 * DAY_MS));
        let delete = self.random.random_bool(0.08);
        let id = {
            let subject = &mut self.subjects(topic)[at];
            subject.source_ts += step;
            subject.id.clone()
        };
        // A delete of a facility of which nothing was said would mark nothing.
        let first = self.subjects(topic)[at].number == 0;
        if delete && !(first && topic == ORGANIZATION) {
            return self.record(topic, at, None, late.then_some(any));
        }
        let (city, active) = (self.pick(&["Khartoum", "Omdurman", "Bahri"]), self.random.random_bool(0.9));
        let resource = match topic {
            PATIENT => {
                let gender = self.pick(&["female", "male"]);
                format!(
                    r#"{{"resourceType":"Patient","id":"{id}","active":{active},
                    "identifier":[{{"type":{{"coding":[{{"code":"MR"}}]}},"value":"m{at}"}}],
                    "name":[{{"family":"F{at}","given":["G"]}}],"gender":"{gender}","birthDate":"1980-02-29",
                    "address":[{{"city":"{city}"}}]}}"#
                )
            }
            PRACTITIONER => format!(
                r#"{{"resourceType":"Practitioner","id":"{id}","active":{active},
                "identifier":[{{"system":"http://hl7.org/fhir/sid/us-npi","value":"n{at}"}}],
                "name":[{{"family":"{city}","given":["G"]}}],"gender":"female"}}"#
            ),
            _ => format!(
                r#"{{"resourceType":"Organization","id":"{id}","active":{active},
                "identifier":[{{"type":{{"coding":[{{"code":"FI"}}]}},"value":"f{at}"}}],
                "name":"Clinic","address":[{{"city":"{city}"}}]}}"#
            ),
        };
        self.record(topic, at, Some(resource), late.then_some(any))
    }

    fn encounter(&mut self) -> Input {
        let known = self.encounters.len();
        let at = if known > 0 && self.random.random_bool(0.3) {
            self.random.random_range(0..known)
        } else {
            known
        };
        if at == known {
            let made = subject(&self.tenant, ENCOUNTER, at, self.start_ms);
            self.encounters.push(made);
        }
        self.encounters[at].source_ts += 60_000;
        match (self.random.random_range(0..100), &self.encounters[at]) {
            // As it was once more: its version is there already.
            (0..15, Subject { last: Some(last), gone: false, .. }) => return last.clone(),
            (15..25, Subject { number: 1.., .. }) => return self.record(ENCOUNTER, at, None, None),
            _ => {}
        }
        let patient = self.patients[self.random.random_range(0..PATIENTS)].id.clone();
        let resource = self.encounter_of(at, &patient);
        self.record(ENCOUNTER, at, Some(resource), None)
    }

    fn encounter_of(&mut self, at: usize, patient: &str) -> String {
        let practitioner = self.practitioners[self.random.random_range(0..PRACTITIONERS)].id.clone();
        let organization = self.organizations[self.random.random_range(0..ORGANIZATIONS)].id.clone();
        let start = self.time();
        let end = start + self.random.random_range(3_600_000..20 * DAY_MS);
        let end = if self.random.random_bool(0.8) {
            format!(r#","end":"{}""#, instant(end))
        } else {
            String::new()
        };
        let (class, status) =
            (self.pick(&["IMP", "IMP", "AMB"]), self.pick(&["finished", "finished", "cancelled"]));
        let disposition = self.pick(&["home", "home", "exp"]);
        format!(
            r#"{{"resourceType":"Encounter","id":"{}","status":"{status}","class":{{"code":"{class}"}},
            "subject":{{"reference":"Patient/{patient}"}},
            "participant":[{{"type":[{{"coding":[{{"code":"ATND"}}]}}],
                "individual":{{"reference":"Practitioner/{practitioner}"}}}}],
            "serviceProvider":{{"reference":"Organization/{organization}"}},
            "period":{{"start":"{}"{end}}},
            "hospitalization":{{"dischargeDisposition":{{"coding":[{{"code":"{disposition}"}}]}}}}}}"#,
            self.encounters[at].id,
            instant(start),
        )
    }

    /// The next version of a resource; `None` deletes it.
    fn record(
        &mut self,
        topic: &'static str,
        at: usize,
        resource: Option<String>,
        when: Option<i64>,
    ) -> Input {
        let subject = &mut self.subjects(topic)[at];
        subject.number += 1;
        subject.gone = resource.is_none();
        let (version, source_ts) = (subject.number << 8, when.unwrap_or(subject.source_ts));
        let input = self.version(topic, at, version, source_ts, resource.as_deref());
        self.subjects(topic)[at].last = Some(input.clone());
        input
    }

    fn version(
        &mut self,
        topic: &'static str,
        at: usize,
        version: i64,
        source_ts: i64,
        resource: Option<&str>,
    ) -> Input {
        let id = self.subjects(topic)[at].id.clone();
        let text = version.to_string();
        let value = resource.map(|resource| {
            self.shapes[topic].write(&[
                ("tenant", Field::Text(&self.tenant)),
                ("id", Field::Text(&id)),
                ("version", Field::Long(version)),
                ("version_id", Field::Text(&text)),
                ("last_updated", Field::Long(source_ts)),
                ("source", Field::Text("chaos")),
                ("resource", Field::Text(resource)),
            ])
        });
        let headers = vec![(SOURCE_TS, source_ts.to_string()), (VERSION, text)];
        let key = format!("{}/{id}", self.tenant);
        self.input(topic, at, key, value, headers)
    }

    fn input(
        &self,
        topic: &'static str,
        at: usize,
        key: String,
        value: Option<Vec<u8>>,
        headers: Vec<(&'static str, String)>,
    ) -> Input {
        let partition = Some(at as i32 % self.partitions);
        Input {
            topic: self.topics[topic].clone(),
            partition,
            key: key.into_bytes(),
            value,
            headers,
            ..Input::default()
        }
    }

    /// A reading, a newer version of one, or its delete.
    fn reading(&mut self) -> Input {
        let at = self.random.random_range(0..DEVICES);
        let kind = self.random.random_range(0..100);
        let earlier = (!self.readings[at].is_empty()).then(|| {
            let nth = self.random.random_range(0..self.readings[at].len());
            self.readings[at][nth]
        });
        let ms = match (kind, earlier) {
            (0..12, Some(ms)) => ms,
            _ => {
                let ms = self.time();
                self.readings[at].push(ms);
                ms
            }
        };
        let device = format!("d{at}");
        let value = (!(0..3).contains(&kind) || earlier.is_none()).then(|| {
            let patient = self.patients[self.random.random_range(0..PATIENTS)].id.clone();
            self.sample(&device, &patient, ms)
        });
        self.reading_input(at, &device, ms, value)
    }

    fn reading_input(&self, at: usize, device: &str, ms: i64, value: Option<Vec<u8>>) -> Input {
        let key = format!("{}/{device}/{ms}", self.tenant);
        self.input(VITALS, at, key, value, vec![(SOURCE_TS, (ms + 1_000).to_string())])
    }

    fn sample(&mut self, device: &str, patient: &str, ms: i64) -> Vec<u8> {
        let event = self.made.to_string();
        let heart_rate = f64::from(self.random.random_range(45..180));
        let temperature = f64::from(self.random.random_range(3500..4100)) / 100.0;
        let mut fields = vec![
            ("tenant", Field::Text(&self.tenant)),
            ("patient_id", Field::Text(patient)),
            ("device_id", Field::Text(device)),
            ("observed_at", Field::Long(ms)),
            ("source", Field::Text("chaos")),
            ("source_event_id", Field::Text(&event)),
            ("heart_rate", Field::Double(heart_rate)),
            ("temperature", Field::Double(temperature)),
        ];
        let encounter = match self.encounters.len() {
            0 => None,
            known => Some(&self.encounters[self.random.random_range(0..known)].id),
        };
        if let Some(encounter) = encounter.filter(|_| self.made.is_multiple_of(2)) {
            fields.push(("encounter_id", Field::Text(encounter)));
        }
        if !self.made.is_multiple_of(3) {
            let organization = self.random.random_range(0..ORGANIZATIONS);
            fields.push(("facility_id", Field::Text(&self.organizations[organization].id)));
        }
        self.shapes[VITALS].write(&fields)
    }

    /// What must be rejected, and would be the newest version of what it is about.
    fn poisoned(&mut self) -> Input {
        let kind = self.random.random_range(0..100);
        let device = self.random.random_range(0..DEVICES);
        let ms = self.readings[device].first().copied().unwrap_or(self.start_ms);
        if self.encounters.is_empty() || kind < 30 {
            let name = format!("d{device}");
            let mut sample = self.sample(&name, "not-a-uuid", ms);
            let patient = self.patients[0].id.clone();
            return match kind {
                // Its key is more than an index takes.
                0..5 => {
                    let long = long_text(&mut self.random, UNINDEXABLE);
                    let value = self.sample(&long, &patient, ms);
                    self.reading_input(device, &long, ms, Some(value))
                }
                5..10 => {
                    sample.truncate(sample.len() / 2);
                    self.reading_input(device, &name, ms, Some(sample))
                }
                _ => self.reading_input(device, &name, ms, Some(sample)),
            };
        }
        let at = self.random.random_range(0..self.encounters.len());
        let version = (self.encounters[at].number + 1_000_000) << 8;
        let patient = self.patients[0].id.clone();
        let resource = match kind {
            30..40 => "{\"resourceType\":".to_owned(),
            40..50 => format!(r#"{{"deep":{}1{}}}"#, "[".repeat(200), "]".repeat(200)),
            50..60 => self.encounter_of(at, "not-a-uuid"),
            60..70 => self.encounter_of(at, &patient).replace(r#""start":""#, r#""start":"about "#),
            70 if self.random.random_bool(0.2) => format!(r#"{{"filler":"{}"}}"#, "x".repeat(TEN_MEGABYTES)),
            _ => self.encounter_of(at, &patient),
        };
        let source_ts = self.encounters[at].source_ts;
        let mut input = self.version(ENCOUNTER, at, version, source_ts, Some(&resource));
        match (kind, &mut input.value) {
            (71..80, Some(value)) => value[1..5].copy_from_slice(&UNKNOWN_SCHEMA.to_be_bytes()),
            (80..90, Some(value)) => value.truncate(value.len() / 3),
            // A delete that does not say of which version.
            (90.., value) => {
                *value = None;
                input.headers.clear();
            }
            _ => {}
        }
        input
    }
}

fn subject(tenant: &str, kind: &str, at: usize, source_ts: i64) -> Subject {
    let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{tenant}/{kind}/{at}").as_bytes()).to_string();
    Subject { id, number: 0, source_ts, last: None, gone: false }
}

fn instant(ms: i64) -> String {
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}
