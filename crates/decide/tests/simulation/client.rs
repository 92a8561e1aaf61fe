//! A consumer of the model: what its background thread has learned, and what was polled.

use std::collections::VecDeque;

use fhirehose_decide::{Admission, Positions};

use crate::explore::{Event, Mutant, Setup};
use crate::kafka::{Kafka, Membership, Part, Record};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Life {
    #[default]
    Running,
    Frozen,
}

/// What the group decided, as the worker is told.
#[derive(Clone, Debug)]
pub enum Change {
    Assigned(Vec<Part>),
    Revoked { parts: Vec<Part>, lost: bool },
}

#[derive(Clone, Debug, Default)]
pub struct Client {
    pub life: Life,
    /// Goes up with every start.
    pub incarnation: u32,
    pub membership: Option<Membership>,
    changes: VecDeque<Change>,
    revoking: Vec<Part>,
    pub positions: Positions,
    pub filling: Vec<Record>,
}

impl Client {
    pub fn runs(&self) -> bool {
        self.life == Life::Running
    }

    pub fn join(&mut self, kafka: &mut Kafka, instance: usize) {
        let member = kafka.join(instance);
        self.membership = Some(Membership { member, generation: 0 });
        self.heartbeat(kafka);
    }

    /// Starts anew, as a member that is not known yet; an old one is put out when its session times out.
    pub fn reset(&mut self) {
        *self = Client { incarnation: self.incarnation + 1, ..Client::default() };
    }

    pub fn leave(&mut self, kafka: &mut Kafka) {
        if let Some(membership) = self.membership {
            kafka.remove(membership.member);
        }
        self.reset();
    }

    /// Whether a heartbeat would tell something new.
    pub fn has_news(&self, kafka: &Kafka) -> bool {
        let Some(Membership { member, generation }) = self.membership else { return false };
        kafka.news(member).is_none_or(|(now, revoked, assigned)| {
            now != generation
                || !assigned.is_empty()
                || revoked.iter().any(|part| !self.revoking.contains(part))
        })
    }

    pub fn heartbeat(&mut self, kafka: &mut Kafka) {
        let Some(membership) = &mut self.membership else { return };
        match kafka.heartbeat(membership.member) {
            Some((generation, revoked, assigned)) => {
                membership.generation = generation;
                let parts: Vec<_> =
                    revoked.into_iter().filter(|part| !self.revoking.contains(part)).collect();
                self.revoking.extend(&parts);
                if !parts.is_empty() {
                    self.changes.push_back(Change::Revoked { parts, lost: false });
                }
                if !assigned.is_empty() {
                    self.changes.push_back(Change::Assigned(assigned));
                }
            }
            None => {
                self.membership = None;
                self.changes.push_back(Change::Revoked { parts: Vec::new(), lost: true });
            }
        }
    }

    pub fn changed(&self) -> bool {
        !self.changes.is_empty()
    }

    pub fn take_change(&mut self, setup: &Setup) -> Option<Change> {
        match self.changes.pop_front()? {
            Change::Revoked { lost: true, .. } => {
                Some(Change::Revoked { parts: (0..setup.at.len()).collect(), lost: true })
            }
            change => Some(change),
        }
    }

    /// Tells the group that partitions are given up; joins again when they were lost.
    pub fn give_up(&mut self, setup: &Setup, kafka: &mut Kafka, instance: usize, parts: &[Part], lost: bool) {
        let gone: Vec<_> = parts.iter().map(|part| setup.at[*part].clone()).collect();
        self.positions.give_up(&gone);
        if setup.mutant == Some(Mutant::RetainedForgotten) {
            self.filling.clear();
        }
        if setup.mutant != Some(Mutant::PolledKept) {
            self.filling.retain(|(part, _)| !parts.contains(part));
        }
        self.revoking.retain(|part| !parts.contains(part));
        if lost {
            self.join(kafka, instance);
        } else if let Some(Membership { member, .. }) = self.membership {
            kafka.give_up(member, parts);
        }
    }

    /// Polls a record of each partition that has one.
    pub fn poll(&mut self, setup: &Setup) -> bool {
        let before = self.filling.len();
        for (part, at) in setup.at.iter().enumerate() {
            let next = self.positions.next(at);
            let Some(offset) = next.filter(|next| *next < setup.end(part)) else { continue };
            if self.positions.admit(at, offset) == Admission::Next {
                self.filling.push((part, offset));
            }
        }
        self.filling.len() > before
    }

    pub fn could_poll(&self, setup: &Setup) -> bool {
        let more = |(part, at)| self.positions.next(at).is_some_and(|next| next < setup.end(part));
        setup.at.iter().enumerate().any(more)
    }
}

/// The events that both kinds of workers know.
pub fn events(worker: usize, client: &Client, kafka: &Kafka, good: &mut Vec<Event>, bad: &mut Vec<Event>) {
    match client.life {
        Life::Running => {
            if client.has_news(kafka) {
                good.push(Event::Heartbeat(worker));
            }
            bad.extend([Event::Kill(worker), Event::Freeze(worker)]);
        }
        Life::Frozen => bad.push(Event::Thaw(worker)),
    }
    if kafka.oldest_member(worker).is_some() {
        bad.push(Event::Expire(worker));
    }
    if kafka.has_ongoing(worker) {
        bad.push(Event::TimeOut(worker));
    }
}

/// The troubles of a request, or of one that only can fail.
pub fn troubles(worker: usize, many: bool, bad: &mut Vec<Event>) {
    let of = if many { &crate::producer::TROUBLES[..] } else { &crate::producer::TROUBLES[..1] };
    bad.extend(of.iter().map(|trouble| Event::Run(worker, *trouble)));
}
