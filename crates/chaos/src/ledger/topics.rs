//! Kafka as the ledger sees it: where topics end, what a group has committed, and ranges of records read back.
//! What went in is what a topic holds, never what a producer believes it sent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ConfigSource, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Headers;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use crate::world::World;

const ASK: Duration = Duration::from_secs(5);
/// Brokers may be on their way back.
const PATIENCE: Duration = Duration::from_secs(90);

/// A partition of a topic.
pub type At = (Arc<str>, i32);

/// An offset of each partition.
pub type Offsets = BTreeMap<At, i64>;

/// A record as it was read back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    pub key: String,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, String)>,
}

impl Record {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().rev().find(|(header, _)| header == name).map(|(_, value)| &**value)
    }
}

/// Which records a reader sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    Committed,
    /// Aborted ones too.
    Uncommitted,
}

impl Isolation {
    fn name(self) -> &'static str {
        match self {
            Isolation::Committed => "read_committed",
            Isolation::Uncommitted => "read_uncommitted",
        }
    }
}

/// Reads topics; joins no group.
pub struct Topics {
    brokers: String,
    asker: BaseConsumer,
}

impl Topics {
    pub fn connect(world: &World) -> Result<Topics> {
        let asker = reader(&world.brokers, Isolation::Uncommitted).create()?;
        Ok(Topics { brokers: world.brokers.clone(), asker })
    }

    /// Names of all topics.
    pub fn names(&self) -> Result<Vec<String>> {
        let metadata = self.asker.fetch_metadata(None, ASK)?;
        Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect())
    }

    /// How many partitions a topic has now.
    pub fn partitions(&self, topic: &str) -> Result<i32> {
        let metadata = self.asker.fetch_metadata(Some(topic), ASK)?;
        let count =
            metadata.topics().iter().find(|found| found.name() == topic).map(|t| t.partitions().len());
        i32::try_from(count.unwrap_or_default()).context("partitions")
    }

    /// The offset the next record of every partition would get.
    pub fn ends<T: AsRef<str>>(&self, topics: impl IntoIterator<Item = T>) -> Result<Offsets> {
        let mut ends = Offsets::new();
        for topic in topics {
            let topic: Arc<str> = topic.as_ref().into();
            let partitions = patiently(&topic, || self.partitions(&topic))?;
            ensure!(partitions > 0, "there is no topic {topic}");
            for partition in 0..partitions {
                let marks = || Ok(self.asker.fetch_watermarks(&topic, partition, ASK)?);
                ends.insert((topic.clone(), partition), patiently(&topic, marks)?.1);
            }
        }
        Ok(ends)
    }

    /// Hands out every record from `from` up to `to`, in order within each partition, topic by topic; a partition
    /// that `from` lacks is read from its beginning. Waits until transactions below `to` have ended.
    pub fn read(
        &self,
        isolation: Isolation,
        from: &Offsets,
        to: &Offsets,
        mut each: impl FnMut(&str, Record) -> Result<()>,
    ) -> Result<()> {
        let consumer: BaseConsumer = reader(&self.brokers, isolation).create()?;
        let settled: BaseConsumer = reader(&self.brokers, Isolation::Committed).create()?;
        let topics: BTreeSet<&Arc<str>> = to.keys().map(|(topic, _)| topic).collect();
        for topic in topics {
            let mut open = BTreeMap::new();
            let mut list = TopicPartitionList::new();
            for ((_, partition), end) in to.iter().filter(|((of, _), _)| of == topic) {
                let start = from.get(&(topic.clone(), *partition)).copied().unwrap_or(0);
                if start < *end {
                    list.add_partition_offset(topic, *partition, Offset::Offset(start))?;
                    open.insert(*partition, *end);
                    patiently(topic, || {
                        let stable = settled.fetch_watermarks(topic, *partition, ASK)?.1;
                        ensure!(stable >= *end, "a transaction is open at {topic} [{partition}] {stable}");
                        Ok(())
                    })?;
                }
            }
            if !open.is_empty() {
                consumer.assign(&list)?;
                drain(&consumer, topic, open, &mut each)?;
            }
        }
        Ok(())
    }
}

/// Makes the cleaner take on a changelog soon: every run writes it, and every start reads it whole.
pub fn compact_soon(world: &World, topic: &str) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> = reader(&world.brokers, Isolation::Uncommitted).create()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (resource, options) =
        (ResourceSpecifier::Topic(topic), AdminOptions::new().request_timeout(Some(ASK)));
    let described = runtime.block_on(admin.describe_configs([&resource], &options))?;
    let mut config = AlterConfig::new(resource);
    let mut own = Vec::new();
    for described in described {
        let described = described.map_err(|code| anyhow!("describing {topic}: {code}"))?;
        let set = described.entries.into_iter().filter(|entry| entry.source == ConfigSource::DynamicTopic);
        own.extend(set.filter_map(|entry| Some((entry.name, entry.value?))));
    }
    // What is not said again would be forgotten.
    let soon = [("segment.ms", "20000"), ("min.cleanable.dirty.ratio", "0.1")];
    for (name, value) in own.iter().map(|(name, value)| (&**name, &**value)).chain(soon) {
        config = config.set(name, value);
    }
    for altered in runtime.block_on(admin.alter_configs([&config], &options))? {
        altered.map_err(|(_, code)| anyhow!("altering {topic}: {code}"))?;
    }
    Ok(())
}

/// Reads what is assigned until every partition is at its end.
fn drain(
    consumer: &BaseConsumer,
    topic: &Arc<str>,
    mut open: BTreeMap<i32, i64>,
    each: &mut impl FnMut(&str, Record) -> Result<()>,
) -> Result<()> {
    let mut since = Instant::now();
    while !open.is_empty() {
        match consumer.poll(Duration::from_millis(500)) {
            Some(Ok(message)) => {
                since = Instant::now();
                let (partition, offset) = (message.partition(), message.offset());
                let Some(end) = open.get(&partition).copied() else { continue };
                if offset < end {
                    each(topic, record(&message))?;
                }
                if offset + 1 >= end {
                    open.remove(&partition);
                }
            }
            // The end was stable before reading began, so what is left are markers and aborted records.
            Some(Err(KafkaError::PartitionEOF(partition))) => drop(open.remove(&partition)),
            Some(Err(_)) | None => {
                ensure!(since.elapsed() < PATIENCE, "{topic} cannot be read to its end: {open:?} are left");
            }
        }
    }
    consumer.unassign()?;
    Ok(())
}

/// A reader that follows topics all the time, from the ends they had when it began.
pub struct Tail {
    consumer: BaseConsumer,
}

impl Tail {
    pub fn begin(world: &World, from: &Offsets) -> Result<Tail> {
        let mut client = reader(&world.brokers, Isolation::Committed);
        let consumer: BaseConsumer = client.set("enable.partition.eof", "false").create()?;
        let mut list = TopicPartitionList::new();
        for ((topic, partition), offset) in from {
            list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
        }
        consumer.assign(&list)?;
        Ok(Tail { consumer })
    }

    /// What has arrived, for at most half a second. A broker that is down is no news.
    pub fn arrived(&self, mut each: impl FnMut(&str, Record)) {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(500) {
            match self.consumer.poll(Duration::ZERO) {
                Some(Ok(message)) => each(message.topic(), record(&message)),
                Some(Err(_)) => {}
                None => return,
            }
        }
    }
}

/// The offsets of a consumer group, read and set from outside.
pub struct Group {
    name: String,
    consumer: BaseConsumer,
}

impl Group {
    pub fn connect(world: &World, name: &str) -> Result<Group> {
        // Committed: offsets in a transaction that is still open are waited for.
        let mut client = reader(&world.brokers, Isolation::Committed);
        let consumer = client.set("group.id", name).create()?;
        Ok(Group { name: name.to_owned(), consumer })
    }

    /// Where the group would go on, of the partitions it has been at.
    pub fn committed<'a>(&self, of: impl IntoIterator<Item = &'a At>) -> Result<Offsets> {
        let mut list = TopicPartitionList::new();
        for (topic, partition) in of {
            list.add_partition(topic, *partition);
        }
        let found = self.consumer.committed_offsets(list, ASK)?;
        let mut offsets = Offsets::new();
        for element in found.elements() {
            element.error().with_context(|| format!("offsets of {}", self.name))?;
            if let Offset::Offset(offset) = element.offset() {
                offsets.insert((element.topic().into(), element.partition()), offset);
            }
        }
        Ok(offsets)
    }

    /// Sets the group's offsets, without metadata. The group must have no members.
    pub fn set(&self, offsets: &Offsets) -> Result<()> {
        let mut list = TopicPartitionList::new();
        for ((topic, partition), offset) in offsets {
            list.add_partition_offset(topic, *partition, Offset::Offset(*offset))?;
        }
        patiently(&self.name, || {
            // First waits for transactions of earlier runs, whose offsets would come after ours.
            self.committed(offsets.keys())?;
            self.consumer.commit(&list, CommitMode::Sync)?;
            ensure!(self.committed(offsets.keys())? == *offsets, "offsets of {} do not stand", self.name);
            Ok(())
        })
    }

    /// As [`crate::flow::Live::progress`] tells it.
    pub fn progress<'a>(&self, of: impl IntoIterator<Item = &'a At>) -> Result<BTreeMap<String, i64>> {
        let committed = self.committed(of)?;
        Ok(committed
            .into_iter()
            .map(|((topic, partition), at)| (format!("{topic}/{partition}"), at))
            .collect())
    }
}

fn reader(brokers: &str, isolation: Isolation) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", brokers)
        // Never joined: partitions are assigned by hand.
        .set("group.id", "fhirehose-chaos")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", isolation.name())
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "50")
        .set("fetch.message.max.bytes", "12000000")
        .set("queued.max.messages.kbytes", "65536")
        .set("reconnect.backoff.max.ms", "1000")
        .set("topic.metadata.refresh.interval.ms", "5000")
        // Brokers that are down are the point of the exercise.
        .set("log_level", "2");
    client
}

fn record(message: &impl Message) -> Record {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let headers = message.headers().map_or(Vec::new(), |headers| {
        headers.iter().map(|h| (h.key.to_owned(), text(h.value.unwrap_or_default()))).collect()
    });
    Record {
        partition: message.partition(),
        offset: message.offset(),
        timestamp: message.timestamp().to_millis().unwrap_or(-1),
        key: text(message.key().unwrap_or_default()),
        value: message.payload().map(<[u8]>::to_vec),
        headers,
    }
}

/// Tries until it works, for servers that are just coming back.
fn patiently<T>(what: &str, mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    let begun = Instant::now();
    loop {
        match ask() {
            Ok(found) => return Ok(found),
            Err(error) if begun.elapsed() > PATIENCE => bail!(error.context(what.to_owned())),
            Err(_) => sleep(Duration::from_millis(200)),
        }
    }
}
