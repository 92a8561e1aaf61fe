//! The peer of normalize-cdc: reads the same records with the same client settings and, instead of making
//! anything of them, writes ready-made records of the same topics, keys and sizes, as many, in transactions
//! of the same batches. What it does per second no transactional processor of these records can beat by much.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use fhirehose_stream::{Output, Outputs};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use crate::changes::{Format, Table};
use crate::shapes::{Shapes, batch, process};

/// Distinct rows of each kind whose outputs are held ready.
const READY: u64 = 400;
// As the runtime's defaults.
const BATCH_RECORDS: usize = 2_000;
const BATCH_BYTES: usize = 4 << 20;
const LINGER: Duration = Duration::from_millis(5);
const BLOCKING: Duration = Duration::from_secs(10);

struct Copier {
    consumer: BaseConsumer,
    producer: BaseProducer,
    transactional: bool,
    /// By input topic.
    ready: HashMap<String, Ready>,
}

/// The outputs of [`READY`] rows, and which come next.
struct Ready {
    rows: Vec<Outputs>,
    next: usize,
}

/// Copies until it is killed.
pub fn run(root: &Path, brokers: &str, group: &str, transactional: bool) -> Result<()> {
    let mut copier = Copier {
        ready: ready(&Shapes::load(root)?)?,
        consumer: consumer(brokers, group)?,
        producer: producer(brokers, group, transactional)?,
        transactional,
    };
    if transactional {
        copier.producer.init_transactions(BLOCKING)?;
    }
    let names: Vec<&str> = copier.ready.keys().map(String::as_str).collect();
    copier.consumer.subscribe(&names)?;
    loop {
        copier.copy_batch()?;
    }
}

fn ready(shapes: &Shapes) -> Result<HashMap<String, Ready>> {
    let (mut processor, mut ready) = (shapes.normalize_cdc()?, HashMap::new());
    for table in Table::ALL {
        for format in Format::ALL {
            let (mut rows, mut topic) = (Vec::new(), String::new());
            for number in 1..=READY {
                let change = shapes.changes.change(table, format, number * 7, 1_790_812_800_000)?;
                topic = change.topic.to_string();
                let mut out = Outputs::default();
                process(&mut processor, &batch(&[change]), &mut out)?;
                rows.push(out);
            }
            ready.insert(topic, Ready { rows, next: 0 });
        }
    }
    Ok(ready)
}

fn consumer(brokers: &str, group: &str) -> Result<BaseConsumer> {
    let mut client = ClientConfig::new();
    for (key, value) in [
        ("bootstrap.servers", brokers),
        ("group.id", group),
        ("isolation.level", "read_committed"),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("auto.offset.reset", "earliest"),
        ("queued.max.messages.kbytes", "16384"),
        ("fetch.max.bytes", "8388608"),
        ("fetch.queue.backoff.ms", "5"),
        ("session.timeout.ms", "6000"),
        ("heartbeat.interval.ms", "1200"),
        ("partition.assignment.strategy", "cooperative-sticky"),
        ("statistics.interval.ms", "1000"),
        ("socket.nagle.disable", "true"),
    ] {
        client.set(key, value);
    }
    Ok(client.create()?)
}

fn producer(brokers: &str, group: &str, transactional: bool) -> Result<BaseProducer> {
    let mut client = ClientConfig::new();
    for (key, value) in [
        ("bootstrap.servers", brokers),
        ("enable.idempotence", "true"),
        ("acks", "all"),
        ("partitioner", "murmur2_random"),
        ("compression.type", "lz4"),
        ("linger.ms", "0.5"),
        ("queue.buffering.max.kbytes", "262144"),
        ("message.max.bytes", "25000000"),
        ("socket.nagle.disable", "true"),
    ] {
        client.set(key, value);
    }
    if transactional {
        client.set("transactional.id", group).set("transaction.timeout.ms", "12000");
    }
    Ok(client.create()?)
}

impl Copier {
    fn copy_batch(&mut self) -> Result<()> {
        let (mut next, mut rows) = (HashMap::new(), Vec::new());
        let (mut bytes, mut first) = (0, None::<Instant>);
        while rows.len() < BATCH_RECORDS && bytes < BATCH_BYTES {
            let wait = first.map_or(Duration::from_millis(100), |at| LINGER.saturating_sub(at.elapsed()));
            match self.consumer.poll(wait) {
                Some(message) => {
                    let message = message?;
                    let ready = self.ready.get_mut(message.topic()).context("another topic")?;
                    rows.push((message.topic().to_owned(), ready.next % ready.rows.len()));
                    ready.next += 1;
                    bytes += message.payload_len() + message.key_len();
                    next.insert((message.topic().to_owned(), message.partition()), message.offset() + 1);
                    first.get_or_insert_with(Instant::now);
                }
                None if wait.is_zero() || first.is_none() => break,
                None => {}
            }
        }
        if rows.is_empty() {
            return Ok(());
        }
        if self.transactional {
            self.producer.begin_transaction()?;
        }
        for (topic, row) in &rows {
            for output in self.ready[topic].rows[*row].iter() {
                self.send(&output)?;
            }
        }
        while self.producer.in_flight_count() > 0 {
            self.producer.poll(Duration::from_millis(1));
        }
        let mut offsets = TopicPartitionList::new();
        for ((topic, partition), offset) in next {
            offsets.add_partition_offset(&topic, partition, Offset::Offset(offset))?;
        }
        if self.transactional {
            let membership = self.consumer.group_metadata().context("in no group")?;
            self.producer.send_offsets_to_transaction(&offsets, &membership, BLOCKING)?;
            self.producer.commit_transaction(BLOCKING)?;
        } else {
            self.consumer.commit(&offsets, CommitMode::Async)?;
        }
        Ok(())
    }

    fn send(&self, output: &Output<'_>) -> Result<()> {
        let mut record = BaseRecord::<[u8], [u8]>::to(output.topic()).key(output.key());
        record.payload = output.value();
        record.timestamp = output.timestamp_ms();
        let headers = output.headers().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value) })
        });
        record.headers = Some(headers);
        loop {
            record = match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    self.producer.poll(Duration::from_millis(1));
                    back
                }
                Err((error, _)) => bail!("writing to {}: {error}", output.topic()),
            };
        }
    }
}
