//! What must hold, and how a breach is told.

pub mod accounts;
pub mod avro;
pub mod load;
pub mod postgres;
pub mod redis;
pub mod references;
pub mod scd2;
pub mod search;
pub mod state;
pub mod topics;

use std::fmt;

use serde::{Deserialize, Serialize};

/// The invariants, numbered as in docs/GUARANTEES.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Invariant {
    /// Every input offset ends exactly once in output, dead letter, dropped with a reason, or parked.
    I1,
    /// No input appears twice.
    I2,
    /// Versions of a key come in order.
    I3,
    /// A snapshot of a store shows no row at or past its offset, and every input before it accounted for.
    I4,
    /// Nothing aborted is visible to a read_committed reader.
    I5,
    /// The final state of every store equals a plain recomputation from the raw topics.
    I6,
    /// References never go back in time; versions of a dimension are disjoint, gap-free, one current.
    I7,
    /// The cache is never older than the source beyond the stated bound.
    I8,
    /// A fenced zombie has no effect.
    I9,
    /// After healing, every partition moves again within 30 s.
    I10,
    /// Personal-data canaries appear nowhere.
    I11,
    /// No growth of file handles, threads or memory.
    I12,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One breach. Names topics, partitions, offsets, keys and columns; never a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    pub invariant: Invariant,
    /// Which records, such as `cdc.chaos.… [2] offset 17: no output`; the first few where there are many.
    pub what: String,
    /// How many records.
    pub count: u64,
}

/// Gathers breaches of the same kind: counts all and names the first few.
#[derive(Debug, Default)]
pub struct Breaches(Vec<Violation>);

const NAMED: u64 = 5;

impl Breaches {
    /// `kind` is said once, `which` for the first five.
    pub fn add(&mut self, invariant: Invariant, kind: &str, which: impl fmt::Display) {
        let found =
            self.0.iter_mut().find(|breach| breach.invariant == invariant && breach.what.starts_with(kind));
        match found {
            Some(breach) => {
                breach.count += 1;
                if breach.count <= NAMED {
                    breach.what.push_str(&format!(", {which}"));
                }
            }
            None => self.0.push(Violation { invariant, what: format!("{kind}: {which}"), count: 1 }),
        }
    }

    pub fn into_vec(self) -> Vec<Violation> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breaches_of_one_kind_are_counted_and_the_first_named() {
        let mut breaches = Breaches::default();
        (0..7).for_each(|offset| breaches.add(Invariant::I1, "no outcome", offset));
        breaches.add(Invariant::I2, "twice", 9);
        let found = breaches.into_vec();
        assert_eq!((found.len(), found[0].count, found[1].count), (2, 7, 1));
        assert_eq!(found[0].what, "no outcome: 0, 1, 2, 3, 4");
    }
}
