use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use fhirehose_decide::{Answer, Ended, Wear};
use fhirehose_faultpoint::{planted, point};
use fhirehose_stream::Fault;
use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{
    BaseProducer, BaseRecord, DefaultProducerContext, NoCustomPartitioner, Producer, ProducerContext,
};

use crate::clients::{self, Clients};
use crate::partitions::transient;

/// How long producing, adding offsets and aborting may each take.
const STEP: Duration = Duration::from_secs(10);
/// After this much more than its own limit, a call is taken for one that never returns.
const GRACE: Duration = Duration::from_secs(2);

/// More than a client tells between two transactions.
const EVENTS: u32 = 10_000;
/// What librdkafka calls its log lines of connections that failed or were closed.
const CONNECTION_LOST: &str = "FAIL";

/// One record to produce.
pub(crate) struct ToSend<'a> {
    pub topic: &'a str,
    pub partition: Option<i32>,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub timestamp_ms: Option<i64>,
    pub headers: Option<OwnedHeaders>,
}

/// A transactional producer, and whether it may be used once more.
pub(crate) struct TransactionalProducer {
    producer: Arc<BaseProducer<Deliveries>>,
    /// How long a commit may go without an answer.
    patience: Duration,
    wear: Wear,
}

/// Adds a header's value.
pub(crate) fn with_header(headers: OwnedHeaders, key: &str, value: Option<&[u8]>) -> OwnedHeaders {
    headers.insert(Header { key, value })
}

impl TransactionalProducer {
    /// Makes the producer, which fences off every earlier one of that name and ends its transaction.
    pub(crate) fn take_over(clients: &Clients, transactional_id: &str) -> Result<Self, Fault> {
        let producer: BaseProducer<Deliveries> = clients
            .transactional(transactional_id)
            .create_with_context(Deliveries::default())
            .map_err(|error| Fault::fatal(format!("the kafka producer cannot be made: {error}")))?;
        producer.init_transactions(Duration::from_secs(30)).map_err(|error| {
            match error.rdkafka_error_code() {
                Some(
                    RDKafkaErrorCode::TransactionalIdAuthorizationFailed
                    | RDKafkaErrorCode::ClusterAuthorizationFailed
                    | RDKafkaErrorCode::InvalidTransactionTimeout,
                ) => Fault::fatal(format!("kafka refuses the transactional producer: {error}")),
                _ => transient("the transactional producer could not start", &error),
            }
        })?;
        let patience = clients.commit_timeout();
        Ok(TransactionalProducer { producer: Arc::new(producer), patience, wear: Wear::default() })
    }

    pub(crate) fn worn(&self) -> bool {
        self.wear.worn()
    }

    /// One transaction: `records`, and `offsets` of the group as `membership` holds it.
    pub(crate) fn transaction<'a>(
        &mut self,
        records: impl Iterator<Item = ToSend<'a>>,
        offsets: &TopicPartitionList,
        membership: ConsumerGroupMetadata,
    ) -> Ended {
        let deliveries = self.producer.context().clone();
        deliveries.failed.store(0, Ordering::SeqCst);
        deliveries.too_large.store(false, Ordering::SeqCst);
        if let Err(error) = self.producer.begin_transaction() {
            self.wear.failed();
            return Ended::Aborted(self.told(transient("no transaction could begin", &error)));
        }
        point("transact.begun");
        match self.fill(records, offsets, membership, &deliveries) {
            Ok(()) => self.commit(),
            Err(fault) => self.abort(fault),
        }
    }

    /// Whether the broker refused a record of the last transaction for its size.
    pub(crate) fn was_too_large(&self) -> bool {
        self.producer.context().too_large.load(Ordering::SeqCst)
    }

    fn fill<'a>(
        &self,
        records: impl Iterator<Item = ToSend<'a>>,
        offsets: &TopicPartitionList,
        membership: ConsumerGroupMetadata,
        deliveries: &Deliveries,
    ) -> Result<(), Fault> {
        let deadline = Instant::now() + STEP;
        for record in records {
            self.send(record, deadline)?;
        }
        point("transact.sent");
        // The stock commit flushes in steps of 100 ms: be empty before.
        while self.producer.in_flight_count() > 0 {
            if Instant::now() > deadline {
                return Err(Fault::transient("records were not acknowledged in time"));
            }
            self.producer.poll(Duration::from_millis(1));
        }
        let failed = deliveries.failed.load(Ordering::SeqCst);
        if failed > 0 {
            let code = *deliveries.code.lock().unwrap_or_else(PoisonError::into_inner);
            let code = code.map(|code| format!("{code:?}")).unwrap_or_default();
            return Err(Fault::transient(format!("{failed} records were not delivered: {code}")));
        }
        point("transact.flushed");
        self.take_offsets(offsets.clone(), membership)?;
        point("transact.offsets");
        Ok(())
    }

    /// On a thread of its own, for the call does not keep to its limit: it waits for ever for a coordinator whose
    /// broker has left the cluster meanwhile (librdkafka's issues 5456 and 5511). One that is given up ends with its
    /// producer, at the next change of any broker; it has no effect, since the next producer has fenced it off.
    fn take_offsets(
        &self,
        offsets: TopicPartitionList,
        membership: ConsumerGroupMetadata,
    ) -> Result<(), Fault> {
        let producer = self.producer.clone();
        within(STEP + GRACE, move || producer.send_offsets_to_transaction(&offsets, &membership, STEP))
            .ok_or_else(|| Fault::transient("nobody said whether offsets were taken into the transaction"))?
            .map_err(|error| transient("offsets were not taken into the transaction", &error))
    }

    fn send(&self, record: ToSend<'_>, deadline: Instant) -> Result<(), Fault> {
        let mut message = message(record);
        let topic = message.topic;
        loop {
            match self.producer.send(message) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    if Instant::now() > deadline {
                        return Err(Fault::transient("the produce queue stayed full"));
                    }
                    self.producer.poll(Duration::from_millis(1));
                    message = back;
                }
                Err((error, _)) => {
                    if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) {
                        self.producer.context().too_large.store(true, Ordering::SeqCst);
                    }
                    return Err(transient(&format!("a record for {topic} was not taken"), &error));
                }
            }
        }
    }

    fn commit(&mut self) -> Ended {
        let start = Instant::now();
        let result = self.producer.commit_transaction(self.patience);
        if result.is_ok() {
            point("transact.committed");
        }
        let result = result.map_err(|error| transient("the outcome of a commit is unknown", &error));
        let answer = self.answer(result, start);
        self.wear.commit(answer)
    }

    fn answer(&self, result: Result<(), Fault>, start: Instant) -> Answer {
        // What happened meanwhile waits in the queue of events, one to a poll, since committing and aborting do not
        // serve it.
        let mut events = 0;
        while self.producer.in_flight_count() > 0 && events < EVENTS {
            self.producer.poll(Duration::ZERO);
            events += 1;
        }
        let disturbed = self.producer.context().disturbed.load(Ordering::SeqCst);
        // Planted: an end that was slow or sent twice is as good as any.
        match planted("late-end-trusted") && result.is_ok() {
            true => Answer { result, took: Duration::ZERO, disturbed: false },
            false => Answer { result, took: start.elapsed(), disturbed },
        }
    }

    /// Says what to do where librdkafka only says that this producer is fenced.
    fn told(&self, fault: Fault) -> Fault {
        match self.producer.client().fatal_error() {
            Some((
                RDKafkaErrorCode::Fenced
                | RDKafkaErrorCode::ProducerFenced
                | RDKafkaErrorCode::InvalidProducerEpoch,
                _,
            )) => Fault::transient(
                "this producer was fenced: its transaction timed out, or another process runs under the same \
                 runtime.instance; each needs its own",
            ),
            _ => fault,
        }
    }

    fn abort(&mut self, fault: Fault) -> Ended {
        let start = Instant::now();
        let result = self.producer.abort_transaction(STEP);
        let result = result.map_err(|error| transient("an abort failed", &error));
        if self.producer.client().fatal_error().is_some() {
            self.wear.failed();
        }
        let (answer, fault) = (self.answer(result, start), self.told(fault));
        self.wear.abort(answer, fault)
    }
}

/// What a call returns, unless it has not by then; the call goes on by itself.
fn within<T: Send + 'static>(limit: Duration, call: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (done, returned) = mpsc::sync_channel(1);
    // Nobody waits for what comes too late.
    thread::spawn(move || drop(done.send(call())));
    returned.recv_timeout(limit).ok()
}

fn message(record: ToSend<'_>) -> BaseRecord<'_, [u8], [u8]> {
    let mut message = BaseRecord::to(record.topic);
    message.partition = record.partition;
    message.key = record.key;
    message.payload = record.value;
    message.timestamp = record.timestamp_ms;
    message.headers = record.headers;
    message
}

/// What planted bugs send with: no transaction, and nobody asks what became of the records.
pub(crate) fn send_unawaited<'a>(clients: &Clients, records: impl Iterator<Item = ToSend<'a>>) {
    static PLAIN: OnceLock<Option<BaseProducer>> = OnceLock::new();
    let make = || {
        let mut client = clients.plain();
        client.set("linger.ms", "200").set("partitioner", "murmur2_random");
        client.create_with_context(DefaultProducerContext).ok()
    };
    let Some(producer) = PLAIN.get_or_init(make) else { return };
    for record in records {
        drop(producer.send(message(record)));
    }
    producer.poll(Duration::ZERO);
}

/// What the producer's callbacks tell.
#[derive(Default)]
struct Deliveries {
    failed: AtomicU64,
    code: Mutex<Option<RDKafkaErrorCode>>,
    too_large: AtomicBool,
    /// A connection was lost in this producer's life. Never unset: librdkafka does not tell one that follows
    /// soon after another.
    disturbed: AtomicBool,
}

impl ClientContext for Deliveries {
    /// A connection that the other side closed is told here alone: it is no error to librdkafka, which sends again
    /// what was under way.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if facility == CONNECTION_LOST {
            self.disturbed.store(true, Ordering::SeqCst);
        }
        clients::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.disturbed.store(true, Ordering::SeqCst);
        clients::log_error(&error, reason);
    }
}

impl ProducerContext<NoCustomPartitioner> for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.failed.fetch_add(1, Ordering::SeqCst);
            *self.code.lock().unwrap_or_else(PoisonError::into_inner) = error.rdkafka_error_code();
            if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) {
                self.too_large.store(true, Ordering::SeqCst);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_producer_that_lost_a_connection_is_disturbed() {
        let told = Deliveries::default();
        told.log(RDKafkaLogLevel::Info, "TXNERR", "current transaction failed");
        assert!(!told.disturbed.load(Ordering::SeqCst));
        told.log(RDKafkaLogLevel::Info, "FAIL", "disconnected: connection closed by peer");
        assert!(told.disturbed.load(Ordering::SeqCst));
    }

    #[test]
    fn a_call_that_does_not_return_is_given_up() {
        assert_eq!(within(Duration::from_secs(60), || 7), Some(7));
        let (release, held) = mpsc::channel::<()>();
        let given_up = within(Duration::from_millis(10), move || held.recv());
        assert!(given_up.is_none());
        drop(release);
    }
}
