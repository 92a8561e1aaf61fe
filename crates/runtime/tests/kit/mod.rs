//! A real broker for the tests of the engine: topics of their own, producing, reading back, child processes.
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod copier;

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fhirehose_runtime::{Config, Inputs, Spec, StartFrom};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

/// The brokers, or `None` when the tests may be left out. Fails where neither is said.
pub fn brokers() -> Option<String> {
    if let Ok(brokers) = std::env::var("FHIREHOSE__KAFKA__BROKERS") {
        return Some(brokers);
    }
    assert_eq!(
        std::env::var("FHIREHOSE_TEST_SKIP_STACK").as_deref(),
        Ok("1"),
        "these tests need a Kafka broker in FHIREHOSE__KAFKA__BROKERS (`cargo xtask stack up` writes .stack/env); \
         FHIREHOSE_TEST_SKIP_STACK=1 leaves them out"
    );
    eprintln!("LEFT OUT: no broker, and FHIREHOSE_TEST_SKIP_STACK=1");
    None
}

pub struct Bench {
    pub brokers: String,
    name: String,
    topics: Vec<String>,
    admin: AdminClient<DefaultClientContext>,
    runtime: tokio::runtime::Runtime,
}

/// A record read back.
#[derive(Clone, Debug)]
pub struct Found {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub timestamp_ms: i64,
    pub headers: BTreeMap<String, Vec<u8>>,
}

impl Bench {
    /// `None` when the tests are to be left out.
    pub fn new(test: &str) -> Option<Bench> {
        let brokers = brokers()?;
        let admin = ClientConfig::new().set("bootstrap.servers", &brokers).create().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let unique = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        let name = format!("t-runtime-{test}-{unique}");
        Some(Bench { brokers, name, topics: Vec::new(), admin, runtime })
    }

    pub fn topic(&mut self, name: &str, partitions: i32, configs: &[(&str, &str)]) -> String {
        let topic = format!("{}-{name}", self.name);
        let mut new = NewTopic::new(&topic, partitions, TopicReplication::Fixed(1));
        for (key, value) in configs {
            new = new.set(key, value);
        }
        let made = self.runtime.block_on(self.admin.create_topics([&new], &AdminOptions::new())).unwrap();
        made.into_iter().for_each(|one| drop(one.unwrap()));
        self.topics.push(topic.clone());
        topic
    }

    /// Deletes a topic and makes it anew, empty.
    pub fn recreate(&self, topic: &str, partitions: i32) {
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
        self.runtime.block_on(self.admin.delete_topics(&[topic], &options)).unwrap();
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let begun = Instant::now();
        // Until the brokers have let go of it, it exists.
        loop {
            let made = self.runtime.block_on(self.admin.create_topics([&new], &options)).unwrap();
            if made.iter().all(Result::is_ok) {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "{made:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Everything a copier needs: topics `in` and `out`, a dead-letter topic.
    pub fn copier(&mut self, partitions: i32) -> Spec {
        let (input, output) = (self.topic("in", partitions, &[]), self.topic("out", partitions, &[]));
        let dead = self.topic("dlq", 1, &[]);
        spec(&self.name, &input, &output, &dead)
    }

    pub fn config(&self) -> Config {
        config(&self.brokers)
    }

    /// Produces numbered records: key `k<n>`, value `n`, evenly over the partitions.
    pub fn produce(&self, topic: &str, partitions: i32, numbers: std::ops::Range<u64>) {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("enable.idempotence", "true")
            .create()
            .unwrap();
        for n in numbers {
            let (key, value) = (format!("k{n}"), n.to_string());
            let record = || {
                let partition = i32::try_from(n % partitions as u64).unwrap();
                BaseRecord::to(topic).partition(partition).key(&key).payload(&value)
            };
            while let Err((error, _)) = producer.send(record()) {
                assert!(matches!(error, KafkaError::MessageProduction(_)), "{error}");
                producer.poll(Duration::from_millis(10));
            }
        }
        producer.flush(Duration::from_secs(30)).unwrap();
    }

    /// As [`Bench::produce`], in a transaction, which leaves a marker after its records.
    pub fn produce_in_transaction(&self, topic: &str, partitions: i32, numbers: std::ops::Range<u64>) {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("transactional.id", format!("{}-producer", self.name))
            .create()
            .unwrap();
        producer.init_transactions(Duration::from_secs(30)).unwrap();
        producer.begin_transaction().unwrap();
        for n in numbers {
            let (key, value) = (format!("k{n}"), n.to_string());
            let partition = i32::try_from(n % partitions as u64).unwrap();
            let record = BaseRecord::to(topic).partition(partition).key(&key).payload(&value);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.commit_transaction(Duration::from_secs(30)).unwrap();
    }

    /// Deletes every record, as retention does of a topic that is quiet for long.
    pub fn delete_all(&self, topic: &str, partitions: i32) {
        self.delete_before(topic, partitions, Offset::End);
    }

    /// As retention does, with all records before an offset.
    pub fn delete_before(&self, topic: &str, partitions: i32, offset: Offset) {
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            list.add_partition_offset(topic, partition, offset).unwrap();
        }
        self.runtime.block_on(self.admin.delete_records(&list, &AdminOptions::new())).unwrap();
    }

    /// One record of any size.
    pub fn produce_one(&self, topic: &str, key: &[u8], value: &[u8]) {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("message.max.bytes", "20000000")
            .create()
            .unwrap();
        producer
            .send(BaseRecord::to(topic).partition(0).key(key).payload(value))
            .map_err(|(e, _)| e)
            .unwrap();
        producer.flush(Duration::from_secs(30)).unwrap();
    }

    /// All records a reader of committed records sees.
    pub fn read(&self, topic: &str) -> Vec<Found> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("group.id", "t-runtime-reader")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed")
            .create()
            .unwrap();
        let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(10)).unwrap();
        let partitions = metadata.topics()[0].partitions().len();
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            list.add_partition_offset(topic, i32::try_from(partition).unwrap(), Offset::Beginning).unwrap();
        }
        consumer.assign(&list).unwrap();
        let (mut found, mut ended) = (Vec::new(), std::collections::BTreeSet::new());
        while ended.len() < partitions {
            match consumer.poll(Duration::from_secs(30)).expect("the broker answers") {
                Ok(message) => found.push(Found {
                    partition: message.partition(),
                    offset: message.offset(),
                    key: message.key().map(<[u8]>::to_vec),
                    value: message.payload().map(<[u8]>::to_vec),
                    timestamp_ms: message.timestamp().to_millis().unwrap(),
                    headers: message
                        .headers()
                        .into_iter()
                        .flat_map(|headers| headers.iter())
                        .map(|header| (header.key.to_owned(), header.value.unwrap_or_default().to_vec()))
                        .collect(),
                }),
                Err(KafkaError::PartitionEOF(partition)) => drop(ended.insert(partition)),
                Err(error) => panic!("{error}"),
            }
        }
        found
    }

    /// The numbers in a topic, in its order within partitions.
    pub fn numbers(&self, topic: &str) -> Vec<u64> {
        self.read(topic).iter().map(number).collect()
    }

    /// Waits until a topic holds at least `count` committed records.
    pub fn await_count(&self, topic: &str, count: usize, limit: Duration) -> usize {
        let until = Instant::now() + limit;
        loop {
            let found = self.read(topic).len();
            if found >= count || Instant::now() > until {
                return found;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let topics: Vec<_> = self.topics.iter().map(String::as_str).collect();
        drop(self.runtime.block_on(self.admin.delete_topics(&topics, &AdminOptions::new())));
    }
}

pub fn number(found: &Found) -> u64 {
    std::str::from_utf8(found.value.as_ref().unwrap()).unwrap().parse().unwrap()
}

pub fn config(brokers: &str) -> Config {
    let mut config = Config::default();
    config.kafka.brokers = brokers.to_owned();
    config.admin.listen = "127.0.0.1:0".parse().unwrap();
    config.runtime.start_from = Some(StartFrom::Earliest);
    config.runtime.session_timeout_ms = 6_000;
    config.runtime.transaction_timeout_ms = 5_000;
    config.runtime.commit_timeout_ms = 4_000;
    config.runtime.batch_max_records = 500;
    config
}

pub fn spec(name: &str, input: &str, output: &str, dead: &str) -> Spec {
    let dead: Arc<str> = dead.into();
    Spec {
        name: "copier",
        group: name.to_owned(),
        inputs: Inputs::Topics(vec![input.into()]),
        tables: vec![],
        changelog: None,
        outputs: vec![output.into()],
        store: None,
        dead_letters: Arc::new(move |_| dead.clone()),
    }
}

/// Runs the test `child` of this very test binary in a process of its own, with what it needs in variables.
pub fn spawn(child: &str, variables: &[(&str, &str)]) -> Guarded {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([child, "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
    command.envs(variables.iter().copied()).stdout(Stdio::null());
    if std::env::var("T_RUNTIME_VERBOSE").is_err() {
        command.stderr(Stdio::null());
    }
    Guarded(command.spawn().unwrap())
}

/// A child that does not outlive its test.
pub struct Guarded(Child);

impl Guarded {
    pub fn signal(&self, signal: &str) {
        let done = Command::new("kill").args([signal, &self.0.id().to_string()]).status().unwrap();
        assert!(done.success());
    }

    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Asks it to stop, and returns how long that took.
    pub fn stop(mut self) -> Duration {
        let start = Instant::now();
        self.signal("-TERM");
        let status = self.0.wait().unwrap();
        assert!(status.success(), "{status}");
        start.elapsed()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
