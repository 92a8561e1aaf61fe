use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fhirehose_faultpoint::planted;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, NoCustomPartitioner, Producer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext};

use crate::config::Config;

/// Librdkafka properties the engine sets by itself because exactly-once rests on them, and why.
pub type ManagedProperty = (&'static str, &'static str);

const MANAGED: &[ManagedProperty] = &[
    ("bootstrap.servers", "set kafka.brokers"),
    ("metadata.broker.list", "set kafka.brokers"),
    ("group.id", "set kafka.group_prefix"),
    ("group.instance.id", "a worker leaves its group when it stops"),
    ("group.protocol", "the classic protocol carries the fencing this engine checks"),
    ("transactional.id", "set runtime.instance"),
    ("transaction.timeout.ms", "set runtime.transaction_timeout_ms"),
    ("session.timeout.ms", "set runtime.session_timeout_ms"),
    ("enable.auto.commit", "offsets are committed with the data"),
    ("enable.auto.offset.store", "offsets are committed with the data"),
    ("auto.offset.reset", "where to begin is runtime.start_from"),
    ("isolation.level", "aborted records must stay unseen"),
    ("partition.assignment.strategy", "rebalances are cooperative"),
    ("enable.idempotence", "part of transactions"),
    ("acks", "part of transactions"),
    ("request.required.acks", "part of transactions"),
    ("max.in.flight", "part of transactions"),
    ("max.in.flight.requests.per.connection", "part of transactions"),
    (
        "log.connection.close",
        "a lost connection is told by this log alone, and may mean that a commit was sent twice",
    ),
    ("partitioner", "keys must meet their kin: murmur2, as Kafka's own clients"),
    ("enable.partition.eof", "the engine asks for it where it needs it"),
    ("message.max.bytes", "set runtime.record_max_bytes"),
    ("compression.type", "set runtime.compression"),
    ("compression.codec", "set runtime.compression"),
];

/// A dead letter carries an original of any size Kafka took, and headers; its topics allow 24 MiB.
pub(crate) const DEAD_LETTER_MAX_BYTES: usize = 20 << 20;

/// What is wrong with the passthrough properties: a line for each the engine sets itself.
pub(crate) fn managed_properties(properties: &BTreeMap<String, String>) -> Vec<String> {
    MANAGED
        .iter()
        .filter(|(key, _)| properties.contains_key(*key))
        .map(|(key, why)| format!("kafka.properties.\"{key}\" cannot be set: {why}"))
        .collect()
}

/// Makes the settings of Kafka clients.
#[derive(Clone)]
pub struct Clients {
    config: Arc<Config>,
}

impl Clients {
    pub fn new(config: Arc<Config>) -> Self {
        Clients { config }
    }

    /// A client without a role: metadata, administration, plain producing.
    pub fn plain(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("client.id", "fhirehose");
        // Once a second at most, else a broker that is down fills the log.
        client.set("reconnect.backoff.max.ms", "2000");
        client.set("socket.keepalive.enable", "true");
        // A commit's three round trips must not wait for the network stack to fill a packet.
        client.set("socket.nagle.disable", "true");
        for (key, value) in &self.config.kafka.properties {
            client.set(key, value);
        }
        client.set("bootstrap.servers", &self.config.kafka.brokers);
        client.set_log_level(RDKafkaLogLevel::Info);
        client
    }

    /// Produces one record and waits until every replica has it.
    pub fn produce(&self, topic: &str, key: &[u8], value: Option<&[u8]>) -> Result<(), String> {
        let mut client = self.plain();
        client.set("acks", "all").set("enable.idempotence", "true").set("partitioner", "murmur2_random");
        let producer: BaseProducer<Outcome> =
            client.create_with_context(Outcome::default()).map_err(|error| error.to_string())?;
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).key(key);
        record.payload = value;
        producer.send(record).map_err(|(error, _)| error.to_string())?;
        producer.flush(Duration::from_secs(30)).map_err(|error| error.to_string())?;
        let failed = producer.context().0.lock().unwrap_or_else(PoisonError::into_inner).take();
        failed.map_or(Ok(()), |error| Err(error.to_string()))
    }

    /// A member of a group that commits nothing by itself.
    pub(crate) fn member(&self, group: &str) -> ClientConfig {
        let runtime = &self.config.runtime;
        let mut client = self.reader(group);
        client.set("session.timeout.ms", runtime.session_timeout_ms.to_string());
        client.set("heartbeat.interval.ms", (runtime.session_timeout_ms / 5).clamp(200, 3_000).to_string());
        client.set("partition.assignment.strategy", "cooperative-sticky");
        client.set("statistics.interval.ms", "2000");
        // New topics of a pattern are met within this time.
        client.set("topic.metadata.refresh.interval.ms", "10000");
        client
    }

    /// A reader of whole topics, in no group; `name` only satisfies librdkafka, which wants one.
    pub(crate) fn whole_topic(&self, name: &str) -> ClientConfig {
        let mut client = self.reader(name);
        client.set("enable.partition.eof", "true");
        // A partition's end is told when a fetch comes back empty: let it not wait long for more.
        client.set("fetch.wait.max.ms", "100");
        client
    }

    /// Asks for ends of topics, open transactions included.
    pub(crate) fn uncommitted(&self, name: &str) -> ClientConfig {
        let mut client = self.reader(name);
        client.set("isolation.level", "read_uncommitted");
        client
    }

    fn reader(&self, group: &str) -> ClientConfig {
        let prefetch = self.config.runtime.prefetch_bytes;
        let mut client = self.plain();
        client.set("group.id", group);
        // Planted: aborted records are read like any other.
        let seen = if planted("aborted-inputs-read") { "read_uncommitted" } else { "read_committed" };
        client.set("isolation.level", seen);
        client.set("enable.auto.commit", "false");
        client.set("enable.auto.offset.store", "false");
        client.set("auto.offset.reset", "error");
        client.set("queued.max.messages.kbytes", (prefetch / 1024).max(1024).to_string());
        client.set("fetch.max.bytes", (prefetch / 2).max(2 << 20).to_string());
        // With the queue full, ask again soon: the stock second would starve a fast worker.
        client.set("fetch.queue.backoff.ms", "5");
        client
    }

    /// How long a commit may go without an answer.
    pub(crate) fn commit_timeout(&self) -> Duration {
        Duration::from_millis(self.config.runtime.commit_timeout_ms)
    }

    /// A transactional producer.
    pub(crate) fn transactional(&self, transactional_id: &str) -> ClientConfig {
        let runtime = &self.config.runtime;
        let mut client = self.plain();
        client.set("transactional.id", transactional_id);
        client.set("transaction.timeout.ms", runtime.transaction_timeout_ms.to_string());
        client.set("enable.idempotence", "true");
        client.set("acks", "all");
        client.set("partitioner", "murmur2_random");
        client.set("compression.type", &runtime.compression);
        client.set("message.max.bytes", (DEAD_LETTER_MAX_BYTES + (4 << 20)).to_string());
        // The batch is complete when it is produced: no reason to linger.
        client.set("linger.ms", "0.5");
        client.set("queue.buffering.max.kbytes", "262144");
        client
    }
}

/// Puts librdkafka's own log lines and errors into ours. They name brokers, topics and partitions, and never
/// a record's content.
pub(crate) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    // A transaction that must be aborted is told by the loop, which tries it again.
    let level = if facility == "TXNERR" { RDKafkaLogLevel::Info } else { level };
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error => tracing::error!(target: "kafka", facility, "{}", message.to_lowercase()),
        RDKafkaLogLevel::Warning => tracing::warn!(target: "kafka", facility, "{}", message.to_lowercase()),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
            tracing::info!(target: "kafka", facility, "{}", message.to_lowercase());
        }
        RDKafkaLogLevel::Debug => tracing::debug!(target: "kafka", facility, "{}", message.to_lowercase()),
    }
}

pub(crate) fn log_error(error: &KafkaError, reason: &str) {
    let code = error.rdkafka_error_code().map(|code| format!("{code:?}")).unwrap_or_default();
    match error.rdkafka_error_code() {
        // An event, not an error: whoever asked for it gets it from `poll`.
        Some(RDKafkaErrorCode::PartitionEOF) => {}
        Some(RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown) => tracing::warn!(
            target: "kafka",
            code,
            "kafka cannot be reached: {}; check kafka.brokers and the network, it is tried again",
            reason.to_lowercase()
        ),
        _ => tracing::warn!(target: "kafka", code, "{}", reason.to_lowercase()),
    }
}

/// For clients whose callbacks carry nothing but log lines.
pub(crate) struct Logged;

impl ClientContext for Logged {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl rdkafka::consumer::ConsumerContext for Logged {}

/// Keeps why a record was not delivered.
#[derive(Default)]
struct Outcome(Mutex<Option<KafkaError>>);

impl ClientContext for Outcome {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl ProducerContext<NoCustomPartitioner> for Outcome {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_engine_sets_cannot_be_set_beside_it() {
        let mut config = Config::default();
        config.kafka.brokers = "127.0.0.1:1".into();
        config.kafka.properties.insert("security.protocol".into(), "plaintext".into());
        assert!(managed_properties(&config.kafka.properties).is_empty());
        let clients = Clients::new(Arc::new(config));
        for client in [clients.member("g"), clients.transactional("t"), clients.whole_topic("w")] {
            assert_eq!(client.get("security.protocol"), Some("plaintext"));
            client.create_native_config().unwrap();
            let unmanaged = ["client.id", "security.protocol"];
            let ours: Vec<_> = client
                .config_map()
                .keys()
                .filter(|key| matches!(**key, "isolation.level" | "acks" | "group.id" | "transactional.id"))
                .copied()
                .collect();
            let listed = |key: &str| MANAGED.iter().any(|(managed, _)| *managed == key);
            assert!(ours.iter().all(|key| listed(key) && !unmanaged.contains(key)), "{ours:?}");
        }
    }
}
