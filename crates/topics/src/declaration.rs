use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use crate::{Problem, Schema};

/// One logical topic, as its file declares it.
#[derive(Clone, Debug)]
pub struct Topic {
    /// Logical name; for `cdc.<db>.<table>` there is one physical topic per source, else it is the physical name.
    pub name: Arc<str>,
    pub description: String,
    /// Team or role that answers for it.
    pub owner: String,
    /// Processor names, or names of parties outside such as `debezium`.
    pub producers: Vec<String>,
    /// Processor names, or names of parties outside.
    pub consumers: Vec<String>,
    /// The key's form, in words and placeholders.
    pub key: String,
    pub partitions: i32,
    /// Topic configuration for Kafka: `cleanup.policy`, `retention.ms` and what `config` adds.
    pub configs: BTreeMap<String, String>,
    pub format: Format,
    /// The value's schema; some exactly when `format` is [`Format::Avro`].
    pub schema: Option<Arc<Schema>>,
    /// First part of versions made from this topic's offsets; raised by hand when the topic is made anew.
    /// `None` where nobody makes versions from it.
    pub epoch: Option<u8>,
    /// Folder of example records, relative to the declarations' root.
    pub examples: Option<PathBuf>,
    pub(crate) follows: Vec<String>,
    pub(crate) file: PathBuf,
}

impl Topic {
    /// Whether each source has its own physical topic.
    pub fn per_source(&self) -> bool {
        self.name.starts_with("cdc.")
    }

    /// The physical topic of a source, or the topic itself where sources share it.
    pub fn physical(&self, source: &str) -> String {
        match self.name.strip_prefix("cdc.") {
            Some(table) => format!("cdc.{source}.{table}"),
            None => self.name.to_string(),
        }
    }

    /// Version made from this topic's offset; see [`crate::version`].
    pub fn version(&self, offset: i64, seq: u8) -> i64 {
        crate::version(self.epoch.unwrap_or(0), offset, seq)
    }
}

/// How the values of a topic are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Confluent's wire format with the declared schema.
    Avro,
    /// Debezium's envelope, Avro with the connector's own schema or JSON.
    Debezium,
    /// JSON whose shape its producer decides.
    Json,
    /// Bytes only the owning processor reads.
    Internal,
}

/// The registry's compatibility rule of a subject. There is no `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compatibility {
    Backward,
    BackwardTransitive,
    Forward,
    ForwardTransitive,
    Full,
    FullTransitive,
}

impl Compatibility {
    /// As the registry's API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Compatibility::Backward => "BACKWARD",
            Compatibility::BackwardTransitive => "BACKWARD_TRANSITIVE",
            Compatibility::Forward => "FORWARD",
            Compatibility::ForwardTransitive => "FORWARD_TRANSITIVE",
            Compatibility::Full => "FULL",
            Compatibility::FullTransitive => "FULL_TRANSITIVE",
        }
    }

    /// Whether new readers must read old records.
    pub fn backward(self) -> bool {
        !matches!(self, Compatibility::Forward | Compatibility::ForwardTransitive)
    }

    /// Whether old readers must read new records.
    pub fn forward(self) -> bool {
        !matches!(self, Compatibility::Backward | Compatibility::BackwardTransitive)
    }
}

impl fmt::Display for Compatibility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    topic: String,
    description: String,
    owner: String,
    producers: Vec<String>,
    consumers: Vec<String>,
    key: String,
    partitions: i32,
    cleanup: Cleanup,
    retention: String,
    #[serde(default)]
    config: BTreeMap<String, String>,
    value: Format,
    compatibility: Option<Compatibility>,
    epoch: Option<u8>,
    #[serde(default)]
    follows: Vec<String>,
    examples: Option<PathBuf>,
}

#[derive(Clone, Copy, Deserialize)]
enum Cleanup {
    #[serde(rename = "compact")]
    Compact,
    #[serde(rename = "delete")]
    Delete,
    #[serde(rename = "compact,delete")]
    CompactDelete,
}

/// Reads one `topics/*.yaml`; what it can tell without the other files is checked here.
pub(crate) fn read(path: &Path, text: &str, schemas: &Path, problems: &mut Vec<Problem>) -> Option<Topic> {
    let file: File = match serde_yaml_ng::from_str(text) {
        Ok(file) => file,
        Err(error) => {
            let line = error.location().map_or(1, |at| at.line());
            problems.push(Problem::new(path, line, error.to_string()));
            return None;
        }
    };
    let before = problems.len();
    let mut wrong =
        |key: &str, message: String| problems.push(Problem::new(path, line_of(text, key), message));
    if path.file_stem().is_none_or(|stem| stem != file.topic.as_str()) {
        wrong("topic", format!("the file of `{0}` is named `{0}.yaml`", file.topic));
    }
    if !file.topic.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
        wrong("topic", format!("`{}` is not a topic name: letters, digits, `.`, `_`, `-`", file.topic));
    }
    for (name, text) in [("description", &file.description), ("owner", &file.owner), ("key", &file.key)] {
        if text.trim().is_empty() {
            wrong(name, format!("`{name}` is empty"));
        }
    }
    for (name, list) in [("producers", &file.producers), ("consumers", &file.consumers)] {
        if list.is_empty() {
            wrong(name, format!("`{name}` is empty: name the processor, or the party outside"));
        }
    }
    if !(1..=1000).contains(&file.partitions) {
        wrong("partitions", "`partitions` must be 1 to 1000".into());
    }
    if file.epoch.is_some_and(|epoch| epoch > 127) {
        wrong("epoch", "`epoch` must be 0 to 127: versions have seven bits for it".into());
    }
    let retention_ms = match retention_ms(&file.retention) {
        Some(ms) => ms,
        None => {
            wrong("retention", "`retention` is a number and `d` or `h`, such as `7d`, or `forever`".into());
            -1
        }
    };
    let policy = match file.cleanup {
        Cleanup::Compact => "compact",
        Cleanup::Delete => "delete",
        Cleanup::CompactDelete => "compact,delete",
    };
    let mut configs = BTreeMap::from([
        ("cleanup.policy".to_owned(), policy.to_owned()),
        ("retention.ms".to_owned(), retention_ms.to_string()),
    ]);
    for (key, value) in file.config {
        if configs.insert(key.clone(), value).is_some() {
            wrong(
                "config",
                format!("`{key}` follows from `cleanup` and `retention`: leave it out of `config`"),
            );
        }
    }
    let schema = match (file.value, file.compatibility) {
        (Format::Avro, Some(compatibility)) => Schema::read(&file.topic, compatibility, schemas, problems),
        (Format::Avro, None) => {
            wrong("value", "an `avro` value needs `compatibility`, such as `backward_transitive`".into());
            None
        }
        (_, Some(_)) => {
            wrong("compatibility", "`compatibility` is for `avro` values alone".into());
            None
        }
        (_, None) => None,
    };
    (problems.len() == before).then(|| Topic {
        name: file.topic.into(),
        description: file.description,
        owner: file.owner,
        producers: file.producers,
        consumers: file.consumers,
        key: file.key,
        partitions: file.partitions,
        configs,
        format: file.value,
        schema: schema.map(Arc::new),
        epoch: file.epoch,
        examples: file.examples,
        follows: file.follows,
        file: path.to_owned(),
    })
}

/// Milliseconds; -1 is forever, as Kafka has it.
fn retention_ms(text: &str) -> Option<i64> {
    if text == "forever" {
        return Some(-1);
    }
    let (number, hours) =
        text.strip_suffix('d').map(|n| (n, 24)).or_else(|| text.strip_suffix('h').map(|n| (n, 1)))?;
    let number = number.parse::<u32>().ok().filter(|n| *n > 0)?;
    Some(i64::from(number) * hours * 3_600_000)
}

/// Line of a top-level key; the files are flat enough for this to be exact.
pub(crate) fn line_of(text: &str, key: &str) -> usize {
    let at = |line: &str| line.strip_prefix(key).is_some_and(|rest| rest.starts_with(':'));
    text.lines().position(at).map_or(1, |index| index + 1)
}
