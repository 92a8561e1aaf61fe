use std::fs;
use std::path::{Path, PathBuf};

use fhirehose_topics::{Problem, Registry};
use serde_json::Value as Json;

/// Fields the sink itself writes into every document; a component template declares them.
pub(crate) const OWN_FIELDS: [&str; 6] = ["tenant", "kind", "id", "version", "deleted", "search_text"];

/// The search indices as `schemas/search` declares them.
pub struct Shapes {
    /// Component templates by name.
    pub(crate) components: Vec<(String, Json)>,
    pub(crate) indices: Vec<Index>,
    /// Name and body of the alias searches use; its filter hides deleted documents.
    pub(crate) alias: (String, Json),
}

/// One index: its template, and the topic whose records are its documents.
pub(crate) struct Index {
    /// Name of the index template.
    pub template: String,
    pub body: Json,
    /// Name of the index, `<base>_v<n>`.
    pub name: String,
    pub topic: String,
    /// What its documents are, such as `patient`.
    pub kind: String,
    /// Columns of the topic's schema that are indexed.
    pub columns: Vec<String>,
    /// Raised when an index made before can no longer be used.
    pub version: i64,
}

impl Shapes {
    /// Reads `<dir>/schemas/search/components/*.json` and `<dir>/schemas/search/*.json`; what they index must be
    /// columns of their topics.
    pub fn load(dir: &Path, topics: &Registry) -> Result<Shapes, Vec<Problem>> {
        let folder = dir.join("schemas/search");
        let mut problems = Vec::new();
        let components = read(&folder.join("components"), &mut problems);
        let mut indices = Vec::new();
        for (path, name, body) in read(&folder, &mut problems) {
            match index(name, body, topics) {
                Ok(index) => indices.push(index),
                Err((what, message)) => {
                    let text = fs::read_to_string(&path).unwrap_or_default();
                    // Properties stand last.
                    let lines = text.lines().enumerate();
                    let line = lines.filter(|(_, line)| line.contains(&format!("\"{what}\""))).last();
                    problems.push(Problem { file: path, line: line.map_or(1, |(at, _)| at + 1), message });
                }
            }
        }
        if indices.is_empty() && problems.is_empty() {
            problems.push(Problem {
                file: folder.clone(),
                line: 1,
                message: "no search index is declared here".into(),
            });
        }
        let aliases =
            components.iter().filter_map(|(_, _, body)| body.pointer("/template/aliases")?.as_object());
        let mut aliases = aliases.flatten().filter(|(_, body)| body.get("filter").is_some());
        let alias = aliases.next().map(|(name, body)| (name.clone(), body.clone()));
        if alias.is_none() && problems.is_empty() {
            let message = "no component has an alias with a filter that hides deleted documents";
            problems.push(Problem { file: folder.join("components"), line: 1, message: message.into() });
        }
        let components = components.into_iter().map(|(_, name, body)| (name, body)).collect();
        match alias {
            Some(alias) if problems.is_empty() => Ok(Shapes { components, indices, alias }),
            _ => Err(problems),
        }
    }

    /// The alias searches use.
    pub fn alias(&self) -> &str {
        &self.alias.0
    }

    /// Topics that have an index.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.indices.iter().map(|index| index.topic.as_str())
    }
}

/// Every `*.json` of a folder, by name.
fn read(folder: &Path, problems: &mut Vec<Problem>) -> Vec<(PathBuf, String, Json)> {
    let problem = |file: &Path, line, message| Problem { file: file.to_owned(), line, message };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            problems.push(problem(folder, 1, format!("cannot be read: {error}")));
            return Vec::new();
        }
    };
    let mut paths: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ext| ext == "json"));
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        let text =
            fs::read_to_string(&path).map_err(|error| problem(&path, 1, format!("cannot be read: {error}")));
        let json = text.and_then(|text| {
            serde_json::from_str(&text).map_err(|error| problem(&path, error.line(), error.to_string()))
        });
        let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
        match json {
            Ok(json) => files.push((path, name, json)),
            Err(problem) => problems.push(problem),
        }
    }
    files
}

/// On an error, the name in the file that is at fault, and why.
fn index(template: String, mut body: Json, topics: &Registry) -> Result<Index, (String, String)> {
    let meta = |name: &str| match body.pointer(&format!("/_meta/{name}")).and_then(Json::as_str) {
        Some(text) => Ok(text.to_owned()),
        None => Err(("_meta".to_owned(), format!("`_meta.{name}` is missing"))),
    };
    let (topic, kind, name) = (meta("topic")?, meta("kind")?, meta("index")?);
    let version = body.get("version").and_then(Json::as_i64);
    let version = version.ok_or(("_meta".to_owned(), "`version` is missing".to_owned()))?;
    let Some(schema) = topics.schema(&topic) else {
        return Err((topic.clone(), format!("`{topic}` is not a declared topic with a schema")));
    };
    let covered =
        body.get("index_patterns").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str);
    if !covered.clone().any(|pattern| name.starts_with(pattern.trim_end_matches('*'))) {
        return Err((name.clone(), format!("no pattern of `index_patterns` covers `{name}`")));
    }
    let properties = body.pointer("/template/mappings/properties").and_then(Json::as_object);
    let Some(properties) = properties else {
        return Err(("mappings".to_owned(), "`template.mappings.properties` is missing".to_owned()));
    };
    let columns: Vec<String> = properties.keys().cloned().collect();
    if let Some(column) = columns.iter().find(|column| schema.field(column).is_none()) {
        return Err((column.clone(), format!("`{column}` is not a column of {}", schema.subject)));
    }
    if let Some(column) = columns.iter().find(|column| OWN_FIELDS.contains(&column.as_str())) {
        return Err((
            column.clone(),
            format!("`{column}` is written by the sink: leave it to the component"),
        ));
    }
    // Kept in the index, so that one made by another version is recognised.
    body["template"]["mappings"]["_meta"]["version"] = version.into();
    Ok(Index { template, body, name, topic, kind, columns, version })
}
