use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fhirehose_stream::{Reason, Rejection};
use fhirehose_topics::Registry;

use crate::concept_map::ConceptMap;
use crate::functions::ConceptMaps;
use crate::problem::{Position, Problem, Problems};
use crate::terminology::Terminology;
use crate::{CdcMapping, DeviceMapping, Message, yaml};

/// Every mapping of a directory, compiled.
pub struct Mappings {
    /// By database and table.
    cdc: BTreeMap<String, BTreeMap<String, CdcMapping>>,
    /// By topic.
    devices: BTreeMap<String, Vec<DeviceMapping>>,
}

impl Mappings {
    /// Reads `<dir>/mappings/cdc/*/*.yaml`, `device/*/*.yaml` and `maps/*.csv`.
    pub fn load(dir: &Path, topics: &Registry) -> Result<Mappings, Vec<Problem>> {
        let root = dir.join("mappings");
        let mut problems = Vec::new();
        let mut terminology = Terminology::default();
        let maps = Arc::new(concept_maps(&root, &mut terminology, &mut problems));
        let mut mappings = Mappings { cdc: BTreeMap::new(), devices: BTreeMap::new() };
        for file in files(&root.join("cdc"), 2, "yaml", &mut problems) {
            let mapping = read(&file, &root, &mut problems, |path, node, problems| {
                CdcMapping::compile(path, node, &maps, topics, &mut terminology, problems)
            });
            if let Some(mapping) = mapping
                && let Some((db, table)) = mapping.table.split_once('.')
            {
                let (db, table) = (db.to_owned(), table.to_owned());
                mappings.cdc.entry(db).or_default().insert(table, mapping);
            }
        }
        for file in files(&root.join("device"), 2, "yaml", &mut problems) {
            let mapping = read(&file, &root, &mut problems, |path, node, problems| {
                DeviceMapping::compile(path, node, &maps, topics, &mut terminology, problems)
            });
            if let Some(mapping) = mapping {
                mappings.devices.entry(mapping.topic.to_string()).or_default().push(mapping);
            }
        }
        if problems.is_empty() && mappings.cdc.is_empty() && mappings.devices.is_empty() {
            let mut none = Problems::of(&root);
            none.add(Position::START, "there is no mapping here");
            problems.extend(none.into_vec());
        }
        if problems.is_empty() { Ok(mappings) } else { Err(problems) }
    }

    /// The mapping of a table.
    pub fn cdc(&self, db: &str, table: &str) -> Option<&CdcMapping> {
        self.cdc.get(db)?.get(table)
    }

    /// Mappings of tables, by table.
    pub fn tables(&self) -> impl Iterator<Item = &CdcMapping> {
        self.cdc.values().flat_map(BTreeMap::values)
    }

    /// Mappings of messages, by topic and name.
    pub fn messages(&self) -> impl Iterator<Item = &DeviceMapping> {
        self.devices.values().flatten()
    }

    pub(crate) fn has_device_topic(&self, topic: &str) -> bool {
        self.devices.contains_key(topic)
    }

    /// The one mapping that matches a message of a topic.
    pub fn device(&self, topic: &str, message: &Message<'_>) -> Result<&DeviceMapping, Rejection> {
        let mut found: Option<&DeviceMapping> = None;
        for mapping in self.devices.get(topic).map(Vec::as_slice).unwrap_or_default() {
            if mapping.matches(message)? {
                if let Some(other) = found {
                    let detail = format!("{} and {} both match", other.name, mapping.name);
                    return Err(Rejection::new(Reason::UnknownMessage, detail));
                }
                found = Some(mapping);
            }
        }
        found.ok_or_else(|| Rejection::new(Reason::UnknownMessage, topic))
    }
}

/// Every problem of the shapes in a directory that mappings have a part in; none if all is well.
pub fn check(dir: &Path) -> Vec<Problem> {
    match Registry::load(dir) {
        Ok(topics) => Mappings::load(dir, &topics).err().unwrap_or_default(),
        Err(problems) => {
            let column = 1;
            let problem = |p: fhirehose_topics::Problem| Problem {
                file: p.file,
                line: p.line,
                column,
                message: p.message,
            };
            problems.into_iter().map(problem).collect()
        }
    }
}

fn concept_maps(root: &Path, terminology: &mut Terminology, problems: &mut Vec<Problem>) -> ConceptMaps {
    let mut maps = ConceptMaps::new();
    for file in files(&root.join("maps"), 1, "csv", problems) {
        let mut found = Problems::of(&file);
        match fs::read_to_string(&file) {
            Ok(text) => {
                let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                maps.insert(name, ConceptMap::read(&file, &text, terminology, &mut found));
            }
            Err(error) => found.add(Position::START, format!("cannot be read: {error}")),
        }
        problems.extend(found.into_vec());
    }
    maps
}

/// `path` as the compiler gets it: `cdc/<db>/<table>`.
fn read<M>(
    file: &Path,
    root: &Path,
    problems: &mut Vec<Problem>,
    compile: impl FnOnce(&str, &yaml::Node, &mut Problems<'_>) -> Option<M>,
) -> Option<M> {
    let mut found = Problems::of(file);
    let path = file.strip_prefix(root).unwrap_or(file).with_extension("");
    let path = path.to_string_lossy().replace('\\', "/");
    let mapping = match fs::read_to_string(file) {
        Ok(text) => match yaml::read(&text) {
            Ok(node) => compile(&path, &node, &mut found),
            Err((at, message)) => {
                found.add(at, message);
                None
            }
        },
        Err(error) => {
            found.add(Position::START, format!("cannot be read: {error}"));
            None
        }
    };
    let sound = found.is_empty();
    problems.extend(found.into_vec());
    mapping.filter(|_| sound)
}

/// Files of an extension `depth` levels below a folder, sorted; none where there is no folder.
fn files(folder: &Path, depth: usize, extension: &str, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            let mut found = Problems::of(folder);
            found.add(Position::START, format!("cannot be read: {error}"));
            problems.extend(found.into_vec());
            return Vec::new();
        }
    };
    let mut paths: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() && depth > 1 {
            found.extend(files(&path, depth - 1, extension, problems));
        } else if depth == 1 && path.extension().is_some_and(|ext| ext == extension) {
            found.push(path);
        }
    }
    found
}
