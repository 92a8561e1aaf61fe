//! Kafka to Kafka: a batch's outputs, dead letters and offsets in one transaction.

use std::collections::BTreeMap;
use std::time::Duration;

use fhirehose_stream::{Fault, FaultKind, TopicPartition, Verdict};

use crate::backoff::Backoff;
use crate::breaker::{Breaker, Limits};
use crate::positions::Offsets;
use crate::transaction::{Ended, Settled, settle};

/// What the loop does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing is in hand: serve the group, let out what is due, poll. Ends with [`Transact::begin`] or
    /// [`Transact::beside`], or comes again.
    Read,
    /// Process what is in hand: all of it, or when [`Transact::one_by_one`] the first record that is
    /// [`Transact::open`]. Ends with [`Transact::judged`], [`Transact::too_large`] or [`Transact::failed`].
    Process,
    /// Put a new producer in the place of the worn one. Ends with [`Transact::taken_over`].
    TakeOver,
    /// One transaction with the offsets [`Transact::asked`]. Ends with [`Transact::ended`].
    Commit,
    /// Put a new producer in the place of this one, which ends its transaction one way or the other, then read
    /// the group's offsets of the partitions [`Transact::asked`]. Ends with [`Transact::found`].
    Ask,
    /// Nothing took effect: serve the group for [`Transact::wait_time`]. Ends with [`Transact::go_on`].
    Wait(Fault),
    /// The breaker tripped: serve the group until an operator says to go on. Ends with [`Transact::resume`].
    Stand(String),
    /// The worker must start anew, or cannot go on.
    Fail(Fault),
}

/// What became of the transaction under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Committed,
    Aborted,
    /// To be asked.
    Unknown,
}

/// The decisions of one worker.
#[derive(Clone, Debug)]
pub struct Transact {
    step: Step,
    /// The group's offset of every partition that is ours.
    committed: BTreeMap<TopicPartition, i64>,
    asked: Offsets,
    /// Whether the transaction under way is that of a batch.
    of_batch: bool,
    one_by_one: bool,
    worn: bool,
    breaker: Breaker,
    backoff: Backoff,
}

impl Transact {
    /// A worker whose producer is new and who is in no group yet.
    pub fn new(limits: Limits) -> Self {
        Transact {
            step: Step::Read,
            committed: BTreeMap::new(),
            asked: Vec::new(),
            of_batch: false,
            one_by_one: false,
            worn: false,
            breaker: Breaker::new(limits),
            backoff: Backoff::default(),
        }
    }

    pub fn step(&self) -> &Step {
        &self.step
    }

    /// Whether a worker that is to stop may leave now; what was processed is quickly committed.
    pub fn at_rest(&self) -> bool {
        self.step != Step::Commit
    }

    pub fn committed(&self) -> &BTreeMap<TopicPartition, i64> {
        &self.committed
    }

    pub fn owns(&self, at: &TopicPartition) -> bool {
        self.committed.contains_key(at)
    }

    /// Whether a record in hand has yet to take effect.
    pub fn open(&self, at: &TopicPartition, offset: i64) -> bool {
        self.committed.get(at).is_some_and(|committed| *committed <= offset)
    }

    pub fn one_by_one(&self) -> bool {
        self.one_by_one
    }

    pub fn asked(&self) -> &[(TopicPartition, i64)] {
        &self.asked
    }

    /// Tries in a row without effect, and how long to wait before the next; `draw` lies between 0 and 1.
    pub fn wait_time(&mut self, draw: f64) -> Duration {
        self.backoff.next(draw)
    }

    pub fn backoff(&self) -> &Backoff {
        &self.backoff
    }

    /// Partitions are ours from these offsets on.
    pub fn assigned(&mut self, offsets: &[(TopicPartition, i64)]) {
        self.committed.extend(offsets.iter().cloned());
    }

    /// Partitions are ours no more: what is in hand of them must be dropped before [`Transact::go_on`].
    pub fn revoked(&mut self, partitions: &[TopicPartition]) {
        self.committed.retain(|at, _| !partitions.contains(at));
    }

    /// Records are in hand.
    pub fn begin(&mut self) {
        self.step = Step::Process;
    }

    /// There is something to commit that is no batch's: outputs that became due, or offsets of quiet partitions.
    pub fn beside(&mut self, offsets: Offsets) {
        self.asked = offsets;
        self.of_batch = false;
        self.commit();
    }

    /// How far quiet partitions were read beyond their committed offsets: else retention would seem to have
    /// deleted records unread.
    pub fn read_ahead(&self, through: Offsets) -> Offsets {
        through.into_iter().filter(|(at, next)| self.committed.get(at).is_some_and(|c| c < next)).collect()
    }

    /// What was processed cannot be: try again, or start anew.
    pub fn failed(&mut self, fault: Fault) {
        self.step = if fault.kind == FaultKind::Transient { Step::Wait(fault) } else { Step::Fail(fault) };
    }

    /// An output of the `tried` records is too large. Whether they are tried one at a time to find whose it is;
    /// else it is that of the only one, to be rejected.
    pub fn too_large(&mut self, tried: usize) -> bool {
        self.one_by_one |= tried > 1;
        tried > 1
    }

    /// What was processed is to be committed up to `next`.
    pub fn judged(&mut self, next: Offsets, verdicts: &[Verdict]) {
        if let Err(why) = self.breaker.check(verdicts) {
            self.step = Step::Stand(why);
            return;
        }
        self.asked = next;
        self.of_batch = true;
        self.commit();
    }

    fn commit(&mut self) {
        self.step = if self.worn { Step::TakeOver } else { Step::Commit };
    }

    pub fn taken_over(&mut self, taken: Result<(), Fault>) {
        match taken {
            Ok(()) => {
                self.worn = false;
                self.step = Step::Commit;
            }
            Err(fault) => self.failed(fault),
        }
    }

    /// The transaction has ended; `worn` says whether its producer may be used once more.
    pub fn ended(&mut self, ended: Ended, worn: bool) -> Effect {
        self.worn = worn;
        match ended {
            Ended::Committed => self.took_effect(),
            Ended::Aborted(fault) => {
                self.step = Step::Wait(fault);
                Effect::Aborted
            }
            Ended::Unknown(_) => {
                self.step = Step::Ask;
                Effect::Unknown
            }
        }
    }

    /// The group's offsets after a commit of unknown outcome, read once a new producer had taken over.
    pub fn found(&mut self, found: Result<BTreeMap<TopicPartition, i64>, Fault>) -> Effect {
        let found = match found {
            Ok(found) => found,
            Err(fault) => {
                self.step = Step::Fail(fault);
                return Effect::Aborted;
            }
        };
        self.worn = false;
        let why = match settle(&self.committed, &self.asked, &found) {
            Settled::Committed => return self.took_effect(),
            Settled::Aborted => {
                self.step = Step::Wait(Fault::transient("a commit without an answer had no effect"));
                return Effect::Aborted;
            }
            Settled::CannotTell => "the outcome of a transaction cannot be told from its offsets",
            Settled::Moved => "partitions have moved to another worker while a commit was under way",
        };
        self.step = Step::Fail(Fault::transient(why));
        Effect::Aborted
    }

    fn took_effect(&mut self) -> Effect {
        self.committed.extend(self.asked.drain(..));
        self.backoff.success();
        if self.of_batch {
            self.breaker.done();
        }
        Effect::Committed
    }

    /// After an effect, a wait or a stand: how many records in hand are still open.
    pub fn go_on(&mut self, left: usize) {
        self.one_by_one &= left > 0;
        self.step = if left > 0 { Step::Process } else { Step::Read };
    }

    /// An operator has looked at what tripped the breaker.
    pub fn resume(&mut self, left: usize) {
        self.breaker.resume();
        self.go_on(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(partition: i32) -> TopicPartition {
        TopicPartition { topic: "in".into(), partition }
    }

    #[test]
    fn records_are_tried_alone_until_all_have_taken_effect() {
        let mut machine = Transact::new(Limits { consecutive: 0, share: 0.0, window: 0 });
        machine.assigned(&[(at(0), 0), (at(1), 7)]);
        machine.begin();
        assert!(machine.too_large(3) && machine.one_by_one() && !machine.too_large(1));
        machine.judged(vec![(at(0), 1)], &[]);
        assert_eq!(machine.ended(Ended::Committed, false), Effect::Committed);
        assert!(!machine.open(&at(0), 0) && machine.open(&at(0), 1) && machine.open(&at(1), 7));
        machine.revoked(&[at(1)]);
        assert!(!machine.open(&at(1), 7));
        machine.go_on(1);
        assert!(machine.one_by_one() && machine.step() == &Step::Process);
        machine.go_on(0);
        assert!(!machine.one_by_one() && machine.step() == &Step::Read);
    }

    #[test]
    fn an_unknown_outcome_is_asked_for_and_a_worn_producer_replaced() {
        let mut machine = Transact::new(Limits { consecutive: 0, share: 0.0, window: 0 });
        machine.assigned(&[(at(0), 0)]);
        machine.judged(vec![(at(0), 1)], &[]);
        let unknown = Ended::Unknown(Fault::transient("timed out"));
        assert_eq!((machine.ended(unknown, true), machine.step()), (Effect::Unknown, &Step::Ask));
        assert_eq!(machine.found(Ok([(at(0), 0)].into())), Effect::Aborted);
        assert!(matches!(machine.step(), Step::Wait(_)));
        machine.go_on(1);
        machine.judged(vec![(at(0), 1)], &[]);
        assert_eq!(machine.step(), &Step::Commit, "the new producer is the one that asked");
        assert_eq!(machine.ended(Ended::Committed, true), Effect::Committed);
        machine.judged(vec![(at(0), 2)], &[]);
        assert_eq!(machine.step(), &Step::TakeOver);
        machine.taken_over(Err(Fault::transient("no broker")));
        assert!(matches!(machine.step(), Step::Wait(_)));
    }
}
