//! Declared topics and schemas on a real broker and registry: planned, applied, found as declared.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

mod kit;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fhirehose_codec::{SchemaError, SchemaSource};
use fhirehose_runtime::{Clients, Cluster, RegistryConfig, RegistryError, SchemaRegistry};
use fhirehose_topics::{Change, Registry, Target};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;

fn declare(dir: &Path, name: &str, partitions: i32, retention: &str, fields: &str) {
    fs::create_dir_all(dir.join("topics")).unwrap();
    fs::create_dir_all(dir.join("schemas/avro")).unwrap();
    let topic = format!(
        "topic: {name}\ndescription: A test.\nowner: tests\nproducers: [one]\nconsumers: [two]\nkey: any\n\
         partitions: {partitions}\ncleanup: delete\nretention: {retention}\nvalue: avro\ncompatibility: full\n"
    );
    fs::write(dir.join(format!("topics/{name}.yaml")), topic).unwrap();
    let schema = format!(r#"{{"type":"record","name":"T","doc":"A test.","fields":[{fields}]}}"#);
    fs::write(dir.join(format!("schemas/avro/{name}-value.avsc")), schema).unwrap();
}

#[test]
fn what_is_declared_is_made_and_found() {
    let (Some(brokers), Ok(url)) = (kit::brokers(), std::env::var("FHIREHOSE__REGISTRY__URL")) else {
        assert_eq!(
            std::env::var("FHIREHOSE_TEST_SKIP_STACK").as_deref(),
            Ok("1"),
            "this test needs a schema registry in FHIREHOSE__REGISTRY__URL; FHIREHOSE_TEST_SKIP_STACK=1 leaves it out"
        );
        return;
    };
    let unique = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let name = format!("t-runtime-declared-{unique}");
    let dir = tempfile::tempdir().unwrap();
    let field = r#"{"name":"a","type":"string","default":"","doc":"A."}"#;
    declare(dir.path(), &name, 2, "1d", field);
    let mut config = kit::config(&brokers);
    config.registry = RegistryConfig { url, ..RegistryConfig::default() };
    let registry = SchemaRegistry::new(&config.registry).unwrap();
    let clients = Clients::new(Arc::new(config.clone()));
    let target = Target {
        sources: vec![],
        group_prefix: "t-".into(),
        replication_factor: -1,
        processors: vec!["two".into()],
    };
    let apply = |topics: &Registry| {
        let mut cluster = Cluster::new(&clients, &registry).unwrap();
        let plan = cluster.plan(topics, &target).unwrap();
        assert_eq!(plan.refusals, []);
        plan.changes.iter().for_each(|change| cluster.apply(change).unwrap());
        plan.changes
    };
    let topics = Registry::load(dir.path()).unwrap();
    let schema = topics.schema(&name).unwrap();
    let missing = registry.id_of(&schema.subject, &schema.json);
    assert!(matches!(missing, Err(RegistryError::NotApplied { what: "missing", .. })), "{missing:?}");
    // The topic, its dead letters, the rule, the schema.
    let changes = apply(&topics);
    assert_eq!(changes.len(), 4, "{changes:?}");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(apply(&topics), [], "applied twice");
    let id = registry.id_of(&schema.subject, &schema.json).unwrap();
    assert!(registry.schema(id).is_ok());
    assert_eq!(registry.schema(u32::MAX / 2).err(), Some(SchemaError::Unknown));

    // A field more, a partition more, another retention.
    declare(
        dir.path(),
        &name,
        3,
        "2d",
        &format!(r#"{field},{{"name":"b","type":"string","default":"","doc":"B."}}"#),
    );
    let topics = Registry::load(dir.path()).unwrap();
    let newer = topics.schema(&name).unwrap();
    let other = registry.id_of(&newer.subject, &newer.json);
    assert!(matches!(other, Err(RegistryError::NotApplied { what: "different", .. })), "{other:?}");
    let changes = apply(&topics);
    let altered =
        |change: &Change| matches!(change, Change::AlterConfig { key, .. } if key == "retention.ms");
    assert!(changes.len() == 3 && changes.iter().any(altered), "{changes:?}");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(apply(&topics), []);
    assert_ne!(registry.id_of(&newer.subject, &newer.json).unwrap(), id);
    // A program from before still finds its schema.
    assert_eq!(registry.id_of(&schema.subject, &schema.json).unwrap(), id);

    let admin: AdminClient<DefaultClientContext> = clients.plain().create().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let dead = format!("{name}.t-two.dlq");
    drop(runtime.block_on(admin.delete_topics(&[&name, &dead], &AdminOptions::new())));
}
