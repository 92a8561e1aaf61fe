use std::collections::BTreeSet;

use fhirehose_stream::TopicPartition;
use hashbrown::HashMap;

/// Records that wait for something to arrive, such as a reading for its device's assignment.
///
/// Changes are staged and take effect at [`WaitingRoom::commit`], when the transaction that wrote them to the
/// changelog is committed. Arrivals take effect at once: they come from a table, not from the transaction.
pub struct WaitingRoom<T> {
    entries: HashMap<Box<[u8]>, Entry<T>>,
    /// What is awaited, and by which entries.
    awaited: HashMap<Box<str>, BTreeSet<Box<[u8]>>>,
    /// Entries something arrived for, in key order, so that every run takes them in the same order.
    ready: BTreeSet<Box<[u8]>>,
    staged: Vec<Change<T>>,
}

/// A key, and its entry or that it is removed.
type Change<T> = (Box<[u8]>, Option<Entry<T>>);

struct Entry<T> {
    at: TopicPartition,
    awaits: Vec<Box<str>>,
    value: T,
}

impl<T> Default for WaitingRoom<T> {
    fn default() -> Self {
        WaitingRoom {
            entries: HashMap::new(),
            awaited: HashMap::new(),
            ready: BTreeSet::new(),
            staged: Vec::new(),
        }
    }
}

impl<T> WaitingRoom<T> {
    /// Stages an entry of input partition `at` that waits for any of `awaits`; replaces one of the same key.
    pub fn put(&mut self, key: &[u8], at: TopicPartition, awaits: Vec<Box<str>>, value: T) {
        self.staged.push((key.into(), Some(Entry { at, awaits, value })));
    }

    /// Stages the removal of an entry.
    pub fn remove(&mut self, key: &[u8]) {
        self.staged.push((key.into(), None));
    }

    /// Whether the entry would be there after a commit.
    pub fn contains(&self, key: &[u8]) -> bool {
        match self.staged.iter().rev().find(|(staged, _)| **staged == *key) {
            Some((_, entry)) => entry.is_some(),
            None => self.entries.contains_key(key),
        }
    }

    /// A committed entry and the partition it came from.
    pub fn get(&self, key: &[u8]) -> Option<(&TopicPartition, &T)> {
        self.entries.get(key).map(|entry| (&entry.at, &entry.value))
    }

    /// Something arrived: the entries that wait for it are ready.
    pub fn arrived(&mut self, what: &str) {
        if let Some(keys) = self.awaited.get(what) {
            self.ready.extend(keys.iter().cloned());
        }
    }

    /// Up to `max` ready entries in key order. They stay ready until a change of theirs is committed.
    pub fn ready(&self, max: usize) -> Vec<Box<[u8]>> {
        self.ready.iter().take(max).cloned().collect()
    }

    /// Entries ready now.
    pub fn ready_len(&self) -> usize {
        self.ready.len()
    }

    /// Entries held.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Everything awaited by the entries of the partitions `of` accepts.
    pub fn awaited(&self, of: impl Fn(&TopicPartition) -> bool) -> BTreeSet<Box<str>> {
        let entries = self.entries.values().filter(|entry| of(&entry.at));
        entries.flat_map(|entry| entry.awaits.iter().cloned()).collect()
    }

    /// The staged changes take effect, in order.
    pub fn commit(&mut self) {
        for (key, entry) in std::mem::take(&mut self.staged) {
            self.forget(&key);
            if let Some(entry) = entry {
                for what in &entry.awaits {
                    self.awaited.entry(what.clone()).or_default().insert(key.clone());
                }
                self.entries.insert(key, entry);
            }
        }
    }

    /// The staged changes never were.
    pub fn abort(&mut self) {
        self.staged.clear();
    }

    /// Drops the entries of the partitions `keep` refuses, as on revocation.
    pub fn retain(&mut self, keep: impl Fn(&TopicPartition) -> bool) {
        let gone: Vec<_> =
            self.entries.iter().filter(|(_, e)| !keep(&e.at)).map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.forget(&key);
        }
    }

    fn forget(&mut self, key: &[u8]) {
        self.ready.remove(key);
        let Some(entry) = self.entries.remove(key) else { return };
        for what in &entry.awaits {
            if let Some(keys) = self.awaited.get_mut(what) {
                keys.remove(key);
                if keys.is_empty() {
                    self.awaited.remove(what);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn at(partition: i32) -> TopicPartition {
        TopicPartition { topic: "t".into(), partition }
    }

    #[test]
    fn an_aborted_change_leaves_no_trace_and_the_entry_stays_ready() {
        let mut room = WaitingRoom::default();
        room.put(b"a", at(0), vec!["x".into()], 1);
        room.commit();
        room.arrived("x");
        room.remove(b"a");
        assert!(!room.contains(b"a"));
        room.abort();
        assert!(room.contains(b"a"));
        assert_eq!(room.ready(9), vec![Box::<[u8]>::from(&b"a"[..])]);
        room.remove(b"a");
        room.commit();
        assert!(room.is_empty() && room.ready(9).is_empty() && room.awaited.is_empty());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(u8, u8, Vec<u8>),
        Remove(u8),
        Arrived(u8),
        Commit,
        Abort,
        Revoke(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..6u8, 0..3u8, prop::collection::vec(0..4u8, 1..3)).prop_map(|(k, p, a)| Step::Put(k, p, a)),
            (0..6u8).prop_map(Step::Remove),
            (0..4u8).prop_map(Step::Arrived),
            Just(Step::Commit),
            Just(Step::Abort),
            (0..3u8).prop_map(Step::Revoke),
        ]
    }

    proptest! {
        /// Against a plain model: what is held, what is ready, and that the index holds nothing else.
        #[test]
        fn behaves_like_a_plain_map(steps in prop::collection::vec(step(), 0..60)) {
            let mut room = WaitingRoom::default();
            let mut held: BTreeMap<u8, (u8, Vec<u8>)> = BTreeMap::new();
            let mut ready: BTreeSet<u8> = BTreeSet::new();
            let mut staged = Vec::new();
            for step in steps {
                match step {
                    Step::Put(key, partition, awaits) => {
                        let names = awaits.iter().map(|a| a.to_string().into()).collect();
                        room.put(&[key], at(partition.into()), names, ());
                        staged.push((key, Some((partition, awaits))));
                    }
                    Step::Remove(key) => {
                        room.remove(&[key]);
                        staged.push((key, None));
                    }
                    Step::Arrived(what) => {
                        room.arrived(&what.to_string());
                        ready.extend(held.iter().filter(|(_, (_, a))| a.contains(&what)).map(|(k, _)| *k));
                    }
                    Step::Commit => {
                        room.commit();
                        for (key, entry) in staged.drain(..) {
                            ready.remove(&key);
                            held.remove(&key);
                            held.extend(entry.map(|entry| (key, entry)));
                        }
                    }
                    Step::Abort => {
                        room.abort();
                        staged.clear();
                    }
                    Step::Revoke(partition) => {
                        room.retain(|tp| tp.partition != i32::from(partition));
                        held.retain(|_, (p, _)| *p != partition);
                        ready.retain(|key| held.contains_key(key));
                    }
                }
                prop_assert_eq!(room.len(), held.len());
                let got: Vec<u8> = room.ready(usize::MAX).iter().map(|key| key[0]).collect();
                prop_assert_eq!(got, ready.iter().copied().collect::<Vec<_>>());
                let awaited: BTreeSet<u8> = held.values().flat_map(|(_, a)| a.clone()).collect();
                prop_assert_eq!(room.awaited.len(), awaited.len());
            }
        }
    }
}
