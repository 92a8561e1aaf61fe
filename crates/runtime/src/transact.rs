use std::collections::HashMap;
use std::time::{Duration, Instant};

use fhirehose_decide::transact::{Effect, Step, Transact};
use fhirehose_decide::{Ended, Offsets};
use fhirehose_faultpoint::{planted, point};
use fhirehose_stream::{
    Batch, Fault, Output, Outputs, Processor, Reason, Rejection, TopicPartition, Verdict,
};

use crate::assignment::continue_at;
use crate::dead_letter::DeadLetters;
use crate::partitions::list_with_offsets;
use crate::producer::{ToSend, TransactionalProducer, send_unawaited, with_header};
use crate::reader::{Change, Limits, Reader};
use crate::replay::Replay;
use crate::status::{Doing, Done, Violation};
use crate::tables::Tables;
use crate::worker::{IDLE, KEEP_UP, LagTeller, Stage, Worker, judge_fitting, named, next_offsets, patiently};

/// Kafka to Kafka: outputs, dead letters, changelog and offsets in one transaction per batch. Does what
/// [`Transact`] decides.
pub(crate) struct TransactLoop<'w> {
    worker: &'w Worker,
    machine: Transact,
    processor: Box<dyn Processor>,
    reader: Reader,
    producer: TransactionalProducer,
    tables: Option<Tables>,
    changelog: Option<Replay>,
    letters: DeadLetters,
    batch: Batch,
    /// The record of the batch that is tried alone.
    one: Batch,
    verdicts: Vec<Verdict>,
    out: Outputs,
    tried: Instant,
    kept_up: Instant,
    /// How long the last commit took.
    committing: Duration,
    lag: LagTeller,
}

impl Stage for TransactLoop<'_> {
    fn worker(&self) -> &Worker {
        self.worker
    }

    fn reader(&mut self) -> &mut Reader {
        &mut self.reader
    }

    fn in_hand(&mut self) -> &mut Batch {
        &mut self.batch
    }

    fn tell_lag(&mut self) {
        let committed = self.machine.committed().iter().map(|(at, offset)| (at, *offset));
        self.lag.waiting(self.worker, &self.reader, committed);
    }

    fn rebalance(&mut self) -> Result<(), Fault> {
        while let Some(change) = self.reader.take_change() {
            match change {
                Change::Assigned(partitions) => self.assigned(&partitions)?,
                Change::Revoked { partitions, lost } => {
                    point("transact.revoking");
                    self.worker.revoked(&partitions, lost);
                    // Planted: what was polled of them is still processed and committed.
                    if !planted("revoke-without-drain") {
                        self.batch.retain(|at| !partitions.contains(at));
                        self.machine.revoked(&partitions);
                    }
                    self.processor.revoked(&partitions);
                    self.reader.give_up(&partitions)?;
                }
            }
        }
        Ok(())
    }
}

impl<'w> TransactLoop<'w> {
    /// Runs until asked to stop. An error means that the worker must start anew.
    pub(crate) fn run(worker: &'w Worker, mut processor: Box<dyn Processor>) -> Result<(), Fault> {
        let (clients, spec) = (&worker.clients, &worker.spec);
        // First of all, for it ends what a dead worker of this name left open.
        let producer = TransactionalProducer::take_over(clients, &worker.transactional_id)?;
        worker.doing(Doing::Restoring);
        let tables = Tables::load(clients, &spec.group, &spec.tables, &mut *processor, &worker.stop)?;
        let changelog = match &spec.changelog {
            Some(_) => Some(Replay::new(clients, &format!("{}.changelog", spec.group))?),
            None => None,
        };
        let mut this = TransactLoop {
            worker,
            machine: Transact::new(worker.config.breaker.limits()),
            processor,
            reader: Reader::join(clients, &spec.group, &spec.inputs)?,
            producer,
            tables,
            changelog,
            letters: DeadLetters::new(spec.clone()),
            batch: Batch::default(),
            one: Batch::default(),
            verdicts: Vec::new(),
            out: Outputs::default(),
            tried: Instant::now(),
            kept_up: Instant::now(),
            committing: Duration::ZERO,
            lag: LagTeller::new(),
        };
        this.stream()?;
        if let Some(tables) = &mut this.tables {
            tables.checkpoint(&mut *this.processor);
        }
        Ok(())
    }

    fn stream(&mut self) -> Result<(), Fault> {
        let stop = &self.worker.stop;
        while !(stop.requested() && self.machine.at_rest()) {
            match self.machine.step().clone() {
                Step::Read => self.read()?,
                Step::Process => self.process()?,
                Step::TakeOver => {
                    let taken = self.take_over();
                    self.machine.taken_over(taken);
                }
                Step::Commit => self.commit()?,
                Step::Ask => self.ask()?,
                Step::Wait(why) => {
                    self.processor.aborted();
                    let time = self.machine.wait_time(rand::random());
                    self.wait(why, time, &self.machine.backoff().clone())?;
                    let left = self.left();
                    self.machine.go_on(left);
                }
                Step::Stand(why) => {
                    self.processor.aborted();
                    self.stand(&why)?;
                    // A worker that is to stop leaves the batch to whoever comes.
                    if !stop.requested() {
                        let left = self.left();
                        self.machine.resume(left);
                    }
                }
                Step::Fail(fault) => return Err(fault),
            }
        }
        Ok(())
    }

    fn assigned(&mut self, partitions: &[TopicPartition]) -> Result<(), Fault> {
        let (worker, spec) = (self.worker, &self.worker.spec);
        let mut assigned = Vec::new();
        if !partitions.is_empty() {
            worker.doing(Doing::Restoring);
            let start_from = worker.config.runtime.start_from;
            assigned = continue_at(&self.reader, &spec.inputs, partitions, start_from, &worker.stop)
                .map_err(|failed| failed.fault)?;
            if let Some(tables) = &mut self.tables {
                let reader = &mut self.reader;
                tables.catch_up(&mut *self.processor, &worker.stop, &mut || {
                    reader.keep_alive(Duration::ZERO)
                })?;
                reader.resume()?;
            }
            self.restore(partitions)?;
            self.processor.assigned(&assigned)?;
            tracing::info!(processor = spec.name, partitions = %named(partitions), "partitions assigned");
        }
        let offsets: Offsets = assigned.into_iter().map(|a| (a.at, a.next_offset)).collect();
        self.reader.accept(&offsets)?;
        for (at, _) in &offsets {
            worker.status.assigned(worker.index, at);
        }
        self.machine.assigned(&offsets);
        worker.doing(Doing::Running);
        Ok(())
    }

    /// Reads the changelog partitions that belong to newly assigned ones. Their offsets were read stable
    /// before, so no transaction that counts is open any more.
    fn restore(&mut self, partitions: &[TopicPartition]) -> Result<(), Fault> {
        let (Some(changelog), Some(topic)) = (&mut self.changelog, &self.worker.spec.changelog) else {
            return Ok(());
        };
        let mut numbers: Vec<_> = partitions.iter().map(|at| at.partition).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let mut count = 0_u64;
        let (reader, processor) = (&mut self.reader, &mut self.processor);
        changelog.read_to_end(
            topic,
            &numbers,
            &HashMap::new(),
            &self.worker.stop,
            &mut || reader.keep_alive(Duration::ZERO),
            &mut |record| {
                count += 1;
                processor.restore(record)
            },
        )?;
        point("transact.restoring");
        changelog.release()?;
        self.reader.resume()?;
        tracing::info!(
            processor = self.worker.spec.name,
            topic = &**topic,
            records = count,
            "changelog restored"
        );
        Ok(())
    }

    fn read(&mut self) -> Result<(), Fault> {
        self.rebalance()?;
        if let Some(tables) = &mut self.tables {
            tables.follow(&mut *self.processor)?;
        }
        if self.wake()? {
            return Ok(());
        }
        let limits = Limits::of(&self.worker.config.runtime, IDLE);
        self.reader.fill(limits.after(self.committing), &mut self.batch)?;
        self.lag.flowing(self.worker, &mut self.reader);
        if !self.batch.is_empty() {
            self.machine.begin();
        } else if self.kept_up.elapsed() > KEEP_UP {
            self.keep_up()?;
        }
        Ok(())
    }

    /// Processes what a table's change has made due; returns whether there was anything.
    fn wake(&mut self) -> Result<bool, Fault> {
        if self.machine.committed().is_empty() || self.reader.changed() {
            return Ok(false);
        }
        self.out.clear();
        if let Err(fault) = self.processor.wake(&mut self.out) {
            self.machine.failed(fault);
            return Ok(true);
        }
        if self.out.is_empty() {
            self.processor.committed();
            return Ok(false);
        }
        if let Some(topic) = self.too_large() {
            return Err(Fault::fatal(format!("a record for {topic} is above runtime.record_max_bytes")));
        }
        let offsets = self.machine.committed().iter().map(|(at, offset)| (at.clone(), *offset)).collect();
        self.machine.beside(offsets);
        Ok(true)
    }

    fn keep_up(&mut self) -> Result<(), Fault> {
        self.kept_up = Instant::now();
        let ahead = self.machine.read_ahead(self.reader.read_through());
        if !ahead.is_empty() {
            self.out.clear();
            self.processor.process(&self.batch, &mut self.out)?;
            self.machine.beside(ahead);
        }
        Ok(())
    }

    /// What is tried: the batch, or one record of it.
    fn portion(&self) -> &Batch {
        if self.machine.one_by_one() { &self.one } else { &self.batch }
    }

    fn left(&self) -> usize {
        self.batch.iter().filter(|record| self.machine.open(record.at(), record.offset())).count()
    }

    fn process(&mut self) -> Result<(), Fault> {
        self.tried = Instant::now();
        self.out.clear();
        if self.machine.one_by_one() {
            self.one.clear();
            let next = self.batch.iter().find(|record| self.machine.open(record.at(), record.offset()));
            next.iter().for_each(|record| self.one.push_record(record));
        }
        let portion = if self.machine.one_by_one() { &self.one } else { &self.batch };
        // Records that are too large never reach the processor.
        let limit = self.worker.config.runtime.record_max_bytes;
        match judge_fitting(portion, limit, |fitting| self.processor.process(fitting, &mut self.out)) {
            Ok(verdicts) => self.verdicts = verdicts,
            Err(fault) => {
                self.machine.failed(fault);
                return Ok(());
            }
        }
        if self.verdicts.len() != portion.len() {
            self.worker.status.violation(Violation::VerdictCount, 1);
            return Err(Fault::fatal("the processor judged another number of records than it was given"));
        }
        if let Some(topic) = self.too_large() {
            self.processor.aborted();
            let tried = self.portion().len();
            if self.machine.too_large(tried) {
                return Ok(());
            }
            self.out.clear();
            // Nothing is processed, so that the commit of the reject has its own beginning and end.
            self.processor.process(&Batch::default(), &mut self.out)?;
            self.verdicts = vec![Rejection::new(Reason::TooLarge, format!("output for {topic}")).into()];
        }
        let next = next_offsets(self.portion());
        self.machine.judged(next, &self.verdicts);
        Ok(())
    }

    /// The topic of an output that is too large, if there is one.
    fn too_large(&self) -> Option<String> {
        let limit = self.worker.config.runtime.record_max_bytes;
        let large = self.out.iter().find(|out| {
            let headers: usize = out.headers().map(|(name, value)| name.len() + value.len()).sum();
            out.key().len() + out.value().map_or(0, <[u8]>::len) + headers > limit
        });
        large.map(|out| out.topic().to_string())
    }

    fn take_over(&mut self) -> Result<(), Fault> {
        self.producer =
            TransactionalProducer::take_over(&self.worker.clients, &self.worker.transactional_id)?;
        Ok(())
    }

    fn commit(&mut self) -> Result<(), Fault> {
        let begun = Instant::now();
        let ended = match self.transaction()? {
            // Planted: the outcome is guessed.
            Ended::Unknown(_) if planted("unknown-commit-is-committed") => Ended::Committed,
            Ended::Unknown(fault) if planted("unknown-commit-is-aborted") => Ended::Aborted(fault),
            ended => ended,
        };
        if ended != Ended::Committed && self.producer.was_too_large() {
            self.letters.shrink();
        }
        if let Ended::Unknown(fault) = &ended {
            self.worker.status.unknown_commit();
            tracing::warn!(
                processor = self.worker.spec.name,
                why = fault.what,
                "the outcome of a commit is unknown: asking kafka"
            );
        }
        self.committing = begun.elapsed();
        let effect = self.machine.ended(ended, self.producer.worn());
        self.settled(effect)
    }

    /// One transaction: what was processed, dead letters of what was rejected, and the offsets.
    fn transaction(&mut self) -> Result<Ended, Fault> {
        let Some(membership) = self.reader.membership() else {
            let out = Fault::transient("the group has put this worker out; it joins again");
            return Ok(Ended::Aborted(out));
        };
        let processor = &self.processor;
        let asked = self.machine.asked().iter();
        let mut list =
            list_with_offsets(asked.map(|(at, offset)| (at, *offset, processor.offset_metadata(at))))?;
        let portion = if self.machine.one_by_one() { &self.one } else { &self.batch };
        let rejected = || {
            portion.iter().zip(&self.verdicts).filter_map(|(record, verdict)| match verdict {
                Verdict::Reject(rejection) => Some((record, rejection)),
                _ => None,
            })
        };
        rejected().for_each(|(record, _)| self.letters.prepare(record));
        let letters = &self.letters;
        // Planted: the changelog is written beside the transaction.
        let aside = planted("changelog-outside-transaction");
        let beside = |out: &Output<'_>| aside && self.worker.spec.changelog.as_deref() == Some(out.topic());
        if aside {
            send_unawaited(&self.worker.clients, self.out.iter().filter(beside).map(to_send));
        }
        let records = self.out.iter().filter(|out| !beside(out)).map(to_send);
        let records = records.chain(rejected().map(|(record, rejection)| letters.letter(record, rejection)));
        point("transact.processed");
        // Planted: the group says that the records are done before anything was sent.
        if planted("offsets-before-outputs") {
            self.reader.commit(&list).map_err(|failed| failed.fault)?;
        }
        // Planted: the offsets follow the transaction.
        let after = planted("offsets-outside-transaction").then(|| std::mem::take(&mut list));
        let ended = self.producer.transaction(records, &list, membership);
        if let (Ended::Committed, Some(list)) = (&ended, after) {
            self.reader.commit(&list).map_err(|failed| failed.fault)?;
        }
        Ok(ended)
    }

    /// After a commit whose outcome is unknown.
    fn ask(&mut self) -> Result<(), Fault> {
        let partitions: Vec<_> = self.machine.asked().iter().map(|(at, _)| at.clone()).collect();
        let found = self
            .take_over()
            .and_then(|()| patiently(&self.worker.stop, || self.reader.committed(&partitions)))
            .map(|found| found.into_iter().filter_map(|(at, c)| Some((at, c?.offset))).collect());
        let effect = self.machine.found(found);
        self.settled(effect)
    }

    /// The processor's word, and the next records, once a transaction has taken effect.
    fn settled(&mut self, effect: Effect) -> Result<(), Fault> {
        if effect != Effect::Committed {
            return Ok(());
        }
        self.processor.committed();
        if self.batch.is_empty() {
            self.worker.status.woken(self.out.len());
        } else {
            let rejected = |verdict: &&Verdict| matches!(verdict, Verdict::Reject(_));
            self.worker.status.done(&Done {
                worker: self.worker.index,
                batch: self.portion(),
                verdicts: &self.verdicts,
                outputs: self.out.len(),
                dead_letters: self.verdicts.iter().filter(rejected).count(),
                batch_time: self.tried.elapsed(),
                commit_time: self.committing,
            });
        }
        let left = if self.machine.one_by_one() { self.left() } else { 0 };
        if left == 0 {
            self.batch.clear();
        }
        self.verdicts.clear();
        self.machine.go_on(left);
        self.reader.resume()?;
        self.worker.doing(Doing::Running);
        Ok(())
    }
}

fn to_send(out: Output<'_>) -> ToSend<'_> {
    let mut headers = None;
    for (name, value) in out.headers() {
        headers = Some(with_header(headers.unwrap_or_default(), name, Some(value)));
    }
    ToSend {
        topic: out.topic(),
        partition: out.partition(),
        key: Some(out.key()),
        value: out.value(),
        timestamp_ms: out.timestamp_ms(),
        headers,
    }
}
