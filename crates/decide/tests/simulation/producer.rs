//! A transactional producer of the model: one transaction, request by request.

use std::time::Duration;

use fhirehose_decide::{Answer, Ended, Wear};
use fhirehose_stream::Fault;

use crate::explore::Mutant;
use crate::kafka::{Kafka, Membership, Part, Record, Refused, Request};

/// What the network does to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    No,
    /// It arrives, and the answer is lost.
    AnswerLost,
    /// It never arrives.
    RequestLost,
    /// It arrives after the client has given up.
    Late,
    /// It arrives late; the client has sent it again after a while, and that was answered.
    LateAfterSlowRetry,
    /// The same, at once, for its connection was lost.
    LateAfterFastRetry,
}

pub const TROUBLES: [Trouble; 5] = [
    Trouble::AnswerLost,
    Trouble::RequestLost,
    Trouble::Late,
    Trouble::LateAfterSlowRetry,
    Trouble::LateAfterFastRetry,
];

#[derive(Clone, Debug, PartialEq, Eq)]
enum At {
    Send(usize),
    Offsets,
    Commit,
    Abort(Fault),
}

/// A transaction under way.
#[derive(Clone, Debug)]
pub struct Transaction {
    membership: Membership,
    /// Records, and whether each is a dead letter.
    records: Vec<(Record, bool)>,
    offsets: Vec<(Part, i64)>,
    at: At,
}

#[derive(Clone, Debug, Default)]
pub struct Producer {
    pub id: usize,
    epoch: u32,
    wear: Wear,
    disturbed: bool,
}

impl Transaction {
    pub fn new(membership: Membership, records: Vec<(Record, bool)>, offsets: Vec<(Part, i64)>) -> Self {
        let at = if records.is_empty() { At::Offsets } else { At::Send(0) };
        Transaction { membership, records, offsets, at }
    }

    /// Whether the next request ends it: then trouble has more than one form.
    pub fn ends(&self) -> bool {
        matches!(self.at, At::Commit | At::Abort(_))
    }

    /// Sends the next request.
    pub fn step(
        &mut self,
        kafka: &mut Kafka,
        producer: &mut Producer,
        trouble: Trouble,
        mutant: Option<Mutant>,
    ) -> Option<Ended> {
        let Producer { id, epoch, .. } = *producer;
        let broken = if trouble == Trouble::No { Ok(()) } else { Err(Refused) };
        let failed = |_| At::Abort(Fault::transient("a request failed"));
        match self.at.clone() {
            At::Send(index) => {
                let (record, letter) = self.records[index];
                let sent = broken.and_then(|()| kafka.produce(id, epoch, record, letter));
                let next = if index + 1 < self.records.len() { At::Send(index + 1) } else { At::Offsets };
                self.at = sent.map_or_else(failed, |()| next);
                None
            }
            At::Offsets => {
                let sent =
                    broken.and_then(|()| kafka.send_offsets(id, epoch, self.membership, &self.offsets));
                self.at = sent.map_or_else(failed, |()| At::Commit);
                None
            }
            At::Commit => {
                let answer = producer.end(kafka, true, trouble, mutant);
                Some(producer.wear.commit(answer))
            }
            At::Abort(why) => {
                let answer = producer.end(kafka, false, trouble, mutant);
                Some(producer.wear.abort(answer, why))
            }
        }
    }
}

impl Producer {
    pub fn take_over(kafka: &mut Kafka, id: usize) -> Self {
        Producer { id, epoch: kafka.init(id), wear: Wear::default(), disturbed: false }
    }

    pub fn worn(&self) -> bool {
        self.wear.worn()
    }

    fn end(&mut self, kafka: &mut Kafka, commit: bool, trouble: Trouble, mutant: Option<Mutant>) -> Answer {
        let (id, epoch) = (self.id, self.epoch);
        let arrives = !matches!(trouble, Trouble::RequestLost | Trouble::Late);
        let late =
            matches!(trouble, Trouble::Late | Trouble::LateAfterSlowRetry | Trouble::LateAfterFastRetry);
        let done = if arrives { kafka.end(id, epoch, commit) } else { Err(Refused) };
        if late {
            kafka.under_way.push(Request::End { id, epoch, commit });
        }
        self.disturbed |= trouble == Trouble::LateAfterFastRetry;
        let lost = matches!(trouble, Trouble::AnswerLost | Trouble::RequestLost | Trouble::Late);
        let result = match done {
            Ok(()) if !lost => Ok(()),
            _ => Err(Fault::transient("no end of the transaction was confirmed")),
        };
        let slow = trouble == Trouble::LateAfterSlowRetry && mutant != Some(Mutant::SlowEndTrusted);
        let disturbed = self.disturbed && mutant != Some(Mutant::DisturbedEndTrusted);
        Answer { result, took: Duration::from_secs(if slow { 20 } else { 1 }), disturbed }
    }
}
