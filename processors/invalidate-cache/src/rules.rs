use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

use fhirehose_tape::Value;
use fhirehose_topics::{Problem, Registry};
use serde::Deserialize;

/// Which cache keys a change of a table's rows makes stale: `mappings/cache.yaml`, compiled.
pub struct Rules {
    /// By table, as `<db>.<table>`.
    tables: HashMap<String, Vec<Vec<Part>>>,
}

enum Part {
    Text(String),
    Tenant,
    Source,
    Column(String),
}

impl Part {
    fn column(&self) -> Option<&String> {
        match self {
            Part::Column(name) => Some(name),
            _ => None,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    table: String,
    keys: Vec<String>,
}

impl Rules {
    /// Reads `<dir>/mappings/cache.yaml`. Its tables must have a declared change topic, and the columns it names
    /// must be declared by the table's mapping, where it has one.
    pub fn load(dir: &Path, topics: &Registry) -> Result<Rules, Vec<Problem>> {
        let path = dir.join("mappings/cache.yaml");
        let problem = |line, message: String| Problem { file: path.clone(), line, message };
        let text = fs::read_to_string(&path)
            .map_err(|error| vec![problem(1, format!("cannot be read: {error}"))])?;
        let file: File = serde_yaml_ng::from_str(&text)
            .map_err(|error| vec![problem(error.location().map_or(1, |at| at.line()), error.to_string())])?;
        let mut problems = Vec::new();
        let mut tables = HashMap::new();
        for rule in &file.rules {
            let mut wrong = |of: &str, message| problems.push(problem(line_of(&text, of), message));
            if topics.topic(&format!("cdc.{}", rule.table)).is_none() {
                wrong(&rule.table, format!("no change topic of `{}` is declared", rule.table));
            }
            let columns = columns(dir, &rule.table);
            let mut keys = Vec::new();
            for template in &rule.keys {
                match compile(template) {
                    Ok(parts) => {
                        let mut named = parts.iter().filter_map(Part::column);
                        if let Some(column) =
                            named.find(|name| columns.as_ref().is_some_and(|all| !all.contains(*name)))
                        {
                            wrong(template, format!("`{template}`: {} has no column `{column}`", rule.table));
                        }
                        keys.push(parts);
                    }
                    Err(message) => wrong(template, format!("`{template}`: {message}")),
                }
            }
            if tables.insert(rule.table.clone(), keys).is_some() {
                wrong(&rule.table, format!("`{}` has two rules", rule.table));
            }
        }
        if problems.is_empty() { Ok(Rules { tables }) } else { Err(problems) }
    }

    /// Adds the keys of a row to `keys`, each once; nothing for a table without rule. `Err` is a column a
    /// template needs and the row lacks.
    pub fn keys(
        &self,
        table: &str,
        tenant: &str,
        source: &str,
        row: Value<'_>,
        keys: &mut Vec<String>,
    ) -> Result<(), &str> {
        for template in self.tables.get(table).into_iter().flatten() {
            if let Some(key) = fill(template, tenant, source, row)?.filter(|key| !keys.contains(key)) {
                keys.push(key);
            }
        }
        Ok(())
    }

    pub fn covers(&self, table: &str) -> bool {
        self.tables.contains_key(table)
    }
}

/// The columns a table's mapping declares and allows; `None` where there is no such mapping, or none that can be
/// read: the mapping engine tells what is wrong with it.
fn columns(dir: &Path, table: &str) -> Option<HashSet<String>> {
    #[derive(Deserialize)]
    struct Mapping {
        columns: HashMap<String, Column>,
    }
    #[derive(Deserialize)]
    struct Column {
        #[serde(default)]
        forbidden: bool,
    }
    let path = dir.join("mappings/cdc").join(format!("{}.yaml", table.replacen('.', "/", 1)));
    let mapping: Mapping = serde_yaml_ng::from_str(&fs::read_to_string(path).ok()?).ok()?;
    let allowed = mapping.columns.into_iter().filter(|(_, column)| !column.forbidden);
    Some(allowed.map(|(name, _)| name).collect())
}

fn compile(template: &str) -> Result<Vec<Part>, &'static str> {
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some((text, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').ok_or("`{` without `}`")?;
        if !text.is_empty() {
            parts.push(Part::Text(text.to_owned()));
        }
        parts.push(match name {
            "tenant" => Part::Tenant,
            "source" => Part::Source,
            "" => return Err("`{}` names no column"),
            column => Part::Column(column.to_owned()),
        });
        rest = after;
    }
    if rest.contains('}') {
        return Err("`}` without `{`");
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    match parts.iter().any(|part| matches!(part, Part::Tenant)) {
        true => Ok(parts),
        false => Err("a key must contain `{tenant}`: caches are never shared between tenants"),
    }
}

/// `None` where a column is null.
fn fill<'r>(
    template: &'r [Part],
    tenant: &str,
    source: &str,
    row: Value<'_>,
) -> Result<Option<String>, &'r str> {
    let mut key = String::new();
    for part in template {
        match part {
            Part::Text(text) => key.push_str(text),
            Part::Tenant => encode(tenant, &mut key),
            Part::Source => encode(source, &mut key),
            Part::Column(column) => {
                let value = row.get(column).ok_or(column.as_str())?;
                match value.as_str().or(value.as_number()) {
                    Some(text) => encode(text, &mut key),
                    None if value.is_null() => return Ok(None),
                    None => return Err(column),
                }
            }
        }
    }
    Ok(Some(key))
}

fn encode(value: &str, key: &mut String) {
    for char in value.chars() {
        match char {
            ':' => key.push_str("%3A"),
            '%' => key.push_str("%25"),
            char => key.push(char),
        }
    }
}

fn line_of(text: &str, what: &str) -> usize {
    text.lines().position(|line| line.contains(what)).map_or(1, |index| index + 1)
}
