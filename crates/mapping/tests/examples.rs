//! Every example of the repository maps, and every bad one is rejected for the reason it names.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use fhirehose_mapping::{Explanation, Mappings, Source, Step, Vendor, Zone, explain};
use fhirehose_topics::Registry;
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn json_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).map(|entries| entries.filter_map(Result::ok)).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .collect();
    files.sort();
    files
}

struct Bench {
    mappings: Mappings,
    source: Source,
}

impl Bench {
    fn new() -> Option<Bench> {
        let topics = Registry::load(&root()).ok()?;
        let mappings = Mappings::load(&root(), &topics).ok()?;
        let zone = Zone::named("Africa/Khartoum").ok()?;
        let source = Source {
            name: "hospital_a".into(),
            tenant: "khartoum-teaching".into(),
            zone,
            facility_tenants: BTreeMap::new(),
        };
        Some(Bench { mappings, source })
    }

    fn explain(&self, topic: &str, text: &[u8], source: &Source) -> Result<Explanation, String> {
        let name = topic.strip_prefix("device.").unwrap_or("none");
        let vendor = Vendor { name: name.into(), zone: source.zone.clone() };
        explain(&self.mappings, topic, text, source, &vendor).map_err(|error| error.to_string())
    }
}

fn mapped(topic: &str) -> bool {
    topic.starts_with("cdc.") || matches!(topic, "device.ava4" | "device.kati")
}

#[test]
fn every_example_maps() {
    let bench = Bench::new().expect("the repository's mappings compile");
    let mut failures = Vec::new();
    let mut count = 0;
    for folder in fs::read_dir(root().join("examples")).expect("examples/").filter_map(Result::ok) {
        let topic = folder.file_name().to_string_lossy().into_owned();
        for file in json_files(&folder.path()).into_iter().filter(|_| mapped(&topic)) {
            let text = fs::read(&file).expect("readable");
            let record: Value = serde_json::from_slice(&text).expect("JSON");
            if record["value"].is_null() {
                continue;
            }
            count += 1;
            match bench.explain(&topic, &text, &bench.source) {
                Ok(explanation) => {
                    if let Some(rejection) = &explanation.rejection {
                        failures.push(format!("{}: {rejection:?}", file.display()));
                    }
                    if std::env::var("SHOW").is_ok() {
                        println!("== {}", file.display());
                        for (topic, key, value) in &explanation.outputs {
                            println!("{topic}\t{key}\t{}", value.as_deref().unwrap_or("null"));
                        }
                    }
                    let errors = explanation.steps.iter().filter_map(|step| match step {
                        Step::Hole { path, line, expression, result: Err(error), .. } => {
                            Some(format!("{}: {path} line {line} {expression}: {error}", file.display()))
                        }
                        _ => None,
                    });
                    failures.extend(errors);
                }
                Err(error) => failures.push(format!("{}: {error}", file.display())),
            }
        }
    }
    assert!(count > 50, "only {count} examples were found");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Reasons the mapping itself gives; the others belong to what comes before or after it.
const OF_MAPPINGS: [&str; 8] = [
    "unknown_code",
    "invalid_time",
    "missing_element",
    "missing_column",
    "invalid_fhir",
    "impossible_value",
    "wrong_type",
    "forbidden_column",
];

#[test]
fn every_bad_example_is_rejected_as_it_says() {
    let bench = Bench::new().expect("the repository's mappings compile");
    let with_facilities = Source {
        facility_tenants: BTreeMap::from([("some-other-facility".to_owned(), "omdurman-general".into())]),
        ..bench.source.clone()
    };
    let mut failures = Vec::new();
    let mut count = 0;
    for file in json_files(&root().join("examples/bad")) {
        let text = fs::read(&file).expect("readable");
        let record: Value = serde_json::from_slice(&text).expect("JSON");
        let text_of = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
        let (topic, expected) = (text_of("topic"), text_of("expect"));
        let facilities = text_of("needs") == "facility_tenants";
        if !facilities && !OF_MAPPINGS.contains(&expected.as_str()) {
            continue;
        }
        count += 1;
        let source = if facilities { &with_facilities } else { &bench.source };
        let found = match bench.explain(&topic, &text, source) {
            Ok(explanation) => explanation.rejection.map(|rejection| rejection.reason.label()),
            Err(error) => {
                failures.push(format!("{}: {error}", file.display()));
                continue;
            }
        };
        if found != Some(expected.as_str()) {
            failures.push(format!("{}: {found:?}, not {expected}", file.display()));
        }
    }
    assert!(count > 20, "only {count} bad examples were found");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
