use std::collections::BTreeMap;

use fhirehose_stream::TopicPartition;

/// An offset of each of some partitions.
pub type Offsets = Vec<(TopicPartition, i64)>;

/// Where a member of a group reads: the partitions that are its own, and the next offset to be polled of each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Positions(BTreeMap<TopicPartition, i64>);

/// What to do with a record that was polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    Next,
    /// Of a partition given up in the meantime; its next owner reads it.
    NotOurs,
    /// The last one, once more: librdkafka pauses every partition for a rebalance, on a thread of its own, and goes
    /// on from the last record it knows to be taken. One that is taken at this very moment is fetched again.
    Again,
    /// One from before the last.
    Regression,
}

impl Positions {
    pub fn owns(&self, at: &TopicPartition) -> bool {
        self.0.contains_key(at)
    }

    pub fn next(&self, at: &TopicPartition) -> Option<i64> {
        self.0.get(at).copied()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&TopicPartition, i64)> {
        self.0.iter().map(|(at, next)| (at, *next))
    }

    /// Reads these from here: partitions that were assigned, or that go on elsewhere.
    pub fn read_from(&mut self, offsets: &[(TopicPartition, i64)]) {
        self.0.extend(offsets.iter().cloned());
    }

    pub fn give_up(&mut self, partitions: &[TopicPartition]) {
        self.0.retain(|at, _| !partitions.contains(at));
    }

    pub fn admit(&mut self, at: &TopicPartition, offset: i64) -> Admission {
        match self.0.get_mut(at) {
            None => Admission::NotOurs,
            Some(next) if offset + 1 == *next => Admission::Again,
            Some(next) if offset < *next => Admission::Regression,
            Some(next) => {
                *next = offset + 1;
                Admission::Next
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_admitted_once_and_only_of_our_partitions() {
        let at = |partition| TopicPartition { topic: "in".into(), partition };
        let mut positions = Positions::default();
        positions.read_from(&[(at(0), 5), (at(1), 0)]);
        assert_eq!(positions.admit(&at(0), 7), Admission::Next, "offsets may have gaps");
        assert_eq!(positions.admit(&at(0), 7), Admission::Again);
        assert_eq!(positions.admit(&at(0), 6), Admission::Regression);
        assert_eq!(positions.admit(&at(2), 0), Admission::NotOurs);
        positions.read_from(&[(at(0), 6)]);
        assert_eq!(positions.admit(&at(0), 7), Admission::Next, "sought back");
        positions.give_up(&[at(0)]);
        assert_eq!(positions.admit(&at(0), 8), Admission::NotOurs);
        assert!(!positions.owns(&at(0)) && positions.next(&at(1)) == Some(0));
    }
}
