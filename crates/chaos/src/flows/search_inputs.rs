//! Inputs of sink-search: documents in many versions, not always in order, deletes that older versions follow, and
//! poison. Judged from their bytes alone.

use std::sync::Arc;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use uuid::Uuid;

use super::avro::{Field, Schemas, Shape, named};
use super::stores::{RECORD_MAX_BYTES, SOURCE_TS, UNKNOWN_SCHEMA, VERSION, letter_print};
use crate::ledger::load::Input;
use crate::ledger::postgres::Cell;
use crate::ledger::search::Fields;
use crate::ledger::state::{Row, Want, print};
use crate::ledger::topics::Record;

/// Documents of each kind that a run writes.
const DOCUMENTS: usize = 500;
const TEN_MEGABYTES: usize = 10_000_000;

/// One index, and the topic it is made of.
pub struct Index {
    pub topic: Arc<str>,
    pub kind: String,
    pub name: String,
    /// Columns that are fields of its documents.
    pub columns: Vec<String>,
    pub shape: Shape,
}

/// What examples/canaries.txt marks as personal.
#[derive(Clone)]
pub struct Canaries {
    /// Put into columns, and so into living documents.
    pub named: Vec<String>,
    /// Put into the resource alone: phones, streets, national ids.
    pub never: Vec<String>,
}

impl Canaries {
    pub fn of(text: &str) -> Canaries {
        let lines = || text.lines().map(str::to_owned);
        let never = |line: &String| {
            [" Street", " Square", "@", "+"].iter().any(|of_contact| line.contains(of_contact))
        };
        Canaries {
            named: lines().filter(|line| line.contains("anary") && !never(line)).collect(),
            never: lines().filter(never).collect(),
        }
    }
}

/// A document under way.
struct Subject {
    id: String,
    partition: i32,
    /// Counts in twos: the odd ones between are for versions that come late.
    newest: i64,
    last: Option<Input>,
}

pub struct Generator<'i> {
    random: ChaCha8Rng,
    tenant: String,
    poison: f64,
    indices: &'i [Index],
    canaries: Canaries,
    subjects: Vec<Vec<Subject>>,
}

impl<'i> Generator<'i> {
    pub fn new(
        seed: u64,
        tenant: &str,
        poison: f64,
        indices: &'i [Index],
        canaries: Canaries,
        partitions: i32,
    ) -> Generator<'i> {
        let subject = |index: &Index, at: usize| Subject {
            id: Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{tenant}/{}/{at}", index.kind).as_bytes())
                .to_string(),
            partition: at as i32 % partitions.max(1),
            newest: 0,
            last: None,
        };
        Generator {
            random: ChaCha8Rng::seed_from_u64(seed),
            tenant: tenant.to_owned(),
            poison,
            indices,
            canaries,
            subjects: indices.iter().map(|of| (0..DOCUMENTS).map(|at| subject(of, at)).collect()).collect(),
        }
    }

    pub fn next(&mut self, now_ms: i64) -> Input {
        let index = self.random.random_range(0..self.indices.len());
        let at = self.random.random_range(0..DOCUMENTS);
        if self.random.random_bool(self.poison) {
            return self.poisoned(index, at, now_ms);
        }
        let (newest, last) = {
            let subject = &self.subjects[index][at];
            (subject.newest, subject.last.clone())
        };
        let input = match (self.random.random_range(0..100), last) {
            // Older than the newest, often after a delete: it must not win.
            (0..15, Some(_)) => {
                let late = self.random.random_range(0..newest / 2) * 2 + 1;
                let gone = self.random.random_bool(0.2);
                return self.version(index, at, late, gone, now_ms);
            }
            // Once more, as it was.
            (15..20, Some(last)) => return last,
            (20..32, Some(_)) => self.version(index, at, newest + 2, true, now_ms),
            _ => self.version(index, at, newest + 2, false, now_ms),
        };
        let subject = &mut self.subjects[index][at];
        subject.newest += 2;
        subject.last = Some(input.clone());
        input
    }

    fn version(&mut self, index: usize, at: usize, number: i64, gone: bool, now_ms: i64) -> Input {
        let version = number << 8;
        let value = (!gone).then(|| self.document(index, at, version, now_ms, "1980-02-29", 0));
        let mut input = self.input(index, at, value, now_ms);
        input.headers.push((VERSION, version.to_string()));
        input
    }

    fn input(&self, index: usize, at: usize, value: Option<Vec<u8>>, now_ms: i64) -> Input {
        let subject = &self.subjects[index][at];
        Input {
            topic: self.indices[index].topic.clone(),
            partition: Some(subject.partition),
            key: format!("{}/{}", self.tenant, subject.id).into_bytes(),
            value,
            headers: vec![(SOURCE_TS, now_ms.to_string())],
            timestamp: None,
        }
    }

    /// `filler` bytes more make it too large.
    fn document(
        &mut self,
        index: usize,
        at: usize,
        version: i64,
        now_ms: i64,
        day: &str,
        filler: usize,
    ) -> Vec<u8> {
        let pick = |random: &mut ChaCha8Rng, of: &[String]| of[random.random_range(0..of.len())].clone();
        let person = pick(&mut self.random, &self.canaries.named);
        let secret = pick(&mut self.random, &self.canaries.never);
        let code = self.random.random_range(100..999).to_string();
        let text = version.to_string();
        let resource =
            format!(r#"{{"resourceType":"Basic","secret":"{secret}","filler":"{}"}}"#, "x".repeat(filler));
        let subject = &self.subjects[index][at];
        self.indices[index].shape.write(&[
            ("tenant", Field::Text(&self.tenant)),
            ("id", Field::Text(&subject.id)),
            ("version", Field::Long(version)),
            ("version_id", Field::Text(&text)),
            ("last_updated", Field::Long(now_ms)),
            ("source", Field::Text("chaos")),
            ("active", Field::Bool(version % 3 == 0)),
            ("name", Field::Text(&person)),
            ("mrn", Field::Text(&code)),
            ("birth_date", Field::Text(day)),
            ("npi", Field::Text(&code)),
            ("code", Field::Text(&code)),
            ("code_display", Field::Text("Essential hypertension")),
            ("subject_name", Field::Text(&person)),
            ("subject_birth_date", Field::Text(day)),
            ("resource", Field::Text(&resource)),
        ])
    }

    /// What must be rejected, and would be the newest version of its document.
    fn poisoned(&mut self, index: usize, at: usize, now_ms: i64) -> Input {
        let version = (self.subjects[index][at].newest + 1_000_000) << 8;
        let mut good = self.document(index, at, version, now_ms, "1980-02-29", 0);
        let value = match self.random.random_range(0..60) {
            0..15 => {
                let length = self.random.random_range(1..good.len());
                good.truncate(length);
                good
            }
            15..25 => {
                good[1..5].copy_from_slice(&UNKNOWN_SCHEMA.to_be_bytes());
                good
            }
            // No date: the server refuses it. Practitioners have none.
            25..40 => match self.indices[index].columns.iter().any(|column| column.ends_with("birth_date")) {
                true => self.document(index, at, version, now_ms, "not a day", 0),
                false => good[..20].to_vec(),
            },
            40..50 => {
                let mut input = self.input(index, at, Some(good), now_ms);
                input.key = b"no tenant".to_vec();
                return input;
            }
            // A delete that does not say of which version.
            50..59 => return self.input(index, at, None, now_ms),
            _ => self.document(index, at, version, now_ms, "1980-02-29", TEN_MEGABYTES),
        };
        self.input(index, at, Some(value), now_ms)
    }
}

/// What the sink must do with a record, by the documented rules. Tables are the indices.
pub fn judge(topic: &str, record: &Record, indices: &[Index], schemas: &Schemas) -> Want {
    let reject = || Want::Reject(letter_print(record));
    let Some((table, index)) = indices.iter().enumerate().find(|(_, index)| *index.topic == *topic) else {
        return Want::Drop;
    };
    let Some((tenant, id)) = record.key.rsplit_once('/') else { return reject() };
    let mut fields = Fields::new();
    let mut put = |name: &str, json: String| drop(fields.insert(name.to_owned(), json));
    let text = |text: &str| serde_json::Value::from(text).to_string();
    put("tenant", text(tenant));
    put("id", text(id));
    put("kind", text(&index.kind));
    let version = match &record.value {
        None => {
            let Some(version) = record.header(VERSION).and_then(|text| text.parse().ok()) else {
                return reject();
            };
            version
        }
        Some(value) => {
            let read = if value.len() > RECORD_MAX_BYTES { None } else { schemas.read(value) };
            let Some(cells) = read else { return reject() };
            let Some(Cell::Int(version)) = named(&cells, "version") else { return reject() };
            for column in &index.columns {
                match named(&cells, column) {
                    Some(Cell::Text(value)) if column.ends_with("birth_date") && value.contains(' ') => {
                        return reject();
                    }
                    Some(Cell::Text(value)) => put(column, text(value)),
                    Some(Cell::Int(value)) => put(column, value.to_string()),
                    Some(Cell::Bool(value)) => put(column, value.to_string()),
                    _ => {}
                }
            }
            *version
        }
    };
    put("version", version.to_string());
    put("deleted", record.value.is_none().to_string());
    let row = Row { version, print: print(&fields) };
    Want::Put { table, key: format!("{tenant}|{id}").into(), row }
}
