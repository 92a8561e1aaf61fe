//! The repository's own declarations load, and broken ones are refused with file and line.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use fhirehose_topics::{Change, Existing, ExistingSubject, ExistingTopic, Format, Problem, Registry, Target};

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn ours() -> Registry {
    Registry::load(root()).unwrap_or_else(|problems| {
        panic!("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    })
}

fn target() -> Target {
    Target {
        sources: vec!["hospital_a".into(), "hospital_b".into()],
        group_prefix: "t-".into(),
        replication_factor: 3,
        processors: vec!["normalize-cdc".into(), "enrich".into(), "sink-search".into()],
    }
}

/// What applying every change of a plan would leave.
fn apply(existing: &mut Existing, changes: Vec<Change>) {
    for change in changes {
        match change {
            Change::CreateTopic { name, partitions, configs, .. } => {
                existing.topics.insert(name, ExistingTopic { partitions, configs });
            }
            Change::AddPartitions { name, to, .. } => existing.topics.get_mut(&name).unwrap().partitions = to,
            Change::AlterConfig { topic, key, to, .. } => {
                existing.topics.get_mut(&topic).unwrap().configs.insert(key, to);
            }
            Change::SetCompatibility { subject, to, .. } => {
                existing.subjects.entry(subject).or_default().compatibility = Some(to.to_string());
            }
            Change::RegisterSchema { subject, schema } => {
                existing.subjects.entry(subject).or_default().latest = Some(schema);
            }
        }
    }
}

fn applied(registry: &Registry) -> Existing {
    let mut existing = Existing::default();
    let plan = registry.plan(&target(), &existing);
    apply(&mut existing, plan.changes);
    existing
}

#[test]
fn our_declarations_load() {
    let registry = ours();
    assert!(registry.iter().count() >= 26);
    let patient = registry.topic("fhir.patient").unwrap();
    assert_eq!((patient.partitions, patient.epoch, patient.format), (6, Some(1), Format::Avro));
    assert_eq!(patient.configs["cleanup.policy"], "compact");
    assert_eq!(patient.configs["retention.ms"], "-1");
    assert_eq!(patient.version(2, 1), (1 << 56) + (2 << 8) + 1);
    let enriched = registry.schema("enriched.encounter").unwrap();
    assert_eq!(enriched.subject, "enriched.encounter-value");
    assert_eq!(enriched.field("start").unwrap().attributes["fhirpath"], "period.start");
    let subject = &enriched.field("subject_name").unwrap();
    assert_eq!(
        (subject.attributes["reference"].as_str(), subject.attributes["snapshot"].as_str()),
        ("subject", "name")
    );
    assert!(enriched.field("tenant").unwrap().required && !subject.required);
}

#[test]
fn fhir_envelopes_are_alike() {
    let registry = ours();
    let fields = |name: &str| {
        let schema: serde_json::Value = serde_json::from_str(&registry.schema(name).unwrap().json).unwrap();
        schema["fields"].clone()
    };
    for topic in registry.iter().filter(|topic| topic.name.starts_with("fhir.")) {
        assert_eq!(fields(&topic.name), fields("fhir.patient"), "{}", topic.name);
    }
}

#[test]
fn physical_names_lead_to_their_declaration() {
    let registry = ours();
    let name = |physical: &str| registry.logical(physical).map(|topic| topic.name.to_string());
    assert_eq!(name("cdc.hospital_b.clinical_data.patients").as_deref(), Some("cdc.clinical_data.patients"));
    assert_eq!(name("fhir.patient").as_deref(), Some("fhir.patient"));
    assert_eq!(name("cdc.hospital_b.clinical_data.wards"), None);
    assert_eq!(name("cdc.clinical_data.patients"), None, "the logical name is no physical topic");
    assert_eq!(
        registry.dlq("cdc.hospital_b.clinical_data.patients", "g"),
        "cdc.clinical_data.patients.g.dlq"
    );
    assert_eq!(registry.dlq("cdc.hospital_b.clinical_data.wards", "g"), "unknown.g.dlq");
}

#[test]
fn plan_creates_all_and_then_nothing() {
    let registry = ours();
    let mut existing = Existing::default();
    let plan = registry.plan(&target(), &existing);
    assert_eq!(plan.refusals, []);
    let created: BTreeMap<_, _> = plan
        .changes
        .iter()
        .filter_map(|change| match change {
            Change::CreateTopic { name, partitions, replication_factor: 3, .. } => {
                Some((name.as_str(), *partitions))
            }
            _ => None,
        })
        .collect();
    assert_eq!(created["cdc.hospital_a.clinical_data.patients"], 3);
    assert_eq!(created["cdc.hospital_b.identity_management.users"], 3);
    assert_eq!(created["fhir.patient"], 6);
    assert_eq!(created["cdc.clinical_data.patients.t-normalize-cdc.dlq"], 1);
    assert_eq!(created["unknown.t-normalize-cdc.dlq"], 1);
    assert_eq!(created["fhir.patient.t-enrich.dlq"], 1);
    assert!(!created.contains_key("cdc.clinical_data.patients"));
    assert!(!created.keys().any(|name| name.contains("debezium")), "parties outside dead-letter nothing");
    apply(&mut existing, plan.changes);
    assert_eq!(registry.plan(&target(), &existing).changes, []);
}

#[test]
fn plan_repairs_what_it_can_and_refuses_the_rest() {
    let registry = ours();
    let mut existing = applied(&registry);
    let topics = &mut existing.topics;
    topics.get_mut("device.ava4").unwrap().partitions = 2;
    topics.get_mut("device.kati").unwrap().partitions = 12;
    topics.get_mut("fhir.patient").unwrap().partitions = 3;
    topics.get_mut("fhir.encounter").unwrap().configs.insert("cleanup.policy".into(), "delete".into());
    let narrow = r#"{"type":"record","name":"CacheInvalidation","namespace":"org.fhirehose","fields":[
        {"name":"key","type":"string"},{"name":"gone","type":"string"}]}"#;
    existing.subjects.insert(
        "cache.invalidation-value".into(),
        ExistingSubject { latest: Some(narrow.into()), compatibility: Some("NONE".into()) },
    );
    let plan = registry.plan(&target(), &existing);
    let refused: Vec<_> = plan.refusals.iter().map(|refusal| refusal.name.as_str()).collect();
    assert_eq!(refused, ["device.kati", "fhir.patient", "cache.invalidation-value"]);
    assert_eq!(
        plan.changes,
        [
            Change::AddPartitions { name: "device.ava4".into(), from: 2, to: 6 },
            Change::AlterConfig {
                topic: "fhir.encounter".into(),
                key: "cleanup.policy".into(),
                from: Some("delete".into()),
                to: "compact".into()
            },
        ]
    );
}

#[test]
fn a_new_optional_field_is_registered() {
    let registry = ours();
    let mut existing = applied(&registry);
    let subject = existing.subjects.get_mut("device.metrics-value").unwrap();
    let mut older: serde_json::Value = serde_json::from_str(subject.latest.as_ref().unwrap()).unwrap();
    older["fields"].as_array_mut().unwrap().retain(|field| field["name"] != "firmware");
    subject.latest = Some(older.to_string());
    let plan = registry.plan(&target(), &existing);
    assert_eq!(plan.refusals, []);
    let [Change::RegisterSchema { subject, .. }] = plan.changes.as_slice() else {
        panic!("{:?}", plan.changes)
    };
    assert_eq!(subject, "device.metrics-value");
}

fn load(files: &[(&str, &str)]) -> Vec<Problem> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let mut problems = Registry::load(dir.path()).expect_err("problems");
    problems.iter_mut().for_each(|p| p.file = p.file.strip_prefix(dir.path()).unwrap().to_owned());
    problems
}

const GOOD: &str = "topic: a\ndescription: d\nowner: o\nproducers: [p]\nconsumers: [c]\nkey: k\npartitions: 3\n\
                    cleanup: delete\nretention: 1d\nvalue: json\n";

#[test]
fn problems_of_all_files_are_told_with_their_lines() {
    let bad =
        GOOD.replace("partitions: 3", "partitions: 0").replace("1d", "1w").replace("topic: a", "topic: z");
    let untyped = GOOD.replace("topic: a", "topic: c").replace("json", "avro");
    let schema = r#"{"type":"record","name":"d","fields":[
        {"name":"x","type":"string"}]}"#;
    let avro = GOOD.replace("topic: a", "topic: d").replace("json", "avro\ncompatibility: full");
    let told: Vec<_> = load(&[
        ("topics/a.yaml", &bad),
        ("topics/b.yaml", "topic: b\nshape: x\n"),
        ("topics/c.yaml", &untyped),
        ("topics/d.yaml", &avro),
        ("schemas/avro/d-value.avsc", schema),
        ("topics/e.yaml", &avro.replace("topic: d", "topic: e").replace("full", "none")),
    ])
    .iter()
    .map(ToString::to_string)
    .collect();
    let expected = [
        "topics/a.yaml:1: the file of `z` is named `z.yaml`",
        "topics/a.yaml:7: `partitions` must be 1 to 1000",
        "topics/a.yaml:9: `retention` is a number",
        "topics/b.yaml:2: unknown field `shape`",
        "topics/c.yaml:10: an `avro` value needs `compatibility`",
        "schemas/avro/d-value.avsc:1: the record has no `doc`",
        "schemas/avro/d-value.avsc:2: the field `x` has no `doc`",
        "topics/e.yaml:11: compatibility: unknown variant `none`",
    ];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (told, expected) in told.iter().zip(expected) {
        assert!(told.starts_with(expected), "{told}\nshould start with\n{expected}");
    }
}

#[test]
fn files_that_do_not_fit_together_are_refused() {
    let follows = GOOD.replace("topic: a", "topic: b").replace("json", "internal\nfollows: [a, x]");
    let told: Vec<_> = load(&[
        ("topics/a.yaml", GOOD),
        ("topics/b.yaml", &follows.replace("partitions: 3", "partitions: 4")),
        ("schemas/avro/lost-value.avsc", "{}"),
    ])
    .iter()
    .map(ToString::to_string)
    .collect();
    assert!(told[0].starts_with("topics/b.yaml:7: a changelog has as many partitions"), "{told:#?}");
    assert_eq!(told[1], "topics/b.yaml:11: `x` is not declared");
    assert!(told[2].starts_with("schemas/avro/lost-value.avsc:1: no topic has this schema"), "{told:#?}");
    assert!(load(&[("README", "")])[0].to_string().starts_with("topics:1: cannot be read"));
}

#[test]
fn declared_examples_exist() {
    for topic in ours().iter() {
        let Some(folder) = &topic.examples else { continue };
        let found =
            fs::read_dir(root().join(folder)).is_ok_and(|mut entries| entries.any(|entry| entry.is_ok()));
        assert!(found, "{}: no examples in {}", topic.name, folder.display());
    }
}
