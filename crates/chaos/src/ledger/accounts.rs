//! Compares what came out of a processor with what had to: pure functions over what was read, so that each can
//! be shown a planted breach.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::topics::{At, Offsets, Record};
use super::{Breaches, Invariant};

/// One output, expected or found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Tells the input among those that can write the same key.
    pub origin: i64,
    /// Of the values compared; `None` for a tombstone.
    pub content: Option<u64>,
    /// Partition and offset: of the input where expected, of the output where found.
    pub at: (i32, i64),
}

/// The outputs of a topic, by key and in order.
pub type Sequences = BTreeMap<String, Vec<Entry>>;

/// A short name of a content.
pub fn digest(content: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}

/// Every expected output is there once (I1, I2), in the order of its inputs (I3), with its values, the last of
/// each key among them (I6); outputs of aborted inputs are told apart (I5).
pub fn compare(
    topic: &str,
    expected: &Sequences,
    found: &Sequences,
    aborted: &HashSet<i64>,
    breaches: &mut Breaches,
) {
    let none = Vec::new();
    let keys: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    for key in keys {
        let (expected, found) = (expected.get(key).unwrap_or(&none), found.get(key).unwrap_or(&none));
        let same = |(e, f): (&Entry, &Entry)| (e.origin, e.content) == (f.origin, f.content);
        if expected.len() != found.len() || !expected.iter().zip(found).all(same) {
            compare_key(&format!("{topic} {key}"), expected, found, aborted, breaches);
        }
    }
}

fn compare_key(
    key: &str,
    expected: &[Entry],
    found: &[Entry],
    aborted: &HashSet<i64>,
    breaches: &mut Breaches,
) {
    let mut left: HashMap<i64, i64> = HashMap::new();
    expected.iter().for_each(|entry| *left.entry(entry.origin).or_default() += 1);
    let wanted: HashMap<i64, &Entry> = expected.iter().map(|entry| (entry.origin, entry)).collect();
    let mut order = Vec::new();
    for entry in found {
        let (partition, offset) = entry.at;
        let place = format!("{key} at [{partition}] {offset}");
        match left.get_mut(&entry.origin) {
            None if aborted.contains(&entry.origin) => {
                breaches.add(Invariant::I5, "output of an aborted input", place);
            }
            None => breaches.add(Invariant::I2, "output that no input explains", place),
            Some(0) => breaches.add(Invariant::I2, "output twice", place),
            Some(count) => {
                *count -= 1;
                order.push(entry.origin);
                if wanted[&entry.origin].content != entry.content {
                    breaches.add(Invariant::I6, "output with wrong values", place);
                }
            }
        }
    }
    for entry in expected {
        if left.get(&entry.origin).is_some_and(|count| *count > 0) {
            let (partition, offset) = entry.at;
            let what = format!("{key} of input [{partition}] {offset}");
            breaches.add(Invariant::I1, "output missing", what);
            left.insert(entry.origin, 0);
        }
    }
    let there: HashSet<i64> = order.iter().copied().collect();
    if !expected.iter().map(|entry| entry.origin).filter(|origin| there.contains(origin)).eq(order) {
        breaches.add(Invariant::I3, "outputs out of order", key);
    }
    let last = |entries: &[Entry]| entries.last().map(|entry| (entry.origin, entry.content));
    if last(expected) != last(found) {
        breaches.add(Invariant::I6, "last value is another", key);
    }
}

/// Every input that had to be refused has one dead letter, and no other has one.
pub fn letters(expected: &BTreeSet<(At, i64)>, found: &[(At, i64)], breaches: &mut Breaches) {
    let mut left: BTreeMap<&(At, i64), u32> = expected.iter().map(|input| (input, 0)).collect();
    let name = |((topic, partition), offset): &(At, i64)| format!("{topic} [{partition}] {offset}");
    for letter in found {
        match left.get_mut(letter) {
            Some(count) => {
                *count += 1;
                if *count > 1 {
                    breaches.add(Invariant::I2, "dead letter twice", name(letter));
                }
            }
            None => breaches.add(Invariant::I1, "dead letter of a good record", name(letter)),
        }
    }
    for (input, _) in left.into_iter().filter(|(_, count)| *count == 0) {
        breaches.add(Invariant::I1, "dead letter missing", name(input));
    }
}

/// Where a dead letter is from.
pub fn origin_of_letter(letter: &Record) -> Option<(At, i64)> {
    let number = |name| letter.header(name)?.parse::<i64>().ok();
    let partition = i32::try_from(number("fhirehose-dlq-source-partition")?).ok()?;
    let topic: Arc<str> = letter.header("fhirehose-dlq-source-topic")?.into();
    Some(((topic, partition), number("fhirehose-dlq-source-offset")?))
}

/// What had to be parked stands in the changelog, and nothing else does: records of the changelog in order, with
/// whether they have a value.
pub fn parked(expected: &HashSet<String>, changelog: &[(String, bool)], breaches: &mut Breaches) {
    let mut stands: BTreeMap<&str, bool> = BTreeMap::new();
    let mut written = HashSet::new();
    for (key, value) in changelog {
        if *value && !written.insert(key) {
            breaches.add(Invariant::I2, "parked twice", key);
        }
        stands.insert(key, *value);
    }
    for key in expected.iter().filter(|key| !stands.get(key.as_str()).is_some_and(|stands| *stands)) {
        breaches.add(Invariant::I1, "parked record lost", key);
    }
    for (key, _) in stands.into_iter().filter(|(key, stands)| *stands && !expected.contains(*key)) {
        breaches.add(Invariant::I1, "parked, and need not be", key);
    }
}

/// The group has done every input: nothing is left behind it.
pub fn done(committed: &Offsets, last_inputs: &Offsets, breaches: &mut Breaches) {
    for (at, last) in last_inputs {
        let next = committed.get(at).copied().unwrap_or(-1);
        if next <= *last {
            let (topic, partition) = at;
            breaches.add(Invariant::I1, "input not done", format!("{topic} [{partition}] {next} to {last}"));
        }
    }
}

/// What a reader of committed records saw while it all went on.
#[derive(Default)]
pub struct Sightings(HashMap<(u64, i32, i64), u64>);

impl Sightings {
    pub fn saw(&mut self, topic: &str, record: &Record) {
        self.0.insert((digest(topic), record.partition, record.offset), fingerprint(record));
    }

    /// A record that is there in the end; false where another one was seen in its place.
    pub fn confirm(&mut self, topic: &str, record: &Record) -> bool {
        let seen = self.0.remove(&(digest(topic), record.partition, record.offset));
        seen.is_none_or(|seen| seen == fingerprint(record))
    }

    /// Offsets of a topic below its end that were seen and are not there.
    pub fn vanished(&self, topic: &str, partition: i32, end: i64) -> Vec<i64> {
        let topic = digest(topic);
        let of = |(at, _): (&(u64, i32, i64), &u64)| (at.0 == topic && at.1 == partition).then_some(at.2);
        let mut offsets: Vec<i64> = self.0.iter().filter_map(of).filter(|offset| *offset < end).collect();
        offsets.sort_unstable();
        offsets
    }
}

fn fingerprint(record: &Record) -> u64 {
    digest((&record.key, &record.value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Violation;

    fn entry(origin: i64) -> Entry {
        Entry { origin, content: Some(digest(origin)), at: (0, origin) }
    }

    fn sequence(origins: &[i64]) -> Sequences {
        Sequences::from([("t/1".to_owned(), origins.iter().copied().map(entry).collect())])
    }

    fn told(expected: &[i64], found: &[i64]) -> Vec<(Invariant, String)> {
        let mut breaches = Breaches::default();
        compare("out", &sequence(expected), &sequence(found), &HashSet::from([99]), &mut breaches);
        let told = |found: Violation| (found.invariant, found.what.split(':').next().unwrap().to_owned());
        breaches.into_vec().into_iter().map(told).collect()
    }

    fn breach(invariant: Invariant, what: &str) -> (Invariant, String) {
        (invariant, what.to_owned())
    }

    #[test]
    fn what_is_as_it_must_be_is_no_breach() {
        assert_eq!(told(&[1, 2, 3], &[1, 2, 3]), []);
    }

    #[test]
    fn a_lost_a_doubled_and_a_reordered_output_are_told() {
        let (lost, twice) = (breach(Invariant::I1, "output missing"), breach(Invariant::I2, "output twice"));
        let last = breach(Invariant::I6, "last value is another");
        assert_eq!(told(&[1, 2, 3], &[1, 3]), std::slice::from_ref(&lost));
        assert_eq!(told(&[1, 2, 3], &[1, 2]), [lost, last.clone()]);
        assert_eq!(told(&[1, 2, 3], &[1, 2, 2, 3]), std::slice::from_ref(&twice));
        assert_eq!(told(&[1, 2, 3], &[2, 1, 3]), [breach(Invariant::I3, "outputs out of order")]);
        // A stretch sent again that should have been dropped.
        assert_eq!(told(&[1, 2, 3], &[1, 2, 3, 2, 3]), [twice]);
        // An old version after the last.
        let order = breach(Invariant::I3, "outputs out of order");
        assert_eq!(told(&[1, 2, 3], &[1, 3, 2]), [order, last]);
    }

    #[test]
    fn outputs_nobody_expected_are_told_by_where_they_come_from() {
        let told_of = |origin| told(&[1], &[origin, 1]);
        assert_eq!(told_of(99), [breach(Invariant::I5, "output of an aborted input")]);
        assert_eq!(told_of(7), [breach(Invariant::I2, "output that no input explains")]);
    }

    #[test]
    fn wrong_values_are_told() {
        let mut found = sequence(&[1, 2]);
        found.get_mut("t/1").unwrap()[1].content = None;
        let mut breaches = Breaches::default();
        compare("out", &sequence(&[1, 2]), &found, &HashSet::new(), &mut breaches);
        assert!(breaches.into_vec().iter().all(|breach| breach.invariant == Invariant::I6));
    }

    #[test]
    fn dead_letters_are_counted() {
        let at: At = ("in".into(), 2);
        let expected = BTreeSet::from([(at.clone(), 5), (at.clone(), 9)]);
        let told = |found: &[i64]| {
            let found: Vec<_> = found.iter().map(|offset| (at.clone(), *offset)).collect();
            let mut breaches = Breaches::default();
            letters(&expected, &found, &mut breaches);
            breaches.into_vec().into_iter().map(|breach| (breach.invariant, breach.what)).collect::<Vec<_>>()
        };
        assert_eq!(told(&[5, 9]), []);
        assert_eq!(told(&[5]), [breach(Invariant::I1, "dead letter missing: in [2] 9")]);
        assert_eq!(told(&[5, 9, 5]), [breach(Invariant::I2, "dead letter twice: in [2] 5")]);
        assert_eq!(told(&[5, 9, 6]), [breach(Invariant::I1, "dead letter of a good record: in [2] 6")]);
    }

    #[test]
    fn a_lost_a_doubled_and_a_needless_parking_are_told() {
        let expected = HashSet::from(["a".to_owned(), "b".to_owned()]);
        let told = |changelog: &[(&str, bool)]| {
            let mut breaches = Breaches::default();
            let changelog: Vec<_> =
                changelog.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect();
            parked(&expected, &changelog, &mut breaches);
            breaches.into_vec().into_iter().map(|breach| (breach.invariant, breach.what)).collect::<Vec<_>>()
        };
        let (a, b, flowed) = (("a", true), ("b", true), [("c", true), ("c", false)]);
        assert_eq!(told(&[a, flowed[0], b, flowed[1]]), []);
        assert_eq!(told(&[a]), [breach(Invariant::I1, "parked record lost: b")]);
        assert_eq!(told(&[a, b, ("a", false)]), [breach(Invariant::I1, "parked record lost: a")]);
        assert_eq!(told(&[a, b, a]), [breach(Invariant::I2, "parked twice: a")]);
        assert_eq!(told(&[a, b, ("c", true)]), [breach(Invariant::I1, "parked, and need not be: c")]);
    }

    #[test]
    fn an_input_behind_the_group_must_be_done() {
        let at: At = ("in".into(), 0);
        let told = |next: i64| {
            let mut breaches = Breaches::default();
            let last = Offsets::from([(at.clone(), 41)]);
            done(&Offsets::from([(at.clone(), next)]), &last, &mut breaches);
            breaches.into_vec().len()
        };
        assert_eq!((told(42), told(41)), (0, 1));
    }

    #[test]
    fn a_record_that_was_seen_and_is_gone_is_told() {
        let record = |offset, value: &str| Record {
            offset,
            key: "k".into(),
            value: Some(value.into()),
            ..Record::default()
        };
        let mut sightings = Sightings::default();
        (0..4).for_each(|offset| sightings.saw("out", &record(offset, "v")));
        assert!(sightings.confirm("out", &record(0, "v")));
        assert!(!sightings.confirm("out", &record(1, "another")));
        assert!(sightings.confirm("out", &record(9, "never seen, which is fine")));
        assert_eq!(sightings.vanished("out", 0, 3), [2]);
    }
}
