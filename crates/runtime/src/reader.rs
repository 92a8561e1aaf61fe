use std::collections::{HashMap, VecDeque};
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use fhirehose_decide::{Admission, Offsets, Positions};
use fhirehose_faultpoint::planted;
use fhirehose_stream::{Batch, Fault, TopicPartition};
use rdkafka::bindings as native;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};

use crate::clients::{self, Clients};
use crate::config::Runtime;
use crate::partitions::{Names, list, list_with_offsets, partitions, transient};
use crate::spec::Inputs;
use crate::topic_ids::topic_ids;

/// How long a question to the coordinator or a broker may take.
pub(crate) const ASK: Duration = Duration::from_secs(15);

/// A batch waits no longer for more records, however slow commits are.
const LINGER_MOST: Duration = Duration::from_millis(50);

/// What the group decided, told to the worker outside of `poll`.
#[derive(Debug)]
pub(crate) enum Change {
    /// These are ours once [`Reader::accept`] is called.
    Assigned(Vec<TopicPartition>),
    /// These are ours until [`Reader::give_up`] is called; when `lost`, they may have a new owner already.
    Revoked { partitions: Vec<TopicPartition>, lost: bool },
}

/// An offset committed by the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Committed {
    pub offset: i64,
    pub metadata: Option<String>,
}

/// Why an offset commit failed, and whether Kafka said so: else it may take effect later.
#[derive(Debug)]
pub(crate) struct NotCommitted {
    pub fault: Fault,
    pub answered: bool,
}

/// Whether the coordinator has answered that an offset commit has no effect.
fn refused(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{IllegalGeneration, RebalanceInProgress, UnknownMemberId};
    matches!(error.rdkafka_error_code(), Some(IllegalGeneration | RebalanceInProgress | UnknownMemberId))
}

/// One member of a consumer group: polls records into batches and holds every rebalance until the worker has
/// settled what is in flight.
pub(crate) struct Reader {
    consumer: BaseConsumer<Member>,
    names: Names,
    /// Records polled and not yet handed out.
    filling: Batch,
    positions: Positions,
    paused: bool,
    regressions: u64,
    /// Of a planted bug: a consumer in no group, and so without a generation.
    outsider: Option<BaseConsumer>,
}

/// How much goes into one batch.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub records: usize,
    pub bytes: usize,
    pub linger: Duration,
    /// How long to wait for the first record.
    pub idle: Duration,
}

impl Limits {
    pub(crate) fn of(runtime: &Runtime, idle: Duration) -> Self {
        Limits {
            records: runtime.batch_max_records,
            bytes: runtime.batch_max_bytes,
            linger: runtime.linger(),
            idle,
        }
    }

    /// Waits for as long as the last commit took, within bounds: where commits are slow, for the machine or the
    /// broker is busy, fewer and larger ones relieve it.
    pub(crate) fn after(self, commit: Duration) -> Self {
        Limits { linger: commit.clamp(self.linger, LINGER_MOST.max(self.linger)), ..self }
    }
}

/// Distance of a partition's reader from its end; for show, since it is a moment old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Behind {
    /// Everything was fetched, transaction markers included, and handed out.
    pub through: bool,
    /// The last stable offset.
    pub end: i64,
}

impl Reader {
    pub(crate) fn join(clients: &Clients, group: &str, inputs: &Inputs) -> Result<Reader, Fault> {
        let consumer: BaseConsumer<Member> = clients
            .member(group)
            .create_with_context(Member::default())
            .map_err(|error| Fault::fatal(format!("the kafka consumer cannot be made: {error}")))?;
        consumer
            .subscribe(&inputs.subscription())
            .map_err(|error| transient("subscribing failed", &error))?;
        Ok(Reader {
            consumer,
            names: Names::default(),
            filling: Batch::default(),
            positions: Positions::default(),
            paused: false,
            regressions: 0,
            outsider: planted("fence-skipped").then(|| clients.member(group).create().ok()).flatten(),
        })
    }

    /// Polls until a batch is full or its linger is over, and puts it into `batch`; leaves `batch` empty as
    /// soon as the group has changed.
    pub(crate) fn fill(&mut self, limits: Limits, batch: &mut Batch) -> Result<(), Fault> {
        batch.clear();
        let start = Instant::now();
        let mut first = (!self.filling.is_empty()).then_some(start);
        while self.filling.len() < limits.records && self.filling.bytes() < limits.bytes && !self.changed() {
            let wait = match first {
                Some(first) => limits.linger.saturating_sub(first.elapsed()),
                None => limits.idle.saturating_sub(start.elapsed()),
            };
            if !self.poll(wait)? && wait.is_zero() {
                break;
            }
            if first.is_none() && !self.filling.is_empty() {
                first = Some(Instant::now());
            }
        }
        if !self.changed() {
            mem::swap(&mut self.filling, batch);
        }
        Ok(())
    }

    /// Serves the group for a while without reading on, as while a server is down.
    pub(crate) fn keep_alive(&mut self, time: Duration) -> Result<(), Fault> {
        self.pause()?;
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            self.poll(left)?;
            if left.is_zero() || self.changed() {
                return Ok(());
            }
        }
    }

    /// Whether a rebalance waits for [`Reader::take_change`].
    pub(crate) fn changed(&self) -> bool {
        self.consumer.context().waiting()
    }

    pub(crate) fn take_change(&mut self) -> Option<Change> {
        let (assigned, list, lost) = self.consumer.context().take()?;
        let partitions = partitions(&list, &mut self.names);
        Some(if assigned { Change::Assigned(partitions) } else { Change::Revoked { partitions, lost } })
    }

    /// Takes assigned partitions over, to be read from these offsets.
    pub(crate) fn accept(&mut self, offsets: &[(TopicPartition, i64)]) -> Result<(), Fault> {
        let list = list_with_offsets(offsets.iter().map(|(at, offset)| (at, *offset, None)))?;
        self.consumer
            .incremental_assign(&list)
            .map_err(|error| transient("taking partitions over failed", &error))?;
        self.positions.read_from(offsets);
        if self.paused {
            self.paused = false;
            return self.pause();
        }
        // A partition that was paused when it was given up may come back paused.
        self.consumer.resume(&list).map_err(|error| transient("resuming failed", &error))
    }

    /// Takes assigned partitions over without reading them, for it is not known yet from where: [`Reader::seek`]
    /// tells.
    pub(crate) fn hold(&mut self, partitions: &[TopicPartition]) -> Result<(), Fault> {
        let mut list = list(partitions);
        // Nothing is read at the end; any offset that exists would do.
        list.set_all_offsets(Offset::End)
            .map_err(|error| transient("taking partitions over failed", &error))?;
        self.consumer
            .incremental_assign(&list)
            .and_then(|()| self.consumer.pause(&list))
            .map_err(|error| transient("taking partitions over failed", &error))
    }

    /// Gives revoked partitions up, and their records that were polled and not handed out.
    pub(crate) fn give_up(&mut self, partitions: &[TopicPartition]) -> Result<(), Fault> {
        self.positions.give_up(partitions);
        let positions = &self.positions;
        // Planted: polled records of the partitions that stay are given up too, or none at all.
        let forget = planted("retained-records-forgotten");
        let keep = planted("revoke-without-drain");
        self.filling.retain(|at| keep || (positions.owns(at) && !forget));
        self.consumer
            .incremental_unassign(&list(partitions))
            .map_err(|error| transient("giving partitions up failed", &error))
    }

    /// Reads on from other offsets than the next ones, also of partitions that were held.
    pub(crate) fn seek(&mut self, offsets: &[(TopicPartition, i64)]) -> Result<(), Fault> {
        let moved: Vec<_> = offsets.iter().map(|(at, _)| at.clone()).collect();
        self.filling.retain(|at| !moved.contains(at));
        let list = list_with_offsets(offsets.iter().map(|(at, offset)| (at, *offset, None)))?;
        let done =
            self.consumer.seek_partitions(list, ASK).map_err(|error| transient("seeking failed", &error))?;
        if let Some(error) = done.elements().iter().find_map(|element| element.error().err()) {
            return Err(transient("seeking failed", &error));
        }
        self.positions.read_from(offsets);
        if self.paused {
            return Ok(());
        }
        self.consumer.resume(&done).map_err(|error| transient("resuming failed", &error))
    }

    pub(crate) fn resume(&mut self) -> Result<(), Fault> {
        if mem::take(&mut self.paused) {
            self.consumer
                .resume(&list(self.positions.iter().map(|(at, _)| at)))
                .map_err(|e| transient("resuming failed", &e))?;
        }
        Ok(())
    }

    fn pause(&mut self) -> Result<(), Fault> {
        if !mem::replace(&mut self.paused, true) {
            self.consumer
                .pause(&list(self.positions.iter().map(|(at, _)| at)))
                .map_err(|e| transient("pausing failed", &e))?;
        }
        Ok(())
    }

    /// How far each partition was read, transaction markers at the end counted: librdkafka moves its position
    /// past a marker when it meets it in the queue, so every record before was polled. Empty while polled records
    /// wait in here.
    pub(crate) fn read_through(&self) -> Offsets {
        let Ok(reached) = self.consumer.position() else { return Vec::new() };
        if !self.filling.is_empty() {
            return Vec::new();
        }
        let reached = |at: &TopicPartition| match reached.find_partition(&at.topic, at.partition)?.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        };
        self.positions.iter().filter_map(|(at, next)| Some((at.clone(), reached(at)?.max(next)))).collect()
    }

    /// The partitions that are ours, and the next offset to be polled of each.
    pub(crate) fn positions(&self) -> &Positions {
        &self.positions
    }

    pub(crate) fn consumer(&self) -> &BaseConsumer<Member> {
        &self.consumer
    }

    /// Records that came with an offset below the last one's; must stay 0.
    pub(crate) fn take_regressions(&mut self) -> u64 {
        mem::take(&mut self.regressions)
    }

    /// Ids of the topics of these partitions, by name; empty where the brokers have none.
    pub(crate) fn topic_ids(&self, partitions: &[TopicPartition]) -> Result<HashMap<String, String>, Fault> {
        topic_ids(self.consumer.client(), &partitions.iter().map(|at| &*at.topic).collect())
    }

    /// The group's committed offsets, stable: offsets in open transactions are waited for. `None` where the
    /// group has none.
    pub(crate) fn committed(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<(TopicPartition, Option<Committed>)>, Fault> {
        if partitions.is_empty() {
            return Ok(Vec::new());
        }
        let found = self
            .consumer
            .committed_offsets(list(partitions), ASK)
            .map_err(|error| transient("committed offsets could not be read", &error))?;
        let mut committed = Vec::with_capacity(partitions.len());
        for at in partitions {
            let element = found.find_partition(&at.topic, at.partition);
            let Some(element) = element else {
                return Err(Fault::transient("committed offsets came back incomplete"));
            };
            element.error().map_err(|error| transient("committed offsets could not be read", &error))?;
            let offset = match element.offset() {
                Offset::Offset(offset) => {
                    let metadata = element.metadata();
                    let metadata = (!metadata.is_empty()).then(|| metadata.to_owned());
                    Some(Committed { offset, metadata })
                }
                _ => None,
            };
            committed.push((at.clone(), offset));
        }
        Ok(committed)
    }

    /// Commits offsets outside of a transaction, as the member we are now.
    pub(crate) fn commit(&self, offsets: &TopicPartitionList) -> Result<(), NotCommitted> {
        self.consumer.commit(offsets, CommitMode::Sync).map_err(|error| NotCommitted {
            fault: transient("committing offsets failed", &error),
            answered: refused(&error),
        })
    }

    /// Who we are in the group, to fence a transaction with: `None` when the group has put us out. Brokers
    /// let a transaction without generation pass unfenced, so it must never get one of those.
    pub(crate) fn membership(&self) -> Option<ConsumerGroupMetadata> {
        // Planted: a transaction without generation, which brokers let pass whoever sends it.
        if let Some(outsider) = &self.outsider {
            return outsider.group_metadata();
        }
        let before = generation(&self.consumer);
        let membership = self.consumer.group_metadata()?;
        (before >= 0 && before == generation(&self.consumer)).then_some(membership)
    }

    /// How far partitions are behind, as of librdkafka's last statistics.
    pub(crate) fn behind(&self) -> HashMap<(String, i32), Behind> {
        lock(&self.consumer.context().behind).clone()
    }

    /// Returns whether a record came.
    fn poll(&mut self, wait: Duration) -> Result<bool, Fault> {
        match self.consumer.poll(wait) {
            None => Ok(false),
            Some(Ok(message)) => {
                let at =
                    TopicPartition { topic: self.names.get(message.topic()), partition: message.partition() };
                match self.positions.admit(&at, message.offset()) {
                    Admission::Next => push(&message, &at, &mut self.filling),
                    Admission::NotOurs | Admission::Again => {}
                    Admission::Regression => self.regressions += 1,
                }
                Ok(true)
            }
            Some(Err(error)) => self.poll_error(&error).map(|()| false),
        }
    }

    fn poll_error(&self, error: &KafkaError) -> Result<(), Fault> {
        if let KafkaError::MessageConsumptionFatal(code) = error {
            return Err(Fault::transient(format!("the consumer failed: {code:?}")));
        }
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset) => Err(Fault::fatal(self.out_of_range())),
            Some(
                RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed,
            ) => Err(transient("kafka refuses access; check the access rules of this client", error)),
            Some(RDKafkaErrorCode::Authentication) => {
                Err(transient("kafka refuses the credentials; check kafka.properties", error))
            }
            // Logged by the context already; librdkafka keeps trying.
            _ => Ok(()),
        }
    }

    fn out_of_range(&self) -> String {
        let wrong = self.positions.iter().find_map(|(at, next)| {
            let (low, high) = self.consumer.fetch_watermarks(&at.topic, at.partition, ASK).ok()?;
            (next < low || next > high).then(|| {
                format!(
                    "the next offset of {} [{}] is {next}, and Kafka holds {low} to {high}: records were \
                     deleted unread, or the topic was made anew; delete the group's offset of it and give \
                     --start-from to go on",
                    at.topic, at.partition
                )
            })
        });
        wrong.unwrap_or_else(|| "the next offset of a partition is outside of what Kafka holds".into())
    }
}

/// The group generation this member is in; -1 in none.
#[expect(unsafe_code, reason = "rdkafka does not expose the generation of its group metadata")]
fn generation(consumer: &BaseConsumer<Member>) -> i32 {
    // SAFETY: the client pointer lives as long as `consumer`; the metadata is ours and destroyed once.
    unsafe {
        let metadata = native::rd_kafka_consumer_group_metadata(consumer.client().native_ptr());
        if metadata.is_null() {
            return -1;
        }
        let generation = native::rd_kafka_consumer_group_metadata_generation_id(metadata);
        native::rd_kafka_consumer_group_metadata_destroy(metadata);
        generation
    }
}

/// A free function, for the message borrows the consumer.
pub(crate) fn push(message: &BorrowedMessage<'_>, at: &TopicPartition, filling: &mut Batch) {
    let headers = message.headers();
    let count = headers.map_or(0, Headers::count);
    let header = |index| {
        let header = headers.and_then(|headers| headers.try_get(index))?;
        Some((header.key, header.value))
    };
    filling.push(
        &at.topic,
        at.partition,
        message.offset(),
        message.timestamp().to_millis().unwrap_or(0),
        message.key(),
        message.payload(),
        (0..count).filter_map(header),
    );
}

impl Drop for Reader {
    fn drop(&mut self) {
        // From here on rebalances are settled at once: the consumer leaves its group as it is dropped.
        self.consumer.context().closing.store(true, Ordering::SeqCst);
        for _ in 0..self.consumer.context().waiting_count() {
            if let Some((assigned, list, _)) = self.consumer.context().take() {
                let settled = match assigned {
                    true => self.consumer.incremental_assign(&list),
                    false => self.consumer.incremental_unassign(&list),
                };
                if let Err(error) = settled {
                    tracing::debug!(%error, "a rebalance was not settled before leaving the group");
                }
            }
        }
    }
}

/// What the consumer's callbacks leave for the worker.
#[derive(Default)]
pub(crate) struct Member {
    changes: Mutex<VecDeque<(bool, TopicPartitionList, bool)>>,
    behind: Mutex<HashMap<(String, i32), Behind>>,
    closing: AtomicBool,
}

impl Member {
    fn waiting(&self) -> bool {
        self.waiting_count() > 0
    }

    fn waiting_count(&self) -> usize {
        lock(&self.changes).len()
    }

    fn take(&self) -> Option<(bool, TopicPartitionList, bool)> {
        lock(&self.changes).pop_front()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClientContext for Member {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        clients::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        clients::log_error(&error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        let mut behind = lock(&self.behind);
        behind.clear();
        for (name, topic) in statistics.topics {
            for (partition, stats) in topic.partitions {
                if partition >= 0 && stats.ls_offset >= 0 {
                    let through = stats.fetchq_cnt == 0 && stats.next_offset >= stats.ls_offset;
                    behind.insert((name.clone(), partition), Behind { through, end: stats.ls_offset });
                }
            }
        }
    }
}

impl ConsumerContext for Member {
    /// Only notes the change: librdkafka waits until the worker has settled what is in flight and says so.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let assigned = error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.closing.load(Ordering::SeqCst) {
            let settled = match assigned {
                true => consumer.incremental_assign(list),
                false => consumer.incremental_unassign(list),
            };
            if let Err(error) = settled {
                tracing::debug!(%error, "a rebalance was not settled while leaving the group");
            }
            return;
        }
        lock(&self.changes).push_back((assigned, list.clone(), consumer.assignment_lost()));
    }
}
