use std::sync::PoisonError;
use std::time::{Duration, Instant};

use fhirehose_decide::store::{Origin, Step, Store, origin};
use fhirehose_decide::{Ended, Offsets};
use fhirehose_faultpoint::{planted, point};
use fhirehose_stream::{
    Assigned, Batch, Fault, FaultKind, OffsetsIn, Record, Rejection, Sink, TopicPartition, Verdict,
};

use crate::assignment::{continue_at, ends, has_past, starts};
use crate::dead_letter::DeadLetters;
use crate::partitions::list_with_offsets;
use crate::producer::{TransactionalProducer, send_unawaited};
use crate::reader::{Change, Committed, Limits, NotCommitted, Reader};
use crate::status::{Doing, Done, Violation};
use crate::worker::{IDLE, KEEP_UP, LagTeller, Stage, Worker, judge_fitting, named, next_offsets, patiently};

const MAINTAIN: Duration = Duration::from_secs(60);

/// Kafka to a store: the store's own offsets, or Kafka's after writes that may be repeated. Does what [`Store`]
/// decides.
pub(crate) struct StoreLoop<'w> {
    worker: &'w Worker,
    machine: Store,
    sink: Box<dyn Sink>,
    reader: Reader,
    /// For dead letters alone; made when there is a first one.
    producer: Option<TransactionalProducer>,
    letters: DeadLetters,
    batch: Batch,
    verdicts: Vec<Verdict>,
    dead_letters: usize,
    tried: Instant,
    staged: Instant,
    maintained: Instant,
    hinted: Instant,
    /// How long the last commit took.
    committing: Duration,
    lag: LagTeller,
}

impl Stage for StoreLoop<'_> {
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
        self.lag.waiting(self.worker, &self.reader, self.machine.done());
    }

    fn rebalance(&mut self) -> Result<(), Fault> {
        while let Some(change) = self.reader.take_change() {
            match change {
                Change::Assigned(partitions) => self.assigned(&partitions)?,
                Change::Revoked { partitions, lost } => {
                    point("store.revoking");
                    self.worker.revoked(&partitions, lost);
                    self.batch.retain(|at| !partitions.contains(at));
                    if !lost {
                        self.hint();
                    }
                    self.sink.revoked(&partitions);
                    self.reader.give_up(&partitions)?;
                    self.machine.revoked(&partitions);
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
        *worker.interrupter.lock().unwrap_or_else(PoisonError::into_inner) = sink.interrupter();
        let mut this = StoreLoop {
            worker,
            machine: Store::new(worker.config.breaker.limits(), sink.offsets_in()),
            sink,
            reader: Reader::join(&worker.clients, &spec.group, &spec.inputs)?,
            producer: None,
            letters: DeadLetters::new(spec.clone()),
            batch: Batch::default(),
            verdicts: Vec::new(),
            dead_letters: 0,
            tried: Instant::now(),
            staged: Instant::now(),
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
        let stop = &self.worker.stop;
        while !(stop.requested() && self.machine.at_rest()) {
            match self.machine.step().clone() {
                Step::Claim => self.claim(),
                Step::Read => self.read()?,
                Step::Stage => self.stage()?,
                Step::TakeOver => {
                    let taken = self.take_over();
                    self.machine.taken_over(taken);
                }
                Step::Letters => self.send_letters()?,
                Step::Ask => self.ask(),
                Step::CommitStore => self.commit_store()?,
                Step::CommitOffsets => {
                    let committed = self.commit_offsets();
                    self.machine.offsets_committed(committed);
                    point("store.offsets");
                }
                Step::Done => self.done()?,
                Step::Wait(why) => {
                    self.sink.rollback();
                    let time = self.machine.wait_time(rand::random());
                    self.wait(why, time, &self.machine.backoff().clone())?;
                    let left = self.left();
                    self.machine.go_on(left);
                }
                Step::Stand(why) => {
                    self.sink.rollback();
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
                    self.machine.assigned(&offsets);
                }
                Err(fault) if fault.kind == FaultKind::Fatal => return Err(fault),
                Err(fault) => {
                    tracing::warn!(
                        processor = worker.spec.name,
                        why = fault.what,
                        "partitions wait to be claimed"
                    );
                    self.reader.hold(partitions)?;
                    self.machine.held(partitions);
                }
            }
        }
        if self.machine.unclaimed().is_empty() {
            worker.doing(Doing::Running);
        }
        Ok(())
    }

    /// Claims partitions in the store and finds where each goes on.
    fn take(&mut self, partitions: &[TopicPartition]) -> Result<Offsets, Fault> {
        let (inputs, start_from) = (&self.worker.spec.inputs, self.worker.config.runtime.start_from);
        let committed = self.reader.committed(partitions)?;
        let mark = |(at, committed): &(TopicPartition, Option<_>)| (at.clone(), offset_of(committed));
        self.machine.marked(committed.iter().map(mark).map(|(at, mark)| (at, mark.unwrap_or(0))));
        if self.sink.offsets_in() == OffsetsIn::Store && !partitions.is_empty() {
            self.sink.identify(self.reader.topic_ids(partitions)?);
        }
        let claims = claims(&mut *self.sink, partitions)?;
        point("store.claimed");
        if self.sink.offsets_in() == OffsetsIn::Kafka {
            let assigned = continue_at(&self.reader, inputs, partitions, start_from, &self.worker.stop);
            let assigned = assigned.map_err(|failed| self.not_committed(failed))?;
            let offsets: Offsets =
                assigned.into_iter().map(|Assigned { at, next_offset, .. }| (at, next_offset)).collect();
            self.machine.marked(offsets.iter().cloned());
            return Ok(offsets);
        }
        let (mut offsets, mut fresh) = (Vec::new(), Vec::new());
        for ((at, committed), mut claimed) in committed.into_iter().zip(claims) {
            let mark = offset_of(&committed);
            // Planted: the hint for the lag is taken for the store's own offset.
            if planted("claim-ignored") {
                claimed = claimed.and(mark);
            }
            match origin(claimed, mark, start_from.is_some()) {
                Origin::At(offset) => offsets.push((at, offset)),
                Origin::Behind { stored, mark } => {
                    let (low, _) = ends(&self.reader, &at)?;
                    if stored < low {
                        tracing::warn!(
                            processor = self.worker.spec.name,
                            topic = &*at.topic,
                            partition = at.partition,
                            stored,
                            first = low,
                            "kafka no longer holds the store's next offset: reading goes on at the first one there \
                             is; if the store was restored from a backup, what was between is missing in it"
                        );
                    }
                    offsets.push((at, origin_of_kept(stored, mark, low)));
                }
                Origin::Fresh => fresh.push(at),
                Origin::Emptied(mark) => {
                    return Err(Fault::fatal(format!(
                        "the store has no offset of {} [{}], but the group has read it up to {mark}: if the store \
                         was emptied, say where to begin with --start-from",
                        at.topic, at.partition
                    )));
                }
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
    fn claim(&mut self) {
        self.batch.clear();
        let partitions: Vec<_> = self.machine.unclaimed().iter().cloned().collect();
        // Out of the group, the partitions are another's: a claim would only disturb the new owner.
        let claimed = match self.reader.membership() {
            Some(_) => self.take(&partitions).and_then(|offsets| {
                self.reader.seek(&offsets)?;
                self.reader.resume()?;
                Ok(offsets)
            }),
            None => Err(put_out()),
        };
        match claimed {
            Ok(offsets) => {
                self.machine.claimed(&offsets);
                self.worker.doing(Doing::Running);
            }
            Err(fault) => self.machine.failed(fault),
        }
    }

    fn read(&mut self) -> Result<(), Fault> {
        self.rebalance()?;
        self.maintain();
        if !self.machine.unclaimed().is_empty() {
            self.machine.go_on(0);
            return Ok(());
        }
        let limits = Limits::of(&self.worker.config.runtime, IDLE);
        self.reader.fill(limits.after(self.committing), &mut self.batch)?;
        self.lag.flowing(self.worker, &mut self.reader);
        if !self.batch.is_empty() {
            self.machine.begin();
        }
        if self.hinted.elapsed() > KEEP_UP {
            self.hint();
        }
        Ok(())
    }

    fn left(&self) -> usize {
        self.batch.iter().filter(|record| self.machine.open(record.at(), record.offset())).count()
    }

    fn stage(&mut self) -> Result<(), Fault> {
        self.tried = Instant::now();
        let limit = self.worker.config.runtime.record_max_bytes;
        match judge_fitting(&self.batch, limit, |fitting| self.sink.stage(fitting)) {
            Ok(verdicts) => self.verdicts = verdicts,
            Err(fault) => {
                self.machine.failed(fault);
                return Ok(());
            }
        }
        point("store.staged");
        if self.verdicts.len() != self.batch.len() {
            self.worker.status.violation(Violation::VerdictCount, 1);
            return Err(Fault::fatal("the sink judged another number of records than it was given"));
        }
        self.staged = Instant::now();
        self.dead_letters = 0;
        let letters_due = self.due().next().is_some();
        self.machine.staged(next_offsets(&self.batch), &self.verdicts, letters_due);
        Ok(())
    }

    /// Rejects of the batch that are not dead-lettered yet.
    fn due(&self) -> impl Iterator<Item = (Record<'_>, &Rejection)> {
        self.batch.iter().zip(&self.verdicts).filter_map(|(record, verdict)| match verdict {
            Verdict::Reject(rejection)
                // Planted: what the mark says was written is written again.
                if planted("letter-mark-ignored")
                    || self.machine.needs_letter(record.at(), record.offset()) =>
            {
                Some((record, rejection))
            }
            _ => None,
        })
    }

    fn take_over(&mut self) -> Result<(), Fault> {
        self.producer = None;
        let (clients, id) = (&self.worker.clients, &self.worker.transactional_id);
        self.producer = Some(TransactionalProducer::take_over(clients, id)?);
        Ok(())
    }

    /// Dead-letters what was not yet, and moves the marks.
    fn send_letters(&mut self) -> Result<(), Fault> {
        self.batch.iter().for_each(|record| self.letters.prepare(record));
        let offsets = self.machine.letter_offsets();
        let list = list_with_offsets(offsets.iter().map(|(at, offset)| (at, *offset, None)))?;
        let Some(mut producer) = self.producer.take() else {
            return Err(Fault::fatal("there is no producer for dead letters"));
        };
        let ended = {
            let records = self.due().map(|(record, rejection)| self.letters.letter(record, rejection));
            match self.reader.membership() {
                // Planted: the letters are on their way, what more is there to do.
                Some(_) if planted("dead-letters-not-awaited") => {
                    send_unawaited(&self.worker.clients, records);
                    self.reader.commit(&list).map_err(|failed| failed.fault)?;
                    Ended::Committed
                }
                Some(membership) => producer.transaction(records, &list, membership),
                None => Ended::Aborted(put_out()),
            }
        };
        if ended == Ended::Committed {
            self.dead_letters = self.due().count();
            point("store.letters");
        } else if producer.was_too_large() {
            self.letters.shrink();
        }
        self.machine.letters_ended(ended, producer.worn());
        self.producer = Some(producer);
        Ok(())
    }

    /// After letters whose fate is unknown.
    fn ask(&mut self) {
        let partitions = self.machine.ours();
        let found = self
            .take_over()
            .and_then(|()| patiently(&self.worker.stop, || self.reader.committed(&partitions)))
            .map(|found| found.into_iter().map(|(at, c)| (at, offset_of(&c).unwrap_or(0))).collect());
        self.machine.marks_found(found);
    }

    fn commit_store(&mut self) -> Result<(), Fault> {
        // Planted: the group says that the records are done before the store has them.
        if planted("offsets-before-outputs") && self.sink.offsets_in() == OffsetsIn::Kafka {
            self.commit_offsets()?;
        }
        let committed = self.sink.commit();
        if committed.is_ok() {
            point("store.committed");
        }
        self.machine.stored(committed);
        Ok(())
    }

    fn commit_offsets(&mut self) -> Result<(), Fault> {
        let missing = self.machine.missing();
        let list = list_with_offsets(missing.iter().map(|(at, offset)| (at, *offset, None)))?;
        self.reader.commit(&list).map_err(|failed| self.not_committed(failed))
    }

    fn not_committed(&mut self, failed: NotCommitted) -> Fault {
        if !failed.answered {
            self.machine.unanswered();
        }
        failed.fault
    }

    fn done(&mut self) -> Result<(), Fault> {
        self.committing = self.staged.elapsed();
        let outputs = self.verdicts.iter().map(|v| if let Verdict::Emit(n) = v { *n as usize } else { 0 });
        self.worker.status.done(&Done {
            worker: self.worker.index,
            batch: &self.batch,
            verdicts: &self.verdicts,
            outputs: outputs.sum(),
            dead_letters: self.dead_letters,
            batch_time: self.tried.elapsed(),
            commit_time: self.committing,
        });
        self.batch.clear();
        self.machine.go_on(0);
        self.reader.resume()?;
        self.worker.doing(Doing::Running);
        Ok(())
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

    /// Tells Kafka how far the store is. Waits for the answer: the client tells none of commits that nobody
    /// waits for, and no letter may go out before it is known.
    fn hint(&mut self) {
        self.hinted = Instant::now();
        if self.reader.membership().is_none() {
            return;
        }
        let positions = self.reader.positions();
        let hints = self.machine.hints(&self.reader.read_through(), |at| positions.next(at));
        if hints.is_empty() {
            return;
        }
        let list = list_with_offsets(hints.iter().map(|(at, offset)| (at, *offset, None)));
        let Ok(list) = list else { return };
        self.machine.hinted(hints);
        let taken = match self.reader.commit(&list) {
            Ok(()) => Some(true),
            Err(failed) => {
                tracing::debug!(why = failed.fault.what, "the lag hint was not committed");
                failed.answered.then_some(false)
            }
        };
        self.machine.hint_answered(taken);
    }
}

fn put_out() -> Fault {
    Fault::transient("the group has put this worker out; it joins again")
}

fn offset_of(committed: &Option<Committed>) -> Option<i64> {
    committed.as_ref().map(|committed| committed.offset)
}

/// Where a store behind the group's mark goes on, given the first offset there is. What retention has deleted up
/// to the mark was stored, or were markers of transactions, or the store was restored from an older backup:
/// whatever is kept is read. Deleted beyond the mark nobody has read it: left at the mark, the reader refuses.
fn origin_of_kept(stored: i64, mark: i64, low: i64) -> i64 {
    stored.max(low.min(mark))
}

fn claims(sink: &mut dyn Sink, partitions: &[TopicPartition]) -> Result<Vec<Option<i64>>, Fault> {
    let claims = sink.claim(partitions)?;
    if claims.len() != partitions.len() {
        return Err(Fault::fatal("the sink claimed another number of partitions than it was given"));
    }
    Ok(claims)
}
