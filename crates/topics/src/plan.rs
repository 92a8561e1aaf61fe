use std::collections::BTreeMap;
use std::fmt;

use apache_avro::schema_compatibility::SchemaCompatibility;

use crate::{Compatibility, Format, Registry, Schema, Topic};

/// Dead letters wait this long for a person.
const DLQ_RETENTION_MS: i64 = 30 * 86_400_000;
/// A dead letter carries the original and headers about it, so it may be larger than any original.
const DLQ_MAX_MESSAGE_BYTES: u32 = 24 << 20;

/// What the declarations are to be applied to.
#[derive(Clone, Debug)]
pub struct Target {
    /// Configured sources; each has its own change topics.
    pub sources: Vec<String>,
    /// Put before the consumer group's name in dead-letter topics; empty for none.
    pub group_prefix: String,
    pub replication_factor: i32,
    /// The processors: of a topic's consumers these alone dead-letter.
    pub processors: Vec<String>,
}

/// What a cluster and a schema registry hold.
#[derive(Clone, Debug, Default)]
pub struct Existing {
    pub topics: BTreeMap<String, ExistingTopic>,
    pub subjects: BTreeMap<String, ExistingSubject>,
}

#[derive(Clone, Debug, Default)]
pub struct ExistingTopic {
    pub partitions: i32,
    /// Effective configuration, defaults included.
    pub configs: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default)]
pub struct ExistingSubject {
    /// Latest schema text, if any version is registered.
    pub latest: Option<String>,
    /// The subject's own compatibility, if set.
    pub compatibility: Option<String>,
}

/// One step towards the declarations. Applying a plan twice changes nothing more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    CreateTopic { name: String, partitions: i32, replication_factor: i32, configs: BTreeMap<String, String> },
    AddPartitions { name: String, from: i32, to: i32 },
    AlterConfig { topic: String, key: String, from: Option<String>, to: String },
    SetCompatibility { subject: String, from: Option<String>, to: Compatibility },
    RegisterSchema { subject: String, schema: String },
}

/// A difference no step can safely close, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Topic or subject.
    pub name: String,
    pub message: String,
}

/// The difference between the declarations and what exists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order to apply them.
    pub changes: Vec<Change>,
    /// Nothing may be applied while there are any.
    pub refusals: Vec<Refusal>,
}

impl Registry {
    /// Physical topics the target must have: partitions and configuration by name.
    pub fn wanted(&self, target: &Target) -> BTreeMap<String, (i32, BTreeMap<String, String>)> {
        let mut wanted = BTreeMap::new();
        let dlq_configs = BTreeMap::from([
            ("cleanup.policy".to_owned(), "delete".to_owned()),
            ("max.message.bytes".to_owned(), DLQ_MAX_MESSAGE_BYTES.to_string()),
            ("retention.ms".to_owned(), DLQ_RETENTION_MS.to_string()),
        ]);
        for topic in self.iter() {
            let names = match topic.per_source() {
                true => target.sources.iter().map(|source| topic.physical(source)).collect(),
                false => vec![topic.name.to_string()],
            };
            for name in names {
                wanted.insert(name, (topic.partitions, topic.configs.clone()));
            }
            // The records of a changelog are its processor's own: none is rejected.
            if topic.format == Format::Internal {
                continue;
            }
            for consumer in topic.consumers.iter().filter(|consumer| target.processors.contains(consumer)) {
                // Change topics are subscribed by pattern: topics nobody declared come too.
                let unknown = topic.per_source().then_some("unknown");
                for dead in [&*topic.name].into_iter().chain(unknown) {
                    let name = format!("{dead}.{}{consumer}.dlq", target.group_prefix);
                    wanted.insert(name, (1, dlq_configs.clone()));
                }
            }
        }
        wanted
    }

    /// What is to be done so that the cluster and the registry hold what is declared. Topics and subjects
    /// nobody declared are left alone.
    pub fn plan(&self, target: &Target, existing: &Existing) -> Plan {
        let mut plan = Plan::default();
        for (name, (partitions, configs)) in self.wanted(target) {
            match existing.topics.get(&name) {
                None => plan.changes.push(Change::CreateTopic {
                    name,
                    partitions,
                    replication_factor: target.replication_factor,
                    configs,
                }),
                Some(found) => {
                    plan.partitions(&name, self.logical(&name), partitions, found.partitions);
                    plan.configs(&name, configs, found);
                }
            }
        }
        for schema in self.iter().filter_map(|topic| topic.schema.as_deref()) {
            plan.schema(schema, existing.subjects.get(&schema.subject));
        }
        plan
    }
}

impl Plan {
    fn partitions(&mut self, name: &str, topic: Option<&Topic>, want: i32, have: i32) {
        if want < have {
            self.refuse(
                name,
                format!(
                    "has {have} partitions and {want} are declared; Kafka cannot take partitions away: declare \
                     {have}, or delete the topic and fill it again"
                ),
            );
        } else if want > have && topic.is_some_and(|topic| topic.epoch.is_some()) {
            self.refuse(
                name,
                format!(
                    "has {have} partitions and {want} are declared; more partitions would move keys to lower \
                     offsets, and stores would take new versions for old ones: stop its producers, delete the \
                     topic, raise its `epoch`, apply, and replay"
                ),
            );
        } else if want > have {
            self.changes.push(Change::AddPartitions { name: name.to_owned(), from: have, to: want });
        }
    }

    fn configs(&mut self, name: &str, configs: BTreeMap<String, String>, found: &ExistingTopic) {
        for (key, to) in configs {
            let from = found.configs.get(&key).cloned();
            if from.as_ref().is_none_or(|from| !same_config(from, &to)) {
                self.changes.push(Change::AlterConfig { topic: name.to_owned(), key, from, to });
            }
        }
    }

    fn schema(&mut self, schema: &Schema, found: Option<&ExistingSubject>) {
        let latest = found.and_then(|subject| subject.latest.as_deref());
        if let Some(message) = latest.and_then(|latest| incompatible(schema, latest)) {
            return self.refuse(&schema.subject, message);
        }
        let from = found.and_then(|subject| subject.compatibility.clone());
        if from.as_deref() != Some(schema.compatibility.as_str()) {
            let (subject, to) = (schema.subject.clone(), schema.compatibility);
            self.changes.push(Change::SetCompatibility { subject, from, to });
        }
        if !latest.is_some_and(|latest| same_schema(latest, &schema.json)) {
            let (subject, schema) = (schema.subject.clone(), schema.json.clone());
            self.changes.push(Change::RegisterSchema { subject, schema });
        }
    }

    fn refuse(&mut self, name: &str, message: String) {
        self.refusals.push(Refusal { name: name.to_owned(), message });
    }
}

/// Lists such as `compact,delete` come back from Kafka in any order.
fn same_config(one: &str, other: &str) -> bool {
    let parts = |text: &str| {
        let mut parts: Vec<_> = text.split(',').map(|part| part.trim().to_owned()).collect();
        parts.sort();
        parts
    };
    parts(one) == parts(other)
}

/// Whether two schema texts say the same, documentation and attributes included.
fn same_schema(one: &str, other: &str) -> bool {
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
    parse(one).is_some_and(|one| Some(one) == parse(other))
}

fn incompatible(new: &Schema, latest: &str) -> Option<String> {
    let Ok(old) = apache_avro::Schema::parse_str(latest) else {
        return Some("the registered schema is not Avro: it belongs to something else".into());
    };
    let read = |writer, reader| SchemaCompatibility::can_read(writer, reader);
    let broken = if new.compatibility.backward() && read(&old, &new.avro).is_err() {
        "could not read records written so far"
    } else if new.compatibility.forward() && read(&new.avro, &old).is_err() {
        "would write records that readers so far cannot read"
    } else {
        return None;
    };
    let rule = new.compatibility;
    Some(format!("{broken} ({rule}): give new fields a default and remove none, or make a new topic"))
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::CreateTopic { name, partitions, .. } => {
                write!(f, "create topic {name} ({partitions} partitions)")
            }
            Change::AddPartitions { name, from, to } => {
                write!(f, "add partitions to {name} ({from} to {to})")
            }
            Change::AlterConfig { topic, key, from, to } => {
                write!(f, "set {key} of {topic} to {to} (is {})", from.as_deref().unwrap_or("unset"))
            }
            Change::SetCompatibility { subject, from, to } => {
                write!(
                    f,
                    "set compatibility of {subject} to {to} (is {})",
                    from.as_deref().unwrap_or("unset")
                )
            }
            Change::RegisterSchema { subject, .. } => write!(f, "register schema {subject}"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.message)
    }
}
