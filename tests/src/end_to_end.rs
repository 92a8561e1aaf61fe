//! The whole product on the whole stack: two instances of every processor while processes are killed and
//! servers restarted, rows changed by hand, everything bad, servers that are down. One test, since its parts
//! share a stack and the first of them needs it empty.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use fhirehose_codec::FhirEnvelope;
use fhirehose_demo::checks::{self, Cache};
use fhirehose_demo::stack::{Stack, ZONE};
use fhirehose_demo::truth::Hospital;
use fhirehose_demo::workload::{Counters, Load, Slots, change_rows, join, send_readings};
use fhirehose_simulate::DevicesArgs;
use fhirehose_simulate::hospital::Hospital as Simulated;
use fhirehose_testkit::root;
use mysql::prelude::Queryable;

use crate::fleet::{Process, all_ready, assert_no_violation, quiet, say, stack};
use crate::kafka::Kafka;
use crate::{bad_on_stack, by_hand, docs, outages, secrecy};

const PATIENTS: u32 = 40;
/// Changes and readings go on for so long; everything below is broken meanwhile.
const SECONDS: u64 = 75;

pub struct World {
    pub stack: Stack,
    pub kafka: Kafka,
    pub logs: PathBuf,
}

#[test]
fn the_whole_product_while_things_break() {
    if std::env::var_os("FHIREHOSE_TEST_SKIP_STACK").is_some() {
        eprintln!("skipped: end to end (FHIREHOSE_TEST_SKIP_STACK)");
        return;
    }
    let stack = Stack::from_env().expect("run `cargo xtask test`, or load a stack's env file");
    let kafka = Kafka::connect();
    assert!(
        !kafka.topics().iter().any(|name| name.starts_with("fhir.")),
        "this needs an empty stack: run `cargo xtask stack reset && cargo xtask stack up` (FHIREHOSE_STACK_DIR)"
    );
    let logs = Path::new(env!("CARGO_TARGET_TMPDIR")).join("end-to-end");
    drop(std::fs::remove_dir_all(&logs));
    let world = World { stack, kafka, logs };

    say(&["topics", "apply"]);
    say(&["migrate", "apply"]);
    say(&["config", "check"]);
    stage("kills and restarts", || kills_and_restarts(&world));

    // From here on as most would begin: everything in one process.
    let mut product = [Process::start(&world.logs, "all", 1, &[])];
    all_ready(&mut product);
    stage("rows changed by hand", || by_hand::check(&world));
    stage("everything bad", || bad_on_stack::check(&world, &mut product[0]));
    stage("the registry down", || outages::registry(&world, &mut product[0]));
    stage("the database down", || outages::database(&world, &mut product[0]));
    stage("nothing personal is told", || secrecy::check(&world, &product));
    assert_no_violation(&product);
    docs::metrics(&product[0]);
    product[0].stop();
}

pub fn stage<T>(name: &str, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let done = work();
    eprintln!("{name}: {:.0} s", begun.elapsed().as_secs_f64());
    done
}

/// Names of all processors, from the binary's own table.
fn processors() -> Vec<String> {
    let listed = say(&["processors"]);
    let names = listed.lines().filter(|line| !line.starts_with(' ')).map(str::to_owned);
    names.collect()
}

fn kills_and_restarts(world: &World) {
    let names = processors();
    assert_eq!(names.len(), 9, "{names:?}");
    let mut rows = Vec::new();
    for (number, site) in (1_u64..).zip(&world.stack.sites) {
        let mut hospital = Simulated::open(&site.url, ZONE).unwrap();
        hospital.drop().unwrap();
        hospital.create().unwrap();
        let loaded = i64::try_from(hospital.load(PATIENTS, number, 1).unwrap()).unwrap();
        rows.push((format!("cdc.{}.", site.source), loaded));
    }
    stack(&["connector", "hospital-a", "hospital-b"]);
    let twice = names.iter().flat_map(|name| [(name, 1), (name, 2)]);
    let mut fleet: Vec<Process> =
        twice.map(|(name, number)| Process::start(&world.logs, name, number, &[])).collect();
    stage("start of two instances of each", || all_ready(&mut fleet));
    stage("initial load", || quiet(&mut fleet, &world.kafka, &rows, 240));

    let read = |site: &_, sent, inserted| Hospital::read(site, sent, inserted).unwrap();
    let before = world.stack.sites.iter().map(|site| read(site, Vec::new(), Default::default())).collect();
    let cache = Cache::fill(&world.stack, &root(), before).unwrap();
    let (slots, counters) = (Slots::default(), Counters::default());
    let (mut changes, mut readings) = (Vec::new(), Vec::new());
    for (seed, site) in (1_u64..).zip(&world.stack.sites) {
        let load = Load { seed, rate: 8.0, seconds: SECONDS, bad_share: 0.02 };
        changes.push(change_rows(site.clone(), load, slots.clone(), counters.clone()));
        let devices = DevicesArgs {
            brokers: world.stack.brokers.clone(),
            registry: world.stack.registry.clone(),
            shapes: root(),
            url: site.url.clone(),
            source: site.source.into(),
            tenant: site.tenant.into(),
            devices: 20,
            seed,
            rate: 5.0,
            seconds: SECONDS,
            zone: ZONE.into(),
        };
        readings.push(send_readings(site.clone(), devices, slots.clone(), counters.clone()));
    }
    stage("while all that happens", || break_things(&mut fleet));
    let inserted: Vec<_> = changes.into_iter().map(|thread| join(thread).unwrap()).collect();
    let sent: Vec<_> = readings.into_iter().map(|thread| join(thread).unwrap()).collect();
    assert!(counters.rows() > 500 && counters.messages() > 300, "nothing much happened");
    stage("until Debezium has sent all", || everything_is_sent(world));
    stage("until nothing flows", || quiet(&mut fleet, &world.kafka, &[], 180));

    let done = world.stack.sites.iter().zip(sent).zip(inserted);
    let hospitals: Vec<_> = done.map(|((site, sent), inserted)| read(site, sent, inserted)).collect();
    let (mut differences, mut compared) = (Vec::new(), 0);
    for check in checks::all(&world.stack, &hospitals, &cache).unwrap() {
        compared += check.expected.len();
        let found = check.compare();
        if found.total() > 0 {
            differences.push(format!("{} {}: {found:?}", check.store, check.what));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(compared > 5_000, "only {compared} rows compared");
    no_duplicates(&world.kafka);
    assert_no_violation(&fleet);
    stage("graceful stop of all", || fleet.iter_mut().for_each(Process::stop));
}

/// Changes a row of each hospital and waits until the change has come: changes come in their order, so all before
/// it has come too. A connector that waits to try again after a server's restart looks as if nothing flowed; one
/// that gave up is restarted as the runbook says.
fn everything_is_sent(world: &World) {
    for site in &world.stack.sites {
        let mark = format!("The last change of {}", site.source);
        let mut source = mysql::Conn::new(mysql::Opts::from_url(&site.url).unwrap()).unwrap();
        let change = "UPDATE business_operations.facilities SET city = ? ORDER BY id LIMIT 1";
        source.exec_drop(change, (&mark,)).unwrap();
        let topic = format!("cdc.{}.business_operations.facilities", site.source);
        let told = |value: &Vec<u8>| value.windows(mark.len()).any(|bytes| bytes == mark.as_bytes());
        let begun = Instant::now();
        while !world.kafka.read(&topic).iter().any(|record| record.value.as_ref().is_some_and(told)) {
            let status = connector_status(site.source);
            assert!(
                begun.elapsed() < Duration::from_secs(180),
                "{topic} does not tell within 180 s: {mark}; {status}"
            );
            if status.contains("FAILED") {
                eprintln!("{}: its connector gave up and is restarted: {status}", site.source);
                let again = format!("{}/restart?includeTasks=true&onlyFailed=true", site.source);
                // 409 while the worker rebalances: the next status tells.
                drop(ureq::post(connector(&again)).send_empty());
            }
            sleep(Duration::from_secs(1));
        }
    }
}

fn connector(path: &str) -> String {
    format!("{}/connectors/{path}", std::env::var("STACK_CONNECT_URL").unwrap())
}

/// What Connect answers, errors too.
fn connector_status(source: &str) -> String {
    match ureq::get(connector(&format!("{source}/status"))).call() {
        Ok(mut answer) => answer.body_mut().read_to_string().unwrap(),
        Err(error) => error.to_string(),
    }
}

/// Every processor is killed once, some are asked to stop, every server but Kafka is restarted: about a
/// minute in all, under load.
fn break_things(fleet: &mut [Process]) {
    let servers = thread::spawn(|| {
        for server in ["connect", "postgres", "opensearch", "redis", "registry"] {
            stack(&["restart", server]);
        }
    });
    for number in (0..fleet.len()).step_by(2) {
        sleep(Duration::from_secs(2));
        fleet[number].kill_and_restart();
    }
    for number in (1..fleet.len()).step_by(2) {
        sleep(Duration::from_secs(1));
        fleet[number].stop_and_restart();
    }
    servers.join().unwrap();
    all_ready(fleet);
}

/// A change of a row becomes a record of each resource once, and no version is given twice. (A device that
/// sends a reading twice makes its resource twice, alike, under one key.)
fn no_duplicates(kafka: &Kafka) {
    let (mut positions, mut records) = (BTreeMap::new(), 0);
    for record in kafka.read_all("fhir.").into_iter().filter(|record| !record.topic.ends_with(".dlq")) {
        let Some(value) = &record.value else { continue };
        let envelope = FhirEnvelope::decode(value, &*kafka.registry).unwrap();
        if envelope.source.starts_with("hospital_") {
            let position = envelope.source_position.to_owned();
            *positions.entry((record.topic.clone(), record.key(), position)).or_insert(0) += 1;
            records += 1;
        }
    }
    assert!(records > 1000, "only {records} records");
    let twice: Vec<_> = positions.iter().filter(|(_, count)| **count > 1).take(5).collect();
    assert!(twice.is_empty(), "emitted more than once: {twice:?}");
    let mut versions = BTreeMap::new();
    for record in kafka.read_all("enriched.").into_iter().filter(|record| !record.topic.ends_with(".dlq")) {
        let version = record.header(fhirehose_stream::HEADER_VERSION);
        assert!(!version.is_empty(), "{} has no version", record.topic);
        *versions.entry((record.topic.clone(), record.key(), version)).or_insert(0) += 1;
    }
    let twice: Vec<_> = versions.iter().filter(|(_, count)| **count > 1).take(5).collect();
    assert!(twice.is_empty(), "a version given more than once: {twice:?}");
}
