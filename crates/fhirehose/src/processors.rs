use std::path::PathBuf;
use std::sync::Arc;

use alert_emergency::AlertEmergency;
use anyhow::{Context, bail};
use enrich::{Enrich, Saved, Snapshots};
use fhirehose_codec::AvroEncoder;
use fhirehose_mapping::Mappings;
use fhirehose_runtime::{Engine, Inputs, Spec};
use fhirehose_stream::Fault;
use fhirehose_topics::{Registry, Topic};
use invalidate_cache::{InvalidateCache, Rules};
use normalize_cdc::NormalizeCdc;
use normalize_device::NormalizeDevice;
use sink_redis::SinkRedis;
use sink_search::SinkSearch;

use crate::app::{App, SchemaIds, Schemas, problems};

/// One processor. Names ending in `.*` stand for every declared topic so named that declares this processor as
/// its consumer or producer: a new topic is a file, not a change here.
pub struct Entry {
    pub name: &'static str,
    pub what: &'static str,
    pub inputs: &'static [&'static str],
    pub tables: Tables,
    pub changelog: Option<&'static str>,
    pub outputs: &'static [&'static str],
    /// The store it writes to, for those that do.
    pub store: Option<&'static str>,
    add: fn(&Parts<'_>, &mut Engine, Spec) -> anyhow::Result<()>,
}

/// Topics read whole by every worker.
#[derive(Clone, Copy)]
pub enum Tables {
    Named(&'static [&'static str]),
    /// Those of the types in `schemas/snapshots.yaml`.
    ReferenceTargets,
}

/// Every processor there is. The command line, the tests and the docs go by this table.
pub const PROCESSORS: &[Entry] = &[
    Entry {
        name: "normalize-cdc",
        what: "rows of hospital databases become FHIR resources and vital-sign samples",
        inputs: &["cdc.*"],
        tables: Tables::Named(&[]),
        changelog: None,
        outputs: &["fhir.*", "vitals.sample"],
        store: None,
        add: add_normalize_cdc,
    },
    Entry {
        name: "normalize-device",
        what: "device messages become Observations, samples and device metrics of the patient who wears the device",
        inputs: &["device.*"],
        tables: Tables::Named(&["device.assignment"]),
        changelog: Some("normalize-device.parked"),
        outputs: &["fhir.*", "vitals.sample", "device.metrics"],
        store: None,
        add: add_normalize_device,
    },
    Entry {
        name: "alert-emergency",
        what: "emergency calls and falls become alerts, waiting for nothing else",
        inputs: &["device.*"],
        tables: Tables::Named(&["device.assignment"]),
        changelog: None,
        outputs: &["alert.emergency"],
        store: None,
        add: add_alert_emergency,
    },
    Entry {
        name: "enrich",
        what: "resources get flat columns, and values of what they refer to",
        inputs: &["fhir.*"],
        tables: Tables::ReferenceTargets,
        changelog: Some("enrich.pending"),
        outputs: &["enriched.*"],
        store: None,
        add: add_enrich,
    },
    Entry {
        name: "sink-timescale",
        what: "samples, device metrics and alerts become rows of hypertables",
        inputs: &["vitals.sample", "device.metrics", "alert.emergency"],
        tables: Tables::Named(&[]),
        changelog: None,
        outputs: &[],
        store: Some("TimescaleDB"),
        add: add_sink_timescale,
    },
    Entry {
        name: "sink-search",
        what: "patients, practitioners and conditions become search documents",
        inputs: &["enriched.*"],
        tables: Tables::Named(&[]),
        changelog: None,
        outputs: &[],
        store: Some("OpenSearch"),
        add: add_sink_search,
    },
    Entry {
        name: "sink-warehouse",
        what: "resources and samples become dimensions and facts of a star schema",
        inputs: &["enriched.*", "vitals.sample"],
        tables: Tables::Named(&[]),
        changelog: None,
        outputs: &[],
        store: Some("PostgreSQL"),
        add: add_sink_warehouse,
    },
    Entry {
        name: "invalidate-cache",
        what: "rows of hospital databases name the cache entries they make stale",
        inputs: &["cdc.*"],
        tables: Tables::Named(&[]),
        changelog: None,
        outputs: &["cache.invalidation"],
        store: None,
        add: add_invalidate_cache,
    },
    Entry {
        name: "sink-redis",
        what: "stale cache entries are evicted, and a channel is told",
        inputs: &["cache.invalidation"],
        tables: Tables::Named(&[]),
        changelog: None,
        outputs: &[],
        store: Some("Redis"),
        add: add_sink_redis,
    },
];

/// What processors are built from.
pub struct Parts<'a> {
    pub app: &'a App,
    pub topics: Arc<Registry>,
    pub mappings: Option<Arc<Mappings>>,
    pub schemas: Schemas,
    pub ids: SchemaIds,
}

impl Parts<'_> {
    fn mappings(&self) -> anyhow::Result<Arc<Mappings>> {
        self.mappings.clone().context("the mappings are not loaded")
    }
}

/// The entries of the names given, in the table's order; `all` is all of them.
pub fn named(names: &[String]) -> anyhow::Result<Vec<&'static Entry>> {
    for name in names {
        if name != "all" && !PROCESSORS.iter().any(|entry| entry.name == name) {
            let known: Vec<_> = PROCESSORS.iter().map(|entry| entry.name).collect();
            bail!("there is no processor `{name}`; there are all, {}", known.join(", "));
        }
    }
    let wanted = |entry: &&Entry| names.iter().any(|name| name == "all" || name == entry.name);
    Ok(PROCESSORS.iter().filter(wanted).collect())
}

impl Entry {
    /// Whether its mappings must be loaded.
    pub fn needs_mappings(&self) -> bool {
        matches!(self.name, "normalize-cdc" | "normalize-device" | "alert-emergency")
    }

    /// The declared topics it produces to.
    pub fn output_topics<'t>(&self, topics: &'t Registry) -> Vec<&'t Topic> {
        topics
            .iter()
            .filter(|topic| topic.producers.iter().any(|producer| producer == self.name))
            .filter(|topic| covers(self.outputs, &topic.name))
            .collect()
    }

    /// The declared topics it reads record by record: neither its tables nor its own changelog.
    pub fn input_topics<'t>(&self, topics: &'t Registry) -> Vec<&'t Topic> {
        let table =
            |topic: &Topic| matches!(self.tables, Tables::Named(names) if names.contains(&&*topic.name));
        topics
            .iter()
            .filter(|topic| topic.consumers.iter().any(|consumer| consumer == self.name))
            .filter(|topic| covers(self.inputs, &topic.name) && !table(topic))
            .collect()
    }

    fn tables(&self, app: &App) -> anyhow::Result<Vec<Arc<str>>> {
        Ok(match self.tables {
            Tables::Named(names) => names.iter().map(|name| Arc::from(*name)).collect(),
            Tables::ReferenceTargets => snapshots(app)?
                .types()
                .map(|name| Arc::from(format!("fhir.{}", name.to_lowercase())))
                .collect(),
        })
    }

    /// What the engine must know of it.
    pub fn spec(&self, app: &App, topics: &Arc<Registry>) -> anyhow::Result<Spec> {
        let config = app.config();
        let inputs = self.input_topics(topics);
        let inputs = if inputs.iter().any(|topic| topic.per_source()) {
            if config.sources.is_empty() {
                bail!("{} needs at least one [sources.<name>] with `tenant` and `zone`", self.name);
            }
            let names: Vec<_> = config.sources.keys().map(String::as_str).collect();
            // Also tables nobody declared, to reject their rows; not Debezium's own `cdc.<source>.transaction`.
            Inputs::Pattern(format!(r"^cdc\.({})\.[^.]+\..+", names.join("|")))
        } else {
            Inputs::Topics(inputs.iter().map(|topic| topic.name.clone()).collect())
        };
        let group = format!("{}{}", config.kafka.group_prefix, self.name);
        let (registry, of) = (topics.clone(), group.clone());
        Ok(Spec {
            name: self.name,
            group,
            inputs,
            tables: self.tables(app)?,
            changelog: self.changelog.map(Arc::from),
            outputs: self.output_topics(topics).iter().map(|topic| topic.name.clone()).collect(),
            store: self.store,
            dead_letters: Arc::new(move |physical| registry.dlq(physical, &of).into()),
        })
    }

    /// Gives it to the engine.
    pub fn add(&self, parts: &Parts<'_>, engine: &mut Engine) -> anyhow::Result<()> {
        let spec = self.spec(parts.app, &parts.topics)?;
        (self.add)(parts, engine, spec).with_context(|| self.name)
    }
}

fn covers(patterns: &[&str], name: &str) -> bool {
    patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => *pattern == name,
    })
}

fn snapshots(app: &App) -> anyhow::Result<Snapshots> {
    Snapshots::load(app.shapes()).map_err(|found| problems("schemas/snapshots.yaml", &found))
}

fn add_normalize_cdc(parts: &Parts<'_>, engine: &mut Engine, spec: Spec) -> anyhow::Result<()> {
    let (mappings, topics, schemas, ids) = shared(parts)?;
    let sources = parts.app.sources()?;
    engine.transact(spec, move |_| {
        let id = |subject: &str| ids.get(subject);
        NormalizeCdc::new(mappings.clone(), &topics, sources.clone(), schemas.clone(), &id)
            .map(|made| Box::new(made) as _)
    });
    Ok(())
}

fn add_normalize_device(parts: &Parts<'_>, engine: &mut Engine, spec: Spec) -> anyhow::Result<()> {
    let (mappings, topics, schemas, ids) = shared(parts)?;
    let vendors = parts.app.vendors()?;
    engine.transact(spec, move |_| {
        let id = |subject: &str| ids.get(subject);
        NormalizeDevice::new(mappings.clone(), &topics, vendors.clone(), schemas.clone(), &id)
            .map(|made| Box::new(made) as _)
    });
    Ok(())
}

fn add_alert_emergency(parts: &Parts<'_>, engine: &mut Engine, spec: Spec) -> anyhow::Result<()> {
    let (mappings, topics, schemas, ids) = shared(parts)?;
    let vendors = parts.app.vendors()?;
    engine.transact(spec, move |_| {
        let id = |subject: &str| ids.get(subject);
        AlertEmergency::new(mappings.clone(), &topics, vendors.clone(), schemas.clone(), &id)
            .map(|made| Box::new(made) as _)
    });
    Ok(())
}

type Shared = (Arc<Mappings>, Arc<Registry>, Schemas, SchemaIds);

fn shared(parts: &Parts<'_>) -> anyhow::Result<Shared> {
    Ok((parts.mappings()?, parts.topics.clone(), parts.schemas.clone(), parts.ids.clone()))
}

fn add_enrich(parts: &Parts<'_>, engine: &mut Engine, spec: Spec) -> anyhow::Result<()> {
    // Compiled anew for every worker: checked here, so that a mistake is told before anything runs.
    snapshots(parts.app)?;
    let (topics, schemas, ids) = (parts.topics.clone(), parts.schemas.clone(), parts.ids.clone());
    let shapes = parts.app.shapes().to_owned();
    let folder = parts.app.config().runtime.state_dir.clone();
    let group = spec.group.clone();
    engine.transact(spec, move |worker| {
        let snapshots = Snapshots::load(&shapes).map_err(|found| Fault::fatal(found.join("\n")))?;
        let path = |folder: &PathBuf| folder.join(format!("{group}-{worker}.snapshot"));
        let saved = folder.as_ref().map(|folder| Saved { path: path(folder), now: seconds_now });
        let id = |subject: &str| ids.get(subject);
        Enrich::new(&topics, snapshots, schemas.clone(), &id, saved).map(|made| Box::new(made) as _)
    });
    Ok(())
}

fn seconds_now() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn add_invalidate_cache(parts: &Parts<'_>, engine: &mut Engine, spec: Spec) -> anyhow::Result<()> {
    let rules = Rules::load(parts.app.shapes(), &parts.topics)
        .map_err(|found| problems("mappings/cache.yaml", &found))?;
    let schema = parts.topics.schema(invalidate_cache::OUTPUT).context("cache.invalidation has no schema")?;
    let encoder = Arc::new(AvroEncoder::new(schema, parts.ids.get(&schema.subject)?)?);
    let sources = &parts.app.config().sources;
    let tenants: std::collections::HashMap<_, _> =
        sources.iter().map(|(name, source)| (name.clone(), source.tenant.clone())).collect();
    let (rules, schemas) = (Arc::new(rules), parts.schemas.clone());
    engine.transact(spec, move |_| {
        Ok(Box::new(InvalidateCache::new(rules.clone(), tenants.clone(), schemas.clone(), encoder.clone())))
    });
    Ok(())
}

fn add_sink_timescale(parts: &Parts<'_>, engine: &mut Engine, spec: Spec) -> anyhow::Result<()> {
    let url = parts.app.timescale_url().context("set postgres.url or timescale.url")?.to_owned();
    let (topics, schemas, pipeline) = (parts.topics.clone(), parts.schemas.clone(), spec.group.clone());
    let (shapes, days) = (parts.app.shapes().to_owned(), parts.app.config().timescale.retention_days);
    engine.store(spec, move |_| {
        sink_timescale::new(&url, &pipeline, &shapes, topics.clone(), schemas.clone(), days)
            .map(|made| Box::new(made) as _)
    });
    Ok(())
}

fn add_sink_warehouse(parts: &Parts<'_>, engine: &mut Engine, spec: Spec) -> anyhow::Result<()> {
    let url = parts.app.warehouse_url().context("set postgres.url or warehouse.url")?.to_owned();
    let (topics, schemas, pipeline) = (parts.topics.clone(), parts.schemas.clone(), spec.group.clone());
    let shapes = parts.app.shapes().to_owned();
    engine.store(spec, move |_| {
        sink_warehouse::new(&url, &pipeline, &shapes, topics.clone(), schemas.clone())
            .map(|made| Box::new(made) as _)
    });
    Ok(())
}

fn add_sink_search(parts: &Parts<'_>, engine: &mut Engine, spec: Spec) -> anyhow::Result<()> {
    let client = parts.app.search()?.context("set search.url")?;
    let shapes = sink_search::Shapes::load(parts.app.shapes(), &parts.topics)
        .map_err(|found| problems("schemas/search", &found))?;
    let (shapes, schemas) = (Arc::new(shapes), parts.schemas.clone());
    engine
        .store(spec, move |_| Ok(Box::new(SinkSearch::new(client.clone(), shapes.clone(), schemas.clone()))));
    Ok(())
}

fn add_sink_redis(parts: &Parts<'_>, engine: &mut Engine, spec: Spec) -> anyhow::Result<()> {
    let url = parts.app.config().redis.url.clone().context("set redis.url")?;
    let schemas = parts.schemas.clone();
    engine.store(spec, move |_| {
        SinkRedis::new(&url, schemas.clone(), sink_redis::Options::default()).map(|made| Box::new(made) as _)
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn declared() -> Registry {
        Registry::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")).unwrap()
    }

    fn own(entry: &Entry, topic: &Topic) -> bool {
        let table = match entry.tables {
            Tables::Named(names) => names.contains(&&*topic.name),
            Tables::ReferenceTargets => topic.name.starts_with("fhir."),
        };
        table || entry.changelog == Some(&*topic.name)
    }

    #[test]
    fn what_topics_declare_and_what_processors_say_is_the_same() {
        let topics = declared();
        for topic in topics.iter() {
            for producer in &topic.producers {
                if let Some(entry) = PROCESSORS.iter().find(|entry| entry.name == producer) {
                    let covered = covers(entry.outputs, &topic.name) || entry.changelog == Some(&*topic.name);
                    assert!(
                        covered,
                        "{} says it is produced by {producer}, which says no such thing",
                        topic.name
                    );
                }
            }
            for consumer in &topic.consumers {
                if let Some(entry) = PROCESSORS.iter().find(|entry| entry.name == consumer) {
                    let covered = covers(entry.inputs, &topic.name) || own(entry, topic);
                    assert!(
                        covered,
                        "{} says it is read by {consumer}, which says no such thing",
                        topic.name
                    );
                }
            }
        }
        for entry in PROCESSORS {
            let produced =
                |pattern: &str| entry.output_topics(&topics).iter().any(|t| covers(&[pattern], &t.name));
            let read =
                |pattern: &str| entry.input_topics(&topics).iter().any(|t| covers(&[pattern], &t.name));
            for pattern in entry.outputs {
                assert!(produced(pattern), "no topic names {} as producer for {pattern}", entry.name);
            }
            for pattern in entry.inputs {
                assert!(read(pattern), "no topic names {} as consumer for {pattern}", entry.name);
            }
            let named = match entry.tables {
                Tables::Named(names) => names,
                Tables::ReferenceTargets => &[],
            };
            for name in named.iter().chain(&entry.changelog) {
                let topic = topics.topic(name).unwrap_or_else(|| panic!("{name} is not declared"));
                assert!(topic.consumers.iter().any(|consumer| consumer == entry.name), "{name}");
            }
        }
    }

    #[test]
    fn the_runbook_knows_every_reason() {
        let runbook = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/RUNBOOK.md");
        let runbook = std::fs::read_to_string(runbook).unwrap();
        for reason in fhirehose_stream::Reason::ALL {
            assert!(
                runbook.contains(&format!("| `{}` |", reason.label())),
                "{} is not in it",
                reason.label()
            );
        }
    }

    #[test]
    fn every_store_and_every_stream_has_its_place() {
        for entry in PROCESSORS {
            assert_eq!(entry.store.is_some(), entry.outputs.is_empty(), "{}", entry.name);
            assert_eq!(entry.store.is_some(), entry.name.starts_with("sink-"), "{}", entry.name);
        }
        assert_eq!(named(&["all".into()]).unwrap().len(), PROCESSORS.len());
        assert_eq!(named(&["enrich".into()]).unwrap().len(), 1);
        assert!(named(&["enrish".into()]).is_err());
    }
}
