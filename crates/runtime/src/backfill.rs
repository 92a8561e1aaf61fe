use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fhirehose_stream::{Batch, Fault, Sink, TopicPartition, Verdict};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;

use crate::clients::{Clients, Logged};
use crate::config::Config;
use crate::partitions::{Names, list, list_with_offsets, transient};
use crate::reader::{ASK, push};
use crate::worker::judge_fitting;

/// Kafka may be silent for so long before a backfill gives up.
const SILENCE: Duration = Duration::from_secs(60);

/// How far a backfill is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backfilled {
    /// Records written, or rejected.
    pub records: u64,
    /// Offsets that are still to be read; some of them are not records.
    pub left: i64,
    /// Records that gave no rows for an error, by the reason's label.
    pub rejected: BTreeMap<&'static str, u64>,
}

/// Reads partitions of one topic outside of any group, from where the sink has them, or else from their
/// beginning, up to the offset given for each, and gives the records to the sink, which keeps the offsets itself.
/// `told` is called after each batch. After an error it may be called again, and goes on where the sink is.
pub fn backfill(
    config: &Arc<Config>,
    sink: &mut dyn Sink,
    ends: &[(TopicPartition, i64)],
    told: &mut dyn FnMut(&Backfilled),
) -> Result<Backfilled, Fault> {
    let mut reading = Reading::new(config)?;
    let partitions: Vec<TopicPartition> = ends.iter().map(|(at, _)| at.clone()).collect();
    let claimed = sink.claim(&partitions)?;
    let (mut spans, mut fresh) = (Vec::new(), Vec::new());
    for ((at, end), claimed) in ends.iter().zip(claimed) {
        let from = match claimed {
            Some(next) => next,
            None => {
                let first = first_offset(&reading.consumer, at)?;
                fresh.push((at.clone(), first));
                first
            }
        };
        spans.push((at.clone(), from, *end));
    }
    if !fresh.is_empty() {
        sink.start(&fresh)?;
    }
    reading.begin(&spans)?;
    told(&reading.done);
    while reading.fill(config.runtime.batch_max_records, config.runtime.batch_max_bytes)? {
        let verdicts =
            judge_fitting(&reading.batch, config.runtime.record_max_bytes, |batch| sink.stage(batch))?;
        sink.commit()?;
        reading.committed(&verdicts);
        told(&reading.done);
    }
    reading.done.left = 0;
    Ok(reading.done)
}

/// The first offset that Kafka holds of each partition.
pub fn first_offsets(config: &Arc<Config>, partitions: &[TopicPartition]) -> Result<Vec<i64>, Fault> {
    let reading = Reading::new(config)?;
    partitions.iter().map(|at| first_offset(&reading.consumer, at)).collect()
}

fn first_offset(consumer: &BaseConsumer<Logged>, at: &TopicPartition) -> Result<i64, Fault> {
    let found = consumer.fetch_watermarks(&at.topic, at.partition, ASK);
    let what = || format!("the beginning of {} [{}] is unknown", at.topic, at.partition);
    found.map(|(first, _)| first).map_err(|error| transient(&what(), &error))
}

struct Reading {
    consumer: BaseConsumer<Logged>,
    names: Names,
    /// By partition not read to its end yet: the offset read next, and that end.
    open: HashMap<TopicPartition, (i64, i64)>,
    batch: Batch,
    done: Backfilled,
}

impl Reading {
    fn new(config: &Arc<Config>) -> Result<Reading, Fault> {
        let consumer = Clients::new(config.clone())
            .whole_topic("fhirehose-backfill")
            .create_with_context(Logged)
            .map_err(|error| Fault::fatal(format!("a kafka consumer cannot be made: {error}")))?;
        Ok(Reading {
            consumer,
            names: Names::default(),
            open: HashMap::new(),
            batch: Batch::default(),
            done: Backfilled::default(),
        })
    }

    fn begin(&mut self, spans: &[(TopicPartition, i64, i64)]) -> Result<(), Fault> {
        let open = spans.iter().filter(|(_, from, end)| from < end);
        self.open = open.map(|(at, from, end)| (at.clone(), (*from, *end))).collect();
        let from: TopicPartitionList =
            list_with_offsets(self.open.iter().map(|(at, (from, _))| (at, *from, None)))?;
        self.consumer.assign(&from).map_err(|error| transient("taking a topic failed", &error))?;
        self.tell_left();
        Ok(())
    }

    /// Fills the batch; `false` where nothing is left to read.
    fn fill(&mut self, records: usize, bytes: usize) -> Result<bool, Fault> {
        let mut silent = Instant::now();
        let mut held = 0;
        while !self.open.is_empty() && self.batch.len() < records && held < bytes {
            match self.consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    silent = Instant::now();
                    let topic = self.names.get(message.topic());
                    let at = TopicPartition { topic, partition: message.partition() };
                    let Some((next, end)) = self.open.get_mut(&at) else { continue };
                    if message.offset() < *end {
                        *next = message.offset() + 1;
                        held += message.payload_len() + message.key_len();
                        push(&message, &at, &mut self.batch);
                    }
                    if message.offset() + 1 >= *end {
                        self.close(&at)?;
                    }
                }
                // The end was read by the sink, so it is before whatever is not stable yet.
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    silent = Instant::now();
                    let ended = self.open.keys().find(|at| at.partition == partition).cloned();
                    ended.map_or(Ok(()), |at| self.close(&at))?;
                }
                Some(Err(error)) => {
                    let moved = error.rdkafka_error_code() == Some(RDKafkaErrorCode::AutoOffsetReset);
                    if moved || matches!(error, KafkaError::MessageConsumptionFatal(_)) {
                        return Err(transient("reading failed", &error));
                    }
                }
                None if !self.batch.is_empty() => break,
                None => {}
            }
            if silent.elapsed() > SILENCE {
                return Err(Fault::transient("kafka has not answered for a minute"));
            }
        }
        Ok(!self.batch.is_empty())
    }

    fn close(&mut self, at: &TopicPartition) -> Result<(), Fault> {
        self.open.remove(at);
        self.consumer.pause(&list([at])).map_err(|error| transient("pausing a partition failed", &error))
    }

    fn committed(&mut self, verdicts: &[Verdict]) {
        self.done.records += verdicts.len() as u64;
        for verdict in verdicts {
            if let Verdict::Reject(rejection) = verdict {
                *self.done.rejected.entry(rejection.reason.label()).or_default() += 1;
            }
        }
        self.batch.clear();
        self.tell_left();
    }

    fn tell_left(&mut self) {
        self.done.left = self.open.values().map(|(next, end)| end - next).sum();
    }
}
