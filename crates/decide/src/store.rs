//! Kafka to a store: the store's own offsets, or Kafka's after writes that may be repeated; dead letters once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fhirehose_stream::{Fault, FaultKind, OffsetsIn, TopicPartition, Verdict};

use crate::backoff::Backoff;
use crate::breaker::{Breaker, Limits};
use crate::positions::Offsets;
use crate::transaction::Ended;

/// What the loop does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Claim the partitions that are [`Store::unclaimed`]. Ends with
    /// [`Store::claimed`] or [`Store::failed`].
    Claim,
    /// Nothing is in hand: serve the group, poll. Ends with [`Store::begin`], or comes again.
    Read,
    /// Stage what is in hand. Ends with [`Store::staged`] or [`Store::failed`].
    Stage,
    /// Make a transactional producer, the first or in the place of a worn one. Ends with [`Store::taken_over`].
    TakeOver,
    /// One transaction with the letters [`Store::needs_letter`] asks for and the offsets of
    /// [`Store::letter_offsets`]. Ends with [`Store::letters_ended`].
    Letters,
    /// Make a new producer, which ends the transaction of the old one, then read the group's offsets of the
    /// partitions that are ours. Ends with [`Store::marks_found`].
    Ask,
    /// Make what is staged durable. Ends with [`Store::stored`].
    CommitStore,
    /// Commit [`Store::missing`] in Kafka, outside of a transaction. Ends with [`Store::offsets_committed`].
    CommitOffsets,
    /// The batch has taken effect. Ends with [`Store::go_on`].
    Done,
    /// Give up what is staged and serve the group for [`Store::wait_time`]. Ends with [`Store::go_on`].
    Wait(Fault),
    /// The breaker tripped: give up what is staged and serve the group until an operator says to go on. Ends
    /// with [`Store::resume`].
    Stand(String),
    /// The worker must start anew, or cannot go on.
    Fail(Fault),
}

/// Where a claimed partition goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    At(i64),
    /// The store is behind the mark: dead letters went out before a commit failed, or all that lay between were
    /// markers of transactions, or the store was restored from an older backup. Where retention has deleted the
    /// record at `stored`, it goes on at the first one that is kept.
    Behind {
        stored: i64,
        mark: i64,
    },
    /// Never read.
    Fresh,
    /// The group has read it up to here, and the store knows nothing of it.
    Emptied(i64),
}

/// `stored` is what the claim found, `mark` the group's committed offset; `told` whether an operator has said
/// where to begin.
pub fn origin(stored: Option<i64>, mark: Option<i64>, told: bool) -> Origin {
    match (stored, mark) {
        (Some(stored), Some(mark)) if mark > stored => Origin::Behind { stored, mark },
        (Some(stored), _) => Origin::At(stored),
        (None, Some(mark)) if !told => Origin::Emptied(mark),
        (None, _) => Origin::Fresh,
    }
}

/// The decisions of one worker.
#[derive(Clone, Debug)]
pub struct Store {
    step: Step,
    offsets_in: OffsetsIn,
    /// The offset up to which the store holds every partition that is ours.
    stored: BTreeMap<TopicPartition, i64>,
    /// Kafka's committed offset of every partition that is ours. Dead letters go out in one transaction with
    /// it, so rejects below it are dead-lettered already.
    marks: BTreeMap<TopicPartition, i64>,
    /// Partitions to be claimed before anything else: the store could not be asked, or may hold something else
    /// than is known here, or has met another owner.
    unclaimed: BTreeSet<TopicPartition>,
    /// Where what is staged ends.
    next: Offsets,
    /// Whether what is staged has rejects that need a letter.
    letters_due: bool,
    /// Whether a producer must be made before the next transaction.
    worn: bool,
    /// Why the marks must be read anew before the next letter.
    doubt: Option<Fault>,
    /// Hints under way.
    hinting: Option<Offsets>,
    /// An offset commit outside of a transaction got no answer: it may take effect at any later time, and move a
    /// mark back, until this worker is another member.
    unanswered: bool,
    breaker: Breaker,
    backoff: Backoff,
}

impl Store {
    /// A worker without a producer, in no group yet.
    pub fn new(limits: Limits, offsets_in: OffsetsIn) -> Self {
        Store {
            step: Step::Read,
            offsets_in,
            stored: BTreeMap::new(),
            marks: BTreeMap::new(),
            unclaimed: BTreeSet::new(),
            next: Vec::new(),
            letters_due: false,
            worn: true,
            doubt: None,
            hinting: None,
            unanswered: false,
            breaker: Breaker::new(limits),
            backoff: Backoff::default(),
        }
    }

    pub fn step(&self) -> &Step {
        &self.step
    }

    /// Whether a worker that is to stop may leave now; what is staged is quickly committed.
    pub fn at_rest(&self) -> bool {
        !matches!(self.step, Step::Letters | Step::CommitStore | Step::CommitOffsets | Step::Done)
    }

    pub fn owns(&self, at: &TopicPartition) -> bool {
        self.stored.contains_key(at)
    }

    /// Whether a record in hand has yet to take effect.
    pub fn open(&self, at: &TopicPartition, offset: i64) -> bool {
        !self.unclaimed.contains(at) && self.stored.get(at).is_some_and(|stored| *stored <= offset)
    }

    /// How far each partition was brought, as far as is known.
    pub fn done(&self) -> impl Iterator<Item = (&TopicPartition, i64)> {
        self.marks.iter().map(|(at, mark)| (at, self.stored.get(at).copied().unwrap_or(*mark)))
    }

    pub fn unclaimed(&self) -> &BTreeSet<TopicPartition> {
        &self.unclaimed
    }

    pub fn ours(&self) -> Vec<TopicPartition> {
        self.stored.keys().cloned().collect()
    }

    /// How long to wait before the next try; `draw` lies between 0 and 1.
    pub fn wait_time(&mut self, draw: f64) -> Duration {
        self.backoff.next(draw)
    }

    pub fn backoff(&self) -> &Backoff {
        &self.backoff
    }

    /// Partitions are ours, claimed, and read from these offsets on.
    pub fn assigned(&mut self, offsets: &[(TopicPartition, i64)]) {
        self.stored.extend(offsets.iter().cloned());
    }

    /// Partitions are ours, but could not be claimed now: they are held unread.
    pub fn held(&mut self, partitions: &[TopicPartition]) {
        self.unclaimed.extend(partitions.iter().cloned());
    }

    /// Partitions are ours no more: what is in hand of them must be dropped before [`Store::go_on`].
    pub fn revoked(&mut self, partitions: &[TopicPartition]) {
        self.stored.retain(|at, _| !partitions.contains(at));
        self.marks.retain(|at, _| !partitions.contains(at));
        self.unclaimed.retain(|at| !partitions.contains(at));
    }

    /// The group's committed offsets, read while partitions are taken over.
    pub fn marked(&mut self, marks: impl IntoIterator<Item = (TopicPartition, i64)>) {
        self.marks.extend(marks);
    }

    /// What was unclaimed is claimed and sought.
    pub fn claimed(&mut self, offsets: &[(TopicPartition, i64)]) {
        self.unclaimed.clear();
        self.stored.extend(offsets.iter().cloned());
        self.backoff.success();
        self.go_on(0);
    }

    /// Records are in hand.
    pub fn begin(&mut self) {
        self.step = Step::Stage;
    }

    /// A claim or a batch failed, without effect.
    pub fn failed(&mut self, fault: Fault) {
        match fault.kind {
            FaultKind::Transient => self.step = Step::Wait(fault),
            FaultKind::Fenced => self.doubt_store(fault),
            FaultKind::Fatal => self.step = Step::Fail(fault),
        }
    }

    /// The store says where it is: everything is claimed again.
    fn doubt_store(&mut self, fault: Fault) {
        self.unclaimed.extend(self.stored.keys().cloned());
        self.step = Step::Wait(fault);
    }

    /// Whether a reject of what is staged is not dead-lettered yet.
    pub fn needs_letter(&self, at: &TopicPartition, offset: i64) -> bool {
        self.marks.get(at).is_none_or(|mark| *mark <= offset)
    }

    /// What is staged, up to `next`; `letters_due` is whether it has rejects that [`Store::needs_letter`].
    pub fn staged(&mut self, next: Offsets, verdicts: &[Verdict], letters_due: bool) {
        if let Err(why) = self.breaker.check(verdicts) {
            self.step = Step::Stand(why);
            return;
        }
        self.next = next;
        self.letters_due = letters_due;
        match self.offsets_in {
            // The store's transaction is open until the dead letters are out: if it fails after all, the mark
            // keeps them from going out twice.
            OffsetsIn::Store => self.letters_or(Step::CommitStore),
            // The store's writes may be repeated, so offsets follow them.
            OffsetsIn::Kafka => self.step = Step::CommitStore,
        }
    }

    /// Letters first if any are due, but never while something else may move a mark.
    fn letters_or(&mut self, otherwise: Step) {
        self.step = if !self.letters_due {
            otherwise
        } else if self.hinting.is_some() {
            Step::Wait(Fault::transient("an offset commit is under way"))
        } else if self.unanswered {
            Step::Fail(Fault::transient("an offset commit went unanswered; the worker joins anew"))
        } else if self.doubt.is_some() {
            Step::Ask
        } else if self.worn {
            Step::TakeOver
        } else {
            Step::Letters
        };
    }

    pub fn taken_over(&mut self, taken: Result<(), Fault>) {
        match taken {
            Ok(()) => {
                self.worn = false;
                self.step = Step::Letters;
            }
            Err(fault) => self.failed(fault),
        }
    }

    /// Where the letters' transaction moves the marks. Never back: partitions whose dead letters are ahead of
    /// the store keep theirs.
    pub fn letter_offsets(&self) -> Offsets {
        let ahead = |(at, next): &(TopicPartition, i64)| {
            let mark = self.marks.get(at).copied().unwrap_or(0);
            (at.clone(), mark.max(*next))
        };
        self.next.iter().map(ahead).collect()
    }

    /// The letters' transaction has ended; `worn` says whether its producer may be used once more.
    pub fn letters_ended(&mut self, ended: Ended, worn: bool) {
        self.worn = worn;
        match ended {
            Ended::Committed => {
                let moved = self.letter_offsets();
                self.marks.extend(moved);
                self.letters_due = false;
                match self.offsets_in {
                    OffsetsIn::Store => self.step = Step::CommitStore,
                    OffsetsIn::Kafka => self.offsets_or_done(),
                }
            }
            Ended::Aborted(fault) => self.step = Step::Wait(fault),
            Ended::Unknown(fault) => {
                self.doubt = Some(fault);
                self.step = Step::Ask;
            }
        }
    }

    /// The marks after a transaction of unknown outcome, read once a new producer had taken over. The batch is
    /// tried again: what is below the marks then needs no letter.
    pub fn marks_found(&mut self, found: Result<BTreeMap<TopicPartition, i64>, Fault>) {
        match found {
            Ok(found) => {
                self.worn = false;
                for (at, mark) in found {
                    self.marks.insert(at, mark);
                }
                let why = self.doubt.take();
                self.step = Step::Wait(why.unwrap_or_else(|| Fault::transient("marks were read anew")));
            }
            Err(fault) => self.failed(fault),
        }
    }

    /// What came of making the staged batch durable. On an error with the store's own offsets nobody knows.
    pub fn stored(&mut self, stored: Result<(), Fault>) {
        match (stored, self.offsets_in) {
            (Ok(()), OffsetsIn::Store) => self.took_effect(),
            (Ok(()), OffsetsIn::Kafka) => {
                self.letters_or(Step::CommitOffsets);
                if self.step == Step::CommitOffsets {
                    self.offsets_or_done();
                }
            }
            (Err(fault), OffsetsIn::Store) => self.doubt_store(fault),
            (Err(fault), OffsetsIn::Kafka) if fault.kind == FaultKind::Fenced => self.doubt_store(fault),
            (Err(fault), OffsetsIn::Kafka) => self.step = Step::Wait(fault),
        }
    }

    /// The offsets of the batch that Kafka does not have yet.
    pub fn missing(&self) -> Offsets {
        let ahead = |(at, next): &&(TopicPartition, i64)| self.marks.get(at).is_none_or(|mark| mark < next);
        self.next.iter().filter(ahead).cloned().collect()
    }

    fn offsets_or_done(&mut self) {
        match self.missing().is_empty() {
            true => self.took_effect(),
            false => self.step = Step::CommitOffsets,
        }
    }

    /// No answer came to an offset commit outside of a transaction.
    pub fn unanswered(&mut self) {
        self.unanswered = true;
    }

    pub fn offsets_committed(&mut self, committed: Result<(), Fault>) {
        match committed {
            Ok(()) => {
                let moved = self.missing();
                self.marks.extend(moved);
                self.took_effect();
            }
            Err(fault) => self.step = Step::Wait(fault),
        }
    }

    fn took_effect(&mut self) {
        self.stored.extend(self.next.drain(..));
        self.backoff.success();
        self.breaker.done();
        self.step = Step::Done;
    }

    /// After an effect or a wait: how many records in hand are still open.
    pub fn go_on(&mut self, left: usize) {
        self.step = match left {
            0 if self.unclaimed.is_empty() => Step::Read,
            0 => Step::Claim,
            _ => Step::Stage,
        };
    }

    /// An operator has looked at what tripped the breaker.
    pub fn resume(&mut self, left: usize) {
        self.breaker.resume();
        self.go_on(left);
    }

    /// Offsets that tell Kafka how far the store is, for whoever watches the group's lag, and for the day
    /// retention has deleted what was read: `through` is how far each partition was read, markers of
    /// transactions counted, and holds where all that was `polled` is stored. Told again and again while a commit
    /// without an answer may move a mark back.
    pub fn hints(&self, through: &Offsets, polled: impl Fn(&TopicPartition) -> Option<i64>) -> Offsets {
        if !self.unclaimed.is_empty() || self.hinting.is_some() {
            return Vec::new();
        }
        let hint = |(at, stored): (&TopicPartition, &i64)| {
            let read = through.iter().find(|(of, _)| of == at).map(|(_, read)| *read);
            let read = read.filter(|_| polled(at) == Some(*stored));
            (at.clone(), read.unwrap_or(*stored))
        };
        let ahead = |(at, hint): &(TopicPartition, i64)| match self.marks.get(at) {
            Some(mark) => mark < hint || self.unanswered && mark == hint,
            None => true,
        };
        self.stored.iter().map(hint).filter(ahead).collect()
    }

    /// Hints were sent, and nobody waits for the answer.
    pub fn hinted(&mut self, offsets: Offsets) {
        self.hinting = Some(offsets);
    }

    /// The answer to the hints: `None` is none, `Some(false)` that they were refused.
    pub fn hint_answered(&mut self, taken: Option<bool>) {
        let Some(offsets) = self.hinting.take() else { return };
        self.unanswered |= taken.is_none();
        for (at, hint) in offsets.into_iter().filter(|_| taken == Some(true)) {
            if let Some(mark) = self.marks.get_mut(&at) {
                *mark = hint.max(*mark);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(partition: i32) -> TopicPartition {
        TopicPartition { topic: "in".into(), partition }
    }

    fn trouble() -> Fault {
        Fault::transient("trouble")
    }

    /// Owns partition 0 from offset 0, with a batch up to 5 in hand.
    fn store() -> Store {
        let mut store = Store::new(Limits { consecutive: 0, share: 0.0, window: 0 }, OffsetsIn::Store);
        store.marked([(at(0), 0)]);
        store.assigned(&[(at(0), 0)]);
        store.begin();
        store
    }

    fn stage(store: &mut Store, letters_due: bool) -> Step {
        store.staged(vec![(at(0), 5)], &[], letters_due);
        store.step().clone()
    }

    #[test]
    fn letters_wait_for_a_hint_and_are_another_members_when_it_gets_no_answer() {
        let mut store = store();
        store.hinted(vec![(at(0), 0)]);
        assert!(matches!(stage(&mut store, true), Step::Wait(_)));
        store.hint_answered(None);
        store.go_on(5);
        assert!(matches!(stage(&mut store, true), Step::Fail(_)), "the hint may still move the mark back");
        assert_eq!(stage(&mut store, false), Step::CommitStore, "rows do not care");
    }

    #[test]
    fn hints_are_told_again_while_one_without_an_answer_may_undo_them() {
        let mut store = store();
        let hints = |store: &Store| store.hints(&Vec::new(), |_| None);
        assert!(hints(&store).is_empty());
        store.unanswered();
        assert_eq!(hints(&store), [(at(0), 0)]);
    }

    #[test]
    fn after_letters_of_unknown_fate_the_marks_are_read_before_any_other() {
        let mut store = store();
        assert_eq!(stage(&mut store, true), Step::TakeOver);
        store.taken_over(Ok(()));
        store.letters_ended(Ended::Unknown(trouble()), true);
        assert_eq!(store.step(), &Step::Ask);
        store.marks_found(Err(trouble()));
        store.go_on(5);
        assert_eq!(stage(&mut store, true), Step::Ask, "the first question failed");
        store.marks_found(Ok([(at(0), 5)].into()));
        store.go_on(5);
        assert!(!store.needs_letter(&at(0), 4));
        assert_eq!(stage(&mut store, false), Step::CommitStore);
    }

    #[test]
    fn a_batch_in_hand_is_finished_before_partitions_that_wait_are_claimed() {
        let mut store = store();
        store.failed(trouble());
        store.held(&[at(1)]);
        assert!(store.open(&at(0), 3));
        store.go_on(5);
        assert_eq!(store.step(), &Step::Stage);
        stage(&mut store, false);
        store.stored(Ok(()));
        store.go_on(0);
        assert_eq!(store.step(), &Step::Claim);
        // A commit of unknown outcome: nothing in hand is trusted any more.
        store.claimed(&[(at(1), 0)]);
        store.begin();
        stage(&mut store, false);
        store.stored(Err(trouble()));
        assert!(!store.open(&at(0), 5) && store.unclaimed().len() == 2);
    }
}
