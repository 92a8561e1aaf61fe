use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use fhirehose_faultpoint::{planted, point};
use fhirehose_stream::{Assigned, Batch, Fault, FaultKind, OffsetsIn, Sink, TopicPartition, Verdict};
use rdkafka::consumer::CommitMode;

use crate::assignment::{continue_at, ends, has_past, starts};
use crate::backoff::Backoff;
use crate::breaker::Breaker;
use crate::dead_letter::DeadLetters;
use crate::partitions::list_with_offsets;
use crate::producer::{Ended, TransactionalProducer, send_unawaited};
use crate::reader::{Change, Limits, Reader};
use crate::status::{Doing, Done, Violation};
use crate::worker::{IDLE, KEEP_UP, LagTeller, Stage, Worker, judge_fitting, named, next_offsets, patiently};

const MAINTAIN: Duration = Duration::from_secs(60);

/// Kafka to a store: the store's own offsets, or Kafka's after writes that may be repeated.
pub(crate) struct StoreLoop<'w> {
    worker: &'w Worker,
    sink: Box<dyn Sink>,
    reader: Reader,
    /// For dead letters alone; made when there is a first one.
    producer: Option<TransactionalProducer>,
    letters: DeadLetters,
    breaker: Breaker,
    /// The offset up to which the store holds every partition that is ours.
    stored: HashMap<TopicPartition, i64>,
    /// Kafka's committed offset of every partition that is ours. Dead letters go out in one transaction with
    /// it, so rejects below it are dead-lettered already.
    marks: HashMap<TopicPartition, i64>,
    /// Partitions to be claimed before anything else: the store could not be asked, or may hold something else
    /// than is known here, or has met another owner.
    unclaimed: HashSet<TopicPartition>,
    maintained: Instant,
    hinted: Instant,
    /// How long the last commit took.
    committing: Duration,
    lag: LagTeller,
}

enum Tried {
    Done,
    /// The same records are to be tried again.
    Again(Fault),
    Tripped(String),
    /// The store says where it is: the records come again from there.
    Claim(Fault),
}

impl Stage for StoreLoop<'_> {
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
        // Of a partition that could not be claimed yet, the hint is known.
        let done = self.marks.iter().map(|(at, mark)| (at, self.stored.get(at).copied().unwrap_or(*mark)));
        self.lag.waiting(self.worker, &self.reader, done);
    }

    fn rebalance(&mut self, batch: &mut Batch) -> Result<(), Fault> {
        while let Some(change) = self.reader.take_change() {
            match change {
                Change::Assigned(partitions) => self.assigned(&partitions)?,
                Change::Revoked { partitions, lost } => {
                    point("store.revoking");
                    self.worker.revoked(&partitions, lost);
                    // Planted: what was polled of them is still staged and committed.
                    batch.retain(|at| !partitions.contains(at) || planted("revoke-without-drain"));
                    if !lost {
                        self.hint();
                    }
                    self.sink.revoked(&partitions);
                    self.reader.give_up(&partitions)?;
                    self.stored.retain(|at, _| !partitions.contains(at));
                    self.marks.retain(|at, _| !partitions.contains(at));
                    self.unclaimed.retain(|at| !partitions.contains(at));
                }
            }
        }
        Ok(())
    }
}

impl<'w> StoreLoop<'w> {
    /// Runs until asked to stop. An error means that the worker must start anew.
    pub(crate) fn run(worker: &'w Worker, sink: Box<dyn Sink>) -> Result<(), Fault> {
        let spec = &worker.spec;
        let mut this = StoreLoop {
            worker,
            sink,
            reader: Reader::join(&worker.clients, &spec.group, &spec.inputs)?,
            producer: None,
            letters: DeadLetters::new(spec.clone()),
            breaker: Breaker::new(worker.config.breaker.clone()),
            stored: HashMap::new(),
            marks: HashMap::new(),
            unclaimed: HashSet::new(),
            maintained: Instant::now(),
            hinted: Instant::now(),
            committing: Duration::ZERO,
            lag: LagTeller::new(),
        };
        let result = this.stream();
        this.sink.rollback();
        this.hint();
        result
    }

    fn stream(&mut self) -> Result<(), Fault> {
        let limits = Limits::of(&self.worker.config.runtime, IDLE);
        let mut batch = Batch::default();
        while !self.worker.stop.requested() {
            self.rebalance(&mut batch)?;
            self.claim()?;
            self.maintain();
            self.reader.fill(limits.after(self.committing), &mut batch)?;
            self.lag.flowing(self.worker, &mut self.reader);
            self.finish(&mut batch)?;
            if self.hinted.elapsed() > KEEP_UP {
                self.hint();
            }
        }
        Ok(())
    }

    /// A store that cannot be asked now does not hold the group up: the partitions are held unread until it can.
    fn assigned(&mut self, partitions: &[TopicPartition]) -> Result<(), Fault> {
        let worker = self.worker;
        if partitions.is_empty() {
            self.reader.accept(&[])?;
        } else {
            worker.doing(Doing::Restoring);
            partitions.iter().for_each(|at| worker.status.assigned(worker.index, at));
            tracing::info!(processor = worker.spec.name, partitions = %named(partitions), "partitions assigned");
            match self.take(partitions) {
                Ok(offsets) => {
                    self.reader.accept(&offsets)?;
                    self.stored.extend(offsets);
                }
                Err(fault) if fault.kind == FaultKind::Fatal => return Err(fault),
                Err(fault) => {
                    tracing::warn!(
                        processor = worker.spec.name,
                        why = fault.what,
                        "partitions wait to be claimed"
                    );
                    self.reader.hold(partitions)?;
                    self.unclaimed.extend(partitions.iter().cloned());
                }
            }
        }
        if self.unclaimed.is_empty() {
            worker.doing(Doing::Running);
        }
        Ok(())
    }

    /// Claims partitions in the store and finds where each goes on.
    fn take(&mut self, partitions: &[TopicPartition]) -> Result<Vec<(TopicPartition, i64)>, Fault> {
        let (inputs, start_from) = (&self.worker.spec.inputs, self.worker.config.runtime.start_from);
        let committed = self.reader.committed(partitions)?;
        for (at, committed) in &committed {
            self.marks.insert(at.clone(), committed.as_ref().map_or(0, |committed| committed.offset));
        }
        let claims = claims(&mut *self.sink, partitions)?;
        point("store.claimed");
        if self.sink.offsets_in() == OffsetsIn::Kafka {
            let assigned = continue_at(&self.reader, inputs, partitions, start_from)?;
            let offsets: Vec<_> =
                assigned.into_iter().map(|Assigned { at, next_offset, .. }| (at, next_offset)).collect();
            self.marks.extend(offsets.iter().cloned());
            return Ok(offsets);
        }
        let (mut offsets, mut fresh) = (Vec::new(), Vec::new());
        for ((at, committed), claimed) in committed.into_iter().zip(claims) {
            match (claimed, &committed) {
                // Planted: the hint for the lag is taken for the store's own offset.
                (Some(_), Some(known)) if planted("claim-ignored") => offsets.push((at, known.offset)),
                (Some(offset), Some(known)) if known.offset > offset => {
                    // Behind the mark, either dead letters went out before a commit failed, or all that lay
                    // between were markers of transactions, and retention has deleted those.
                    let (low, _) = ends(&self.reader, &at)?;
                    offsets.push((at.clone(), if offset < low { known.offset } else { offset }));
                }
                (Some(offset), _) => offsets.push((at.clone(), offset)),
                (None, Some(known)) if start_from.is_none() => {
                    return Err(Fault::fatal(format!(
                        "the store has no offset of {} [{}], but the group has read it up to {}: if the store \
                         was emptied, say where to begin with --start-from",
                        at.topic, at.partition, known.offset
                    )));
                }
                (None, _) => fresh.push(at.clone()),
            }
        }
        let started = starts(&self.reader, &fresh, start_from, || has_past(&self.reader, inputs))?;
        if !started.is_empty() {
            self.sink.start(&started)?;
        }
        offsets.extend(started);
        Ok(offsets)
    }

    /// Claims what is not, or not surely, ours in the store: it says where to read on.
    fn claim(&mut self) -> Result<(), Fault> {
        let (mut backoff, mut nothing) = (Backoff::default(), Batch::default());
        while !self.unclaimed.is_empty() && !self.worker.stop.requested() {
            let partitions: Vec<_> = self.unclaimed.iter().cloned().collect();
            // Out of the group, the partitions are another's: a claim would only disturb the new owner.
            let claimed = match self.reader.membership() {
                Some(_) => self.take(&partitions).and_then(|offsets| {
                    self.reader.seek(&offsets)?;
                    Ok(offsets)
                }),
                None => Err(Fault::transient("the group has put this worker out; it joins again")),
            };
            match claimed {
                Ok(offsets) => {
                    self.unclaimed.clear();
                    self.stored.extend(offsets);
                    self.reader.resume()?;
                    self.worker.doing(Doing::Running);
                }
                Err(fault) => self.wait(fault, &mut backoff, &mut nothing)?,
            }
        }
        Ok(())
    }

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
                Tried::Claim(fault) => {
                    self.unclaimed.extend(self.stored.keys().cloned());
                    batch.clear();
                    self.wait(fault, &mut backoff, batch)?;
                }
            }
        }
        Ok(())
    }

    fn attempt(&mut self, batch: &Batch) -> Result<Tried, Fault> {
        let start = Instant::now();
        let sink = &mut self.sink;
        let limit = self.worker.config.runtime.record_max_bytes;
        let verdicts = match judge_fitting(batch, limit, |fitting| sink.stage(fitting)) {
            Ok(verdicts) => verdicts,
            Err(fault) => {
                self.sink.rollback();
                return match fault.kind {
                    FaultKind::Transient => Ok(Tried::Again(fault)),
                    FaultKind::Fenced => Ok(Tried::Claim(fault)),
                    FaultKind::Fatal => Err(fault),
                };
            }
        };
        point("store.staged");
        if verdicts.len() != batch.len() {
            self.sink.rollback();
            self.worker.status.violation(Violation::VerdictCount, 1);
            return Err(Fault::fatal("the sink judged another number of records than it was given"));
        }
        if let Err(why) = self.breaker.check(&verdicts) {
            self.sink.rollback();
            return Ok(Tried::Tripped(why));
        }
        let begun = Instant::now();
        let next = next_offsets(batch);
        let written = match self.sink.offsets_in() {
            OffsetsIn::Store => self.letters_then_store(batch, &verdicts, &next),
            OffsetsIn::Kafka => self.store_then_offsets(batch, &verdicts, &next),
        };
        let dead_letters = match written {
            Ok(dead_letters) => dead_letters,
            Err(tried) => return Ok(tried),
        };
        self.stored.extend(next);
        self.committing = begun.elapsed();
        self.breaker.done();
        self.worker.status.done(&Done {
            worker: self.worker.index,
            batch,
            verdicts: &verdicts,
            outputs: verdicts.iter().map(|v| if let Verdict::Emit(n) = v { *n as usize } else { 0 }).sum(),
            dead_letters,
            batch_time: start.elapsed(),
            commit_time: self.committing,
        });
        Ok(Tried::Done)
    }

    /// The store's transaction is open until the dead letters are out: if it fails after all, the mark keeps
    /// them from going out twice.
    fn letters_then_store(
        &mut self,
        batch: &Batch,
        verdicts: &[Verdict],
        next: &[(TopicPartition, i64)],
    ) -> Result<usize, Tried> {
        let sent = self.send_letters(batch, verdicts, next).map_err(|fault| {
            self.sink.rollback();
            Tried::Again(fault)
        })?;
        self.sink.commit().map_err(Tried::Claim)?;
        point("store.committed");
        Ok(sent)
    }

    /// The store's writes may be repeated, so offsets follow them; dead letters and offsets go together.
    fn store_then_offsets(
        &mut self,
        batch: &Batch,
        verdicts: &[Verdict],
        next: &[(TopicPartition, i64)],
    ) -> Result<usize, Tried> {
        let commit_offsets = |this: &mut Self| {
            let ahead =
                |(at, offset): &&(TopicPartition, i64)| this.marks.get(at).is_none_or(|mark| mark < offset);
            let missing: Vec<_> = next.iter().filter(ahead).cloned().collect();
            if !missing.is_empty() {
                let list = list_with_offsets(missing.iter().map(|(at, offset)| (at, *offset, None)));
                list.and_then(|list| this.reader.commit(&list, CommitMode::Sync)).map_err(Tried::Again)?;
                this.marks.extend(missing);
            }
            Ok(())
        };
        // Planted: the group says that the records are done before the store has them.
        if planted("offsets-before-outputs") {
            commit_offsets(self)?;
        }
        self.sink.commit().map_err(|fault| {
            self.sink.rollback();
            if fault.kind == FaultKind::Fenced { Tried::Claim(fault) } else { Tried::Again(fault) }
        })?;
        point("store.committed");
        let sent = self.send_letters(batch, verdicts, next).map_err(Tried::Again)?;
        commit_offsets(self)?;
        point("store.offsets");
        Ok(sent)
    }

    /// Dead-letters what was not yet, and moves the mark. On an error nothing is certain but the mark, which
    /// is read anew.
    fn send_letters(
        &mut self,
        batch: &Batch,
        verdicts: &[Verdict],
        next: &[(TopicPartition, i64)],
    ) -> Result<usize, Fault> {
        let marks = &self.marks;
        let rejected = || {
            batch.iter().zip(verdicts).filter_map(|(record, verdict)| match verdict {
                Verdict::Reject(rejection)
                    // Planted: what the mark says was written is written again.
                    if planted("letter-mark-ignored")
                        || marks.get(record.at()).is_none_or(|mark| *mark <= record.offset()) =>
                {
                    Some((record, rejection))
                }
                _ => None,
            })
        };
        let count = rejected().count();
        if count == 0 {
            return Ok(0);
        }
        // Planted: the letters are on their way, what more is there to do.
        if planted("dead-letters-not-awaited") {
            rejected().for_each(|(record, _)| self.letters.prepare(record));
            let letters = &self.letters;
            let records = rejected().map(|(record, rejection)| letters.letter(record, rejection));
            send_unawaited(&self.worker.clients, records);
            return Ok(count);
        }
        if self.producer.as_ref().is_none_or(TransactionalProducer::worn) {
            self.producer = None;
            self.producer =
                Some(TransactionalProducer::take_over(&self.worker.clients, &self.worker.transactional_id)?);
        }
        let Some(producer) = &mut self.producer else { return Ok(0) };
        let Some(membership) = self.reader.membership() else {
            return Err(Fault::transient("the group has put this worker out; it joins again"));
        };
        // Never moves a mark back: partitions whose dead letters are ahead of the store keep theirs.
        let offsets: Vec<_> = next
            .iter()
            .map(|(at, offset)| (at, (*offset).max(marks.get(at).copied().unwrap_or(0)), None))
            .collect();
        let list = list_with_offsets(offsets.iter().cloned())?;
        rejected().for_each(|(record, _)| self.letters.prepare(record));
        let letters = &self.letters;
        let records = rejected().map(|(record, rejection)| letters.letter(record, rejection));
        let fault = match producer.transaction(records, &list, &membership) {
            Ended::Committed => {
                let moved: Vec<_> = offsets.iter().map(|(at, offset, _)| ((*at).clone(), *offset)).collect();
                self.marks.extend(moved);
                point("store.letters");
                return Ok(count);
            }
            Ended::Aborted(fault) | Ended::Unknown(fault) => fault,
        };
        if producer.was_too_large() {
            self.letters.shrink();
        }
        if producer.worn() {
            // A new producer ends the old one's transaction one way or the other, so that the mark is certain.
            self.producer = None;
            self.producer =
                Some(TransactionalProducer::take_over(&self.worker.clients, &self.worker.transactional_id)?);
            let partitions: Vec<_> = self.stored.keys().cloned().collect();
            for (at, committed) in patiently(&self.worker.stop, || self.reader.committed(&partitions))? {
                self.marks.insert(at, committed.map_or(0, |committed| committed.offset));
            }
        }
        Err(fault)
    }

    fn maintain(&mut self) {
        if self.maintained.elapsed() < MAINTAIN {
            return;
        }
        self.maintained = Instant::now();
        if let Err(fault) = self.sink.maintain() {
            tracing::warn!(
                processor = self.worker.spec.name,
                why = fault.what,
                "housekeeping failed; it is tried again"
            );
        }
    }

    /// Tells Kafka how far the store is, past markers of transactions where nothing else came: for whoever
    /// watches the group's lag, and for the day retention has deleted what was read. Waits for no answer, and
    /// never moves a mark back.
    fn hint(&mut self) {
        self.hinted = Instant::now();
        if self.reader.membership().is_none() || !self.unclaimed.is_empty() {
            return;
        }
        let read: HashMap<_, _> = self.reader.read_through().into_iter().collect();
        let through = |(at, stored): (&TopicPartition, &i64)| {
            // The store has all that was polled: what lies between are no records.
            let polled = self.reader.positions().any(|(of, next)| of == at && next == *stored);
            let offset = read.get(at).copied().filter(|_| polled).unwrap_or(*stored);
            (at.clone(), offset)
        };
        let ahead: Vec<_> = self
            .stored
            .iter()
            .map(through)
            .filter(|(at, offset)| self.marks.get(at).is_none_or(|mark| mark < offset))
            .collect();
        if ahead.is_empty() {
            return;
        }
        let list = list_with_offsets(ahead.iter().map(|(at, offset)| (at, *offset, None)));
        match list.and_then(|list| self.reader.commit(&list, CommitMode::Async)) {
            Ok(()) => self.marks.extend(ahead),
            Err(fault) => tracing::debug!(why = fault.what, "the lag hint was not committed"),
        }
    }
}

fn claims(sink: &mut dyn Sink, partitions: &[TopicPartition]) -> Result<Vec<Option<i64>>, Fault> {
    let claims = sink.claim(partitions)?;
    if claims.len() != partitions.len() {
        return Err(Fault::fatal("the sink claimed another number of partitions than it was given"));
    }
    Ok(claims)
}
