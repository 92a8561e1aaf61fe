//! A producer that reports a failed delivery instead of forgetting it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;

use crate::Error;

#[derive(Clone, Default)]
struct Deliveries(Arc<Mutex<Option<KafkaError>>>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
        }
    }
}

pub(super) struct Publisher {
    producer: ThreadedProducer<Deliveries>,
    deliveries: Deliveries,
}

impl Publisher {
    pub fn connect(brokers: &str) -> Result<Self, Error> {
        let deliveries = Deliveries::default();
        let producer: ThreadedProducer<Deliveries> = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("enable.idempotence", "true")
            .set("linger.ms", "2")
            .set("partitioner", "murmur2_random")
            // Longer than a broker's restart takes.
            .set("message.timeout.ms", "120000")
            .create_with_context(deliveries.clone())?;
        Ok(Self { producer, deliveries })
    }

    /// Queues a record; an earlier one that could not be delivered is an error here.
    pub fn send(
        &self,
        topic: &str,
        key: &str,
        value: &[u8],
        at_ms: Option<i64>,
        mqtt_topic: Option<&str>,
    ) -> Result<(), Error> {
        self.check()?;
        let mut record = BaseRecord::to(topic).key(key).payload(value);
        if let Some(at_ms) = at_ms {
            record = record.timestamp(at_ms);
        }
        if let Some(name) = mqtt_topic {
            record =
                record.headers(OwnedHeaders::new().insert(Header { key: "mqtt-topic", value: Some(name) }));
        }
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }

    /// Waits until everything is delivered.
    pub fn flush(&self) -> Result<(), Error> {
        self.producer.flush(Duration::from_secs(120))?;
        self.check()
    }

    fn check(&self) -> Result<(), Error> {
        match self.deliveries.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }
}
