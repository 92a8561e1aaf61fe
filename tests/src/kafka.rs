//! Reads and writes records of the stack under test, as other programs would.

use std::sync::Arc;
use std::time::{Duration, Instant};

use fhirehose_codec::FhirEnvelope;
use fhirehose_runtime::{RegistryConfig, SchemaRegistry};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

const TIMEOUT: Duration = Duration::from_secs(10);

pub struct Kafka {
    brokers: String,
    producer: BaseProducer,
    consumer: BaseConsumer,
    pub registry: Arc<SchemaRegistry>,
}

/// A committed record.
#[derive(Clone, Debug)]
pub struct Record {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub timestamp: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Record {
    pub fn key(&self) -> String {
        String::from_utf8_lossy(self.key.as_deref().unwrap_or_default()).into_owned()
    }

    /// Empty where there is none.
    pub fn header(&self, name: &str) -> String {
        let found = self.headers.iter().rev().find(|(header, _)| header == name);
        found.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
    }
}

impl Kafka {
    pub fn connect() -> Kafka {
        let brokers = std::env::var("FHIREHOSE__KAFKA__BROKERS").unwrap();
        let config =
            RegistryConfig { url: std::env::var("FHIREHOSE__REGISTRY__URL").unwrap(), ..Default::default() };
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &brokers).set("message.max.bytes", "12000000");
        let producer = client.create().unwrap();
        // Never joins a group: partitions are assigned by hand and nothing is committed.
        client
            .set("group.id", "tests")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true");
        client.set("isolation.level", "read_committed").set("fetch.wait.max.ms", "50");
        let consumer = client.create().unwrap();
        Kafka { brokers, producer, consumer, registry: Arc::new(SchemaRegistry::new(&config).unwrap()) }
    }

    pub fn topics(&self) -> Vec<String> {
        let metadata = self.consumer.fetch_metadata(None, TIMEOUT).unwrap();
        metadata.topics().iter().map(|topic| topic.name().to_owned()).collect()
    }

    pub fn create_topic(&self, name: &str) {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", &self.brokers).create().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let topics = [NewTopic::new(name, 1, TopicReplication::Fixed(1))];
        let made = runtime.block_on(admin.create_topics(&topics, &AdminOptions::new())).unwrap();
        made.into_iter().for_each(|result| drop(result.unwrap()));
    }

    /// Sum of the ends of the topics picked: stands still when nothing is written.
    pub fn end_of(&self, wanted: impl Fn(&str) -> bool) -> i64 {
        let begun = Instant::now();
        loop {
            match self.try_end_of(&wanted) {
                Ok(end) => return end,
                // A topic that was made a moment ago has no leader yet.
                Err(error) => assert!(begun.elapsed() < TIMEOUT, "the ends of topics: {error}"),
            }
        }
    }

    fn try_end_of(&self, wanted: impl Fn(&str) -> bool) -> Result<i64, KafkaError> {
        let metadata = self.consumer.fetch_metadata(None, TIMEOUT)?;
        let topics = metadata.topics().iter().filter(|topic| wanted(topic.name()));
        let partitions = topics.flat_map(|t| t.partitions().iter().map(move |p| (t.name(), p.id())));
        partitions.map(|(t, p)| Ok(self.consumer.fetch_watermarks(t, p, TIMEOUT)?.1)).sum()
    }

    /// Every committed record of a topic, tombstones and older values too.
    pub fn read(&self, topic: &str) -> Vec<Record> {
        let metadata = self.consumer.fetch_metadata(Some(topic), TIMEOUT).unwrap();
        let mut list = TopicPartitionList::new();
        for partition in metadata.topics()[0].partitions() {
            list.add_partition_offset(topic, partition.id(), Offset::Beginning).unwrap();
        }
        let mut open = list.count();
        self.consumer.assign(&list).unwrap();
        let (mut records, begun) = (Vec::new(), Instant::now());
        while open > 0 {
            assert!(begun.elapsed() < Duration::from_secs(60), "{topic} cannot be read to its end");
            match self.consumer.poll(Duration::from_millis(500)) {
                Some(Ok(message)) => records.push(record(&message)),
                Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
                Some(Err(error)) => panic!("{topic}: {error}"),
                None => {}
            }
        }
        self.consumer.unassign().unwrap();
        records
    }

    /// The records of all topics whose name begins so.
    pub fn read_all(&self, prefix: &str) -> Vec<Record> {
        let topics = self.topics().into_iter().filter(|name| name.starts_with(prefix));
        topics.flat_map(|name| self.read(&name)).collect()
    }

    pub fn send(
        &self,
        topic: &str,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(String, String)],
    ) {
        let mut all = OwnedHeaders::new();
        for (key, value) in headers {
            all = all.insert(Header { key, value: Some(value) });
        }
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).timestamp(timestamp).headers(all);
        (record.key, record.payload) = (key, value);
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
        self.producer.flush(TIMEOUT).unwrap();
    }

    /// The resource in a record of `fhir.*`, as JSON text.
    pub fn resource(&self, value: &[u8]) -> String {
        let envelope = FhirEnvelope::decode(value, &*self.registry).unwrap();
        String::from_utf8(envelope.resource.to_vec()).unwrap()
    }
}

fn record(message: &impl Message) -> Record {
    let headers = message.headers().map_or(Vec::new(), |headers| {
        headers.iter().map(|h| (h.key.to_owned(), h.value.unwrap_or_default().to_vec())).collect()
    });
    Record {
        topic: message.topic().to_owned(),
        partition: message.partition(),
        offset: message.offset(),
        timestamp: message.timestamp().to_millis().unwrap_or(-1),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers,
    }
}
