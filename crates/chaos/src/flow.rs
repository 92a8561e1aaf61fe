//! What a run drives: one processor, its inputs and its outputs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;

use crate::ledger::Violation;
use crate::world::World;

/// What a flow writes to, and so which faults make sense for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    Kafka,
    Postgres,
    Search,
    Redis,
}

/// One run: everything that is random in it comes from the seed.
#[derive(Clone, Debug)]
pub struct Run {
    pub seed: u64,
    /// Unlike that of any other run on this stack; goes into keys, so that runs never meet.
    pub tag: String,
    /// Input records per second.
    pub rate: f64,
    /// Share of inputs that must be rejected.
    pub poison: f64,
    /// Logs and findings of this run.
    pub dir: PathBuf,
    /// Where the group begins.
    pub begin: Begin,
}

/// Where the group of a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// At the ends of its inputs, so that nothing of earlier runs is read.
    AtEnds,
    /// Where it is: its inputs were made anew, and hold nothing yet.
    WhereItIs,
}

/// One processor under test. A value of this type knows the shape of its inputs; [`Flow::open`] begins a run.
pub trait Flow: Sync {
    /// As in `--processor`: the processor's name.
    fn name(&self) -> &'static str;
    fn target(&self) -> Target;
    /// Input topics whose partitions must move again after a fault.
    fn inputs(&self) -> Vec<String>;
    /// Makes ready for a run while no process of the product runs: puts the group where the run has it begin, in
    /// Kafka and in the store.
    fn open(&self, world: &World, run: &Run) -> Result<Box<dyn Live>>;
}

/// A run of a flow. `load`, `watch` and `progress` are called from different threads at once.
pub trait Live: Send + Sync {
    /// Produces at the run's rate, evenly over all input partitions, until told to stop; returns the number of
    /// input records. Talks to the brokers directly, not through the proxies, and outlasts their restarts: it
    /// returns only when every record is acknowledged.
    fn load(&self, stop: &Halt) -> Result<u64>;
    /// Looks at what must hold at any moment (I4, I5, I7, I8); called about twice a second, also while servers
    /// are down: an error of a server is no breach.
    fn watch(&self) -> Vec<Violation>;
    /// The next offset to be done of every input partition, by `topic/partition`, as the store or the group has it.
    fn progress(&self) -> Result<BTreeMap<String, i64>>;
    /// Whether the load is sure to move a partition of this topic all the time.
    fn moves(&self, _topic: &str) -> bool {
        true
    }
    /// After the load has ended and everything was read: every breach of I1 to I7, by a recomputation from the
    /// raw topics.
    fn check(&self) -> Result<Vec<Violation>>;
}

/// Tells threads of a run to end.
#[derive(Clone, Debug, Default)]
pub struct Halt(Arc<AtomicBool>);

impl Halt {
    pub fn halt(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    pub fn halted(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
