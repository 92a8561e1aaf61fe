//! What the harness does to servers, on those of the stack.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

mod kit;

use std::io::Read;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use fhirehose_chaos::ledger::load::LOAD_AGE_MS;
use fhirehose_chaos::proxy::{Leg, Proxies, Toxic};
use fhirehose_chaos::servers::kafka::Admin;
use fhirehose_chaos::servers::postgres::{Postgres, Trip, When};
use fhirehose_chaos::world::World;
use postgres::{Client, NoTls};
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};

const STEP: Duration = Duration::from_secs(30);

/// Proxies of the stack at ports of their own, so that no other harness is in the way.
fn proxies(world: &World) -> Proxies {
    Proxies::start(&World { proxied: Vec::new(), ..world.clone() }).unwrap()
}

fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < STEP, "{what}");
    }
}

fn unique(name: &str) -> String {
    format!("chaos.test.{name}.{}", std::process::id())
}

/// A database of the test's own with the table that sinks keep offsets in.
struct Database {
    admin: String,
    name: String,
    url: String,
}

impl Database {
    fn create(world: &World, name: &str) -> Database {
        let name = unique(name).replace('.', "_");
        let server = world.postgres.rsplit_once('/').unwrap().0;
        let database = Database { admin: world.postgres.clone(), url: format!("{server}/{name}"), name };
        let mut admin = Client::connect(&database.admin, NoTls).unwrap();
        admin.batch_execute(&format!("CREATE DATABASE {}", database.name)).unwrap();
        database
            .client()
            .batch_execute(
                "CREATE SCHEMA fhirehose; CREATE TABLE fhirehose.sink_offsets (part int, next_off bigint);
                 INSERT INTO fhirehose.sink_offsets VALUES (0, 0)",
            )
            .unwrap();
        database
    }

    fn client(&self) -> Client {
        Client::connect(&self.url, NoTls).unwrap()
    }

    fn offset(&self) -> i64 {
        self.client().query_one("SELECT next_off FROM fhirehose.sink_offsets", &[]).unwrap().get(0)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let mut admin = Client::connect(&self.admin, NoTls).unwrap();
        admin.batch_execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name)).unwrap();
    }
}

const ADVANCE: &str = "BEGIN; UPDATE fhirehose.sink_offsets SET next_off = next_off + 1";

#[test]
fn a_commit_whose_answer_is_lost_is_applied() {
    let Some(world) = kit::world() else { return };
    let database = Database::create(&world, "commit");
    let proxies = proxies(&World { postgres: database.url.clone(), ..world });
    let url = &proxies.product_env().into_iter().find(|(name, _)| name.contains("POSTGRES")).unwrap().1;
    let leg = proxies.leg(Leg::Postgres).unwrap();
    leg.set(Toxic::LoseCommitAnswer { times: 2 });
    for n in 1..=2 {
        let mut client = Client::connect(url, NoTls).unwrap();
        client.batch_execute(ADVANCE).unwrap();
        assert!(client.batch_execute("COMMIT").is_err() && client.is_closed());
        assert_eq!((database.offset(), leg.counters().struck), (n, n as u64));
    }
    let mut client = Client::connect(url, NoTls).unwrap();
    client.batch_execute(ADVANCE).unwrap();
    client.batch_execute("COMMIT").unwrap();
    assert_eq!(database.offset(), 3);
}

#[test]
fn transactions_fail_as_asked_and_no_longer() {
    let Some(world) = kit::world() else { return };
    let database = Database::create(&world, "trips");
    let postgres = Postgres::new(&database.url);
    for (trip, when, code) in [
        (Trip::DiskFull, When::Writing, "53100"),
        (Trip::Deadlock, When::Writing, "40P01"),
        (Trip::Serialization, When::Committing, "40001"),
        (Trip::Terminate, When::Committing, "57P01"),
    ] {
        postgres.trip(trip, when, 2).unwrap();
        for n in 1..=2 {
            let mut client = database.client();
            let written = client.batch_execute(ADVANCE);
            assert_eq!(written.is_err(), when == When::Writing, "{trip:?}");
            let failed = written.and_then(|()| client.batch_execute("COMMIT")).unwrap_err();
            // The end of a backend may close the connection before its last words are read.
            let closed = trip == Trip::Terminate && failed.code().is_none() && client.is_closed();
            assert!(closed || failed.code().is_some_and(|told| told.code() == code), "{trip:?}: {failed}");
            assert_eq!(postgres.tripped().unwrap(), n);
        }
        let before = database.offset();
        let mut client = database.client();
        client.batch_execute(ADVANCE).and_then(|()| client.batch_execute("COMMIT")).unwrap();
        assert_eq!(database.offset(), before + 1);
        postgres.heal().unwrap();
    }
    assert_eq!(database.offset(), 4, "what failed is rolled back");
}

#[test]
fn a_database_is_read_only_until_it_is_healed() {
    let Some(world) = kit::world() else { return };
    let database = Database::create(&world, "readonly");
    let postgres = Postgres::new(&database.url);
    let mut config: postgres::Config = database.url.parse().unwrap();
    config.application_name("a-sink");
    let mut old = config.connect(NoTls).unwrap();
    postgres.read_only("a-sink").unwrap();
    assert!(old.batch_execute("SELECT 1").is_err(), "its backend was ended");
    let refused = database.client().batch_execute(ADVANCE).unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "25006");
    postgres.heal().unwrap();
    database.client().batch_execute(ADVANCE).unwrap();
}

#[test]
fn a_lock_is_held_for_its_time() {
    let Some(world) = kit::world() else { return };
    let database = Database::create(&world, "lock");
    let postgres = Postgres::new(&database.url);
    let holder = std::thread::spawn(move || {
        postgres.hold_lock("fhirehose.sink_offsets", Duration::from_millis(900)).unwrap();
    });
    std::thread::sleep(Duration::from_millis(300));
    let begun = Instant::now();
    database.client().batch_execute(ADVANCE).unwrap();
    assert!(begun.elapsed() > Duration::from_millis(300));
    holder.join().unwrap();
}

/// A producer that reaches the stack's brokers through proxies at the ports the brokers tell. Fails if another
/// harness listens there.
fn transactional(world: &World, proxies: &Proxies, id: &str) -> BaseProducer {
    let env = proxies.product_env();
    assert!(!world.proxied.is_empty() && env[0].0.contains("BROKERS"));
    ClientConfig::new()
        .set("bootstrap.servers", &env[0].1)
        .set("transactional.id", id)
        .set("transaction.timeout.ms", "20000")
        .set("socket.timeout.ms", "1000")
        .set("message.timeout.ms", "15000")
        .create()
        .unwrap()
}

/// The end of a transaction that comes after the client has given up on it: the broker still gets it.
#[test]
fn a_held_end_of_a_transaction_takes_effect_after_its_client_is_gone() {
    let Some(world) = kit::world() else { return };
    let (topic, id) = (unique("held"), unique("held"));
    Admin::connect(&world.brokers).unwrap().ensure_topic(&topic, 1).unwrap();
    let proxies = Proxies::start(&world).unwrap();
    let producer = transactional(&world, &proxies, &id);
    producer.init_transactions(STEP).unwrap();
    producer.begin_transaction().unwrap();
    producer.send(BaseRecord::to(&topic).key("k").payload("v")).map_err(|(error, _)| error).unwrap();
    producer.flush(STEP).unwrap();
    proxies.brokers().for_each(|leg| leg.set(Toxic::HoldEndTxn { ms: 1_500, hang_up: false }));
    let committer = std::thread::spawn(move || producer.commit_transaction(Duration::from_millis(300)));
    let struck = || proxies.brokers().map(|leg| leg.counters().struck).sum::<u64>();
    let begun = Instant::now();
    while struck() == 0 {
        assert!(begun.elapsed() < STEP);
        std::thread::sleep(Duration::from_millis(5));
    }
    // The client hangs up: its request is in the proxy alone.
    assert!(committer.join().unwrap().is_err());
    assert_eq!(committed(&world, &topic, Duration::from_millis(300)), 0);
    assert_eq!(committed(&world, &topic, STEP), 1);
    assert!(begun.elapsed() >= Duration::from_millis(1_500));
}

/// Records that a read_committed reader sees, waiting so long for the first.
fn committed(world: &World, topic: &str, patience: Duration) -> usize {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &world.brokers)
        .set("group.id", unique("reader"))
        .set("isolation.level", "read_committed")
        .create()
        .unwrap();
    let mut all = rdkafka::TopicPartitionList::new();
    all.add_partition_offset(topic, 0, rdkafka::Offset::Beginning).unwrap();
    consumer.assign(&all).unwrap();
    let found = consumer.poll(patience).map(|record| record.unwrap().payload().is_some());
    usize::from(found == Some(true))
}

#[test]
fn topics_are_made_grown_and_made_anew() {
    let Some(world) = kit::world() else { return };
    let (admin, topic) =
        (Admin::connect(&world.brokers).unwrap(), format!("{}.some-group.dlq", unique("admin")));
    admin.ensure_topic(&topic, 2).unwrap();
    admin.ensure_topic(&topic, 2).unwrap();
    admin.add_partition(&topic).unwrap();
    assert_eq!(admin.partitions(&topic).unwrap(), 3);
    assert!(admin.dead_letter_topics("some-group").unwrap().contains(&topic));
    let producer: BaseProducer<Told> = ClientConfig::new()
        .set("bootstrap.servers", &world.brokers)
        .set("message.timeout.ms", "8000")
        .create_with_context(Told::default())
        .unwrap();
    let written = |age_ms: i64| {
        let made = jiff::Timestamp::now().as_millisecond() - age_ms;
        let record = BaseRecord::<(), str>::to(&topic).partition(0).payload("v").timestamp(made);
        producer.send(record).map_err(|(error, _)| error).unwrap();
        let begun = Instant::now();
        loop {
            producer.poll(Duration::from_millis(10));
            if let Some(taken) = producer.context().0.lock().unwrap().take() {
                return taken;
            }
            assert!(begun.elapsed() < STEP, "no word of the record");
        }
    };
    let is_taken = || written(LOAD_AGE_MS);
    assert!(is_taken());
    // Brokers learn of a setting a moment after it is made.
    admin.refuse_records(&topic, true).unwrap();
    eventually("a record is refused", || !is_taken());
    assert!(!is_taken(), "and so is the next");
    assert!(written(0), "a marker's age passes");
    admin.refuse_records(&topic, false).unwrap();
    eventually("a record is taken", is_taken);
    assert!(is_taken(), "and so is the next");
    // Other tests look at all dead letters of this stack.
    admin.delete_topic(&topic).unwrap();
}

/// Whether the last record was taken.
#[derive(Default)]
struct Told(Mutex<Option<bool>>);

impl ClientContext for Told {}

impl ProducerContext for Told {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        *self.0.lock().unwrap() = Some(result.is_ok());
    }
}

#[test]
fn every_leader_moves_where_there_are_others() {
    let Some(world) = kit::world() else { return };
    let brokers = world.brokers.split(',').count();
    let (admin, topic) = (Admin::connect(&world.brokers).unwrap(), unique("leaders"));
    admin.ensure_topic(&topic, 4).unwrap();
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", &world.brokers).create().unwrap();
    let leaders = || -> Vec<i32> {
        let metadata = consumer.fetch_metadata(Some(&topic), STEP).unwrap();
        metadata.topics()[0].partitions().iter().map(|partition| partition.leader()).collect()
    };
    for _ in 0..2 {
        let before = leaders();
        let moved = admin.move_leaders(&topic).unwrap();
        assert_eq!(moved, if brokers > 1 { 4 } else { 0 });
        // Each question goes to some broker, and some know later.
        eventually("they lead", || {
            leaders().iter().zip(&before).filter(|(now, then)| now != then).count() == moved
        });
    }
    assert!(admin.group_coordinator("some-group").unwrap() < brokers);
    assert!(admin.transaction_coordinator("some-id").unwrap() < brokers);
}

#[test]
fn the_producer_of_a_transactional_id_is_told() {
    let Some(world) = kit::world() else { return };
    let (admin, id) = (Admin::connect(&world.brokers).unwrap(), unique("owner"));
    assert!(admin.producer_of(&id).is_err(), "nobody had it");
    let owners: Vec<_> = (0..2)
        .map(|_| {
            let producer: BaseProducer = ClientConfig::new()
                .set("bootstrap.servers", &world.brokers)
                .set("transactional.id", &id)
                .create()
                .unwrap();
            producer.init_transactions(STEP).unwrap();
            admin.producer_of(&id).unwrap()
        })
        .collect();
    assert_eq!(owners[0].0, owners[1].0);
    assert!(owners[0].1 < owners[1].1, "{owners:?}");
}

#[test]
fn http_servers_of_the_stack_answer_through_proxies() {
    let Some(world) = kit::world() else { return };
    let proxies = proxies(&world);
    let env = proxies.product_env();
    let get = |name: &str, path: &str| {
        let url = &env.iter().find(|(found, _)| found.contains(name)).unwrap().1;
        let mut body = String::new();
        let mut answer = ureq::get(format!("{url}{path}")).call().unwrap();
        answer.body_mut().as_reader().read_to_string(&mut body).unwrap();
        body
    };
    assert!(get("REGISTRY", "/subjects").starts_with('['));
    assert!(get("SEARCH", "/").contains("cluster_name"));
}
