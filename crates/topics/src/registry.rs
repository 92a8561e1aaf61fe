use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::declaration::{self, line_of};
use crate::{Problem, Schema, Topic, cdc_name};

/// All declared topics, by logical name.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    topics: BTreeMap<String, Topic>,
}

impl Registry {
    /// Reads `<dir>/topics/*.yaml` and the schemas in `<dir>/schemas/avro` they name.
    pub fn load(dir: &Path) -> Result<Registry, Vec<Problem>> {
        let (folder, schemas) = (dir.join("topics"), dir.join("schemas/avro"));
        let mut problems = Vec::new();
        let mut topics = BTreeMap::new();
        let mut paths = match fs::read_dir(&folder) {
            Ok(entries) => entries.filter_map(Result::ok).map(|entry| entry.path()).collect::<Vec<_>>(),
            Err(error) => return Err(vec![Problem::new(&folder, 1, format!("cannot be read: {error}"))]),
        };
        paths.retain(|path| path.extension().is_some_and(|ext| ext == "yaml" || ext == "yml"));
        paths.sort();
        for path in &paths {
            match fs::read_to_string(path) {
                Ok(text) => {
                    if let Some(topic) = declaration::read(path, &text, &schemas, &mut problems) {
                        topics.insert(topic.name.to_string(), topic);
                    }
                }
                Err(error) => problems.push(Problem::new(path, 1, format!("cannot be read: {error}"))),
            }
        }
        if paths.is_empty() {
            problems.push(Problem::new(&folder, 1, "no topic is declared here"));
        }
        if problems.is_empty() {
            check_together(&topics, &schemas, &mut problems);
        }
        if problems.is_empty() { Ok(Registry { topics }) } else { Err(problems) }
    }

    /// The topic of a logical name.
    pub fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.get(name)
    }

    /// The schema of a logical topic's values, for topics of ours.
    pub fn schema(&self, name: &str) -> Option<&Schema> {
        self.topic(name)?.schema.as_deref()
    }

    /// The topic a physical name stands for: `cdc.hospital_a.clinical_data.patients` is
    /// `cdc.clinical_data.patients`.
    pub fn logical(&self, physical: &str) -> Option<&Topic> {
        match cdc_name(physical) {
            Some(name) => self.topics.get(&format!("cdc.{}.{}", name.db, name.table)),
            None => self.topics.get(physical).filter(|topic| !topic.per_source()),
        }
    }

    /// Dead-letter topic for records of a physical topic that `group` rejects. Sources share the one of their
    /// logical topic; topics nobody declared share `unknown.<group>.dlq`.
    pub fn dlq(&self, physical: &str, group: &str) -> String {
        let name = self.logical(physical).map_or("unknown", |topic| &topic.name);
        format!("{name}.{group}.dlq")
    }

    /// All topics, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Topic> {
        self.topics.values()
    }
}

fn check_together(topics: &BTreeMap<String, Topic>, schemas: &Path, problems: &mut Vec<Problem>) {
    for topic in topics.values() {
        let mut wrong = |key: &str, message: String| {
            let text = fs::read_to_string(&topic.file).unwrap_or_default();
            problems.push(Problem::new(&topic.file, line_of(&text, key), message));
        };
        for followed in &topic.follows {
            match topics.get(followed) {
                None => wrong("follows", format!("`{followed}` is not declared")),
                Some(input) if input.partitions != topic.partitions => wrong(
                    "partitions",
                    format!(
                        "a changelog has as many partitions as the inputs it follows: `{followed}` has {}",
                        input.partitions
                    ),
                ),
                Some(_) => {}
            }
        }
    }
    let used: BTreeSet<_> =
        topics.values().filter_map(|t| t.schema.as_ref()).map(|s| s.file.clone()).collect();
    let files = fs::read_dir(schemas).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    for file in files.filter(|file| file.extension().is_some_and(|ext| ext == "avsc") && !used.contains(file))
    {
        problems.push(Problem::new(&file, 1, "no topic has this schema: name the file `<topic>-value.avsc`"));
    }
}
