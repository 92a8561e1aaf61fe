//! What the bench itself asks of Kafka: writing the input, and how far a group has read it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

const TIMEOUT: Duration = Duration::from_secs(20);

/// Writes records, without transactions.
pub struct Writer(ThreadedProducer<DefaultProducerContext>);

impl Writer {
    pub fn connect(brokers: &str) -> Result<Writer> {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", brokers).set("partitioner", "murmur2_random");
        client.set("enable.idempotence", "true").set("linger.ms", "1").set("compression.type", "lz4");
        Ok(Writer(client.create()?))
    }

    /// Queues a record; waits while the queue is full.
    pub fn send(&self, topic: &str, key: &[u8], value: &[u8], header: Option<(&str, &str)>) -> Result<()> {
        let mut record = BaseRecord::to(topic).key(key).payload(value);
        if let Some((key, value)) = header {
            record = record.headers(OwnedHeaders::new().insert(Header { key, value: Some(value) }));
        }
        self.queue(record)
    }

    /// The same into a partition that is not the key's.
    pub fn send_to(&self, topic: &str, partition: i32, key: &[u8], value: &[u8]) -> Result<()> {
        self.queue(BaseRecord::to(topic).partition(partition).key(key).payload(value))
    }

    fn queue(&self, mut record: BaseRecord<'_, [u8], [u8]>) -> Result<()> {
        loop {
            record = match self.0.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    std::thread::sleep(Duration::from_millis(2));
                    back
                }
                Err((error, back)) => {
                    return Err(error).with_context(|| format!("writing to {}", back.topic));
                }
            };
        }
    }

    pub fn flush(&self) -> Result<()> {
        Ok(self.0.flush(Duration::from_secs(60))?)
    }
}

/// A consumer group, seen from outside.
pub struct Group {
    consumer: BaseConsumer,
    /// Every partition of its topics, and the end of each.
    ends: Vec<(String, i32, i64)>,
}

impl Group {
    /// The group, and the topics it reads whose names `wanted` picks, as they are now.
    pub fn of(brokers: &str, group: &str, wanted: impl Fn(&str) -> bool) -> Result<Group> {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", brokers).set("group.id", group).set("enable.auto.commit", "false");
        // Offsets as they are now, without waiting for the transactions of a process that was killed.
        client.set("isolation.level", "read_uncommitted");
        let consumer: BaseConsumer = client.create()?;
        let metadata = consumer.fetch_metadata(None, TIMEOUT)?;
        let mut ends = Vec::new();
        for topic in metadata.topics().iter().filter(|topic| wanted(topic.name())) {
            for partition in topic.partitions() {
                let end = consumer.fetch_watermarks(topic.name(), partition.id(), TIMEOUT)?.1;
                ends.push((topic.name().to_owned(), partition.id(), end));
            }
        }
        Ok(Group { consumer, ends })
    }

    /// Records in its topics.
    pub fn total(&self) -> i64 {
        self.ends.iter().map(|(.., end)| end).sum()
    }

    pub fn partitions(&self) -> impl Iterator<Item = (&str, i32)> {
        self.ends.iter().map(|(topic, partition, _)| (topic.as_str(), *partition))
    }

    /// Records it has read, by its committed offsets.
    pub fn committed(&self) -> Result<i64> {
        Ok(self.offsets()?.iter().sum())
    }

    /// Its committed offset of every partition, 0 where it has none.
    pub fn offsets(&self) -> Result<Vec<i64>> {
        let mut list = TopicPartitionList::new();
        for (topic, partition, _) in &self.ends {
            list.add_partition(topic, *partition);
        }
        let committed = self.consumer.committed_offsets(list, TIMEOUT)?;
        let offset = |offset: Offset| if let Offset::Offset(offset) = offset { offset } else { 0 };
        let of = |(topic, partition)| {
            committed.find_partition(topic, partition).map_or(0, |element| offset(element.offset()))
        };
        Ok(self.partitions().map(of).collect())
    }

    /// Puts the group back to the beginning.
    pub fn rewind(&self) -> Result<()> {
        self.put(|_| 0)
    }

    /// Puts the group to the topics' ends.
    pub fn skip(&self) -> Result<()> {
        self.put(|end| end)
    }

    /// When its members are gone: one that was killed is counted in until its session has timed out.
    fn put(&self, to: impl Fn(i64) -> i64) -> Result<()> {
        let mut list = TopicPartitionList::new();
        for (topic, partition, end) in &self.ends {
            list.add_partition_offset(topic, *partition, Offset::Offset(to(*end)))?;
        }
        let begun = Instant::now();
        loop {
            match self.consumer.commit(&list, CommitMode::Sync) {
                Err(_) if begun.elapsed() < TIMEOUT => std::thread::sleep(Duration::from_millis(200)),
                result => return result.context("moving a group"),
            }
        }
    }
}
