use std::collections::BTreeMap;
use std::time::Duration;

use fhirehose_stream::{Fault, TopicPartition};

/// An end of a transaction that took longer may still be under way, in a request that was sent twice: it could
/// hit the next transaction of the same producer.
const TRUSTED: Duration = Duration::from_secs(5);

/// How a transaction ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    Committed,
    /// Without effect.
    Aborted(Fault),
    /// Nobody knows: ask Kafka, after fencing this producer off.
    Unknown(Fault),
}

/// What a request to end a transaction came back with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub result: Result<(), Fault>,
    pub took: Duration,
    /// Whether a connection was lost since the transaction began: a request may then have been sent twice
    /// however little time has passed.
    pub disturbed: bool,
}

impl Answer {
    /// Whether nothing of this request can still be under way.
    fn trusted(&self) -> bool {
        self.result.is_ok() && self.took <= TRUSTED && !self.disturbed
    }
}

/// Whether a transactional producer may be used once more, or a new one of the same name must take over first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wear(bool);

impl Wear {
    pub fn worn(&self) -> bool {
        self.0
    }

    /// No transaction could begin, or the producer failed for good.
    pub fn failed(&mut self) {
        self.0 = true;
    }

    /// A commit was asked for.
    pub fn commit(&mut self, answer: Answer) -> Ended {
        self.0 |= !answer.trusted();
        match answer.result {
            Ok(()) => Ended::Committed,
            // Also where the client asks for an abort: the commit may have reached the coordinator before the
            // transaction failed on this side.
            Err(fault) => Ended::Unknown(fault),
        }
    }

    /// An abort was asked for, because of `fault`. Whatever became of it, no commit ever was: the transaction
    /// has no effect once a new producer has taken over.
    pub fn abort(&mut self, answer: Answer, fault: Fault) -> Ended {
        self.0 |= !answer.trusted();
        Ended::Aborted(fault)
    }
}

/// What committed offsets say of a transaction whose outcome is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    Committed,
    Aborted,
    /// It moved no offset.
    CannotTell,
    /// Neither: partitions have a new owner, who went on.
    Moved,
}

/// Compares the group's offsets `before` the transaction, those it was `asked` to commit, and those `found` once
/// its producer was fenced off.
pub fn settle(
    before: &BTreeMap<TopicPartition, i64>,
    asked: &[(TopicPartition, i64)],
    found: &BTreeMap<TopicPartition, i64>,
) -> Settled {
    if asked.iter().all(|(at, offset)| before.get(at) == Some(offset)) {
        Settled::CannotTell
    } else if asked.iter().all(|(at, offset)| found.get(at) == Some(offset)) {
        Settled::Committed
    } else if asked.iter().all(|(at, _)| found.get(at) == before.get(at)) {
        Settled::Aborted
    } else {
        Settled::Moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(result: Result<(), Fault>, seconds: u64, disturbed: bool) -> Answer {
        Answer { result, took: Duration::from_secs(seconds), disturbed }
    }

    #[test]
    fn a_producer_is_worn_by_every_end_that_may_come_twice() {
        for (given, worn) in [
            (answer(Ok(()), 1, false), false),
            (answer(Ok(()), 6, false), true),
            (answer(Ok(()), 1, true), true),
            (answer(Err(Fault::transient("timed out")), 1, false), true),
        ] {
            let mut wear = Wear::default();
            let ended = wear.commit(given.clone());
            assert_eq!((wear.worn(), ended == Ended::Committed), (worn, given.result.is_ok()));
            let mut wear = Wear::default();
            assert_eq!(wear.abort(given, Fault::transient("why")), Ended::Aborted(Fault::transient("why")));
            assert_eq!(wear.worn(), worn);
        }
    }

    #[test]
    fn committed_offsets_tell_how_a_transaction_ended() {
        let at = |partition| TopicPartition { topic: "in".into(), partition };
        let offsets = |of: &[(i32, i64)]| of.iter().map(|(p, o)| (at(*p), *o)).collect::<BTreeMap<_, _>>();
        let before = offsets(&[(0, 5), (1, 5)]);
        let settled = |asked: &[(i32, i64)], found: &[(i32, i64)]| {
            settle(&before, &offsets(asked).into_iter().collect::<Vec<_>>(), &offsets(found))
        };
        assert_eq!(settled(&[(0, 7), (1, 6)], &[(0, 7), (1, 6)]), Settled::Committed);
        assert_eq!(settled(&[(0, 7), (1, 6)], &[(0, 5), (1, 5)]), Settled::Aborted);
        assert_eq!(settled(&[(0, 7), (1, 6)], &[(0, 7), (1, 5)]), Settled::Moved);
        assert_eq!(settled(&[(0, 7)], &[(0, 9)]), Settled::Moved);
        assert_eq!(settled(&[(0, 5)], &[(0, 5)]), Settled::CannotTell);
        assert_eq!(settled(&[(0, 7)], &[]), Settled::Moved);
    }
}
