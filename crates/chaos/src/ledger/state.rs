//! What a store must hold once it has taken its inputs up to some offsets: a plain fold over them, highest version
//! per key. And how what was found there differs from it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::topics::{At, Offsets};
use super::{Breaches, Invariant};

/// A row as compared: its version and a hash of its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub version: i64,
    pub print: u64,
}

/// What the store must do with an input, as its bytes alone say. `table` counts the flow's tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    Put {
        table: usize,
        key: Arc<str>,
        row: Row,
    },
    Remove {
        table: usize,
        key: Arc<str>,
        version: i64,
    },
    /// Dead-lettered once, as it is; the hash is of its key and value.
    Reject(u64),
    /// Dropped with a reason.
    Drop,
}

/// An input, judged.
#[derive(Clone, Debug)]
pub struct Entry {
    pub offset: i64,
    pub want: Want,
}

/// Numbers that tell two sets of rows apart, cheap to compute in a database too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub rows: i64,
    /// Of `version % TOTALS_MODULUS`.
    pub sum: i64,
    /// Of all versions.
    pub xor: i64,
}

/// A prime, so that a sum over millions of versions stays in 64 bits.
pub const TOTALS_MODULUS: i64 = 1_000_003;

impl Totals {
    fn add(&mut self, version: i64) {
        self.rows += 1;
        self.sum += version % TOTALS_MODULUS;
        self.xor ^= version;
    }

    fn subtract(&mut self, version: i64) {
        self.rows -= 1;
        self.sum -= version % TOTALS_MODULUS;
        self.xor ^= version;
    }
}

#[derive(Debug, Default)]
struct Table {
    /// `None` in the place of a row that was removed, with the version of its removal.
    rows: HashMap<Arc<str>, (i64, Option<u64>)>,
    totals: Totals,
}

impl Table {
    fn take(&mut self, key: &Arc<str>, version: i64, print: Option<u64>) {
        let before = self.rows.get(key).copied();
        if before.is_some_and(|(held, _)| held >= version) {
            return;
        }
        if let Some((held, Some(_))) = before {
            self.totals.subtract(held);
        }
        if print.is_some() {
            self.totals.add(version);
        }
        self.rows.insert(key.clone(), (version, print));
    }
}

#[derive(Debug, Default)]
struct Partition {
    inputs: Vec<Entry>,
    /// How many of the inputs are folded.
    folded: usize,
    /// The offset up to which they are.
    at: i64,
    /// The offset up to which inputs were read.
    read: i64,
}

/// The inputs of a run, and the tables they make.
#[derive(Debug)]
pub struct Books {
    partitions: BTreeMap<At, Partition>,
    tables: Vec<Table>,
}

impl Books {
    /// Begins at these offsets, with nothing in the tables.
    pub fn begin(starts: &Offsets, tables: usize) -> Books {
        let partition = |start: &i64| Partition { at: *start, read: *start, ..Partition::default() };
        Books {
            partitions: starts.iter().map(|(place, start)| (place.clone(), partition(start))).collect(),
            tables: (0..tables).map(|_| Table::default()).collect(),
        }
    }

    /// Adds an input; those of a partition come in order, and one that is known is not added again.
    pub fn add(&mut self, place: &At, entry: Entry) {
        if let Some(partition) = self.partitions.get_mut(place).filter(|known| known.read <= entry.offset) {
            partition.read = entry.offset + 1;
            partition.inputs.push(entry);
        }
    }

    /// Where each partition is to be read on.
    pub fn read(&self) -> Offsets {
        self.partitions.iter().map(|(place, partition)| (place.clone(), partition.read)).collect()
    }

    /// The partition was read up to this offset, whatever there was.
    pub fn read_to(&mut self, place: &At, offset: i64) {
        if let Some(partition) = self.partitions.get_mut(place) {
            partition.read = partition.read.max(offset);
        }
    }

    /// Partitions whose offset lies before one seen earlier: a store's offsets never go back.
    pub fn gone_back(&self, offsets: &Offsets, found: &mut Breaches) {
        for (place, partition) in &self.partitions {
            if let Some(offset) = offsets.get(place).filter(|offset| **offset < partition.at) {
                let which = format!("{} [{}] from {} to {offset}", place.0, place.1, partition.at);
                found.add(Invariant::I4, "an offset moved back", which);
            }
        }
    }

    /// Takes the inputs before these offsets into the tables; hands those newly taken to `seen`. `false`, and
    /// nothing taken, where inputs were not read that far or a partition's offset is missing or went back.
    pub fn fold_to(&mut self, offsets: &Offsets, mut seen: impl FnMut(&At, &Entry)) -> bool {
        let ready = |(place, partition): (&At, &Partition)| {
            offsets.get(place).is_some_and(|to| (partition.at..=partition.read).contains(to))
        };
        if !self.partitions.iter().all(ready) {
            return false;
        }
        for (place, partition) in &mut self.partitions {
            let to = offsets.get(place).copied().unwrap_or(partition.at);
            while let Some(input) = partition.inputs.get(partition.folded).filter(|input| input.offset < to) {
                match &input.want {
                    Want::Put { table, key, row } => {
                        self.tables[*table].take(key, row.version, Some(row.print));
                    }
                    Want::Remove { table, key, version } => self.tables[*table].take(key, *version, None),
                    Want::Reject(_) | Want::Drop => {}
                }
                seen(place, input);
                partition.folded += 1;
            }
            partition.at = to;
        }
        true
    }

    pub fn totals(&self, table: usize) -> Totals {
        self.tables.get(table).map(|table| table.totals).unwrap_or_default()
    }

    /// Version and hash of a key as folded; `None` inside where it was removed.
    pub fn held(&self, table: usize, key: &str) -> Option<(i64, Option<u64>)> {
        self.tables.get(table)?.rows.get(key).copied()
    }

    /// Keys of a table, those removed too.
    pub fn keys(&self, table: usize) -> impl Iterator<Item = &Arc<str>> {
        self.tables.get(table).into_iter().flat_map(|table| table.rows.keys())
    }

    /// I4 of a store that may be ahead of its offset: each of these keys is there, in the version folded or a
    /// newer one.
    pub fn behind(
        &self,
        table: usize,
        name: &str,
        keys: &[Arc<str>],
        rows: impl IntoIterator<Item = (String, Row)>,
        found: &mut Breaches,
    ) {
        let rows: HashMap<String, Row> = rows.into_iter().collect();
        for key in keys {
            let Some((version, print)) = self.held(table, key) else { continue };
            let kind = match rows.get(&**key) {
                None => "committed and not there",
                Some(row) if row.version < version => "committed and an older version",
                Some(row) if row.version == version && print != Some(row.print) => "other values",
                Some(_) => continue,
            };
            found.add(Invariant::I4, &format!("{name}, {kind}"), key);
        }
    }

    /// Rejects read so far, by origin.
    pub fn rejects(&self) -> BTreeMap<(At, i64), u64> {
        let of = |(place, partition): (&At, &Partition)| {
            let (place, inputs) = (place.clone(), partition.inputs.clone());
            inputs.into_iter().filter_map(move |input| match input.want {
                Want::Reject(print) => Some(((place.clone(), input.offset), print)),
                _ => None,
            })
        };
        self.partitions.iter().flat_map(of).collect()
    }

    /// The rows found against the rows folded. `now` names the invariant that every difference breaks while
    /// the store is at work; without it each kind names its own.
    pub fn differences(
        &self,
        table: usize,
        name: &str,
        rows: impl IntoIterator<Item = (String, Row)>,
        now: Option<Invariant>,
        found: &mut Breaches,
    ) {
        let Some(table) = self.tables.get(table) else { return };
        let mut add = |invariant: Invariant, kind: &str, key: &str| {
            found.add(now.unwrap_or(invariant), &format!("{name}, {kind}"), key);
        };
        let mut met: HashSet<&str> = HashSet::new();
        for (key, row) in rows {
            let Some((known, (version, print))) = table.rows.get_key_value(key.as_str()) else {
                add(Invariant::I6, "a row that nothing before the offset made", &key);
                continue;
            };
            if !met.insert(known) {
                add(Invariant::I2, "a row twice", &key);
            }
            match print {
                None if row.version > *version => add(Invariant::I4, "a row from past the offset", &key),
                None => add(Invariant::I6, "a deleted row is there", &key),
                Some(_) if row.version > *version => add(Invariant::I4, "a row from past the offset", &key),
                Some(_) if row.version < *version => add(Invariant::I3, "an older version", &key),
                Some(print) if *print != row.print => add(Invariant::I6, "other values", &key),
                Some(_) => {}
            }
        }
        for (key, (_, print)) in &table.rows {
            if print.is_some() && !met.contains(&**key) {
                add(Invariant::I1, "a row is missing", key);
            }
        }
    }
}

/// A hash of values, alike in every run of this program.
pub fn print(values: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    values.hash(&mut hasher);
    hasher.finish()
}

/// The dead letters found, by the origin their headers name, against the rejects: each once, unchanged.
pub fn letters(rejects: &BTreeMap<(At, i64), u64>, letters: &[((At, i64), u64)], found: &mut Breaches) {
    let named = |((topic, partition), offset): &(At, i64)| format!("{topic} [{partition}] offset {offset}");
    let mut met = HashSet::new();
    for (origin, print) in letters {
        if !met.insert(origin) {
            found.add(Invariant::I2, "dead-lettered twice", named(origin));
        }
        match rejects.get(origin) {
            None => found.add(Invariant::I6, "dead-lettered though good", named(origin)),
            Some(wanted) if wanted != print => {
                found.add(Invariant::I6, "the dead letter is not the record", named(origin));
            }
            Some(_) => {}
        }
    }
    for origin in rejects.keys().filter(|origin| !met.contains(origin)) {
        found.add(Invariant::I1, "bad and not dead-lettered", named(origin));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> At {
        ("t".into(), 0)
    }

    fn at(offset: i64) -> Offsets {
        BTreeMap::from([(place(), offset)])
    }

    fn put(offset: i64, key: &str, version: i64) -> Entry {
        let row = Row { version, print: version as u64 };
        Entry { offset, want: Want::Put { table: 0, key: key.into(), row } }
    }

    fn remove(offset: i64, key: &str, version: i64) -> Entry {
        Entry { offset, want: Want::Remove { table: 0, key: key.into(), version } }
    }

    /// a@1, b@2, a@3, b removed@4, c@5 and an older b that must not come back.
    fn books(to: i64) -> Books {
        let mut books = Books::begin(&at(1), 1);
        let inputs = [put(1, "a", 1), put(2, "b", 2), put(3, "a", 3), remove(4, "b", 4), put(5, "c", 5)];
        inputs.into_iter().chain([put(6, "b", 3)]).for_each(|input| books.add(&place(), input));
        assert!(books.fold_to(&at(to), |_, _| {}));
        books
    }

    fn rows(of: &[(&str, i64)]) -> Vec<(String, Row)> {
        let row = |version: i64| Row { version, print: version as u64 };
        of.iter().map(|(key, version)| ((*key).to_owned(), row(*version))).collect()
    }

    fn differ(books: &Books, of: &[(&str, i64)]) -> Vec<(Invariant, String)> {
        let mut found = Breaches::default();
        books.differences(0, "t", rows(of), None, &mut found);
        found.into_vec().into_iter().map(|breach| (breach.invariant, breach.what)).collect()
    }

    fn said(invariant: Invariant, what: &str) -> Vec<(Invariant, String)> {
        vec![(invariant, format!("t, {what}"))]
    }

    #[test]
    fn what_is_right_is_no_breach() {
        assert_eq!(differ(&books(7), &[("a", 3), ("c", 5)]), []);
        assert_eq!(differ(&books(3), &[("a", 1), ("b", 2)]), []);
    }

    #[test]
    fn every_planted_difference_is_found() {
        let books = books(7);
        for (rows, invariant, what) in [
            (&[("c", 5)][..], Invariant::I1, "a row is missing: a"),
            (&[("a", 3), ("a", 3), ("c", 5)], Invariant::I2, "a row twice: a"),
            (&[("a", 1), ("c", 5)], Invariant::I3, "an older version: a"),
            (&[("a", 3), ("b", 3), ("c", 5)], Invariant::I6, "a deleted row is there: b"),
            (&[("a", 3), ("c", 5), ("d", 6)], Invariant::I6, "a row that nothing before the offset made: d"),
            (&[("a", 9), ("c", 5)], Invariant::I4, "a row from past the offset: a"),
        ] {
            assert_eq!(differ(&books, rows), said(invariant, what));
        }
        let mut found = Breaches::default();
        let other =
            [("a".to_owned(), Row { version: 3, print: 4 }), ("c".to_owned(), Row { version: 5, print: 5 })];
        books.differences(0, "t", other, None, &mut found);
        assert_eq!(found.into_vec()[0].what, "t, other values: a");
    }

    #[test]
    fn while_it_works_every_difference_breaks_the_snapshot() {
        let mut found = Breaches::default();
        books(4).differences(0, "t", rows(&[("a", 3), ("b", 2), ("c", 5)]), Some(Invariant::I4), &mut found);
        let found = found.into_vec();
        assert_eq!((found.len(), found[0].invariant), (1, Invariant::I4));
    }

    #[test]
    fn a_store_may_be_ahead_of_its_offset_never_behind() {
        let keys: Vec<Arc<str>> = vec!["a".into(), "c".into()];
        let told = |of: &[(&str, i64)]| {
            let mut found = Breaches::default();
            books(7).behind(0, "t", &keys, rows(of), &mut found);
            found.into_vec().into_iter().map(|breach| breach.what).collect::<Vec<_>>()
        };
        assert_eq!(told(&[("a", 3), ("c", 8)]), Vec::<String>::new());
        assert_eq!(
            told(&[("a", 1)]),
            ["t, committed and an older version: a", "t, committed and not there: c"]
        );
    }

    #[test]
    fn totals_follow_the_fold() {
        let mut totals = Totals::default();
        totals.add(3);
        totals.add(5);
        assert_eq!(books(7).totals(0), totals);
        assert_ne!(books(5).totals(0), totals);
    }

    #[test]
    fn a_fold_waits_for_its_inputs_and_never_goes_back() {
        let mut books = books(4);
        assert!(!books.fold_to(&at(9), |_, _| {}));
        assert!(!books.fold_to(&at(3), |_, _| {}));
        let mut found = Breaches::default();
        books.gone_back(&at(3), &mut found);
        assert_eq!(found.into_vec()[0].what, "an offset moved back: t [0] from 4 to 3");
        let mut taken = Vec::new();
        assert!(books.fold_to(&at(6), |_, input| taken.push(input.offset)));
        assert_eq!(taken, [4, 5]);
    }

    #[test]
    fn letters_lost_doubled_changed_or_of_good_records_are_found() {
        let origin = |offset: i64| (place(), offset);
        let rejects = BTreeMap::from([(origin(1), 10), (origin(2), 20), (origin(3), 30)]);
        let whole = [(origin(1), 10), (origin(2), 20), (origin(3), 30)];
        let mut found = Breaches::default();
        letters(&rejects, &whole, &mut found);
        assert_eq!(found.into_vec(), []);
        let wrong = [(origin(1), 10), (origin(1), 10), (origin(2), 21), (origin(9), 90)];
        let mut found = Breaches::default();
        letters(&rejects, &wrong, &mut found);
        let told: Vec<_> =
            found.into_vec().into_iter().map(|breach| (breach.invariant, breach.what)).collect();
        let breach = |invariant, what: &str| (invariant, what.to_owned());
        assert_eq!(
            told,
            [
                breach(Invariant::I2, "dead-lettered twice: t [0] offset 1"),
                breach(Invariant::I6, "the dead letter is not the record: t [0] offset 2"),
                breach(Invariant::I6, "dead-lettered though good: t [0] offset 9"),
                breach(Invariant::I1, "bad and not dead-lettered: t [0] offset 3"),
            ]
        );
    }
}
