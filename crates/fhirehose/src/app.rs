use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use fhirehose_codec::SchemaSource;
use fhirehose_mapping::{Mappings, Source, Vendor, Zone};
use fhirehose_runtime::{Clients, Config, Loaded, RegistryError, SchemaRegistry};
use fhirehose_stream::Fault;
use fhirehose_topics::{Registry, Target, Topic};

use crate::cli::Global;
use crate::processors::PROCESSORS;

const DEFAULT_FILE: &str = "fhirehose.toml";

/// Schemas by id, as processors take them.
pub type Schemas = Arc<dyn SchemaSource + Send + Sync>;

/// The configuration, and what is loaded from where it points, when asked for.
pub struct App {
    pub loaded: Loaded,
}

/// Registered ids of our own schemas, by subject.
#[derive(Clone, Debug, Default)]
pub struct SchemaIds(Arc<BTreeMap<String, u32>>);

impl SchemaIds {
    pub fn get(&self, subject: &str) -> Result<u32, Fault> {
        self.0.get(subject).copied().ok_or_else(|| {
            Fault::fatal(format!(
                "{subject} is written to, but its topic does not name this processor as producer"
            ))
        })
    }
}

impl App {
    pub fn load(global: &Global, flags: Vec<(String, String)>) -> anyhow::Result<App> {
        let file = global.config.clone().or_else(|| {
            let default = PathBuf::from(DEFAULT_FILE);
            default.exists().then_some(default)
        });
        let mut pairs = global.set.clone();
        pairs.extend(global.shapes.iter().map(|dir| ("shapes.dir".to_owned(), dir.display().to_string())));
        pairs.extend(flags);
        let loaded = Loaded::read(file.as_deref(), std::env::vars(), &pairs)?;
        Ok(App { loaded })
    }

    /// The same, refusing values that contradict each other.
    pub fn checked(self) -> anyhow::Result<App> {
        Ok(App { loaded: self.loaded.checked()? })
    }

    pub fn config(&self) -> &Config {
        &self.loaded.config
    }

    pub fn shapes(&self) -> &Path {
        &self.config().shapes.dir
    }

    pub fn topics(&self) -> anyhow::Result<Arc<Registry>> {
        Registry::load(self.shapes()).map(Arc::new).map_err(|found| problems("topics", &found))
    }

    pub fn mappings(&self, topics: &Registry) -> anyhow::Result<Arc<Mappings>> {
        Mappings::load(self.shapes(), topics).map(Arc::new).map_err(|found| problems("mappings", &found))
    }

    pub fn clients(&self) -> anyhow::Result<Clients> {
        if self.config().kafka.brokers.is_empty() {
            bail!("kafka.brokers is empty: set it in {DEFAULT_FILE} or FHIREHOSE__KAFKA__BROKERS");
        }
        Ok(Clients::new(Arc::new(self.config().clone())))
    }

    pub fn registry(&self) -> anyhow::Result<Arc<SchemaRegistry>> {
        if self.config().registry.url.is_empty() {
            bail!("registry.url is empty: set it in {DEFAULT_FILE} or FHIREHOSE__REGISTRY__URL");
        }
        Ok(Arc::new(SchemaRegistry::new(&self.config().registry)?))
    }

    pub fn sources(&self) -> anyhow::Result<Vec<Source>> {
        let source = |(name, source): (&String, &fhirehose_runtime::Source)| {
            let facility =
                |(facility, tenant): (&String, &String)| (facility.clone(), tenant.as_str().into());
            Ok(Source {
                name: name.as_str().into(),
                tenant: source.tenant.as_str().into(),
                zone: Zone::named(&source.zone).with_context(|| format!("sources.{name}.zone"))?,
                facility_tenants: source.facility_tenants.iter().map(facility).collect(),
            })
        };
        self.config().sources.iter().map(source).collect()
    }

    pub fn vendors(&self) -> anyhow::Result<Vec<Vendor>> {
        let vendor = |(name, device): (&String, &fhirehose_runtime::Device)| {
            let zone = Zone::named(&device.zone).with_context(|| format!("devices.{name}.zone"))?;
            Ok(Vendor { name: name.as_str().into(), zone })
        };
        self.config().devices.iter().map(vendor).collect()
    }

    /// What the declared topics are compared with and applied to.
    pub fn target(&self) -> Target {
        let config = self.config();
        Target {
            sources: config.sources.keys().cloned().collect(),
            group_prefix: config.kafka.group_prefix.clone(),
            replication_factor: config.kafka.replication_factor.unwrap_or(-1),
            processors: PROCESSORS.iter().map(|entry| entry.name.to_owned()).collect(),
        }
    }

    /// The registered ids of these topics' schemas. Waits while the registry is down; fails where a schema is
    /// missing or another than ours.
    pub fn schema_ids<'t>(
        &self,
        registry: &SchemaRegistry,
        topics: impl Iterator<Item = &'t Topic>,
    ) -> anyhow::Result<SchemaIds> {
        let mut ids = BTreeMap::new();
        for schema in topics.filter_map(|topic| topic.schema.as_deref()) {
            let mut tries = 0_u32;
            let id = loop {
                match registry.id_of(&schema.subject, &schema.json) {
                    Err(error @ RegistryError::Unavailable { .. }) => {
                        if tries.is_power_of_two() || tries == 0 {
                            tracing::warn!(why = %error, "the schema registry does not answer; it is tried again");
                        }
                        tries += 1;
                        std::thread::sleep(Duration::from_secs(1));
                    }
                    result => break result?,
                }
            };
            ids.insert(schema.subject.clone(), id);
        }
        Ok(SchemaIds(Arc::new(ids)))
    }

    pub fn timescale_url(&self) -> Option<&str> {
        self.config().timescale.url.as_deref().or(self.config().postgres.url.as_deref())
    }

    pub fn warehouse_url(&self) -> Option<&str> {
        self.config().warehouse.url.as_deref().or(self.config().postgres.url.as_deref())
    }

    pub fn search(&self) -> anyhow::Result<Option<sink_search::Client>> {
        let search = &self.config().search;
        let Some(url) = &search.url else { return Ok(None) };
        let ca_pem = match &search.ca_file {
            Some(path) => {
                Some(std::fs::read(path).with_context(|| format!("search.ca_file {}", path.display()))?)
            }
            None => None,
        };
        let connection = sink_search::Connection {
            url: url.clone(),
            username: search.username.clone(),
            password: search.password.clone(),
            ca_pem,
        };
        Ok(Some(sink_search::Client::new(&connection)?))
    }
}

/// All problems of one kind of shape files as one error.
pub fn problems(of: &str, found: &[impl Display]) -> anyhow::Error {
    let lines: Vec<_> = found.iter().map(|problem| format!("  {problem}")).collect();
    anyhow::anyhow!("{} problems in {of}:\n{}", found.len(), lines.join("\n"))
}
