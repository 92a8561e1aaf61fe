//! For tests: the repository's declarations, its examples as records, outputs as JSON a person can read; comparing
//! with other implementations. Reads files of the repository; never used outside tests.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test that cannot go on says so"
)]

pub mod conformance;
pub mod differential;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use fhirehose_codec::{FhirEnvelope, MemorySchemas, decode};
use fhirehose_stream::{Batch, Fault, Output, Outputs, Processor, Verdict};
use fhirehose_tape::Tape;
use fhirehose_topics::Registry;
use serde_json::{Value as Json, json};

/// Root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The declared topics.
pub fn topics() -> &'static Registry {
    static TOPICS: OnceLock<Registry> = OnceLock::new();
    let told = |problems: Vec<fhirehose_topics::Problem>| {
        problems.iter().map(|p| format!("{p}\n")).collect::<String>()
    };
    TOPICS.get_or_init(|| Registry::load(&root()).map_err(told).unwrap())
}

/// The id a subject has in [`schemas`]; as good as registered.
pub fn schema_id(subject: &str) -> Result<u32, Fault> {
    let mut subjects = topics().iter().filter_map(|topic| topic.schema.as_ref());
    let at = subjects.position(|schema| schema.subject == subject).expect("a declared subject");
    Ok(u32::try_from(at + 1).unwrap())
}

/// Every declared schema under its id.
pub fn schemas() -> Arc<MemorySchemas> {
    let mut schemas = MemorySchemas::default();
    for schema in topics().iter().filter_map(|topic| topic.schema.as_ref()) {
        schemas.insert(schema_id(&schema.subject).unwrap(), &schema.json).unwrap();
    }
    Arc::new(schemas)
}

/// A record of `examples/`.
#[derive(Clone)]
pub struct Example {
    /// The file's name without `.json`.
    pub name: String,
    pub logical_topic: String,
    /// `key`, `value`, `headers`, `timestamp`; of bad ones also `topic` and `expect`.
    pub json: Json,
}

/// The examples of one folder, by name.
pub fn examples(folder: &str) -> Vec<Example> {
    let path = root().join("examples").join(folder);
    let entries = std::fs::read_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|ext| ext == "json"));
    files.sort();
    let read = |file: &PathBuf| {
        let json: Json = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        let logical_topic = json["topic"].as_str().unwrap_or(folder).to_owned();
        Example { name: file.file_stem().unwrap().to_string_lossy().into_owned(), logical_topic, json }
    };
    files.iter().map(read).collect()
}

/// The examples of every folder whose name begins so.
pub fn examples_of(prefix: &str) -> Vec<Example> {
    let entries = std::fs::read_dir(root().join("examples")).unwrap();
    let mut folders: Vec<_> =
        entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    folders.retain(|name| name.starts_with(prefix));
    folders.sort();
    folders.iter().flat_map(|folder| examples(folder)).collect()
}

/// Personal values of the examples, none of which may be told anywhere.
pub fn canaries() -> Vec<String> {
    let text = std::fs::read_to_string(root().join("examples/canaries.txt")).unwrap();
    text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

impl Example {
    /// The topic a record of source `hospital_a` has in Kafka.
    pub fn topic(&self) -> Arc<str> {
        self.logical_topic.replacen("cdc.", "cdc.hospital_a.", 1).into()
    }

    /// Appends it to a batch, in partition 0; its offset is its place in the batch.
    pub fn push(&self, batch: &mut Batch) {
        let bytes = |value: &Json| match value {
            Json::Null => None,
            Json::String(text) => Some(text.clone().into_bytes()),
            other => Some(other.to_string().into_bytes()),
        };
        let (key, value) = (bytes(&self.json["key"]), bytes(&self.json["value"]));
        let headers: Vec<(String, String)> = self.json["headers"].as_object().map_or(Vec::new(), |headers| {
            headers.iter().map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect()
        });
        let headers = headers.iter().map(|(name, value)| (name.as_str(), Some(value.as_bytes())));
        let (offset, timestamp) =
            (i64::try_from(batch.len()).unwrap(), self.json["timestamp"].as_i64().unwrap());
        batch.push(&self.topic(), 0, offset, timestamp, key.as_deref(), value.as_deref(), headers);
    }
}

/// Processes one example and commits.
pub fn run(processor: &mut dyn Processor, example: &Example) -> (Verdict, Outputs) {
    let (mut batch, mut out) = (Batch::default(), Outputs::default());
    example.push(&mut batch);
    let verdicts = processor.process(&batch, &mut out).unwrap();
    processor.committed();
    (verdicts.as_slice()[0].clone(), out)
}

/// `topic key` of the outputs that are tombstones, or that are not.
pub fn keys(out: &Outputs, tombstones: bool) -> Vec<String> {
    let wanted = out.iter().filter(|output| output.value().is_none() == tombstones);
    wanted.map(|output| format!("{} {}", output.topic(), String::from_utf8_lossy(output.key()))).collect()
}

/// A verdict and its outputs as JSON text.
pub fn shown(verdict: &Verdict, out: &Outputs) -> String {
    let outputs: Vec<Json> = out.iter().map(|output| shown_output(&output)).collect();
    let json = json!({"verdict": format!("{verdict:?}"), "outputs": outputs});
    serde_json::to_string_pretty(&json).unwrap()
}

fn shown_output(output: &Output<'_>) -> Json {
    let headers =
        output.headers().map(|(name, value)| (name.to_owned(), String::from_utf8_lossy(value).into()));
    json!({
        "topic": &**output.topic(),
        "key": String::from_utf8_lossy(output.key()),
        "headers": headers.collect::<serde_json::Map<_, Json>>(),
        "value": output.value().map(shown_value),
    })
}

fn shown_value(value: &[u8]) -> Json {
    let schemas = schemas();
    if value.first() == Some(&0)
        && let Ok(envelope) = FhirEnvelope::decode(value, &*schemas)
    {
        return json!({
            "version_id": envelope.version_id,
            "last_updated": envelope.last_updated,
            "source": envelope.source,
            "source_position": envelope.source_position,
            "mapping": format!("{}@{}", envelope.mapping, envelope.mapping_version),
            "flags": envelope.flags,
            "resource": serde_json::from_slice::<Json>(envelope.resource).unwrap(),
        });
    }
    let (mut tape, mut json) = (Tape::new(), Vec::new());
    decode(value, &*schemas, &mut tape).unwrap();
    tape.root().write_json(&mut json);
    match serde_json::from_slice(&json).unwrap() {
        Json::Object(fields) => fields.into_iter().filter(|(_, value)| !value.is_null()).collect(),
        other => other,
    }
}
