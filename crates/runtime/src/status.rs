use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fhirehose_stream::{Batch, HEADER_SOURCE_TS, Reason, TopicPartition, Verdict};
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use serde::Serialize;

use crate::age::{Ages, Quantiles};
use crate::spec::{Inputs, Spec};
use crate::worker::last_of_each;

const REJECTS_KEPT: usize = 20;
/// Without progress for this long, and not at the end, a group is stuck.
const STUCK: Duration = Duration::from_secs(20);
/// Lag of more seconds than this is more than a batch under way.
const BEHIND_SECONDS: f64 = 5.0;

/// What a worker is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", content = "why", rename_all = "snake_case")]
pub(crate) enum Doing {
    Starting,
    /// Reads tables and changelogs before it processes.
    Restoring,
    Running,
    /// A server is down, or the like; it tries again.
    Waiting(String),
    /// The breaker tripped; an operator must look.
    Tripped(String),
    /// It cannot go on; the process must be started anew.
    Failed(String),
    Stopped,
}

/// A guarantee that did not hold. Its counter must stay 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// A record came with an offset below one seen before.
    OffsetRegression,
    /// A processor judged more or fewer records than it was given.
    VerdictCount,
}

impl Violation {
    pub(crate) const ALL: [Violation; 2] = [Violation::OffsetRegression, Violation::VerdictCount];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Violation::OffsetRegression => "offset_regression",
            Violation::VerdictCount => "verdict_count",
        }
    }
}

/// A recent reject, without anything of the record's content.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct LastReject {
    pub reason: &'static str,
    pub detail: String,
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub at_ms: i64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lag {
    records: i64,
    /// Timestamp of the last record committed.
    last_ms: i64,
    /// When nothing was left to do for the last time.
    through_ms: i64,
}

/// One processor of this process, for metrics, health and the status page. All workers write to it.
pub(crate) struct ProcessorStatus {
    pub spec: Spec,
    workers: Mutex<Vec<Doing>>,
    ages: Ages,
    records_in: AtomicU64,
    emitted_from: AtomicU64,
    records_out: AtomicU64,
    dead_letters: AtomicU64,
    reasons: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    violations: [AtomicU64; 2],
    last_rejects: Mutex<VecDeque<LastReject>>,
    lag: Mutex<HashMap<(TopicPartition, usize), Lag>>,
    progress: Mutex<Instant>,
    resumed: AtomicU64,
    rates: Mutex<Rates>,
    meters: Meters,
}

/// Records per second, over about ten seconds.
#[derive(Clone, Copy, Default)]
struct Rates {
    last: Option<(Instant, u64, u64)>,
    records_in: f64,
    records_out: f64,
}

struct Meters {
    records_in: Counter,
    records_out: Counter,
    dead_letters: Counter,
    batch_seconds: Histogram,
    commit_seconds: Histogram,
    age_seconds: Histogram,
    lag_records: Gauge,
    lag_seconds: Gauge,
}

/// What [`ProcessorStatus`] says to the outside.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct View {
    pub processor: &'static str,
    pub group: String,
    pub inputs: Vec<String>,
    pub tables: Vec<String>,
    pub outputs: Vec<String>,
    pub store: Option<&'static str>,
    pub workers: Vec<Doing>,
    /// `idle`, `ok`, `behind` or `stuck`.
    pub lag: &'static str,
    pub lag_records: i64,
    pub lag_seconds: f64,
    pub partitions: usize,
    pub records_in: u64,
    pub emitted_from: u64,
    pub records_out: u64,
    pub dropped: BTreeMap<&'static str, u64>,
    pub rejected: BTreeMap<&'static str, u64>,
    pub parked: BTreeMap<&'static str, u64>,
    pub dead_letters: u64,
    pub in_per_second: f64,
    pub out_per_second: f64,
    pub age: Quantiles,
    pub age_recent: Quantiles,
    pub violations: BTreeMap<&'static str, u64>,
    pub last_rejects: Vec<LastReject>,
}

/// One batch that took effect.
pub(crate) struct Done<'a> {
    pub worker: usize,
    pub batch: &'a Batch,
    pub verdicts: &'a [Verdict],
    pub outputs: usize,
    pub dead_letters: usize,
    pub batch_time: Duration,
    pub commit_time: Duration,
}

impl ProcessorStatus {
    pub(crate) fn new(spec: Spec, workers: usize) -> Self {
        let name = spec.name;
        for violation in Violation::ALL {
            counter!("fhirehose_violations_total", "processor" => name, "kind" => violation.label())
                .absolute(0);
        }
        let meters = Meters {
            records_in: counter!("fhirehose_records_in_total", "processor" => name),
            records_out: counter!("fhirehose_records_out_total", "processor" => name),
            dead_letters: counter!("fhirehose_dead_letters_total", "processor" => name),
            batch_seconds: histogram!("fhirehose_batch_seconds", "processor" => name),
            commit_seconds: histogram!("fhirehose_commit_seconds", "processor" => name),
            age_seconds: histogram!("fhirehose_end_to_end_seconds", "processor" => name),
            lag_records: gauge!("fhirehose_lag_records", "processor" => name),
            lag_seconds: gauge!("fhirehose_lag_seconds", "processor" => name),
        };
        ProcessorStatus {
            spec,
            workers: Mutex::new(vec![Doing::Starting; workers]),
            ages: Ages::default(),
            records_in: AtomicU64::new(0),
            emitted_from: AtomicU64::new(0),
            records_out: AtomicU64::new(0),
            dead_letters: AtomicU64::new(0),
            reasons: Mutex::default(),
            violations: Default::default(),
            last_rejects: Mutex::default(),
            lag: Mutex::default(),
            progress: Mutex::new(Instant::now()),
            resumed: AtomicU64::new(0),
            rates: Mutex::default(),
            meters,
        }
    }

    pub(crate) fn doing(&self, worker: usize, doing: Doing) {
        if let Some(slot) = lock(&self.workers).get_mut(worker) {
            *slot = doing;
        }
    }

    pub(crate) fn ready(&self) -> bool {
        lock(&self.workers).iter().all(|doing| *doing == Doing::Running)
    }

    /// An operator lets workers whose breaker tripped go on.
    pub(crate) fn resume(&self) {
        self.resumed.fetch_add(1, Ordering::SeqCst);
    }

    /// How often [`ProcessorStatus::resume`] was called.
    pub(crate) fn resumed(&self) -> u64 {
        self.resumed.load(Ordering::SeqCst)
    }

    pub(crate) fn violation(&self, violation: Violation, count: u64) {
        if count > 0 {
            self.violations[violation as usize].fetch_add(count, Ordering::Relaxed);
            counter!("fhirehose_violations_total", "processor" => self.spec.name, "kind" => violation.label())
                .increment(count);
            tracing::error!(
                processor = self.spec.name,
                kind = violation.label(),
                count,
                "a guarantee did not hold; please report this"
            );
        }
    }

    /// A commit got no answer and was looked up.
    pub(crate) fn unknown_commit(&self) {
        counter!("fhirehose_unknown_commits_total", "processor" => self.spec.name).increment(1);
    }

    pub(crate) fn done(&self, done: &Done<'_>) {
        let count = done.batch.len() as u64;
        self.records_in.fetch_add(count, Ordering::Relaxed);
        self.records_out.fetch_add(done.outputs as u64, Ordering::Relaxed);
        self.dead_letters.fetch_add(done.dead_letters as u64, Ordering::Relaxed);
        self.meters.records_in.increment(count);
        self.meters.records_out.increment(done.outputs as u64);
        self.meters.dead_letters.increment(done.dead_letters as u64);
        self.meters.batch_seconds.record(done.batch_time);
        self.meters.commit_seconds.record(done.commit_time);
        self.count_verdicts(done);
        let now = now_ms();
        for record in done.batch.iter() {
            let since = record.header_i64(HEADER_SOURCE_TS).unwrap_or(record.timestamp_ms());
            let age = now.saturating_sub(since).max(0);
            self.ages.add(age as u64);
            self.meters.age_seconds.record(age as f64 / 1000.0);
        }
        *lock(&self.progress) = Instant::now();
        let mut lag = lock(&self.lag);
        for last in last_of_each(done.batch) {
            lag.entry((last.at().clone(), done.worker)).or_default().last_ms = last.timestamp_ms();
        }
    }

    fn count_verdicts(&self, done: &Done<'_>) {
        let mut counts: BTreeMap<(&'static str, Reason), u64> = BTreeMap::new();
        let mut emitted = 0;
        for (record, verdict) in done.batch.iter().zip(done.verdicts) {
            let (what, reason) = match verdict {
                Verdict::Emit(_) => {
                    emitted += 1;
                    continue;
                }
                Verdict::Drop(reason) => ("dropped", *reason),
                Verdict::Park(reason) => ("parked", *reason),
                Verdict::Reject(rejection) => {
                    let mut last = lock(&self.last_rejects);
                    last.truncate(REJECTS_KEPT - 1);
                    last.push_front(LastReject {
                        reason: rejection.reason.label(),
                        detail: rejection.detail.clone(),
                        topic: record.topic().to_owned(),
                        partition: record.partition(),
                        offset: record.offset(),
                        at_ms: now_ms(),
                    });
                    ("rejected", rejection.reason)
                }
            };
            *counts.entry((what, reason)).or_default() += 1;
        }
        self.emitted_from.fetch_add(emitted, Ordering::Relaxed);
        counter!("fhirehose_records_emitted_from_total", "processor" => self.spec.name).increment(emitted);
        for ((what, reason), count) in counts {
            *lock(&self.reasons).entry((what, reason.label())).or_default() += count;
            let name = match what {
                "dropped" => "fhirehose_records_dropped_total",
                "parked" => "fhirehose_records_parked_total",
                _ => "fhirehose_records_rejected_total",
            };
            counter!(name, "processor" => self.spec.name, "reason" => reason.label()).increment(count);
        }
    }

    /// Outputs that came of a table's change, not of records.
    pub(crate) fn woken(&self, outputs: usize) {
        self.records_out.fetch_add(outputs as u64, Ordering::Relaxed);
        self.meters.records_out.increment(outputs as u64);
        *lock(&self.progress) = Instant::now();
    }

    /// A partition whose lag is not known yet.
    pub(crate) fn assigned(&self, worker: usize, at: &TopicPartition) {
        lock(&self.lag).insert((at.clone(), worker), Lag::default());
    }

    /// How many records of a partition a worker has still to commit.
    pub(crate) fn lag(&self, worker: usize, at: &TopicPartition, records: i64) {
        let mut lag = lock(&self.lag);
        let entry = lag.entry((at.clone(), worker)).or_default();
        entry.records = records.max(0);
        if records <= 0 {
            entry.through_ms = now_ms();
        }
    }

    pub(crate) fn revoked(&self, worker: usize, partitions: &[TopicPartition]) {
        lock(&self.lag).retain(|(at, of), _| *of != worker || !partitions.contains(at));
    }

    pub(crate) fn forget_lag(&self, worker: usize) {
        lock(&self.lag).retain(|(_, of), _| *of != worker);
    }

    /// Called about every second by one thread.
    pub(crate) fn sample(&self, turn_ages: bool) {
        if turn_ages {
            self.ages.turn();
        }
        let (records, seconds) = self.lag_now();
        self.meters.lag_records.set(records as f64);
        self.meters.lag_seconds.set(seconds);
        let (now, records_in, records_out) = (
            Instant::now(),
            self.records_in.load(Ordering::Relaxed),
            self.records_out.load(Ordering::Relaxed),
        );
        let mut rates = lock(&self.rates);
        if let Some((then, before_in, before_out)) = rates.last {
            let seconds = now.duration_since(then).as_secs_f64().max(0.001);
            let weight = 1.0 - (-seconds / 5.0).exp();
            let rate = |before: u64, after: u64| after.saturating_sub(before) as f64 / seconds;
            rates.records_in += weight * (rate(before_in, records_in) - rates.records_in);
            rates.records_out += weight * (rate(before_out, records_out) - rates.records_out);
        }
        rates.last = Some((now, records_in, records_out));
    }

    /// Records not committed, and how old the oldest of them can be: it came after the last that was committed,
    /// and after the last time there was none.
    fn lag_now(&self) -> (i64, f64) {
        let lag = lock(&self.lag);
        let now = now_ms();
        let records = lag.values().map(|lag| lag.records).sum();
        let since = lag.values().filter(|lag| lag.records > 0).map(|lag| lag.last_ms.max(lag.through_ms));
        let late = since.filter(|since| *since > 0).map(|since| now.saturating_sub(since) as f64 / 1000.0);
        let seconds = late.fold(0.0, f64::max);
        (records, seconds)
    }

    pub(crate) fn view(&self) -> View {
        let (lag_records, lag_seconds) = self.lag_now();
        let workers = lock(&self.workers).clone();
        let rates = *lock(&self.rates);
        let by = |what: &str| -> BTreeMap<&'static str, u64> {
            let reasons = lock(&self.reasons);
            reasons.iter().filter(|((w, _), _)| *w == what).map(|((_, r), n)| (*r, *n)).collect()
        };
        let names = |topics: &[std::sync::Arc<str>]| topics.iter().map(ToString::to_string).collect();
        let broken = workers.iter().any(|w| matches!(w, Doing::Tripped(_) | Doing::Failed(_)));
        let silent = lock(&self.progress).elapsed() > STUCK;
        let waiting = workers.iter().any(|worker| matches!(worker, Doing::Waiting(_)));
        let lag = match () {
            () if broken || ((lag_records > 0 || waiting) && silent) => "stuck",
            () if waiting || lag_seconds > BEHIND_SECONDS => "behind",
            () if lag_records == 0 && silent => "idle",
            () => "ok",
        };
        let violations = Violation::ALL
            .iter()
            .map(|kind| (kind.label(), self.violations[*kind as usize].load(Ordering::Relaxed)))
            .collect();
        View {
            processor: self.spec.name,
            group: self.spec.group.clone(),
            inputs: match &self.spec.inputs {
                Inputs::Topics(topics) => names(topics),
                Inputs::Pattern(pattern) => vec![pattern.clone()],
            },
            tables: names(&self.spec.tables),
            outputs: names(&self.spec.outputs),
            store: self.spec.store,
            workers,
            lag,
            lag_records,
            lag_seconds,
            partitions: lock(&self.lag).len(),
            records_in: self.records_in.load(Ordering::Relaxed),
            emitted_from: self.emitted_from.load(Ordering::Relaxed),
            records_out: self.records_out.load(Ordering::Relaxed),
            dropped: by("dropped"),
            rejected: by("rejected"),
            parked: by("parked"),
            dead_letters: self.dead_letters.load(Ordering::Relaxed),
            in_per_second: rates.records_in,
            out_per_second: rates.records_out,
            age: self.ages.all(),
            age_recent: self.ages.recent(),
            violations,
            last_rejects: lock(&self.last_rejects).iter().cloned().collect(),
        }
    }
}

pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn status() -> ProcessorStatus {
        let spec = Spec {
            name: "p",
            group: "p".into(),
            inputs: Inputs::Topics(vec!["in".into()]),
            tables: vec![],
            changelog: None,
            outputs: vec![],
            store: None,
            dead_letters: Arc::new(|topic| topic.into()),
        };
        ProcessorStatus::new(spec, 1)
    }

    fn at() -> TopicPartition {
        TopicPartition { topic: "in".into(), partition: 0 }
    }

    fn batch(verdicts: usize, timestamp_ms: i64) -> Batch {
        let mut batch = Batch::default();
        for offset in 0..verdicts as i64 {
            batch.push(&at().topic, 0, offset, timestamp_ms, None, None, std::iter::empty());
        }
        batch
    }

    fn done<'a>(batch: &'a Batch, verdicts: &'a [Verdict]) -> Done<'a> {
        let time = Duration::ZERO;
        Done { worker: 0, batch, verdicts, outputs: 3, dead_letters: 1, batch_time: time, commit_time: time }
    }

    #[test]
    fn what_goes_in_is_accounted_for() {
        let status = status();
        let rejection = fhirehose_stream::Rejection::new(Reason::UnknownCode, "gender");
        let verdicts = [
            Verdict::Emit(3),
            Verdict::Drop(Reason::Tombstone),
            rejection.into(),
            Verdict::Park(Reason::UnassignedDevice),
        ];
        status.done(&done(&batch(4, now_ms() - 500), &verdicts));
        let view = status.view();
        let sum = |counts: &BTreeMap<&'static str, u64>| counts.values().sum::<u64>();
        assert_eq!((view.records_in, view.emitted_from, view.records_out, view.dead_letters), (4, 1, 3, 1));
        assert_eq!(
            view.emitted_from + sum(&view.dropped) + sum(&view.rejected) + sum(&view.parked),
            view.records_in
        );
        assert_eq!((view.rejected["unknown_code"], view.last_rejects[0].detail.as_str()), (1, "gender"));
        assert!(view.age.p50_ms >= 500 && view.age.count == 4);
    }

    #[test]
    fn a_record_after_a_long_pause_is_not_late() {
        let status = status();
        status.doing(0, Doing::Running);
        // The last record is an hour old, and everything was done just now.
        status.done(&done(&batch(1, now_ms() - 3_600_000), &[Verdict::Emit(1)]));
        status.lag(0, &at(), 0);
        status.lag(0, &at(), 7);
        let view = status.view();
        assert!(view.lag == "ok" && view.lag_records == 7 && view.lag_seconds < 5.0, "{view:?}");
        // One that never caught up is as late as the last it did.
        let status = self::status();
        status.done(&done(&batch(1, now_ms() - 60_000), &[Verdict::Emit(1)]));
        status.lag(0, &at(), 7);
        let view = status.view();
        assert!(view.lag == "behind" && view.lag_seconds >= 60.0, "{view:?}");
        status.revoked(0, &[at()]);
        assert_eq!(status.view().lag_records, 0);
    }

    #[test]
    fn a_tripped_or_failed_worker_is_stuck_and_not_ready() {
        let status = status();
        assert!(!status.ready());
        status.doing(0, Doing::Running);
        assert!(status.ready() && status.view().lag == "ok");
        status.doing(0, Doing::Waiting("a server is down".into()));
        assert!(!status.ready() && status.view().lag == "behind");
        status.doing(0, Doing::Tripped("x".into()));
        assert!(!status.ready() && status.view().lag == "stuck");
    }
}
