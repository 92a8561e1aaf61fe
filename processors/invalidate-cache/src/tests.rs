use std::path::Path;

use fhirehose_codec::MemorySchemas;
use fhirehose_topics::Registry;

use super::*;

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

struct Bench {
    processor: InvalidateCache,
    schemas: Arc<MemorySchemas>,
}

fn bench() -> Bench {
    let topics = Registry::load(root()).unwrap();
    let schema = topics.schema(OUTPUT).unwrap();
    let mut schemas = MemorySchemas::default();
    schemas.insert(3, &schema.json).unwrap();
    let schemas = Arc::new(schemas);
    let processor = InvalidateCache::new(
        Arc::new(Rules::load(root(), &topics).unwrap()),
        HashMap::from([("hospital_a".into(), "t1".into())]),
        schemas.clone(),
        Arc::new(AvroEncoder::new(schema, 3).unwrap()),
    );
    Bench { processor, schemas }
}

impl Bench {
    /// The verdict, and key and JSON of every output.
    fn run(&mut self, topic: &str, value: Option<&str>) -> (Verdict, Vec<(String, String)>) {
        let mut batch = Batch::default();
        let value = value.map(str::as_bytes);
        batch.push(&topic.into(), 0, 0, 0, Some(b"{}"), value, std::iter::empty());
        let mut out = Outputs::default();
        let verdicts = self.processor.process(&batch, &mut out).unwrap();
        let outputs = out.iter().map(|output| {
            let (mut tape, mut json) = (Tape::new(), Vec::new());
            decode(output.value().unwrap(), &*self.schemas, &mut tape).unwrap();
            tape.root().write_json(&mut json);
            assert!(output.headers().any(|(name, _)| name == HEADER_SOURCE_TS));
            (String::from_utf8(output.key().to_vec()).unwrap(), String::from_utf8(json).unwrap())
        });
        (verdicts.as_slice()[0].clone(), outputs.collect())
    }
}

fn change(op: &str, before: &str, after: &str) -> String {
    format!(
        r#"{{"op":"{op}","before":{before},"after":{after},"source":{{"connector":"mariadb","db":"clinical_data",
        "table":"encounters","ts_ms":1767322987000,"snapshot":"false","server_id":1,"file":"bin.000002","pos":77,
        "row":0}}}}"#
    )
}

const ENCOUNTERS: &str = "cdc.hospital_a.clinical_data.encounters";
const ROW: &str =
    r#"{"id":"e1","patient_id":"p1","facility_id":"f:1","attending_provider_id":null,"note":"x"}"#;

#[test]
fn a_row_invalidates_its_own_and_its_dependents_keys() {
    let (verdict, outputs) = bench().run(ENCOUNTERS, Some(&change("c", "null", ROW)));
    let keys: Vec<_> = outputs.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["encounter:t1:e1", "patient:t1:p1:encounters", "facility:t1:f%3A1:encounters"]);
    assert_eq!(verdict, Verdict::Emit(3));
    assert_eq!(
        outputs[0].1,
        r#"{"key":"encounter:t1:e1","tenant":"t1","source":"hospital_a","table":"clinical_data.encounters","op":"c","source_ts":1767322987000,"source_position":"bin.000002/77/0"}"#
    );
}

#[test]
fn updates_take_both_rows_and_deletes_the_one_before() {
    let moved = ROW.replace("p1", "p2");
    let (_, outputs) = bench().run(ENCOUNTERS, Some(&change("u", ROW, &moved)));
    let keys: Vec<_> = outputs.iter().map(|(key, _)| key.as_str()).collect();
    let both = [
        "encounter:t1:e1",
        "patient:t1:p1:encounters",
        "facility:t1:f%3A1:encounters",
        "patient:t1:p2:encounters",
    ];
    assert_eq!(keys, both);
    let (verdict, _) = bench().run(ENCOUNTERS, Some(&change("d", ROW, "null")));
    assert_eq!(verdict, Verdict::Emit(3));
}

#[test]
fn the_rest_is_dropped_or_rejected_with_its_reason() {
    let mut bench = bench();
    let mut verdict = |topic: &str, value: Option<&str>| match bench.run(topic, value) {
        (verdict, outputs) if outputs.is_empty() => verdict,
        _ => panic!("a rejected record leaves no output"),
    };
    assert_eq!(verdict(ENCOUNTERS, None), Verdict::Drop(Reason::Tombstone));
    assert_eq!(verdict("cdc.hospital_a.transaction", Some("{}")), Verdict::Drop(Reason::Heartbeat));
    assert_eq!(verdict("cdc.hospital_a.clinical_data.wards", Some("{}")), Verdict::Drop(Reason::NotRelevant));
    let mut reject = |topic: &str, value: &str| match verdict(topic, Some(value)) {
        Verdict::Reject(rejection) => (rejection.reason, rejection.detail),
        other => panic!("{other:?}"),
    };
    let create = change("c", "null", ROW);
    assert_eq!(
        reject("cdc.elsewhere.clinical_data.encounters", &create),
        (Reason::UnknownSource, "elsewhere".into())
    );
    assert_eq!(reject(ENCOUNTERS, "{").0, Reason::MalformedJson);
    assert_eq!(reject(ENCOUNTERS, "{}").0, Reason::MalformedEnvelope);
    assert_eq!(reject(ENCOUNTERS, &change("d", "null", "null")).0, Reason::MalformedEnvelope);
    let missing = change("u", &ROW.replace("patient_id", "pid"), ROW);
    assert_eq!(reject(ENCOUNTERS, &missing), (Reason::MissingColumn, "patient_id".into()));
}

/// Every example of every change topic: what is evicted when.
#[test]
fn examples() {
    let mut bench = bench();
    let mut folders: Vec<_> =
        std::fs::read_dir(root().join("examples")).unwrap().map(|e| e.unwrap().path()).collect();
    folders.retain(|path| path.file_name().unwrap().to_string_lossy().starts_with("cdc."));
    assert_eq!(folders.len(), 6);
    let mut told = String::new();
    let mut files: Vec<_> =
        folders.iter().flat_map(|f| std::fs::read_dir(f).unwrap()).map(|e| e.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    for file in files {
        let name = file.strip_prefix(root().join("examples")).unwrap().with_extension("");
        let topic = file.parent().unwrap().file_name().unwrap().to_string_lossy().replacen(
            "cdc.",
            "cdc.hospital_a.",
            1,
        );
        let example: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let value = example.get("value").filter(|value| !value.is_null()).map(ToString::to_string);
        let (verdict, outputs) = bench.run(&topic, value.as_deref());
        told += &format!("{}: {verdict:?}\n", name.display());
        outputs.iter().for_each(|(key, _)| told += &format!("  {key}\n"));
    }
    insta::assert_snapshot!(told);
}

#[test]
fn broken_rules_are_refused_with_their_lines() {
    let topics = Registry::load(root()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("mappings")).unwrap();
    let told = |yaml: &str| {
        std::fs::write(dir.path().join("mappings/cache.yaml"), yaml).unwrap();
        let problems = Rules::load(dir.path(), &topics).err().unwrap();
        problems.into_iter().map(|p| (p.line, p.message)).collect::<Vec<_>>()
    };
    let problems = told(
        "rules:\n  - table: clinical_data.wards\n    keys:\n      - \"a:{id}\"\n      - \"{tenant}:{\"\n",
    );
    assert_eq!(problems.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 4, 5]);
    assert!(problems[1].1.contains("must contain `{tenant}`"), "{problems:?}");
    assert_eq!(told("rules:\n  - table: x\n    kees: []\n")[0].0, 3);

    let mapping = dir.path().join("mappings/cdc/identity_management");
    std::fs::create_dir_all(&mapping).unwrap();
    std::fs::copy(root().join("mappings/cdc/identity_management/users.yaml"), mapping.join("users.yaml"))
        .unwrap();
    let users = "rules:\n  - table: identity_management.users\n    keys:\n      - \"{tenant}:{password_hash}\"\n      \
                 - \"{tenant}:{nid}:{id}\"\n";
    let problems = told(users);
    assert_eq!(problems.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [4, 5]);
    assert!(problems[1].1.ends_with("identity_management.users has no column `nid`"), "{problems:?}");
}
