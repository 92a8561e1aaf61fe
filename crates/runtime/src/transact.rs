use std::collections::HashMap;
use std::time::{Duration, Instant};

use fhirehose_faultpoint::{planted, point};
use fhirehose_stream::{
    Batch, Fault, FaultKind, Output, Outputs, Processor, Reason, Rejection, TopicPartition, Verdict,
};
use rdkafka::consumer::CommitMode;

use crate::assignment::continue_at;
use crate::backoff::Backoff;
use crate::breaker::Breaker;
use crate::dead_letter::DeadLetters;
use crate::partitions::list_with_offsets;
use crate::producer::{Ended, ToSend, TransactionalProducer, send_unawaited, with_header};
use crate::reader::{Change, Limits, Reader};
use crate::replay::Replay;
use crate::status::{Doing, Done, Violation};
use crate::tables::Tables;
use crate::worker::{IDLE, KEEP_UP, LagTeller, Stage, Worker, judge_fitting, named, next_offsets, patiently};

/// Kafka to Kafka: outputs, dead letters, changelog and offsets in one transaction per batch.
pub(crate) struct TransactLoop<'w> {
    worker: &'w Worker,
    processor: Box<dyn Processor>,
    reader: Reader,
    producer: TransactionalProducer,
    tables: Option<Tables>,
    changelog: Option<Replay>,
    letters: DeadLetters,
    breaker: Breaker,
    /// The group's offset of every partition that is ours.
    committed: HashMap<TopicPartition, i64>,
    /// Partitions revoked since a batch was last taken apart.
    gone: Vec<TopicPartition>,
    out: Outputs,
    kept_up: Instant,
    /// How long the last commit took.
    committing: Duration,
    lag: LagTeller,
}

/// How one try ended.
enum Tried {
    Done,
    /// Nothing took effect; the same records are to be tried again.
    Again(Fault),
    /// Nothing took effect; the breaker tripped.
    Tripped(String),
    /// Nothing took effect; records must be tried one at a time to find the one whose output is too large.
    OneByOne,
}

impl Stage for TransactLoop<'_> {
    fn worker(&self) -> &Worker {
        self.worker
    }

    fn reader(&mut self) -> &mut Reader {
        &mut self.reader
    }

    fn breaker(&mut self) -> &mut Breaker {
        &mut self.breaker
    }

    fn tell_lag(&mut self) {
        self.lag.waiting(self.worker, &self.reader, self.committed.iter().map(|(at, offset)| (at, *offset)));
    }

    fn rebalance(&mut self, batch: &mut Batch) -> Result<(), Fault> {
        while let Some(change) = self.reader.take_change() {
            match change {
                Change::Assigned(partitions) => self.assigned(&partitions)?,
                Change::Revoked { partitions, lost } => {
                    point("transact.revoking");
                    self.worker.revoked(&partitions, lost);
                    // Planted: what was polled of them is still processed and committed.
                    batch.retain(|at| !partitions.contains(at) || planted("revoke-without-drain"));
                    self.processor.revoked(&partitions);
                    self.reader.give_up(&partitions)?;
                    self.committed.retain(|at, _| !partitions.contains(at));
                    self.gone.extend(partitions);
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
            processor,
            reader: Reader::join(clients, &spec.group, &spec.inputs)?,
            producer,
            tables,
            changelog,
            letters: DeadLetters::new(spec.clone()),
            breaker: Breaker::new(worker.config.breaker.clone()),
            committed: HashMap::new(),
            gone: Vec::new(),
            out: Outputs::default(),
            kept_up: Instant::now(),
            committing: Duration::ZERO,
            lag: LagTeller::new(),
        };
        this.stream()
    }

    fn stream(&mut self) -> Result<(), Fault> {
        let limits = Limits::of(&self.worker.config.runtime, IDLE);
        let mut batch = Batch::default();
        while !self.worker.stop.requested() {
            self.rebalance(&mut batch)?;
            if let Some(tables) = &mut self.tables {
                tables.follow(&mut *self.processor)?;
            }
            self.wake()?;
            self.reader.fill(limits.after(self.committing), &mut batch)?;
            self.lag.flowing(self.worker, &mut self.reader);
            if !batch.is_empty() {
                self.finish(&mut batch)?;
            } else if self.kept_up.elapsed() > KEEP_UP {
                self.keep_up()?;
            }
        }
        if let Some(tables) = &mut self.tables {
            tables.checkpoint(&mut *self.processor);
        }
        Ok(())
    }

    fn assigned(&mut self, partitions: &[TopicPartition]) -> Result<(), Fault> {
        let (worker, spec) = (self.worker, &self.worker.spec);
        let start_from = worker.config.runtime.start_from;
        let mut assigned = Vec::new();
        if !partitions.is_empty() {
            worker.doing(Doing::Restoring);
            assigned =
                patiently(&worker.stop, || continue_at(&self.reader, &spec.inputs, partitions, start_from))?;
            self.restore(partitions)?;
            self.processor.assigned(&assigned)?;
            tracing::info!(processor = spec.name, partitions = %named(partitions), "partitions assigned");
        }
        let offsets: Vec<_> = assigned.iter().map(|a| (a.at.clone(), a.next_offset)).collect();
        self.reader.accept(&offsets)?;
        for (at, _) in &offsets {
            worker.status.assigned(worker.index, at);
        }
        self.committed.extend(offsets);
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

    /// Lets out what a table's change has made due.
    fn wake(&mut self) -> Result<(), Fault> {
        let mut nothing = Batch::default();
        let mut backoff = Backoff::default();
        while !self.committed.is_empty() && !self.worker.stop.requested() && !self.reader.changed() {
            let start = Instant::now();
            self.out.clear();
            let more = match self.processor.wake(&mut self.out) {
                Ok(more) => more,
                Err(fault) => {
                    self.processor.aborted();
                    self.wait(fault, &mut backoff, &mut nothing)?;
                    continue;
                }
            };
            if self.out.is_empty() {
                self.processor.committed();
                return Ok(());
            }
            if let Some(topic) = self.too_large() {
                return Err(Fault::fatal(format!("a record for {topic} is above runtime.record_max_bytes")));
            }
            let offsets: Vec<_> = self.committed.iter().map(|(at, offset)| (at.clone(), *offset)).collect();
            match self.commit(&nothing, &[], &offsets, start)? {
                Tried::Done => {
                    self.worker.doing(Doing::Running);
                    if !more {
                        return Ok(());
                    }
                }
                Tried::Again(fault) => self.wait(fault, &mut backoff, &mut nothing)?,
                Tried::Tripped(_) | Tried::OneByOne => return Ok(()),
            }
        }
        Ok(())
    }

    /// Commits how far quiet partitions were read, past transaction markers: else retention would seem to have
    /// deleted records unread.
    fn keep_up(&mut self) -> Result<(), Fault> {
        self.kept_up = Instant::now();
        let read = self.reader.read_through();
        let ahead: Vec<_> =
            read.into_iter().filter(|(at, next)| self.committed.get(at).is_some_and(|c| c < next)).collect();
        if ahead.is_empty() {
            return Ok(());
        }
        let nothing = Batch::default();
        self.out.clear();
        self.processor.process(&nothing, &mut self.out)?;
        // One that fails is tried at the next time.
        self.commit(&nothing, &[], &ahead, Instant::now()).map(drop)
    }

    /// Brings a batch to its end, however often it must be tried. Records of partitions that are revoked in
    /// the meantime are left to their next owner.
    fn finish(&mut self, batch: &mut Batch) -> Result<(), Fault> {
        let mut backoff = Backoff::default();
        while !batch.is_empty() && !self.worker.stop.requested() {
            match self.attempt(batch)? {
                Tried::Done => {
                    batch.clear();
                    self.reader.resume()?;
                    self.worker.doing(Doing::Running);
                }
                Tried::Again(fault) => self.wait(fault, &mut backoff, batch)?,
                Tried::Tripped(why) => self.tripped(why, batch)?,
                Tried::OneByOne => {
                    let mut one = Batch::default();
                    self.gone.clear();
                    for record in batch.iter() {
                        // Revoked while a record before it was tried: another's now, or polled anew.
                        if !self.gone.contains(record.at()) {
                            one.clear();
                            one.push_record(&record);
                            self.finish(&mut one)?;
                        }
                    }
                    batch.clear();
                }
            }
        }
        Ok(())
    }

    fn attempt(&mut self, batch: &Batch) -> Result<Tried, Fault> {
        let start = Instant::now();
        self.out.clear();
        let mut verdicts = match self.judge(batch) {
            Ok(verdicts) => verdicts,
            Err(fault) => {
                self.processor.aborted();
                return if fault.kind == FaultKind::Transient { Ok(Tried::Again(fault)) } else { Err(fault) };
            }
        };
        if verdicts.len() != batch.len() {
            self.processor.aborted();
            self.worker.status.violation(Violation::VerdictCount, 1);
            return Err(Fault::fatal("the processor judged another number of records than it was given"));
        }
        if let Some(topic) = self.too_large() {
            self.processor.aborted();
            if batch.len() > 1 {
                return Ok(Tried::OneByOne);
            }
            self.out.clear();
            // Nothing is processed, so that the commit of the reject has its own beginning and end.
            self.processor.process(&Batch::default(), &mut self.out)?;
            verdicts = vec![Rejection::new(Reason::TooLarge, format!("output for {topic}")).into()];
        }
        if let Err(why) = self.breaker.check(&verdicts) {
            self.processor.aborted();
            return Ok(Tried::Tripped(why));
        }
        self.commit(batch, &verdicts, &next_offsets(batch), start)
    }

    /// One verdict per record; records that are too large never reach the processor.
    fn judge(&mut self, batch: &Batch) -> Result<Vec<Verdict>, Fault> {
        let (processor, out) = (&mut self.processor, &mut self.out);
        judge_fitting(batch, self.worker.config.runtime.record_max_bytes, |fitting| {
            processor.process(fitting, out)
        })
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

    /// The transaction, and the processor's word about it.
    fn commit(
        &mut self,
        batch: &Batch,
        verdicts: &[Verdict],
        offsets: &[(TopicPartition, i64)],
        start: Instant,
    ) -> Result<Tried, Fault> {
        let tried = self.transaction(batch, verdicts, offsets, start);
        match &tried {
            Ok(Tried::Done) => {
                self.processor.committed();
                if !batch.is_empty() {
                    self.breaker.done();
                }
            }
            _ => self.processor.aborted(),
        }
        tried
    }

    fn transaction(
        &mut self,
        batch: &Batch,
        verdicts: &[Verdict],
        offsets: &[(TopicPartition, i64)],
        start: Instant,
    ) -> Result<Tried, Fault> {
        if self.producer.worn() {
            match TransactionalProducer::take_over(&self.worker.clients, &self.worker.transactional_id) {
                Ok(producer) => self.producer = producer,
                Err(fault) if fault.kind == FaultKind::Transient => return Ok(Tried::Again(fault)),
                Err(fault) => return Err(fault),
            }
        }
        let Some(membership) = self.reader.membership() else {
            return Ok(Tried::Again(Fault::transient("the group has put this worker out; it joins again")));
        };
        let processor = &self.processor;
        let mut list = list_with_offsets(
            offsets.iter().map(|(at, offset)| (at, *offset, processor.offset_metadata(at))),
        )?;
        let rejected = || {
            batch.iter().zip(verdicts).filter_map(|(record, verdict)| match verdict {
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
        let begun = Instant::now();
        point("transact.processed");
        // Planted: the group says that the records are done before anything was sent.
        if planted("offsets-before-outputs") {
            self.reader.commit(&list, CommitMode::Sync)?;
        }
        // Planted: the offsets follow the transaction.
        let after = planted("offsets-outside-transaction").then(|| std::mem::take(&mut list));
        let ended = match self.producer.transaction(records, &list, &membership) {
            Ended::Unknown(fault) => self.find_out(fault, offsets)?,
            ended => ended,
        };
        match ended {
            Ended::Committed => after.map_or(Ok(()), |list| self.reader.commit(&list, CommitMode::Sync))?,
            Ended::Aborted(fault) | Ended::Unknown(fault) => {
                if self.producer.was_too_large() {
                    self.letters.shrink();
                }
                return Ok(Tried::Again(fault));
            }
        }
        for (at, offset) in offsets {
            self.committed.insert(at.clone(), *offset);
        }
        self.committing = begun.elapsed();
        let status = &self.worker.status;
        if batch.is_empty() {
            status.woken(self.out.len());
            return Ok(Tried::Done);
        }
        status.done(&Done {
            worker: self.worker.index,
            batch,
            verdicts,
            outputs: self.out.len(),
            dead_letters: rejected().count(),
            batch_time: start.elapsed(),
            commit_time: self.committing,
        });
        Ok(Tried::Done)
    }

    /// After a commit whose outcome is unknown: a new producer fences the old one off, so that the transaction
    /// has ended one way or the other; the committed offsets then tell which.
    fn find_out(&mut self, fault: Fault, offsets: &[(TopicPartition, i64)]) -> Result<Ended, Fault> {
        self.worker.status.unknown_commit();
        tracing::warn!(
            processor = self.worker.spec.name,
            why = fault.what,
            "the outcome of a commit is unknown: asking kafka"
        );
        self.producer =
            TransactionalProducer::take_over(&self.worker.clients, &self.worker.transactional_id)?;
        // Planted: the outcome is guessed.
        if planted("unknown-commit-is-committed") {
            return Ok(Ended::Committed);
        }
        if planted("unknown-commit-is-aborted") {
            return Ok(Ended::Aborted(fault));
        }
        let partitions: Vec<_> = offsets.iter().map(|(at, _)| at.clone()).collect();
        let found = patiently(&self.worker.stop, || self.reader.committed(&partitions))?;
        let all = |wanted: &dyn Fn(&TopicPartition) -> Option<i64>| {
            found.iter().all(|(at, committed)| committed.as_ref().map(|c| c.offset) == wanted(at))
        };
        let after: HashMap<_, _> = offsets.iter().cloned().collect();
        if offsets.iter().all(|(at, offset)| self.committed.get(at) == Some(offset)) {
            // Offsets that did not move, as when waking: they cannot tell.
            return Err(Fault::transient("the outcome of a transaction cannot be told from its offsets"));
        }
        if all(&|at| after.get(at).copied()) {
            return Ok(Ended::Committed);
        }
        if all(&|at| self.committed.get(at).copied()) {
            return Ok(Ended::Aborted(fault));
        }
        Err(Fault::transient("partitions have moved to another worker while a commit was under way"))
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
