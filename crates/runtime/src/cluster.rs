use std::collections::BTreeMap;
use std::time::Duration;

use fhirehose_topics::{Change, Existing, ExistingTopic, Plan, Registry, Target};
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigSource, NewPartitions, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::error::KafkaError;

use crate::clients::{Clients, Logged};
use crate::registry::{RegistryError, SchemaRegistry};

const TIMEOUT: Duration = Duration::from_secs(30);

/// Why a cluster could not be looked at or changed.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("kafka: {what}: {error}")]
    Kafka { what: String, error: KafkaError },
    /// Kafka answered, and refused.
    #[error("kafka refused to {what}: {code}")]
    Refused { what: String, code: String },
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
}

/// The Kafka cluster and the schema registry the declared topics are compared with and applied to.
pub struct Cluster<'c> {
    admin: AdminClient<Logged>,
    registry: &'c SchemaRegistry,
    runtime: tokio::runtime::Runtime,
    /// Topic configurations set on the topic itself: altering replaces them as a whole.
    own: BTreeMap<String, BTreeMap<String, String>>,
}

impl<'c> Cluster<'c> {
    pub fn new(clients: &Clients, registry: &'c SchemaRegistry) -> Result<Self, ClusterError> {
        let admin = clients
            .plain()
            .create_with_context(Logged)
            .map_err(|error| ClusterError::Kafka { what: "client".into(), error })?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Cluster { admin, registry, runtime, own: BTreeMap::new() })
    }

    /// The difference between the declarations and what exists.
    pub fn plan(&mut self, topics: &Registry, target: &Target) -> Result<Plan, ClusterError> {
        let mut existing = Existing { topics: self.topics(topics, target)?, ..Existing::default() };
        let subjects = topics.iter().filter_map(|topic| topic.schema.as_deref());
        existing.subjects =
            self.registry.existing(subjects.map(|schema| &*schema.subject))?.into_iter().collect();
        Ok(topics.plan(target, &existing))
    }

    /// Makes one change of a plan.
    pub fn apply(&mut self, change: &Change) -> Result<(), ClusterError> {
        let options = AdminOptions::new().operation_timeout(Some(TIMEOUT)).request_timeout(Some(TIMEOUT));
        let kafka = |error| ClusterError::Kafka { what: change.to_string(), error };
        let refused = |code: String| ClusterError::Refused { what: change.to_string(), code };
        match change {
            Change::CreateTopic { name, partitions, replication_factor, configs } => {
                let mut topic =
                    NewTopic::new(name, *partitions, TopicReplication::Fixed(*replication_factor));
                for (key, value) in configs {
                    topic = topic.set(key, value);
                }
                let made =
                    self.runtime.block_on(self.admin.create_topics([&topic], &options)).map_err(kafka)?;
                made.into_iter()
                    .try_for_each(|one| one.map(|_| ()).map_err(|(_, code)| refused(code.to_string())))
            }
            Change::AddPartitions { name, to, .. } => {
                let count = usize::try_from(*to).unwrap_or_default();
                let partitions = NewPartitions::new(name, count);
                let made = self
                    .runtime
                    .block_on(self.admin.create_partitions([&partitions], &options))
                    .map_err(kafka)?;
                made.into_iter()
                    .try_for_each(|one| one.map(|_| ()).map_err(|(_, code)| refused(code.to_string())))
            }
            Change::AlterConfig { topic, key, to, .. } => {
                let own = self.own.entry(topic.clone()).or_default();
                own.insert(key.clone(), to.clone());
                let mut config = AlterConfig::new(ResourceSpecifier::Topic(topic));
                for (key, value) in own.iter() {
                    config = config.set(key, value);
                }
                let made =
                    self.runtime.block_on(self.admin.alter_configs([&config], &options)).map_err(kafka)?;
                made.into_iter()
                    .try_for_each(|one| one.map(|_| ()).map_err(|(_, code)| refused(code.to_string())))
            }
            Change::SetCompatibility { subject, to, .. } => {
                Ok(self.registry.set_compatibility(subject, to.as_str())?)
            }
            Change::RegisterSchema { subject, schema } => Ok(self.registry.register(subject, schema)?),
        }
    }

    fn topics(
        &mut self,
        topics: &Registry,
        target: &Target,
    ) -> Result<BTreeMap<String, ExistingTopic>, ClusterError> {
        let kafka = |error| ClusterError::Kafka { what: "topics could not be looked up".into(), error };
        let metadata = self.admin.inner().fetch_metadata(None, TIMEOUT).map_err(kafka)?;
        let wanted = topics.wanted(target);
        let mut existing: BTreeMap<String, ExistingTopic> = metadata
            .topics()
            .iter()
            .filter(|topic| wanted.contains_key(topic.name()))
            .map(|topic| {
                let partitions = i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX);
                (topic.name().to_owned(), ExistingTopic { partitions, configs: BTreeMap::new() })
            })
            .collect();
        let names: Vec<String> = existing.keys().cloned().collect();
        let resources: Vec<_> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        if resources.is_empty() {
            return Ok(existing);
        }
        let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
        let described =
            self.runtime.block_on(self.admin.describe_configs(&resources, &options)).map_err(kafka)?;
        for (name, resource) in names.iter().zip(described) {
            let resource = resource.map_err(|code| ClusterError::Refused {
                what: format!("describe {name}"),
                code: code.to_string(),
            })?;
            for entry in resource.entries {
                let Some(value) = entry.value else { continue };
                if entry.source == ConfigSource::DynamicTopic {
                    self.own.entry(name.clone()).or_default().insert(entry.name.clone(), value.clone());
                }
                if let Some(topic) = existing.get_mut(name) {
                    topic.configs.insert(entry.name, value);
                }
            }
        }
        Ok(existing)
    }
}
