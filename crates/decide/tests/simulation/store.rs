//! Workers of the Kafka-to-store loop on the model.

use std::collections::{BTreeMap, VecDeque};

use fhirehose_decide::store::{Step, Store};
use fhirehose_decide::{Ended, Limits, Offsets};
use fhirehose_stream::{Fault, FaultKind, OffsetsIn, Reason, Rejection, Verdict};

use crate::client::{self, Change, Client, Life};
use crate::database::Database;
use crate::explore::{Event, Kind, Mutant, Setup, System};
use crate::kafka::{Kafka, Part, Record, Request, Sender};
use crate::producer::{Producer, Transaction, Trouble};
use crate::sink::{Sink, trouble};

/// What a worker is in the middle of.
#[derive(Clone, Debug)]
enum Call {
    None,
    Start,
    /// Reads the marks of partitions it was assigned, or of those it doubts.
    Take {
        parts: Vec<Part>,
        assigned: bool,
    },
    /// Claims them.
    Claim {
        marks: Vec<(Part, Option<i64>)>,
        assigned: bool,
    },
    Letters(Transaction),
    /// Has a new producer, and asks for the marks.
    Ask,
    /// Of a mutant: letters that nobody asks about.
    Last(Transaction),
}

#[derive(Clone, Debug)]
struct Worker {
    client: Client,
    machine: Store,
    producer: Option<Producer>,
    sink: Sink,
    batch: Vec<Record>,
    verdicts: Vec<Verdict>,
    call: Call,
    /// Whether a hint waits for its answer.
    hinting: bool,
    /// Answers that were not taken yet.
    answers: VecDeque<Option<bool>>,
    /// Of a mutant: letters that go out after the store's commit.
    last: Option<Transaction>,
}

/// `KAFKA` is whether offsets are kept there.
#[derive(Clone, Debug)]
pub struct Fleet<const KAFKA: bool> {
    kafka: Kafka,
    database: Database,
    workers: Vec<Worker>,
}

fn machine(kafka: bool) -> Store {
    let offsets_in = if kafka { OffsetsIn::Kafka } else { OffsetsIn::Store };
    Store::new(Limits { consecutive: 3, share: 0.0, window: 0 }, offsets_in)
}

impl<const KAFKA: bool> System for Fleet<KAFKA> {
    fn new(setup: &Setup) -> Self {
        let worker = Worker {
            client: Client::default(),
            machine: machine(KAFKA),
            producer: None,
            sink: Sink::default(),
            batch: Vec::new(),
            verdicts: Vec::new(),
            call: Call::Start,
            hinting: false,
            answers: VecDeque::new(),
            last: None,
        };
        let mut kafka = Kafka::new(setup.at.len(), setup.workers);
        kafka.fencing = setup.mutant != Some(Mutant::Unfenced);
        let mut database = Database::new(setup.at.len());
        database.fencing = setup.mutant != Some(Mutant::EpochIgnored);
        Fleet { kafka, database, workers: vec![worker; setup.workers] }
    }

    fn events(&self, setup: &Setup, good: &mut Vec<Event>, bad: &mut Vec<Event>) {
        for (index, worker) in self.workers.iter().enumerate() {
            if worker.client.runs() {
                if !worker.stuck(setup, &self.kafka) {
                    good.push(Event::Run(index, Trouble::No));
                }
                worker.troubles(index, bad);
                if matches!((&worker.call, worker.machine.step()), (Call::None, Step::Read)) {
                    if !worker.client.filling.is_empty() && worker.client.could_poll(setup) {
                        good.push(Event::Poll(index));
                    }
                    if !worker.hints().is_empty() {
                        good.push(Event::Hint(index));
                    }
                }
                if matches!(worker.machine.step(), Step::Stand(_)) {
                    good.push(Event::Resume(index));
                }
                if worker.hinting {
                    bad.push(Event::Forget(index));
                }
            }
            client::events(index, &worker.client, &self.kafka, good, bad);
        }
        for (index, request) in self.kafka.under_way.iter().enumerate() {
            match request {
                Request::Offsets { from, .. } if self.waits(*from) => good.push(Event::Deliver(index)),
                _ => bad.push(Event::Deliver(index)),
            }
        }
        good.extend(self.database.abandoned().map(Event::Settle));
    }

    fn apply(&mut self, setup: &Setup, event: Event) {
        let (kafka, database) = (&mut self.kafka, &mut self.database);
        match event {
            Event::Run(index, trouble) => {
                let worker = &mut self.workers[index];
                if worker.client.runs() {
                    worker.run::<KAFKA>(setup, kafka, database, index, trouble);
                }
            }
            Event::Poll(index) => drop(self.workers[index].client.poll(setup)),
            Event::Heartbeat(index) => self.workers[index].client.heartbeat(kafka),
            Event::Kill(index) => {
                let worker = &mut self.workers[index];
                worker.sink.die(database);
                worker.client.reset();
                worker.call = Call::Start;
            }
            Event::Freeze(index) => self.workers[index].client.life = Life::Frozen,
            Event::Thaw(index) => self.workers[index].client.life = Life::Running,
            Event::Expire(index) => kafka.oldest_member(index).into_iter().for_each(|m| kafka.remove(m)),
            Event::TimeOut(index) => kafka.time_out(index),
            Event::Deliver(index) => self.deliver(index),
            Event::Resume(index) => {
                let worker = &mut self.workers[index];
                if matches!((&worker.call, worker.machine.step()), (Call::None, Step::Stand(_))) {
                    let left = worker.left(setup);
                    worker.machine.resume(left);
                }
            }
            Event::Hint(index) => {
                let worker = &mut self.workers[index];
                if matches!((&worker.call, worker.machine.step()), (Call::None, Step::Read)) {
                    worker.hint(setup, kafka, index);
                }
            }
            Event::Forget(index) => {
                self.workers[index].hinting = false;
                self.workers[index].answers.push_back(None);
            }
            Event::Settle(index) => database.settle_abandoned(index),
        }
    }

    fn heal(&mut self, _: &Setup) {
        while !self.kafka.under_way.is_empty() {
            self.deliver(0);
        }
        let abandoned: Vec<_> = self.database.abandoned().collect();
        abandoned.into_iter().rev().for_each(|index| self.database.settle_abandoned(index));
        for (index, worker) in self.workers.iter_mut().enumerate() {
            worker.client.life = Life::Running;
            let member = worker.client.membership.map(|membership| membership.member);
            while let Some(old) = self.kafka.oldest_member(index).filter(|old| Some(*old) != member) {
                self.kafka.remove(old);
            }
        }
    }

    fn done(&self, setup: &Setup) -> bool {
        let done = |part| match KAFKA {
            true => self.kafka.committed(part) == Ok(Some(setup.end(part))),
            false => self.database.next(part) == Some(setup.end(part)),
        };
        let idle = |worker: &Worker| {
            matches!((&worker.call, worker.machine.step()), (Call::None, Step::Read))
                && !worker.client.changed()
                && !worker.client.has_news(&self.kafka)
        };
        (0..setup.at.len()).all(done) && self.workers.iter().all(idle)
    }

    fn wrong(&self, setup: &Setup) -> Option<String> {
        let letters: Vec<_> = self.kafka.letters().collect();
        setup.records().find_map(|record| {
            let written = letters.iter().filter(|one| **one == record).count() as u32;
            let found = (self.database.count(&record), written);
            let wanted = if setup.kind(record) == Kind::Emit { (1, 0) } else { (0, 1) };
            (found != wanted).then(|| format!("{record:?} is {found:?} times in rows and dead letters"))
        })
    }
}

impl<const KAFKA: bool> Fleet<KAFKA> {
    /// Whether somebody waits for the answer.
    fn waits(&self, (instance, incarnation): Sender) -> bool {
        let worker = &self.workers[instance];
        worker.hinting && worker.client.incarnation == incarnation
    }

    fn deliver(&mut self, index: usize) {
        let Some((from, taken)) = self.kafka.deliver(index) else { return };
        if self.waits(from) {
            let worker = &mut self.workers[from.0];
            worker.hinting = false;
            worker.answers.push_back(Some(taken));
        }
    }
}

impl Worker {
    fn left(&self, setup: &Setup) -> usize {
        let open = |(part, offset): &&Record| self.machine.open(&setup.at[*part], *offset);
        self.batch.iter().filter(open).count()
    }

    /// Whether another step would change nothing.
    fn stuck(&self, setup: &Setup, kafka: &Kafka) -> bool {
        let unstable = |part: &Part| kafka.committed(*part).is_err();
        let told = self.client.changed() || !self.answers.is_empty();
        match (&self.call, self.machine.step()) {
            (Call::Take { parts, .. }, _) => parts.iter().any(unstable),
            (Call::Ask, _) => self.machine.ours().iter().any(|at| unstable(&(at.partition as usize))),
            (Call::None, Step::Stand(_)) => !told,
            (Call::None, Step::Read) => {
                let polled = !self.client.filling.is_empty() || self.client.could_poll(setup);
                !told && !polled && self.machine.unclaimed().is_empty()
            }
            _ => false,
        }
    }

    fn troubles(&self, index: usize, bad: &mut Vec<Event>) {
        match (&self.call, self.machine.step()) {
            (Call::Letters(transaction), _) => client::troubles(index, transaction.ends(), bad),
            (Call::Claim { .. }, _) | (Call::None, Step::CommitStore | Step::CommitOffsets) => {
                client::troubles(index, true, bad);
            }
            (Call::Take { .. } | Call::Ask, _) | (Call::None, Step::Stage | Step::TakeOver | Step::Ask) => {
                client::troubles(index, false, bad);
            }
            _ => {}
        }
    }

    fn run<const KAFKA: bool>(
        &mut self,
        setup: &Setup,
        kafka: &mut Kafka,
        database: &mut Database,
        index: usize,
        happens: Trouble,
    ) {
        match std::mem::replace(&mut self.call, Call::None) {
            Call::None => self.step::<KAFKA>(setup, kafka, database, index, happens),
            Call::Start => {
                self.machine = machine(KAFKA);
                self.sink = Sink::connect(database);
                (self.producer, self.last, self.hinting) = (None, None, false);
                self.answers.clear();
                self.batch.clear();
                self.client.join(kafka, index);
            }
            Call::Take { parts, assigned } => {
                let marks: Result<Vec<_>, _> =
                    parts.iter().map(|part| kafka.committed(*part).map(|mark| (*part, mark))).collect();
                match marks {
                    _ if happens != Trouble::No => self.not_taken(setup, &parts, assigned, trouble()),
                    Err(_) => self.call = Call::Take { parts, assigned },
                    Ok(marks) => {
                        let mark =
                            |(part, mark): &(Part, Option<i64>)| (setup.at[*part].clone(), mark.unwrap_or(0));
                        self.machine.marked(marks.iter().map(mark));
                        self.call = Call::Claim { marks, assigned };
                    }
                }
            }
            Call::Claim { marks, assigned } => {
                let parts: Vec<_> = marks.iter().map(|(part, _)| *part).collect();
                let claimed = match KAFKA {
                    true => self.first_offsets(setup, kafka, &marks, index, happens),
                    false => self.sink.claim(setup, database, &marks, happens),
                };
                match claimed {
                    Ok(offsets) => self.taken(&offsets, assigned),
                    Err(fault) => self.not_taken(setup, &parts, assigned, fault),
                }
            }
            Call::Letters(mut transaction) => {
                let Some(producer) = &mut self.producer else { return };
                match transaction.step(kafka, producer, happens, setup.mutant) {
                    None => self.call = Call::Letters(transaction),
                    Some(ended) => {
                        let ended = match (ended, setup.mutant) {
                            (Ended::Unknown(_), Some(Mutant::UnknownIsCommitted)) => Ended::Committed,
                            (Ended::Unknown(why), Some(Mutant::UnknownIsAborted)) => Ended::Aborted(why),
                            (ended, _) => ended,
                        };
                        self.machine.letters_ended(ended, producer.worn());
                    }
                }
            }
            Call::Last(mut transaction) => {
                let Some(producer) = &mut self.producer else { return };
                if transaction.step(kafka, producer, happens, setup.mutant).is_none() {
                    self.call = Call::Last(transaction);
                }
            }
            Call::Ask => {
                let mark = |at: &fhirehose_stream::TopicPartition| {
                    let committed = kafka.committed(at.partition as usize);
                    committed.map(|mark| (at.clone(), mark.unwrap_or(0)))
                };
                let marks: Result<BTreeMap<_, _>, _> = self.machine.ours().iter().map(mark).collect();
                match marks {
                    _ if happens != Trouble::No => self.machine.marks_found(Err(trouble())),
                    Err(_) => self.call = Call::Ask,
                    Ok(marks) => self.machine.marks_found(Ok(marks)),
                }
            }
        }
    }

    fn taken(&mut self, offsets: &Offsets, assigned: bool) {
        if !assigned {
            let moved = |part: &Part| offsets.iter().any(|(at, _)| at.partition as usize == *part);
            self.client.filling.retain(|(part, _)| !moved(part));
        }
        self.client.positions.read_from(offsets);
        match assigned {
            true => self.machine.assigned(offsets),
            false => self.machine.claimed(offsets),
        }
    }

    fn not_taken(&mut self, setup: &Setup, parts: &[Part], assigned: bool, fault: Fault) {
        assert!(fault.kind != FaultKind::Fatal, "{fault}");
        match assigned {
            true => {
                let held: Vec<_> = parts.iter().map(|part| setup.at[*part].clone()).collect();
                self.machine.held(&held);
            }
            false => self.machine.failed(fault),
        }
    }

    /// As a sink with offsets in Kafka goes on at those, or begins.
    fn first_offsets(
        &mut self,
        setup: &Setup,
        kafka: &mut Kafka,
        marks: &[(Part, Option<i64>)],
        index: usize,
        happens: Trouble,
    ) -> Result<Offsets, Fault> {
        let fresh: Vec<_> =
            marks.iter().filter(|(_, mark)| mark.is_none()).map(|(part, _)| (*part, 0)).collect();
        if !fresh.is_empty() {
            self.commit_plainly(setup, kafka, fresh, index, happens)?;
        } else if happens != Trouble::No {
            return Err(trouble());
        }
        let offset = |(part, mark): &(Part, Option<i64>)| (setup.at[*part].clone(), mark.unwrap_or(0));
        let offsets: Offsets = marks.iter().map(offset).collect();
        self.machine.marked(offsets.iter().cloned());
        Ok(offsets)
    }

    /// An offset commit outside of a transaction that is waited for.
    fn commit_plainly(
        &mut self,
        setup: &Setup,
        kafka: &mut Kafka,
        offsets: Vec<(Part, i64)>,
        index: usize,
        happens: Trouble,
    ) -> Result<(), Fault> {
        let Some(membership) = self.client.membership else { return Err(trouble()) };
        match happens {
            Trouble::No => return kafka.commit(membership, &offsets).map_err(|_| trouble()),
            Trouble::AnswerLost => drop(kafka.commit(membership, &offsets)),
            Trouble::RequestLost => {}
            _ => {
                let from = (index, self.client.incarnation);
                kafka.under_way.push(Request::Offsets { from, membership, offsets });
            }
        }
        if setup.mutant != Some(Mutant::UnansweredForgotten) {
            self.machine.unanswered();
        }
        Err(trouble())
    }

    fn hints(&self) -> Offsets {
        let positions = &self.client.positions;
        let through = match self.client.filling.is_empty() && self.client.membership.is_some() {
            true => positions.iter().map(|(at, next)| (at.clone(), next)).collect(),
            false => Vec::new(),
        };
        self.machine.hints(&through, |at| positions.next(at))
    }

    fn hint(&mut self, setup: &Setup, kafka: &mut Kafka, index: usize) {
        let hints = self.hints();
        let Some(membership) = self.client.membership.filter(|_| !hints.is_empty()) else { return };
        let offsets = hints.iter().map(|(at, offset)| (at.partition as usize, *offset)).collect();
        let from = (index, self.client.incarnation);
        kafka.under_way.push(Request::Offsets { from, membership, offsets });
        self.machine.hinted(hints);
        self.hinting = setup.mutant != Some(Mutant::HintTrusted);
        if !self.hinting {
            self.machine.hint_answered(Some(true));
        }
    }

    fn serve(&mut self, setup: &Setup, kafka: &mut Kafka, database: &mut Database, index: usize) -> bool {
        while let Some(answer) = self.answers.pop_front() {
            self.machine.hint_answered(answer);
        }
        match self.client.take_change(setup) {
            None => return false,
            Some(Change::Assigned(parts)) => self.call = Call::Take { parts, assigned: true },
            Some(Change::Revoked { parts, lost }) => {
                self.batch.retain(|(part, _)| !parts.contains(part));
                if !lost {
                    self.hint(setup, kafka, index);
                }
                self.sink.rollback(database);
                self.sink.forget(&parts);
                let gone: Vec<_> = parts.iter().map(|part| setup.at[*part].clone()).collect();
                self.client.give_up(setup, kafka, index, &parts, lost);
                self.machine.revoked(&gone);
            }
        }
        true
    }

    fn step<const KAFKA: bool>(
        &mut self,
        setup: &Setup,
        kafka: &mut Kafka,
        database: &mut Database,
        index: usize,
        happens: Trouble,
    ) {
        let fine = if happens == Trouble::No { Ok(()) } else { Err(trouble()) };
        match self.machine.step().clone() {
            Step::Claim => {
                self.batch.clear();
                let parts = self.machine.unclaimed().iter().map(|at| at.partition as usize).collect();
                match self.client.membership {
                    Some(_) => self.call = Call::Take { parts, assigned: false },
                    None => {
                        self.machine.failed(Fault::transient("the group has put this worker out"));
                    }
                }
            }
            Step::Read => {
                if self.serve(setup, kafka, database, index) {
                } else if !self.machine.unclaimed().is_empty() {
                    self.machine.go_on(0);
                } else if !self.client.filling.is_empty() {
                    self.batch = std::mem::take(&mut self.client.filling);
                    self.machine.begin();
                } else {
                    self.client.poll(setup);
                }
            }
            Step::Stage => match fine.and_then(|()| self.sink.stage(setup, database, &self.batch, !KAFKA)) {
                Ok(()) => self.staged(setup),
                Err(fault) => self.machine.failed(fault),
            },
            Step::TakeOver => {
                if fine.is_ok() {
                    self.producer = Some(Producer::take_over(kafka, index));
                }
                self.machine.taken_over(fine);
            }
            Step::Letters => self.letters(setup),
            Step::Ask if setup.mutant == Some(Mutant::MarksNotAsked) => {
                self.producer = Some(Producer::take_over(kafka, index));
                self.machine.marks_found(Ok(BTreeMap::new()));
            }
            Step::Ask => match fine {
                Ok(()) => {
                    self.producer = Some(Producer::take_over(kafka, index));
                    self.call = Call::Ask;
                }
                Err(fault) => self.machine.marks_found(Err(fault)),
            },
            Step::CommitStore => {
                let stored = match KAFKA {
                    true => self.sink.put(database, happens),
                    false => self.sink.commit(database, happens),
                };
                self.call = match self.last.take() {
                    Some(transaction) if stored.is_ok() => Call::Last(transaction),
                    _ => Call::None,
                };
                self.machine.stored(stored);
            }
            Step::CommitOffsets => {
                let missing = self.machine.missing();
                let offsets = missing.iter().map(|(at, offset)| (at.partition as usize, *offset)).collect();
                let committed = self.commit_plainly(setup, kafka, offsets, index, happens);
                self.machine.offsets_committed(committed);
            }
            Step::Done => {
                self.batch.clear();
                self.machine.go_on(0);
            }
            Step::Wait(_) => {
                self.sink.rollback(database);
                if setup.mutant == Some(Mutant::AbortedDropped) {
                    self.batch.clear();
                }
                if !self.serve(setup, kafka, database, index) {
                    let waits = !self.machine.unclaimed().is_empty();
                    if waits && setup.mutant == Some(Mutant::DroppedForClaim) {
                        self.batch.clear();
                    }
                    self.machine.wait_time(0.5);
                    let left = self.left(setup);
                    self.machine.go_on(left);
                }
            }
            Step::Stand(_) => {
                self.sink.rollback(database);
                self.serve(setup, kafka, database, index);
            }
            Step::Fail(fault) => {
                assert!(fault.kind != FaultKind::Fatal, "{fault}");
                self.sink.rollback(database);
                self.client.leave(kafka);
                self.call = Call::Start;
            }
        }
    }

    fn needs_letter(&self, setup: &Setup, (part, offset): Record) -> bool {
        setup.kind((part, offset)) != Kind::Emit
            && (setup.mutant == Some(Mutant::MarkIgnored)
                || self.machine.needs_letter(&setup.at[part], offset))
    }

    fn staged(&mut self, setup: &Setup) {
        let verdict = |record: &Record| match setup.kind(*record) {
            Kind::Emit => Verdict::Emit(1),
            _ => Rejection::new(Reason::StoreRejected, "a").into(),
        };
        self.verdicts = self.batch.iter().map(verdict).collect();
        let mut next = BTreeMap::new();
        for (part, offset) in &self.batch {
            next.insert(setup.at[*part].clone(), offset + 1);
        }
        let due = self.batch.iter().any(|record| self.needs_letter(setup, *record));
        self.machine.staged(next.into_iter().collect(), &self.verdicts, due);
    }

    fn letters(&mut self, setup: &Setup) {
        let worn = self.producer.as_ref().is_none_or(Producer::worn);
        let Some(membership) = self.client.membership else {
            let put_out = Fault::transient("the group has put this worker out");
            self.machine.letters_ended(Ended::Aborted(put_out), worn);
            return;
        };
        let due = self.batch.iter().filter(|record| self.needs_letter(setup, **record));
        let records = due.map(|record| (*record, true)).collect();
        let offsets = self.machine.letter_offsets();
        let offsets = offsets.iter().map(|(at, offset)| (at.partition as usize, *offset)).collect();
        let transaction = Transaction::new(membership, records, offsets);
        if setup.mutant == Some(Mutant::LettersLast) {
            self.last = Some(transaction);
            self.machine.letters_ended(Ended::Committed, worn);
        } else {
            self.call = Call::Letters(transaction);
        }
    }
}
