use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fhirehose_decide::Backoff;
use fhirehose_faultpoint::planted;
use fhirehose_stream::{
    Batch, Fault, FaultKind, Interrupter, Reason, Record, Rejection, TopicPartition, Verdict, Verdicts,
};
use rdkafka::consumer::Consumer;

use crate::clients::Clients;
use crate::config::Config;
use crate::reader::Reader;
use crate::spec::Spec;
use crate::status::{Doing, ProcessorStatus, Violation};
use crate::stop::Stop;

/// How long a worker looks for records before it looks at everything else.
pub(crate) const IDLE: Duration = Duration::from_millis(50);

/// How often offsets of quiet partitions are brought up to where they were read.
pub(crate) const KEEP_UP: Duration = Duration::from_secs(5);

/// One worker of one processor: what both loops need around them.
pub(crate) struct Worker {
    pub index: usize,
    pub spec: Spec,
    pub config: Arc<Config>,
    pub clients: Clients,
    pub status: Arc<ProcessorStatus>,
    pub stop: Stop,
    pub transactional_id: String,
    /// Of the worker's store.
    pub interrupter: Arc<Mutex<Option<Interrupter>>>,
}

impl Worker {
    pub(crate) fn doing(&self, doing: Doing) {
        self.status.doing(self.index, doing);
    }

    pub(crate) fn revoked(&self, partitions: &[TopicPartition], lost: bool) {
        tracing::info!(processor = self.spec.name, partitions = %named(partitions), lost, "partitions revoked");
        self.status.revoked(self.index, partitions);
    }
}

/// What both loops do while a batch waits.
pub(crate) trait Stage {
    fn worker(&self) -> &Worker;
    fn reader(&mut self) -> &mut Reader;
    /// The records polled and not yet done.
    fn in_hand(&mut self) -> &mut Batch;
    fn tell_lag(&mut self);

    /// Settles what the group has decided. Nothing is in flight when it is called; records of revoked
    /// partitions leave what is in hand.
    fn rebalance(&mut self) -> Result<(), Fault>;

    /// Serves the group for a while, after one more of the failures that `backoff` has counted.
    fn wait(&mut self, why: Fault, time: Duration, backoff: &Backoff) -> Result<(), Fault> {
        if backoff.worth_telling() {
            tracing::warn!(
                processor = self.worker().spec.name,
                why = why.what,
                failures = backoff.failures(),
                "nothing took effect; it is tried again"
            );
        }
        if backoff.failures() > 1 {
            self.worker().doing(Doing::Waiting(why.what));
        }
        let until = Instant::now() + time;
        while !self.worker().stop.requested() {
            let left = until.saturating_duration_since(Instant::now());
            self.reader().keep_alive(left.min(Duration::from_millis(200)))?;
            self.rebalance()?;
            if left.is_zero() {
                break;
            }
        }
        self.tell_lag();
        // Planted: the batch is taken for done, and the next one's offsets pass it over.
        if planted("aborted-batch-dropped") {
            self.in_hand().clear();
        }
        if self.in_hand().is_empty() {
            self.reader().resume()?;
        }
        Ok(())
    }

    /// Stands still until an operator says to go on.
    fn stand(&mut self, why: &str) -> Result<(), Fault> {
        tracing::error!(
            processor = self.worker().spec.name,
            why,
            "the breaker tripped: nothing more is read; look at the reasons, then restart or POST /admin/resume"
        );
        let before = self.worker().status.resumed();
        while self.worker().status.resumed() == before && !self.worker().stop.requested() {
            self.worker().doing(Doing::Tripped(why.to_owned()));
            self.reader().keep_alive(Duration::from_millis(200))?;
            self.rebalance()?;
            self.tell_lag();
        }
        self.worker().doing(Doing::Running);
        self.reader().resume()
    }
}

/// One verdict per record; records above `limit` bytes are rejected and never reach `judge`.
pub(crate) fn judge_fitting(
    batch: &Batch,
    limit: usize,
    judge: impl FnOnce(&Batch) -> Result<Verdicts, Fault>,
) -> Result<Vec<Verdict>, Fault> {
    let above = |record: Record<'_>| {
        record.key().map_or(0, <[u8]>::len) + record.value().map_or(0, <[u8]>::len) > limit
    };
    if !batch.iter().any(above) {
        return Ok(judge(batch)?.as_slice().to_vec());
    }
    let mut fitting = Batch::default();
    batch.iter().filter(|record| !above(*record)).for_each(|record| fitting.push_record(&record));
    let judged = judge(&fitting)?;
    let mut judged = judged.as_slice().iter().cloned();
    let mut verdicts = Vec::with_capacity(batch.len());
    for record in batch.iter() {
        match above(record) {
            true => verdicts.push(Rejection::new(Reason::TooLarge, "record").into()),
            false => verdicts.extend(judged.next()),
        }
    }
    // A wrong count stays wrong, for the caller to see.
    verdicts.extend(judged);
    Ok(verdicts)
}

/// The last record of every partition in the batch.
pub(crate) fn last_of_each(batch: &Batch) -> Vec<Record<'_>> {
    let mut last: Vec<Record<'_>> = Vec::new();
    let mut current = 0;
    for record in batch.iter() {
        // Records come in runs of one partition.
        if last.get(current).is_none_or(|seen| seen.at() != record.at()) {
            current = last.iter().position(|seen| seen.at() == record.at()).unwrap_or(last.len());
        }
        match last.get_mut(current) {
            Some(seen) => *seen = record,
            None => last.push(record),
        }
    }
    last
}

/// The offset after the last record, of every partition in the batch.
pub(crate) fn next_offsets(batch: &Batch) -> Vec<(TopicPartition, i64)> {
    last_of_each(batch).into_iter().map(|last| (last.at().clone(), last.offset() + 1)).collect()
}

/// `fhir.encounter [0-5], fhir.patient [0, 3]`.
pub(crate) fn named(partitions: &[TopicPartition]) -> String {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for at in partitions {
        topics.entry(&at.topic).or_default().push(at.partition);
    }
    let topic = |(name, mut numbers): (&str, Vec<i32>)| {
        numbers.sort_unstable();
        let runs = numbers.chunk_by(|one, next| one + 1 == *next).map(|run| match run {
            [first, .., last] => format!("{first}-{last}"),
            one => one.iter().map(ToString::to_string).collect(),
        });
        format!("{name} [{}]", runs.collect::<Vec<_>>().join(", "))
    };
    topics.into_iter().map(topic).collect::<Vec<_>>().join(", ")
}

/// Tells how far partitions are behind, about once a second.
pub(crate) struct LagTeller {
    last: Instant,
}

impl LagTeller {
    pub(crate) fn new() -> Self {
        LagTeller { last: Instant::now() }
    }

    /// While records flow: from librdkafka's statistics.
    pub(crate) fn flowing(&mut self, worker: &Worker, reader: &mut Reader) {
        if self.last.elapsed() < Duration::from_secs(1) {
            return;
        }
        self.last = Instant::now();
        worker.status.violation(Violation::OffsetRegression, reader.take_regressions());
        let behind = reader.behind();
        for (at, next) in reader.positions().iter() {
            if let Some(behind) = behind.get(&(at.topic.to_string(), at.partition)) {
                // Markers of transactions at the end are no records, so the offsets alone would never meet.
                worker.status.lag(worker.index, at, if behind.through { 0 } else { behind.end - next });
            }
        }
    }

    /// While reading is paused, when the statistics stand still: asks Kafka, seldom. `done` is how far each
    /// partition was brought.
    pub(crate) fn waiting<'p>(
        &mut self,
        worker: &Worker,
        reader: &Reader,
        done: impl Iterator<Item = (&'p TopicPartition, i64)>,
    ) {
        if self.last.elapsed() < Duration::from_secs(5) {
            return;
        }
        self.last = Instant::now();
        for (at, done) in done {
            match reader.consumer().fetch_watermarks(&at.topic, at.partition, Duration::from_secs(1)) {
                Ok((_, end)) => worker.status.lag(worker.index, at, end - done),
                Err(_) => return,
            }
        }
    }
}

/// Runs something that asks Kafka, again a few times when it fails for a moment.
pub(crate) fn patiently<T>(stop: &Stop, mut ask: impl FnMut() -> Result<T, Fault>) -> Result<T, Fault> {
    let mut backoff = Backoff::default();
    loop {
        match ask() {
            Err(fault)
                if fault.kind == FaultKind::Transient && backoff.failures() < 5 && !stop.requested() =>
            {
                stop.sleep(backoff.next(rand::random()));
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(topic: &str, partition: i32) -> TopicPartition {
        TopicPartition { topic: topic.into(), partition }
    }

    fn batch(records: &[(&str, i32, i64, usize)]) -> Batch {
        let mut batch = Batch::default();
        for (topic, partition, offset, size) in records {
            let value = vec![b'x'; *size];
            batch.push(&Arc::from(*topic), *partition, *offset, 0, None, Some(&value), std::iter::empty());
        }
        batch
    }

    #[test]
    fn partitions_are_named_shortly() {
        let partitions = [at("b", 3), at("a", 1), at("a", 0), at("a", 2), at("b", 0)];
        assert_eq!(named(&partitions), "a [0-2], b [0, 3]");
    }

    #[test]
    fn next_offsets_are_one_past_the_last_of_each_partition() {
        let batch = batch(&[("a", 0, 5, 1), ("b", 0, 9, 1), ("a", 0, 8, 1), ("a", 1, 0, 1)]);
        assert_eq!(next_offsets(&batch), [(at("a", 0), 9), (at("b", 0), 10), (at("a", 1), 1)]);
    }

    #[test]
    fn records_above_the_limit_are_rejected_in_their_place_and_never_judged() {
        let batch = batch(&[("a", 0, 0, 4), ("a", 0, 1, 11), ("a", 0, 2, 10), ("a", 0, 3, 12)]);
        let mut judged = Vec::new();
        let verdicts = judge_fitting(&batch, 10, |fitting| {
            fitting.judge(|record| {
                judged.push(record.offset());
                Ok(Verdict::Emit(1))
            })
        });
        let rejected: Vec<_> = verdicts.unwrap().iter().map(|v| matches!(v, Verdict::Reject(_))).collect();
        assert_eq!((rejected, judged), (vec![false, true, false, true], vec![0, 2]));
    }
}
