//! Reads whole topics: the last value of every key, as a consumer of committed records sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use apache_avro::types::Value as Avro;
use apache_avro::{Schema, from_avro_datum};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(10);

pub struct Topics {
    consumer: BaseConsumer,
    registry: String,
    schemas: BTreeMap<u32, Schema>,
}

/// Last value of every key that is not deleted.
pub type Content = BTreeMap<String, Vec<u8>>;

impl Topics {
    pub fn connect(brokers: &str, registry: &str) -> Result<Self> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            // Never joined: partitions are assigned by hand and nothing is committed.
            .set("group.id", "fhirehose-demo")
            .set("enable.auto.commit", "false")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", "50")
            .create()?;
        Ok(Self { consumer, registry: registry.trim_end_matches('/').to_owned(), schemas: BTreeMap::new() })
    }

    /// Names of all topics.
    pub fn names(&self) -> Result<Vec<String>> {
        let metadata = self.consumer.fetch_metadata(None, TIMEOUT)?;
        Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect())
    }

    /// Records ever written to the topics that `wanted` picks, aborted ones and transaction markers too:
    /// a number that stands still when nothing flows.
    pub fn end(&self, wanted: impl Fn(&str) -> bool) -> Result<i64> {
        let metadata = self.consumer.fetch_metadata(None, TIMEOUT)?;
        let mut sum = 0;
        for topic in metadata.topics().iter().filter(|topic| wanted(topic.name())) {
            for partition in topic.partitions() {
                sum += self.consumer.fetch_watermarks(topic.name(), partition.id(), TIMEOUT)?.1;
            }
        }
        Ok(sum)
    }

    /// Last values by key; a topic that does not exist is empty.
    pub fn read(&self, topic: &str) -> Result<Content> {
        let mut content = Content::new();
        self.each(topic, |key, value| match value {
            Some(value) => drop(content.insert(key, value.to_vec())),
            None => drop(content.remove(&key)),
        })?;
        Ok(content)
    }

    /// Reads a topic from its beginning to its end as of now.
    pub fn each(&self, topic: &str, mut record: impl FnMut(String, Option<&[u8]>)) -> Result<()> {
        let metadata = self.consumer.fetch_metadata(Some(topic), TIMEOUT)?;
        let mut open: BTreeSet<i32> = (metadata.topics().iter())
            .flat_map(|topic| topic.partitions().iter().map(|partition| partition.id()))
            .collect();
        let mut list = TopicPartitionList::new();
        for partition in &open {
            list.add_partition_offset(topic, *partition, Offset::Beginning)?;
        }
        self.consumer.assign(&list)?;
        let begun = Instant::now();
        while !open.is_empty() {
            match self.consumer.poll(Duration::from_millis(500)) {
                Some(Ok(message)) => {
                    let key = message.key().unwrap_or_default();
                    record(String::from_utf8_lossy(key).into_owned(), message.payload());
                }
                Some(Err(rdkafka::error::KafkaError::PartitionEOF(partition))) => {
                    open.remove(&partition);
                }
                Some(Err(error)) => return Err(error).with_context(|| format!("reading {topic}")),
                None if begun.elapsed() > Duration::from_secs(60) => {
                    bail!("{topic} cannot be read to its end")
                }
                None => {}
            }
        }
        self.consumer.unassign()?;
        Ok(())
    }

    /// A value in Confluent's wire format as JSON text fields by name; numbers and booleans as text too.
    pub fn record(&mut self, bytes: &[u8]) -> Result<BTreeMap<String, String>> {
        let [0, a, b, c, d, body @ ..] = bytes else { bail!("not in the registry's wire format") };
        let id = u32::from_be_bytes([*a, *b, *c, *d]);
        if !self.schemas.contains_key(&id) {
            let found: Value =
                ureq::get(format!("{}/schemas/ids/{id}", self.registry)).call()?.body_mut().read_json()?;
            let text = found["schema"].as_str().context("the registry's answer has no schema")?;
            self.schemas.insert(id, Schema::parse_str(text)?);
        }
        let Avro::Record(fields) = from_avro_datum(&self.schemas[&id], &mut &*body, None)? else {
            bail!("not an Avro record");
        };
        Ok(fields.into_iter().filter_map(|(name, value)| Some((name, text(value)?))).collect())
    }

    /// The FHIR resource inside a record of `fhir.*` or `enriched.*`.
    pub fn resource(&mut self, bytes: &[u8]) -> Result<Value> {
        let record = self.record(bytes)?;
        let json = record.get("resource").context("the record has no resource")?;
        Ok(serde_json::from_str(json)?)
    }
}

/// `None` for null and for what has no plain text.
fn text(value: Avro) -> Option<String> {
    match value {
        Avro::Union(_, inner) => text(*inner),
        Avro::String(text) => Some(text),
        Avro::Bytes(bytes) => String::from_utf8(bytes).ok(),
        Avro::Boolean(value) => Some(value.to_string()),
        Avro::Int(value) => Some(value.to_string()),
        Avro::Long(value) | Avro::TimestampMillis(value) => Some(value.to_string()),
        Avro::Float(value) => Some(value.to_string()),
        Avro::Double(value) => Some(value.to_string()),
        _ => None,
    }
}
