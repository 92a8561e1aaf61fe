use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fhirehose_stream::{Batch, Fault, Record, TopicPartition};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};

use crate::clients::{Clients, Logged};
use crate::partitions::{Names, list_with_offsets, transient};
use crate::reader::ASK;
use crate::stop::Stop;
use crate::topic_ids::topic_ids;

/// Reads topics whole, outside of any group: tables at start and after, changelogs at assignment.
pub(crate) struct Replay {
    committed: BaseConsumer<Logged>,
    uncommitted: BaseConsumer<Logged>,
    names: Names,
    record: Batch,
}

impl Replay {
    pub(crate) fn new(clients: &Clients, name: &str) -> Result<Replay, Fault> {
        let make = |config: rdkafka::ClientConfig| {
            config
                .create_with_context(Logged)
                .map_err(|error| Fault::fatal(format!("a kafka consumer cannot be made: {error}")))
        };
        Ok(Replay {
            committed: make(clients.whole_topic(name))?,
            uncommitted: make(clients.uncommitted(name))?,
            names: Names::default(),
            record: Batch::default(),
        })
    }

    /// Ids of these topics, by name; empty where the brokers have none.
    pub(crate) fn topic_ids(&self, topics: &[Arc<str>]) -> Result<HashMap<String, String>, Fault> {
        topic_ids(self.committed.client(), &topics.iter().map(|topic| &**topic).collect())
    }

    pub(crate) fn partitions_of(&self, topic: &str) -> Result<Vec<i32>, Fault> {
        let metadata = self
            .committed
            .fetch_metadata(Some(topic), ASK)
            .map_err(|error| transient(&format!("{topic} could not be looked up"), &error))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none());
        let partitions = found.map(|topic| topic.partitions().iter().map(|p| p.id()).collect::<Vec<_>>());
        match partitions {
            Some(partitions) if !partitions.is_empty() => Ok(partitions),
            _ => Err(Fault::transient(format!("{topic} does not exist: run `fhirehose topics apply`"))),
        }
    }

    /// Reads partitions of one topic to at least the end they had when this was called, counting transactions
    /// that were open then: from the beginning, or from the offset in `from` where there still is one. Returns
    /// the next offset of each. `idle` is called all the while and may end it.
    pub(crate) fn read_to_end(
        &mut self,
        topic: &str,
        partitions: &[i32],
        from: &HashMap<TopicPartition, i64>,
        stop: &Stop,
        idle: &mut dyn FnMut() -> Result<(), Fault>,
        each: &mut dyn FnMut(Record<'_>) -> Result<(), Fault>,
    ) -> Result<Vec<(TopicPartition, i64)>, Fault> {
        let topic = self.names.get(topic);
        let (mut next, mut open) = (HashMap::new(), HashSet::new());
        for &partition in partitions {
            let (low, end) = self.settle(&topic, partition, stop, idle)?;
            let at = TopicPartition { topic: topic.clone(), partition };
            let start = from.get(&at).copied().filter(|from| (low..=end).contains(from));
            let start = start.unwrap_or(low);
            if start < end {
                open.insert(partition);
            }
            next.insert(at, start);
        }
        let unread = next.iter().filter(|(at, _)| open.contains(&at.partition));
        self.assign(&unread.map(|(at, offset)| (at.clone(), *offset)).collect::<Vec<_>>())?;
        let mut served = Instant::now();
        while !open.is_empty() {
            if stop.requested() {
                return Err(Fault::transient("stopped while reading a topic whole"));
            }
            if served.elapsed() > Duration::from_millis(500) {
                idle()?;
                served = Instant::now();
            }
            match self.poll(Duration::from_millis(100))? {
                Polled::Record => {
                    if let Some(record) = self.record.get(0) {
                        next.insert(record.at().clone(), record.offset() + 1);
                        each(record)?;
                    }
                }
                // At the last stable offset, which was past the wanted end before reading began.
                Polled::End(partition) => drop(open.remove(&partition)),
                Polled::Nothing => {}
            }
        }
        Ok(next.into_iter().collect())
    }

    /// Waits until everything up to the present end is stable; returns the first offset and the stable end.
    fn settle(
        &self,
        topic: &str,
        partition: i32,
        stop: &Stop,
        idle: &mut dyn FnMut() -> Result<(), Fault>,
    ) -> Result<(i64, i64), Fault> {
        let ask = |consumer: &BaseConsumer<Logged>| {
            consumer
                .fetch_watermarks(topic, partition, ASK)
                .map_err(|error| transient(&format!("the end of {topic} [{partition}] is unknown"), &error))
        };
        let (_, end) = ask(&self.uncommitted)?;
        loop {
            let (low, stable) = ask(&self.committed)?;
            if stable >= end {
                return Ok((low, stable));
            }
            if stop.requested() {
                return Err(Fault::transient("stopped while waiting for transactions"));
            }
            idle()?;
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Reads on from these offsets from now on.
    pub(crate) fn follow(&mut self, offsets: &[(TopicPartition, i64)]) -> Result<(), Fault> {
        self.assign(offsets)
    }

    /// Hands out what has arrived, at most `most` records, without waiting. Returns how many.
    pub(crate) fn arrived(
        &mut self,
        most: usize,
        each: &mut dyn FnMut(Record<'_>) -> Result<(), Fault>,
    ) -> Result<usize, Fault> {
        let mut count = 0;
        while count < most {
            match self.poll(Duration::ZERO)? {
                Polled::Record => {
                    count += 1;
                    if let Some(record) = self.record.get(0) {
                        each(record)?;
                    }
                }
                Polled::End(_) => {}
                Polled::Nothing => break,
            }
        }
        Ok(count)
    }

    pub(crate) fn release(&mut self) -> Result<(), Fault> {
        self.committed.unassign().map_err(|error| transient("giving a topic back failed", &error))
    }

    fn assign(&self, offsets: &[(TopicPartition, i64)]) -> Result<(), Fault> {
        let list: TopicPartitionList =
            list_with_offsets(offsets.iter().map(|(at, offset)| (at, *offset, None)))?;
        self.committed.assign(&list).map_err(|error| transient("taking a topic failed", &error))
    }

    fn poll(&mut self, wait: Duration) -> Result<Polled, Fault> {
        match self.committed.poll(wait) {
            None => Ok(Polled::Nothing),
            Some(Ok(message)) => {
                let topic = self.names.get(message.topic());
                let headers = message.headers();
                let header = |index| {
                    let header = headers.and_then(|headers| headers.try_get(index))?;
                    Some((header.key, header.value))
                };
                self.record.clear();
                self.record.push(
                    &topic,
                    message.partition(),
                    message.offset(),
                    message.timestamp().to_millis().unwrap_or(0),
                    message.key(),
                    message.payload(),
                    (0..headers.map_or(0, Headers::count)).filter_map(header),
                );
                Ok(Polled::Record)
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => Ok(Polled::End(partition)),
            Some(Err(error)) => match error.rdkafka_error_code() {
                // Compaction may have moved the beginning since it was asked for: start over.
                Some(rdkafka::error::RDKafkaErrorCode::AutoOffsetReset) => {
                    Err(transient("a topic's beginning moved while it was read", &error))
                }
                _ if matches!(error, KafkaError::MessageConsumptionFatal(_)) => {
                    Err(transient("a consumer failed", &error))
                }
                _ => Ok(Polled::Nothing),
            },
        }
    }
}

enum Polled {
    Record,
    End(i32),
    Nothing,
}
