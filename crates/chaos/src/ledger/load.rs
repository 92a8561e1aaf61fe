//! Writes the inputs of a run: a producer that outlasts brokers, one whose records are never to be seen, and the
//! pace of both.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{
    BaseProducer, BaseRecord, NoCustomPartitioner, Producer as _, ProducerContext, ThreadedProducer,
};

use crate::flow::Halt;
use crate::world::World;

/// A record to be written. Without a partition, the key decides as with Kafka's own clients.
#[derive(Clone, Debug, Default)]
pub struct Input {
    pub topic: Arc<str>,
    pub partition: Option<i32>,
    pub key: Vec<u8>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(&'static str, String)>,
    /// Milliseconds since the epoch; [`LOAD_AGE_MS`] ago, where none is given.
    pub timestamp: Option<i64>,
}

/// By how much the records of a load are older than the moment they are written at: a topic can be made to refuse
/// them, and only them, by their age.
pub const LOAD_AGE_MS: i64 = 10_000;

/// Idempotent, waits for all replicas, and for as long as it takes.
pub struct Producer {
    inner: ThreadedProducer<Counts>,
    counts: Counts,
    sent: AtomicU64,
}

impl Producer {
    pub fn connect(world: &World) -> Result<Producer> {
        let counts = Counts::default();
        let mut client = client(world);
        client
            .set("enable.idempotence", "true")
            // No end: a record that was given up would be an input nobody knows of.
            .set("message.timeout.ms", "0")
            .set("linger.ms", "5")
            .set("queue.buffering.max.kbytes", "262144");
        let inner = client.create_with_context(counts.clone())?;
        Ok(Producer { inner, counts, sent: AtomicU64::new(0) })
    }

    /// Waits where the queue is full.
    pub fn send(&self, input: &Input) -> Result<()> {
        let mut next = record(input);
        let begun = Instant::now();
        loop {
            match self.inner.send(next) {
                Ok(()) => break,
                // One that was added just now: the client hears of it when it asks.
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::UnknownPartition), back))
                    if begun.elapsed() < Duration::from_secs(30) =>
                {
                    next = back;
                    drop(self.inner.client().fetch_metadata(Some(&input.topic), Duration::from_secs(5)));
                    sleep(Duration::from_millis(100));
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    next = back;
                    sleep(Duration::from_millis(5));
                }
                Err((error, _)) => return Err(error).with_context(|| format!("writing to {}", input.topic)),
            }
        }
        self.sent.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Returns when every record is acknowledged, with their number.
    pub fn finish(&self) -> Result<u64> {
        let sent = self.sent.load(Ordering::Relaxed);
        loop {
            let failed = self.counts.failed.load(Ordering::Relaxed);
            if failed > 0 {
                bail!("{failed} input records were refused");
            }
            if let Some((code, why)) = self.inner.client().fatal_error() {
                bail!("the producer failed: {code:?} {why}");
            }
            if self.counts.delivered.load(Ordering::Relaxed) >= sent {
                return Ok(sent);
            }
            sleep(Duration::from_millis(20));
        }
    }
}

/// Writes records in transactions that are aborted: a reader of committed records must never see them. Best
/// effort, for a transaction that cannot even be aborted times out.
pub struct Aborted {
    brokers: World,
    id: String,
    producer: Option<BaseProducer>,
}

const SOON: Duration = Duration::from_secs(5);

impl Aborted {
    pub fn new(world: &World, tag: &str) -> Aborted {
        Aborted { brokers: world.clone(), id: format!("chaos-aborted-{tag}"), producer: None }
    }

    pub fn write(&mut self, inputs: &[Input]) {
        if self.try_write(inputs).is_err() {
            self.producer = None;
        }
    }

    fn try_write(&mut self, inputs: &[Input]) -> Result<()> {
        let producer = match self.producer.take() {
            Some(producer) => producer,
            None => {
                let mut client = client(&self.brokers);
                client.set("transactional.id", &self.id).set("transaction.timeout.ms", "5000");
                let producer: BaseProducer = client.create()?;
                producer.init_transactions(SOON)?;
                producer
            }
        };
        producer.begin_transaction()?;
        for input in inputs {
            producer.send(record(input)).map_err(|(error, _)| error)?;
        }
        producer.flush(SOON)?;
        producer.abort_transaction(SOON)?;
        self.producer = Some(producer);
        Ok(())
    }
}

fn client(world: &World) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", &world.brokers)
        .set("acks", "all")
        .set("partitioner", "murmur2_random")
        .set("message.max.bytes", "12000000")
        .set("socket.nagle.disable", "true")
        .set("reconnect.backoff.max.ms", "1000")
        .set("log_level", "2");
    client
}

fn record(input: &Input) -> BaseRecord<'_, [u8], [u8]> {
    let mut record = BaseRecord::to(&input.topic).key(&*input.key);
    record.payload = input.value.as_deref();
    record.partition = input.partition;
    let old = || jiff::Timestamp::now().as_millisecond() - LOAD_AGE_MS;
    record.timestamp = Some(input.timestamp.unwrap_or_else(old));
    if !input.headers.is_empty() {
        let mut headers = OwnedHeaders::new();
        for (key, value) in &input.headers {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        record.headers = Some(headers);
    }
    record
}

#[derive(Clone, Default)]
struct Counts {
    delivered: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
}

impl ClientContext for Counts {}

impl ProducerContext<NoCustomPartitioner> for Counts {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let count = if result.is_ok() { &self.delivered } else { &self.failed };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// Keeps a rate over the whole of a run.
pub struct Pace {
    rate: f64,
    begun: Instant,
    done: usize,
    told: Instant,
}

impl Pace {
    pub fn new(rate: f64) -> Pace {
        Pace { rate, begun: Instant::now(), done: 0, told: Instant::now() }
    }

    /// So many records were written.
    pub fn wrote(&mut self, records: usize) {
        self.done += records;
    }

    /// Whether that many seconds have gone by since it last was so.
    pub fn every(&mut self, seconds: u64) -> bool {
        let due = self.told.elapsed() >= Duration::from_secs(seconds);
        if due {
            self.told = Instant::now();
        }
        due
    }

    /// Waits until the next record is due; false when the run is to end.
    pub fn next(&mut self, stop: &Halt) -> bool {
        loop {
            if stop.halted() {
                return false;
            }
            let due = self.begun + Duration::from_secs_f64(self.done as f64 / self.rate.max(0.1));
            match due.checked_duration_since(Instant::now()) {
                None => return true,
                Some(early) => sleep(early.min(Duration::from_millis(20))),
            }
        }
    }
}
