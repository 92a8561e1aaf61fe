//! What an operator can do to a Kafka cluster while clients work: move leaders, find coordinators, change topics.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::metadata::Metadata;
use rdkafka::types::RDKafkaErrorCode;
use tokio::runtime::Runtime;

use super::wire::Request;
use crate::ledger::load::LOAD_AGE_MS;

const TIMEOUT: Duration = Duration::from_secs(20);
/// What the cluster is asked for is seen by all brokers a moment later.
const SETTLED: Duration = Duration::from_secs(30);

const FIND_COORDINATOR: i16 = 10;
const ELECT_LEADERS: i16 = 43;
const ALTER_CONFIGS: i16 = 44;
const ALTER_REASSIGNMENTS: i16 = 45;
const DESCRIBE_TRANSACTIONS: i16 = 65;
const ELECTION_NOT_NEEDED: i16 = 84;
const TIMEOUT_MS: i32 = 10_000;

/// Kinds of coordinators, as the protocol numbers them.
const OF_GROUP: i8 = 0;
const OF_TRANSACTION: i8 = 1;

pub struct Admin {
    brokers: String,
    client: AdminClient<DefaultClientContext>,
    runtime: Runtime,
}

impl Admin {
    /// Speaks to the brokers directly, not through proxies.
    pub fn connect(brokers: &str) -> Result<Admin> {
        let client = ClientConfig::new().set("bootstrap.servers", brokers).create()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Admin { brokers: brokers.to_owned(), client, runtime })
    }

    fn metadata(&self, topic: Option<&str>) -> Result<Metadata> {
        self.client.inner().fetch_metadata(topic, TIMEOUT).context("asking for metadata")
    }

    /// Partitions of a topic; 0 if there is no such topic.
    pub fn partitions(&self, topic: &str) -> Result<usize> {
        let metadata = self.metadata(Some(topic))?;
        Ok(metadata.topics().first().map_or(0, |found| found.partitions().len()))
    }

    /// Makes the topic, with as many copies as there are brokers, unless it is there.
    pub fn ensure_topic(&self, topic: &str, partitions: usize) -> Result<()> {
        let copies = self.metadata(None)?.brokers().len() as i32;
        let new = NewTopic::new(topic, partitions as i32, TopicReplication::Fixed(copies));
        let made = self.runtime.block_on(self.client.create_topics([&new], &options()))?;
        match made.into_iter().next() {
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
            Some(Err((_, error))) => bail!("creating {topic}: {error}"),
            _ => self.settled(topic, |admin| Ok(admin.partitions(topic)? == partitions)),
        }
    }

    /// Gives the topic one more partition.
    pub fn add_partition(&self, topic: &str) -> Result<()> {
        let wanted = self.partitions(topic)? + 1;
        let more = NewPartitions::new(topic, wanted);
        let made = self.runtime.block_on(self.client.create_partitions([&more], &options()))?;
        if let Some(Err((_, error))) = made.into_iter().next() {
            bail!("a partition more for {topic}: {error}");
        }
        self.settled(topic, |admin| Ok(admin.partitions(topic)? == wanted))
    }

    pub fn delete_topic(&self, topic: &str) -> Result<()> {
        let deleted = self.runtime.block_on(self.client.delete_topics(&[topic], &options()))?;
        if let Some(Err((_, error))) = deleted.into_iter().next() {
            bail!("deleting {topic}: {error}");
        }
        self.settled(topic, |admin| Ok(admin.partitions(topic)? == 0))
    }

    /// The topics that hold what this group has rejected.
    pub fn dead_letter_topics(&self, group: &str) -> Result<Vec<String>> {
        let suffix = format!(".{group}.dlq");
        let metadata = self.metadata(None)?;
        let names = metadata.topics().iter().map(|topic| topic.name().to_owned());
        Ok(names.filter(|name| name.ends_with(&suffix)).collect())
    }

    /// Makes the brokers refuse every record of a run's load that is written to the topic, or takes that back: the
    /// load is old, see [`LOAD_AGE_MS`]. Markers of transactions are not, and must pass:
    /// a coordinator whose marker is refused never ends the transaction. (To ask for more copies in sync than there
    /// are does not help: the number is capped.) Takes effect a moment after the return.
    pub fn refuse_records(&self, topic: &str, refuse: bool) -> Result<()> {
        const TOPIC: i8 = 2;
        const SET: i8 = 0;
        const DELETE: i8 = 1;
        let setting = |request: Request, name: &str| match refuse {
            true => request.string(name).int8(SET).string(&(LOAD_AGE_MS / 2).to_string()).end(),
            false => request.string(name).int8(DELETE).null().end(),
        };
        let request = Request::new(ALTER_CONFIGS, 1).array([()].into_iter(), |request, ()| {
            request
                .int8(TOPIC)
                .string(topic)
                .array(["message.timestamp.before.max.ms"].into_iter(), setting)
                .end()
        });
        let mut response = request.int8(0).end().send(&self.brokers)?;
        response.int32()?;
        let errors = response.array(|response| {
            let error = (response.int16()?, response.string()?);
            response.int8()?;
            response.string()?;
            response.end().map(|()| error)
        })?;
        none_of(errors, "changing the settings", topic)
    }

    /// Gives every partition of the topic another leader, and returns when it leads. A partition of which no other
    /// copy is in sync stays where it is; how many moved.
    pub fn move_leaders(&self, topic: &str) -> Result<usize> {
        let metadata = self.metadata(Some(topic))?;
        let found = metadata.topics().first().with_context(|| format!("there is no topic {topic}"))?;
        // In sync and not the leader comes first; the first is the preferred leader.
        let mut orders = BTreeMap::new();
        for partition in found.partitions() {
            let leader = partition.leader();
            if let Some(next) = partition.isr().iter().copied().find(|broker| *broker != leader) {
                let others = partition.replicas().iter().copied().filter(|broker| *broker != next);
                orders.insert(partition.id(), std::iter::once(next).chain(others).collect::<Vec<i32>>());
            }
        }
        self.reorder(topic, &orders)?;
        self.elect(topic, &orders)?;
        self.settled(topic, |admin| {
            let metadata = admin.metadata(Some(topic))?;
            let now = metadata.topics().first().map(|found| found.partitions()).unwrap_or_default();
            Ok(now.iter().all(|partition| {
                orders.get(&partition.id()).is_none_or(|order| order.first() == Some(&partition.leader()))
            }))
        })?;
        Ok(orders.len())
    }

    /// Which copy is preferred, without moving any.
    fn reorder(&self, topic: &str, orders: &BTreeMap<i32, Vec<i32>>) -> Result<()> {
        let partition = |request: Request, (id, order): (&i32, &Vec<i32>)| {
            request.int32(*id).array(order.iter(), |request, broker| request.int32(*broker)).end()
        };
        let request = Request::new(ALTER_REASSIGNMENTS, 0).int32(TIMEOUT_MS);
        let request = request.array([()].into_iter(), |request, ()| {
            request.string(topic).array(orders.iter(), partition).end()
        });
        let mut response = request.end().send(&self.brokers)?;
        response.int32()?;
        let mut errors = vec![(response.int16()?, response.string()?)];
        let topics = response.array(|response| {
            response.string()?;
            let errors = response.array(|response| {
                response.int32()?;
                let error = (response.int16()?, response.string()?);
                response.end().map(|()| error)
            })?;
            response.end().map(|()| errors)
        })?;
        errors.extend(topics.into_iter().flatten());
        none_of(errors, "reordering the replicas", topic)
    }

    fn elect(&self, topic: &str, orders: &BTreeMap<i32, Vec<i32>>) -> Result<()> {
        const PREFERRED: i8 = 0;
        let request =
            Request::new(ELECT_LEADERS, 2).int8(PREFERRED).array([()].into_iter(), |request, ()| {
                request.string(topic).array(orders.keys(), |request, id| request.int32(*id)).end()
            });
        let mut response = request.int32(TIMEOUT_MS).end().send(&self.brokers)?;
        response.int32()?;
        let mut errors = vec![(response.int16()?, String::new())];
        let topics = response.array(|response| {
            response.string()?;
            let errors = response.array(|response| {
                response.int32()?;
                let error = (response.int16()?, response.string()?);
                response.end().map(|()| error)
            })?;
            response.end().map(|()| errors)
        })?;
        errors.extend(topics.into_iter().flatten().filter(|(code, _)| *code != ELECTION_NOT_NEEDED));
        none_of(errors, "electing leaders", topic)
    }

    /// Which broker, counted from 0, coordinates the group.
    pub fn group_coordinator(&self, group: &str) -> Result<usize> {
        self.coordinator(OF_GROUP, group)
    }

    /// Which broker, counted from 0, coordinates the transactions of this id.
    pub fn transaction_coordinator(&self, transactional_id: &str) -> Result<usize> {
        self.coordinator(OF_TRANSACTION, transactional_id)
    }

    /// The producer that has this transactional id at present: its number, and its epoch, by which it is fenced off
    /// from those that had the id before. Fails where nobody ever had it.
    pub fn producer_of(&self, transactional_id: &str) -> Result<(i64, i16)> {
        let coordinator = self.transaction_coordinator(transactional_id)?;
        let broker = self.brokers.split(',').nth(coordinator).context("no such broker")?;
        let mut response = Request::new(DESCRIBE_TRANSACTIONS, 0)
            .array([transactional_id].into_iter(), |request, id| request.string(id))
            .end()
            .send(broker)?;
        response.int32()?;
        let found = response.array(|response| {
            let error = response.int16()?;
            response.string()?;
            response.string()?;
            response.int32()?;
            response.int64()?;
            let producer = (response.int64()?, response.int16()?);
            response.array(|response| {
                response.string()?;
                response.array(|response| response.int32())?;
                response.end()
            })?;
            response.end().map(|()| (error, producer))
        })?;
        match found.first() {
            Some((0, producer)) => Ok(*producer),
            _ => bail!("nobody has the transactional id {transactional_id}: {found:?}"),
        }
    }

    fn coordinator(&self, kind: i8, key: &str) -> Result<usize> {
        let request = Request::new(FIND_COORDINATOR, 4)
            .int8(kind)
            .array([key].into_iter(), |request, key| request.string(key))
            .end();
        let begun = Instant::now();
        loop {
            let mut response = request.send(&self.brokers)?;
            response.int32()?;
            let found = response.array(|response| {
                response.string()?;
                let node = response.int32()?;
                response.string()?;
                response.int32()?;
                let error = (response.int16()?, response.string()?);
                response.end().map(|()| (node, error))
            })?;
            match found.into_iter().next() {
                Some((node, (0, _))) => return usize::try_from(node - 1).context("the number of a broker"),
                // None at the moment, as while it moves or before the first use.
                found if begun.elapsed() > SETTLED => bail!("{key} has no coordinator: {found:?}"),
                _ => sleep(Duration::from_millis(200)),
            }
        }
    }

    /// Waits until it is so, and was so several times: each question goes to some broker, and some know later.
    fn settled(&self, topic: &str, is_so: impl Fn(&Admin) -> Result<bool>) -> Result<()> {
        const IN_A_ROW: u32 = 6;
        let begun = Instant::now();
        let mut so = 0;
        while so < IN_A_ROW {
            so = if is_so(self)? { so + 1 } else { 0 };
            ensure!(begun.elapsed() < SETTLED, "{topic} is not as asked for after {SETTLED:?}");
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT))
}

fn none_of(errors: Vec<(i16, String)>, doing: &str, topic: &str) -> Result<()> {
    match errors.into_iter().find(|(code, _)| *code != 0) {
        None => Ok(()),
        Some((code, message)) => bail!("{doing} of {topic}: error {code} {message}"),
    }
}
