//! The repository's declarations and the processors built from them, in this process and without servers.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use enrich::{Enrich, Snapshots};
use fhirehose_codec::{MemorySchemas, SchemaSource};
use fhirehose_mapping::{Mappings, Source, Zone};
use fhirehose_stream::{Batch, Fault, Outputs, Processor, Verdict};
use fhirehose_topics::Registry;
use normalize_cdc::NormalizeCdc;

use crate::changes::{Change, Changes, Format};

pub struct Shapes {
    pub root: PathBuf,
    pub topics: Arc<Registry>,
    pub mappings: Arc<Mappings>,
    pub schemas: Arc<dyn SchemaSource + Send + Sync>,
    pub changes: Changes,
}

/// First id of the schemas of changes; those of our topics count from 1.
const CHANGE_SCHEMAS: u32 = 10_000;

impl Shapes {
    pub fn load(root: &Path) -> Result<Shapes> {
        let topics = Registry::load(root).map_err(|found| told(&found))?;
        let mappings = Mappings::load(root, &topics).map_err(|found| told(&found))?;
        let mut next = CHANGE_SCHEMAS;
        let changes = Changes::load(root, |_, _| {
            next += 1;
            Ok(next)
        })?;
        let mut schemas = MemorySchemas::default();
        for (id, json) in changes.schemas() {
            schemas.insert(id, json)?;
        }
        for (id, schema) in (1..).zip(topics.iter().filter_map(|topic| topic.schema.as_deref())) {
            schemas.insert(id, &schema.json)?;
        }
        let (topics, mappings) = (Arc::new(topics), Arc::new(mappings));
        Ok(Shapes { root: root.to_owned(), topics, mappings, schemas: Arc::new(schemas), changes })
    }

    pub fn schema_id(&self, subject: &str) -> Result<u32, Fault> {
        let mut schemas = self.topics.iter().filter_map(|topic| topic.schema.as_deref());
        let at = schemas.position(|schema| schema.subject == subject);
        at.map(|at| at as u32 + 1).ok_or_else(|| Fault::fatal(format!("{subject} is not declared")))
    }

    pub fn normalize_cdc(&self) -> Result<NormalizeCdc> {
        self.make_normalize_cdc(&|subject| self.schema_id(subject))
    }

    /// The same, writing these ids of schemas: others can read its outputs.
    pub fn normalize_cdc_with(&self, ids: &HashMap<String, u32>) -> Result<NormalizeCdc> {
        self.make_normalize_cdc(&|subject| {
            ids.get(subject).copied().ok_or_else(|| Fault::fatal(format!("{subject} is not registered")))
        })
    }

    fn make_normalize_cdc(&self, id: &dyn Fn(&str) -> Result<u32, Fault>) -> Result<NormalizeCdc> {
        let source = |format: Format| -> Result<Source> {
            Ok(Source {
                name: format.source().into(),
                tenant: "bench".into(),
                zone: Zone::named("Africa/Khartoum")?,
                facility_tenants: Default::default(),
            })
        };
        let sources = Format::ALL.into_iter().map(source).collect::<Result<Vec<_>>>()?;
        Ok(NormalizeCdc::new(self.mappings.clone(), &self.topics, sources, self.schemas.clone(), id)?)
    }

    pub fn enrich(&self) -> Result<Enrich> {
        let snapshots = Snapshots::load(&self.root).map_err(|found| anyhow!(found.join("\n")))?;
        let id = |subject: &str| self.schema_id(subject);
        Ok(Enrich::new(&self.topics, snapshots, self.schemas.clone(), &id, None)?)
    }
}

fn told(found: &[impl std::fmt::Display]) -> anyhow::Error {
    anyhow!(found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}

/// Changes as a batch, in partition 0.
pub fn batch(changes: &[Change]) -> Batch {
    let mut batch = Batch::default();
    for (offset, change) in (0..).zip(changes) {
        let none = std::iter::empty();
        batch.push(&change.topic, 0, offset, 1_790_812_800_000, Some(&change.key), Some(&change.value), none);
    }
    batch
}

/// The outputs of one topic as the batch that its consumer reads, from this offset on, in partition 0.
pub fn outputs_of(topic: &str, out: &Outputs, first_offset: i64) -> Batch {
    let mut batch = Batch::default();
    for (offset, output) in (first_offset..).zip(out.iter().filter(|output| **output.topic() == *topic)) {
        let headers = output.headers().map(|(name, value)| (name, Some(value)));
        batch.push(output.topic(), 0, offset, 1_790_812_800_000, Some(output.key()), output.value(), headers);
    }
    batch
}

/// Processes a batch of which every record must make something; returns how many outputs there are.
pub fn process(processor: &mut dyn Processor, batch: &Batch, out: &mut Outputs) -> Result<usize> {
    out.clear();
    let verdicts = processor.process(batch, out)?;
    let other = verdicts.as_slice().iter().find(|verdict| !matches!(verdict, Verdict::Emit(_)));
    match other {
        None => Ok(out.len()),
        Some(verdict) => Err(anyhow!("{verdict:?}")).context("a record of the bench was not taken"),
    }
}
