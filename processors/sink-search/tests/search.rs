//! Against a real OpenSearch: versions, deletes, searches, refusals.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fhirehose_codec::{AvroEncoder, MemorySchemas};
use fhirehose_stream::{Batch, FaultKind, HEADER_VERSION, Reason, Sink, TopicPartition, Verdict};
use fhirehose_tape::Tape;
use fhirehose_topics::Registry;
use serde_json::{Value as Json, json};
use sink_search::{Client, Connection, Shapes, SinkSearch, check, ensure};

const TOPICS: [&str; 3] = ["enriched.patient", "enriched.practitioner", "enriched.condition"];
const STALE: Verdict = Verdict::Drop(Reason::StaleVersion);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The repository's shapes under names of this test's own.
struct Bench {
    dir: tempfile::TempDir,
    topics: Registry,
    prefix: String,
    url: String,
    batch: Batch,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let delete = |path: String| drop(ureq::delete(format!("{}/{path}", self.url)).call());
        for name in ["patients", "practitioners", "conditions"] {
            delete(format!("{}{name}_v1", self.prefix));
            delete(format!("_index_template/{}{name}", self.prefix));
        }
        delete(format!("_component_template/{}text", self.prefix));
    }
}

/// `None` only where the caller said that there is no stack.
fn bench(name: &str) -> Option<Bench> {
    let Ok(url) = std::env::var("FHIREHOSE__SEARCH__URL") else {
        assert!(
            std::env::var_os("FHIREHOSE_TEST_SKIP_STACK").is_some(),
            "FHIREHOSE__SEARCH__URL is not set: `cargo xtask stack up opensearch` and export .stack/env, or set \
             FHIREHOSE_TEST_SKIP_STACK=1"
        );
        eprintln!("skipped: no OpenSearch");
        return None;
    };
    let prefix = format!("test_{name}_{}_", std::process::id());
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench { dir, topics: Registry::load(&root()).unwrap(), prefix, url, batch: Batch::default() };
    for folder in ["", "components"] {
        let from = root().join("schemas/search").join(folder);
        let to = bench.dir.path().join("schemas/search").join(folder);
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap).filter(|e| e.path().is_file()) {
            let name = entry.file_name().into_string().unwrap().replace("clinical_", &bench.prefix);
            let text = fs::read_to_string(entry.path()).unwrap();
            // A column, not a name of ours.
            let text = text.replace("clinical_status", "CLINICAL").replace("clinical_", &bench.prefix);
            fs::write(to.join(name), text.replace("CLINICAL", "clinical_status")).unwrap();
        }
    }
    Some(bench)
}

impl Bench {
    fn shapes(&self) -> Arc<Shapes> {
        Arc::new(
            Shapes::load(self.dir.path(), &self.topics).unwrap_or_else(|problems| panic!("{problems:?}")),
        )
    }

    fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.dir.path().join("schemas/search").join(format!("{}{file}.json", self.prefix));
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from));
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
    }

    fn client(&self) -> Client {
        Client::new(&Connection { url: self.url.clone(), ..Connection::default() }).unwrap()
    }

    fn sink(&self) -> SinkSearch {
        let mut schemas = MemorySchemas::default();
        for (id, topic) in (0..).zip(TOPICS) {
            schemas.insert(id, &self.topics.schema(topic).unwrap().json).unwrap();
        }
        SinkSearch::new(self.client(), self.shapes(), Arc::new(schemas))
    }

    fn push(&mut self, topic: &str, key: &str, value: Option<&[u8]>, version: Option<&str>) {
        let headers = version.map(|version| (HEADER_VERSION, Some(version.as_bytes())));
        self.batch.push(&topic.into(), 0, 0, 0, Some(key.as_bytes()), value, headers.into_iter());
    }

    /// Adds a record with the given columns to the next batch.
    fn put(&mut self, topic: &str, id: &str, version: i64, columns: Json) {
        let mut record = json!({
            "tenant": "t", "id": id, "version": version, "version_id": "1", "source": "s",
            "last_updated": 1_767_322_987_000_i64, "resource": "{}",
        });
        record.as_object_mut().unwrap().extend(columns.as_object().unwrap().clone());
        let at = TOPICS.iter().position(|known| *known == topic).unwrap();
        let encoder = AvroEncoder::new(self.topics.schema(topic).unwrap(), at as u32).unwrap();
        let (mut tape, mut bytes) = (Tape::new(), Vec::new());
        tape.parse_json(record.to_string().as_bytes()).unwrap();
        encoder.encode(tape.root(), &mut bytes).unwrap();
        self.push(topic, &format!("t/{id}"), Some(&bytes), None);
    }

    fn stage(&mut self, sink: &mut SinkSearch) -> Vec<Verdict> {
        let batch = std::mem::take(&mut self.batch);
        let verdicts = sink.stage(&batch).unwrap().as_slice().to_vec();
        sink.commit().unwrap();
        verdicts
    }

    fn get(&self, path: &str, body: Json) -> Json {
        let url = format!("{}/{}{path}", self.url, self.prefix);
        ureq::post(url).send_json(body).unwrap().body_mut().read_json().unwrap()
    }

    fn refresh(&self) {
        ureq::post(format!("{}/{}*/_refresh", self.url, self.prefix)).send_empty().unwrap();
    }

    fn search(&self, query: &str) -> Vec<String> {
        self.refresh();
        let body = json!({"query": {"match": {"search_text": {"query": query, "fuzziness": "AUTO", "operator": "and"}}}});
        let found = self.get("search/_search", body);
        let hits = found["hits"]["hits"].as_array().unwrap().iter();
        let mut ids: Vec<_> = hits.map(|hit| hit["_source"]["id"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids
    }
}

#[test]
fn searches_find_synonyms_and_typing_errors() {
    let Some(mut bench) = bench("find") else { return };
    ensure(&bench.client(), &bench.shapes()).unwrap();
    let mut sink = bench.sink();
    for (id, code, display) in [
        ("c1", "I10", "Essential (primary) hypertension"),
        ("c2", "I21.9", "Acute myocardial infarction, unspecified"),
        ("c3", "E11.9", "Type 2 diabetes mellitus without complications"),
    ] {
        bench.put(
            "enriched.condition",
            id,
            1,
            json!({"code": code, "code_display": display, "subject_name": "Zeinab Té"}),
        );
    }
    bench.put(
        "enriched.patient",
        "p1",
        1,
        json!({"name": "Zéinab Osman", "mrn": "M-77", "birth_date": "1990-05"}),
    );
    bench.put("enriched.practitioner", "d1", 1, json!({"name": "Osman Tag", "gender": "male"}));
    assert_eq!(bench.stage(&mut sink), vec![Verdict::Emit(1); 5]);
    assert_eq!(bench.search("hypertention"), ["c1"]);
    assert_eq!(bench.search("high blood pressure"), ["c1"]);
    assert_eq!(bench.search("heart attack"), ["c2"]);
    assert_eq!(bench.search("myocardial infarction"), ["c2"]);
    assert_eq!(bench.search("I21.9"), ["c2"]);
    assert_eq!(bench.search("diabetes zeinab"), ["c3"]);
    assert_eq!(bench.search("osmann"), ["d1", "p1"]);
    assert_eq!(bench.search("zeinab osman"), ["p1"]);
}

#[test]
fn the_highest_version_wins_in_any_order_and_deletes_stay() {
    let Some(mut bench) = bench("order") else { return };
    ensure(&bench.client(), &bench.shapes()).unwrap();
    let mut sink = bench.sink();
    bench.put("enriched.patient", "p", 5, json!({"name": "Fifth"}));
    bench.put("enriched.patient", "p", 3, json!({"name": "Third"}));
    bench.put("enriched.patient", "p", 5, json!({"name": "Fifth"}));
    assert_eq!(bench.stage(&mut sink), [Verdict::Emit(1), STALE, Verdict::Emit(1)]);
    assert_eq!(bench.search("fifth"), ["p"]);

    bench.push("enriched.patient", "t/p", None, Some("6"));
    assert_eq!(bench.stage(&mut sink), [Verdict::Emit(1)]);
    assert_eq!(bench.search("fifth"), Vec::<String>::new());
    let left = ureq::get(format!("{}/{}patients_v1/_doc/t%7Cp", bench.url, bench.prefix)).call();
    let left: Json = left.unwrap().body_mut().read_json().unwrap();
    let tombstone = json!({"tenant": "t", "kind": "patient", "id": "p", "version": 6, "deleted": true});
    assert_eq!(left["_source"], tombstone, "no personal data stays");

    bench.put("enriched.patient", "p", 5, json!({"name": "Fifth"}));
    bench.push("enriched.patient", "t/p", None, Some("6"));
    assert_eq!(bench.stage(&mut sink), [STALE, Verdict::Emit(1)]);
    assert_eq!(bench.search("fifth"), Vec::<String>::new(), "a late record revives nothing");
    bench.put("enriched.patient", "p", 7, json!({"name": "Seventh"}));
    assert_eq!(bench.stage(&mut sink), [Verdict::Emit(1)]);
    assert_eq!(bench.search("seventh"), ["p"]);
}

#[test]
fn bad_documents_are_rejected_beside_good_ones() {
    let Some(mut bench) = bench("bad") else { return };
    ensure(&bench.client(), &bench.shapes()).unwrap();
    let mut sink = bench.sink();
    bench.put("enriched.patient", "a", 1, json!({"birth_date": "Qanarywala"}));
    bench.put("enriched.patient", "b", 1, json!({"name": "Good"}));
    bench.push("enriched.patient", "no-slash", Some(b"{}"), None);
    bench.push("enriched.patient", "t/c", Some(b"\0\0"), None);
    bench.push("enriched.patient", "t/c", None, None);
    bench.push("enriched.encounter", "t/c", Some(b"{}"), None);
    let verdicts = bench.stage(&mut sink);
    let Verdict::Reject(of_store) = &verdicts[0] else { panic!("{verdicts:?}") };
    assert_eq!(of_store.reason, Reason::StoreRejected);
    assert!(!format!("{verdicts:?}").contains("Qanarywala"), "{verdicts:?}");
    let reasons: Vec<_> = verdicts[1..]
        .iter()
        .map(|verdict| match verdict {
            Verdict::Reject(rejection) => Some(rejection.reason),
            _ => None,
        })
        .collect();
    let expected =
        [None, Some(Reason::MissingKey), Some(Reason::MalformedAvro), Some(Reason::MissingElement), None];
    assert_eq!(reasons, expected);
    assert_eq!(verdicts[5], Verdict::Drop(Reason::NotRelevant));
    assert_eq!(bench.search("good"), ["b"]);
}

#[test]
fn tenants_do_not_meet() {
    let Some(mut bench) = bench("tenants") else { return };
    ensure(&bench.client(), &bench.shapes()).unwrap();
    let mut sink = bench.sink();
    bench.put("enriched.patient", "p", 9, json!({"name": "Mine", "tenant": "t"}));
    bench.push("enriched.patient", "u/p", None, Some("10"));
    assert_eq!(bench.stage(&mut sink), vec![Verdict::Emit(1); 2]);
    assert_eq!(bench.search("mine"), ["p"], "the other tenant's delete of the same id is not ours");
}

#[test]
fn a_missing_index_is_refused_and_ensure_repairs() {
    let Some(bench) = bench("ensure") else { return };
    let (client, shapes) = (bench.client(), bench.shapes());
    let at = [TopicPartition { topic: TOPICS[0].into(), partition: 0 }];
    let fault = bench.sink().claim(&at).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Fatal);
    assert!(fault.what.contains("fhirehose migrate apply"), "{fault}");

    assert_eq!(ensure(&client, &shapes).unwrap().len(), 3);
    assert_eq!(ensure(&client, &shapes).unwrap(), Vec::<String>::new());
    check(&client, &shapes).unwrap();
    assert_eq!(bench.sink().claim(&at).unwrap(), [None]);

    bench.edit("patients", "\"city\"", "\"postal_code\": {\"type\": \"keyword\"},\n        \"city\"");
    assert!(check(&client, &bench.shapes()).unwrap_err().what.contains("lacks postal_code"));
    assert_eq!(ensure(&client, &bench.shapes()).unwrap().len(), 1);
    check(&client, &bench.shapes()).unwrap();

    ureq::delete(format!("{0}/{1}patients_v1/_alias/{1}search", bench.url, bench.prefix)).call().unwrap();
    assert!(check(&client, &bench.shapes()).unwrap_err().what.contains("not in the alias"));
    assert_eq!(ensure(&client, &bench.shapes()).unwrap().len(), 1);
    check(&client, &bench.shapes()).unwrap();

    bench.edit("patients", "\"version\": 1", "\"version\": 2");
    assert!(ensure(&client, &bench.shapes()).unwrap_err().what.contains("made by another version"));
}

#[test]
fn servers_that_are_down_are_transient_and_bad_settings_fatal() {
    let connection = |url: &str| Connection { url: url.into(), ..Connection::default() };
    let topics = Registry::load(&root()).unwrap();
    let shapes = Shapes::load(&root(), &topics).unwrap();
    let down = Client::new(&connection("http://127.0.0.1:1")).unwrap();
    assert_eq!(check(&down, &shapes).unwrap_err().kind, FaultKind::Transient);
    assert_eq!(Client::new(&connection("127.0.0.1:1")).err().unwrap().kind, FaultKind::Fatal);
    let no_pem = Connection { ca_pem: Some(b"x".to_vec()), ..connection("https://127.0.0.1:1") };
    assert!(Client::new(&no_pem).err().unwrap().what.contains("CA file"));
}

#[test]
fn a_field_no_column_feeds_is_refused_with_its_line() {
    let topics = Registry::load(&root()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let components = dir.path().join("schemas/search/components");
    fs::create_dir_all(&components).unwrap();
    fs::write(components.join("c.json"), r#"{"template":{"aliases":{"a":{"filter":{}}}}}"#).unwrap();
    let index = |field: &str| {
        format!(
            "{{\"_meta\":{{\"topic\":\"enriched.patient\",\"kind\":\"p\",\"index\":\"x_v1\"}},\n\"version\":1,\
             \"index_patterns\":[\"x_v*\"],\n\"template\":{{\"mappings\":{{\"properties\":{{\n\"{field}\":{{}}}}}}}}}}"
        )
    };
    let file = dir.path().join("schemas/search/x.json");
    fs::write(&file, index("name")).unwrap();
    assert_eq!(Shapes::load(dir.path(), &topics).unwrap().alias(), "a");
    for field in ["nationalid", "version"] {
        fs::write(&file, index(field)).unwrap();
        let problems = Shapes::load(dir.path(), &topics).err().unwrap();
        assert_eq!((problems.len(), problems[0].line), (1, 4), "{problems:?}");
    }
}
