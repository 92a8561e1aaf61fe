//! Workers of the Kafka-to-Kafka loop on the model.

use std::collections::BTreeMap;

use fhirehose_decide::transact::{Effect, Step, Transact};
use fhirehose_decide::{Ended, Limits};
use fhirehose_stream::{Fault, Reason, Rejection, TopicPartition, Verdict};

use crate::client::{self, Change, Client, Life};
use crate::explore::{Event, Kind, Mutant, Setup, System};
use crate::kafka::{Kafka, Part, Record, Request};
use crate::producer::{Producer, Transaction, Trouble};

/// What a worker is in the middle of.
#[derive(Clone, Debug)]
enum Call {
    None,
    Start,
    /// Takes partitions over.
    Assign(Vec<Part>),
    Transaction(Transaction),
    /// Has a new producer, and asks for the group's offsets.
    Ask,
    /// Of a mutant: commits offsets after the transaction.
    Offsets,
}

#[derive(Clone, Debug)]
struct Worker {
    client: Client,
    machine: Transact,
    producer: Producer,
    batch: Vec<Record>,
    one: Option<Record>,
    verdicts: Vec<Verdict>,
    call: Call,
}

#[derive(Clone, Debug)]
pub struct Fleet {
    kafka: Kafka,
    workers: Vec<Worker>,
}

fn machine() -> Transact {
    Transact::new(Limits { consecutive: 3, share: 0.0, window: 0 })
}

impl System for Fleet {
    fn new(setup: &Setup) -> Self {
        let worker = Worker {
            client: Client::default(),
            machine: machine(),
            producer: Producer::default(),
            batch: Vec::new(),
            one: None,
            verdicts: Vec::new(),
            call: Call::Start,
        };
        let mut kafka = Kafka::new(setup.at.len(), setup.workers);
        kafka.fencing = setup.mutant != Some(Mutant::Unfenced);
        Fleet { kafka, workers: vec![worker; setup.workers] }
    }

    fn events(&self, setup: &Setup, good: &mut Vec<Event>, bad: &mut Vec<Event>) {
        for (index, worker) in self.workers.iter().enumerate() {
            if worker.client.runs() {
                if !worker.stuck(setup, &self.kafka) {
                    good.push(Event::Run(index, Trouble::No));
                }
                worker.troubles(setup, index, bad);
                let reads = matches!(worker.call, Call::None) && worker.machine.step() == &Step::Read;
                if reads && !worker.client.filling.is_empty() && worker.client.could_poll(setup) {
                    good.push(Event::Poll(index));
                }
                if matches!(worker.machine.step(), Step::Stand(_)) {
                    good.push(Event::Resume(index));
                }
            }
            client::events(index, &worker.client, &self.kafka, good, bad);
        }
        bad.extend((0..self.kafka.under_way.len()).map(Event::Deliver));
    }

    fn apply(&mut self, setup: &Setup, event: Event) {
        let kafka = &mut self.kafka;
        match event {
            Event::Run(index, trouble) => {
                let worker = &mut self.workers[index];
                if worker.client.runs() {
                    worker.run(setup, kafka, index, trouble);
                }
            }
            Event::Poll(index) => drop(self.workers[index].client.poll(setup)),
            Event::Heartbeat(index) => self.workers[index].client.heartbeat(kafka),
            Event::Kill(index) => self.workers[index].start_anew(None),
            Event::Freeze(index) => self.workers[index].client.life = Life::Frozen,
            Event::Thaw(index) => self.workers[index].client.life = Life::Running,
            Event::Expire(index) => kafka.oldest_member(index).into_iter().for_each(|m| kafka.remove(m)),
            Event::TimeOut(index) => kafka.time_out(index),
            Event::Deliver(index) => drop(kafka.deliver(index)),
            Event::Resume(index) => {
                let worker = &mut self.workers[index];
                if matches!((&worker.call, worker.machine.step()), (Call::None, Step::Stand(_))) {
                    let left = worker.left(setup);
                    worker.machine.resume(left);
                }
            }
            Event::Hint(_) | Event::Forget(_) | Event::Settle(_) => {}
        }
    }

    fn heal(&mut self, _: &Setup) {
        while !self.kafka.under_way.is_empty() {
            self.kafka.deliver(0);
        }
        for (index, worker) in self.workers.iter_mut().enumerate() {
            worker.client.life = Life::Running;
            let member = worker.client.membership.map(|membership| membership.member);
            while let Some(old) = self.kafka.oldest_member(index).filter(|old| Some(*old) != member) {
                self.kafka.remove(old);
            }
        }
    }

    fn done(&self, setup: &Setup) -> bool {
        let done = |part| self.kafka.committed(part) == Ok(Some(setup.end(part)));
        let idle = |worker: &Worker| {
            matches!((&worker.call, worker.machine.step()), (Call::None, Step::Read))
                && !worker.client.changed()
                && !worker.client.has_news(&self.kafka)
        };
        (0..setup.at.len()).all(done) && self.workers.iter().all(idle)
    }

    fn wrong(&self, setup: &Setup) -> Option<String> {
        let outputs: Vec<_> = self.kafka.outputs().collect();
        let letters: Vec<_> = self.kafka.letters().collect();
        for record in setup.records() {
            let count = |log: &[Record]| log.iter().filter(|one| **one == record).count();
            let wanted = if setup.kind(record) == Kind::Emit { (1, 0) } else { (0, 1) };
            let found = (count(&outputs), count(&letters));
            if found != wanted {
                return Some(format!("{record:?} is {found:?} times in outputs and dead letters"));
            }
        }
        let of = |part| outputs.iter().filter(move |(of, _)| *of == part).map(|(_, offset)| *offset);
        let disordered = |part: &Part| !of(*part).is_sorted();
        (0..setup.at.len()).find(disordered).map(|part| format!("outputs of {part} are out of order"))
    }
}

impl Worker {
    /// As a new process, or as a worker that failed and leaves its group.
    fn start_anew(&mut self, kafka: Option<&mut Kafka>) {
        match kafka {
            Some(kafka) => self.client.leave(kafka),
            None => self.client.reset(),
        }
        self.batch.clear();
        self.call = Call::Start;
    }

    fn left(&self, setup: &Setup) -> usize {
        self.batch.iter().filter(|record| self.open(setup, record)).count()
    }

    fn open(&self, setup: &Setup, (part, offset): &Record) -> bool {
        self.machine.open(&setup.at[*part], *offset)
    }

    fn portion(&self) -> &[Record] {
        if self.machine.one_by_one() { self.one.as_slice() } else { &self.batch }
    }

    /// Whether another step would change nothing.
    fn stuck(&self, setup: &Setup, kafka: &Kafka) -> bool {
        match (&self.call, self.machine.step()) {
            (Call::Assign(parts), _) => parts.iter().any(|part| kafka.committed(*part).is_err()),
            (Call::Ask, _) => {
                self.machine.asked().iter().any(|(at, _)| kafka.committed(at.partition as usize).is_err())
            }
            (Call::None, Step::Stand(_)) => !self.client.changed(),
            (Call::None, Step::Read) => {
                !self.client.changed() && self.client.filling.is_empty() && !self.client.could_poll(setup)
            }
            _ => false,
        }
    }

    fn troubles(&self, setup: &Setup, index: usize, bad: &mut Vec<Event>) {
        match (&self.call, self.machine.step()) {
            (Call::Transaction(transaction), _) => client::troubles(index, transaction.ends(), bad),
            (Call::Assign(_), _) => {
                bad.extend(
                    [Trouble::AnswerLost, Trouble::RequestLost, Trouble::Late].map(|t| Event::Run(index, t)),
                );
            }
            (Call::Ask, _) => client::troubles(index, false, bad),
            (Call::None, Step::Process | Step::TakeOver | Step::Ask) => {
                client::troubles(index, false, bad);
            }
            _ if setup.mutant == Some(Mutant::OffsetsOutsideTransaction) => {}
            _ => {}
        }
    }

    fn run(&mut self, setup: &Setup, kafka: &mut Kafka, index: usize, trouble: Trouble) {
        let fault = || Fault::transient("trouble");
        match std::mem::replace(&mut self.call, Call::None) {
            Call::None => self.step(setup, kafka, index, trouble),
            Call::Start => {
                self.machine = machine();
                self.producer = Producer::take_over(kafka, index);
                self.client.join(kafka, index);
            }
            Call::Assign(parts) => self.assign(setup, kafka, index, parts, trouble),
            Call::Transaction(mut transaction) => {
                match transaction.step(kafka, &mut self.producer, trouble, setup.mutant) {
                    None => self.call = Call::Transaction(transaction),
                    Some(ended) => {
                        let ended = match (ended, setup.mutant) {
                            (Ended::Unknown(_), Some(Mutant::UnknownIsCommitted)) => Ended::Committed,
                            (Ended::Unknown(why), Some(Mutant::UnknownIsAborted)) => Ended::Aborted(why),
                            (ended, _) => ended,
                        };
                        let asked = self.machine.asked().to_vec();
                        let effect = self.machine.ended(ended, self.producer.worn());
                        if setup.mutant == Some(Mutant::OffsetsOutsideTransaction)
                            && effect == Effect::Committed
                        {
                            // The machine has forgotten what it asked for: it is noted again.
                            self.machine.beside(asked);
                            self.call = Call::Offsets;
                        } else {
                            self.settled(setup, effect);
                        }
                    }
                }
            }
            Call::Offsets => {
                let offsets = self.asked();
                if let Some(membership) = self.client.membership {
                    let _ = kafka.commit(membership, &offsets);
                }
                let effect = self.machine.ended(Ended::Committed, self.producer.worn());
                self.settled(setup, effect);
            }
            Call::Ask => {
                let found = self.ask(kafka);
                let effect = match (trouble, found) {
                    (Trouble::No, Some(found)) => self.machine.found(Ok(found)),
                    (Trouble::No, None) => {
                        self.call = Call::Ask;
                        return;
                    }
                    _ => self.machine.found(Err(fault())),
                };
                self.settled(setup, effect);
            }
        }
    }

    fn ask(&self, kafka: &Kafka) -> Option<BTreeMap<TopicPartition, i64>> {
        let mut found = BTreeMap::new();
        for (at, _) in self.machine.asked() {
            let committed = kafka.committed(at.partition as usize).ok()?;
            found.extend(committed.map(|offset| (at.clone(), offset)));
        }
        Some(found)
    }

    fn asked(&self) -> Vec<(Part, i64)> {
        self.machine.asked().iter().map(|(at, offset)| (at.partition as usize, *offset)).collect()
    }

    fn assign(&mut self, setup: &Setup, kafka: &mut Kafka, index: usize, parts: Vec<Part>, trouble: Trouble) {
        let (mut offsets, mut fresh) = (Vec::new(), Vec::new());
        for part in &parts {
            match kafka.committed(*part) {
                Ok(Some(offset)) => offsets.push((setup.at[*part].clone(), offset)),
                Ok(None) => fresh.push((*part, 0)),
                Err(_) => {
                    self.call = Call::Assign(parts);
                    return;
                }
            }
        }
        if !fresh.is_empty() {
            let committed = match self.client.membership {
                Some(membership) => {
                    let from = (index, self.client.incarnation);
                    let late = Request::Offsets { from, membership, offsets: fresh.clone() };
                    match trouble {
                        Trouble::RequestLost => false,
                        Trouble::Late => {
                            kafka.under_way.push(late);
                            false
                        }
                        _ => kafka.commit(membership, &fresh).is_ok() && trouble == Trouble::No,
                    }
                }
                None => false,
            };
            if !committed && trouble != Trouble::No && setup.mutant == Some(Mutant::StartTriedAgain) {
                self.call = Call::Assign(parts);
                return;
            }
            if !committed {
                self.start_anew(Some(kafka));
                return;
            }
        }
        offsets.extend(fresh.into_iter().map(|(part, offset)| (setup.at[part].clone(), offset)));
        self.client.positions.read_from(&offsets);
        self.machine.assigned(&offsets);
    }

    fn serve(&mut self, setup: &Setup, kafka: &mut Kafka, index: usize) -> bool {
        match self.client.take_change(setup) {
            None => return false,
            Some(Change::Assigned(parts)) => self.call = Call::Assign(parts),
            Some(Change::Revoked { parts, lost }) => {
                if setup.mutant != Some(Mutant::RevokedKept) {
                    self.batch.retain(|(part, _)| !parts.contains(part));
                }
                let gone: Vec<_> = parts.iter().map(|part| setup.at[*part].clone()).collect();
                self.machine.revoked(&gone);
                self.client.give_up(setup, kafka, index, &parts, lost);
            }
        }
        true
    }

    fn step(&mut self, setup: &Setup, kafka: &mut Kafka, index: usize, trouble: Trouble) {
        let fine = if trouble == Trouble::No { Ok(()) } else { Err(Fault::transient("trouble")) };
        match self.machine.step().clone() {
            Step::Read => {
                if !self.serve(setup, kafka, index)
                    && (!self.client.filling.is_empty() || !self.client.poll(setup))
                    && !self.client.filling.is_empty()
                {
                    self.batch = std::mem::take(&mut self.client.filling);
                    self.machine.begin();
                }
            }
            Step::Process => match fine {
                Ok(()) => self.process(setup),
                Err(fault) => self.machine.failed(fault),
            },
            Step::TakeOver => {
                if fine.is_ok() {
                    self.producer = Producer::take_over(kafka, index);
                }
                self.machine.taken_over(fine);
            }
            Step::Commit => self.commit(setup, kafka),
            Step::Ask => match fine {
                Ok(()) => {
                    self.producer = Producer::take_over(kafka, index);
                    self.call = Call::Ask;
                }
                Err(fault) => drop(self.machine.found(Err(fault))),
            },
            Step::Wait(_) => {
                if setup.mutant == Some(Mutant::AbortedDropped) {
                    self.batch.clear();
                }
                if !self.serve(setup, kafka, index) {
                    self.machine.wait_time(0.5);
                    let kept = setup.mutant == Some(Mutant::RevokedKept);
                    let left = if kept { self.batch.len() } else { self.left(setup) };
                    self.machine.go_on(left);
                }
            }
            Step::Stand(_) => drop(self.serve(setup, kafka, index)),
            Step::Fail(fault) => {
                assert!(fault.kind != fhirehose_stream::FaultKind::Fatal, "{fault}");
                self.start_anew(Some(kafka));
            }
        }
    }

    fn process(&mut self, setup: &Setup) {
        if self.machine.one_by_one() {
            self.one = self.batch.iter().find(|record| self.open(setup, record)).copied();
        }
        let portion = self.portion().to_vec();
        let large = |record: &Record| setup.kind(*record) == Kind::Large;
        if portion.iter().any(large) && self.machine.too_large(portion.len()) {
            return;
        }
        let verdict = |record: &Record| match setup.kind(*record) {
            Kind::Emit => Verdict::Emit(1),
            Kind::Reject => Rejection::new(Reason::UnknownCode, "a").into(),
            Kind::Large => Rejection::new(Reason::TooLarge, "a").into(),
        };
        self.verdicts = portion.iter().map(verdict).collect();
        let mut next = BTreeMap::new();
        for (part, offset) in &portion {
            next.insert(setup.at[*part].clone(), offset + 1);
        }
        self.machine.judged(next.into_iter().collect(), &self.verdicts);
    }

    fn commit(&mut self, setup: &Setup, kafka: &mut Kafka) {
        let Some(membership) = self.client.membership else {
            let put_out = Ended::Aborted(Fault::transient("the group has put this worker out"));
            self.machine.ended(put_out, self.producer.worn());
            return;
        };
        let record = |(record, verdict): (&Record, &Verdict)| (*record, *verdict != Verdict::Emit(1));
        let records = self.portion().iter().zip(&self.verdicts).map(record).collect();
        let mut offsets = self.asked();
        if setup.mutant == Some(Mutant::OffsetsBeforeOutputs) {
            let _ = kafka.commit(membership, &offsets);
        }
        if setup.mutant == Some(Mutant::OffsetsOutsideTransaction) {
            offsets.clear();
        }
        self.call = Call::Transaction(Transaction::new(membership, records, offsets));
    }

    fn settled(&mut self, setup: &Setup, effect: Effect) {
        if effect != Effect::Committed {
            return;
        }
        let left = if self.machine.one_by_one() { self.left(setup) } else { 0 };
        if left == 0 {
            self.batch.clear();
        }
        self.machine.go_on(left);
    }
}
