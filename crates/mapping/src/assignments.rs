use std::collections::{BTreeMap, HashMap};

use fhirehose_codec::{SchemaSource, decode};
use fhirehose_stream::{Fault, Record};
use fhirehose_tape::{Tape, Value};

use crate::device::{Assignment, device_id};

/// The topic of assignments.
pub const ASSIGNMENTS: &str = "device.assignment";

/// Which device was assigned to whom, and when: the `device.assignment` topic as a table.
#[derive(Default)]
pub struct Assignments {
    /// By device, then by start in milliseconds since the epoch; the first moment after, and who.
    by_device: HashMap<String, BTreeMap<i64, (Option<i64>, Assignment)>>,
    tape: Tape,
}

impl Assignments {
    /// Takes a record of the topic in; gives the device it is about. A record that is no assignment is told in
    /// the log and left out: readings it should have covered stay parked, so nothing is lost by it.
    pub fn take(&mut self, record: Record<'_>, schemas: &dyn SchemaSource) -> Result<Option<String>, Fault> {
        let key = record.key().and_then(|key| std::str::from_utf8(key).ok());
        let key = key.and_then(|key| key.rsplit_once('/'));
        let key = key.and_then(|(device, from)| Some((device_id(device), from.parse::<i64>().ok()?)));
        let Some((device, from)) = key else { return Ok(refused(&record, "its key is not <device>/<from>")) };
        let Some(value) = record.value() else {
            if let Some(times) = self.by_device.get_mut(&device) {
                times.remove(&from);
            }
            return Ok(Some(device));
        };
        if let Err(error) = decode(value, schemas, &mut self.tape) {
            return error.rejection().map(|rejection| refused(&record, &rejection.detail));
        }
        let Some((to, assignment)) = read(self.tape.root()) else {
            return Ok(refused(&record, "it lacks tenant or patient_id"));
        };
        self.by_device.entry(device.clone()).or_default().insert(from, (to, assignment));
        Ok(Some(device))
    }

    /// Whose the device was at a time: the assignment with `from <= time < to`; of several, the latest begun.
    pub fn at(&self, device: &str, time: i64) -> Option<&Assignment> {
        let begun = self.by_device.get(device)?.range(..=time).rev();
        begun.map(|(_, entry)| entry).find(|(to, _)| to.is_none_or(|to| time < to)).map(|(_, who)| who)
    }
}

fn read(value: Value<'_>) -> Option<(Option<i64>, Assignment)> {
    let text = |name| value.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let to = value.get("valid_to").and_then(Value::as_i64);
    let (tenant, patient) = (text("tenant")?.into(), text("patient_id")?.into());
    Some((to, Assignment { tenant, patient, facility: text("facility_id").map(Into::into) }))
}

fn refused(record: &Record<'_>, why: &str) -> Option<String> {
    tracing::error!(
        topic = record.topic(),
        partition = record.partition(),
        offset = record.offset(),
        why,
        "record is no assignment and is left out"
    );
    None
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fhirehose_codec::MemorySchemas;
    use fhirehose_stream::Batch;

    use super::*;

    fn table(records: &[(&str, Option<&str>)]) -> Assignments {
        let (mut batch, topic) = (Batch::default(), Arc::from(ASSIGNMENTS));
        for (offset, (key, value)) in (0..).zip(records) {
            let (key, value) = (Some(key.as_bytes()), value.map(str::as_bytes));
            batch.push(&topic, 0, offset, 0, key, value, std::iter::empty());
        }
        let mut table = Assignments::default();
        batch.iter().for_each(|record| {
            table.take(record, &MemorySchemas::default()).unwrap();
        });
        table
    }

    fn patient<'t>(table: &'t Assignments, device: &str, time: i64) -> Option<&'t str> {
        table.at(device, time).map(|assignment| &*assignment.patient)
    }

    #[test]
    fn readings_are_assigned_by_their_time_half_open() {
        let a = r#"{"tenant":"t","patient_id":"a","valid_from":100,"valid_to":200}"#;
        let b = r#"{"tenant":"t","patient_id":"b","valid_from":200,"valid_to":null}"#;
        let table = table(&[("08:f9:e0:d1/100", Some(a)), ("08F9E0D1/200", Some(b))]);
        let at = |time| patient(&table, "08F9E0D1", time);
        assert_eq!(
            (at(99), at(100), at(199), at(200), at(i64::MAX)),
            (None, Some("a"), Some("a"), Some("b"), Some("b"))
        );
    }

    #[test]
    fn a_gap_is_nobodys_and_an_overlap_the_later_ones() {
        let open = r#"{"tenant":"t","patient_id":"a"}"#;
        let short = r#"{"tenant":"t","patient_id":"b","valid_to":300}"#;
        let table = table(&[("D/100", Some(open)), ("D/200", Some(short))]);
        assert_eq!((patient(&table, "D", 250), patient(&table, "D", 300)), (Some("b"), Some("a")));
    }

    #[test]
    fn deleted_and_broken_records_assign_nobody() {
        let a = r#"{"tenant":"t","patient_id":"a"}"#;
        let broken = [("D/1", Some("{")), ("D", Some(a)), ("E/1", Some("{}"))];
        let table = table(&[&[("D/100", Some(a)), ("D/100", None)], &broken[..]].concat());
        assert_eq!((patient(&table, "D", 500), patient(&table, "E", 500)), (None, None));
    }
}
