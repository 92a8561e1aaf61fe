//! Reads `fhir.<resource>`, writes `enriched.<resource>`: flat columns, values copied from the resources it
//! refers to, its version, the resource itself. Promises: a missing target never holds a record up, it is
//! emitted again with the next sequence when the target arrives; tenants never see each other's targets;
//! a deleted target keeps its last values. Never: changes a resource, or asks a server.

mod columns;
mod pending;
mod resource;
mod saved;
mod snapshots;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use fhirehose_codec::{FhirEnvelope, SchemaSource, split_fhir_key};
use fhirehose_faultpoint::planted;
use fhirehose_fhirpath::{Ctx, NoFunctions};
use fhirehose_state::{ReferenceStore, TargetKey, WaitingRoom};
use fhirehose_stream::{
    Assigned, Batch, Fault, HEADER_SOURCE_TS, HEADER_VERSION, Outputs, Processor, Reason, Record, Rejection,
    TopicPartition, Verdict, Verdicts,
};
use fhirehose_tape::Tape;
use fhirehose_topics::Registry;
use pending::Pending;
use resource::Resources;

pub use columns::Columns;
pub use pending::PENDING;
pub use saved::Saved;
pub use snapshots::Snapshots;

/// Records re-emitted in one transaction.
const WAKE_MAX: usize = 1_000;

/// The processor; see the crate's first lines.
pub struct Enrich {
    resources: Resources,
    snapshots: Snapshots,
    schemas: Arc<dyn SchemaSource + Send + Sync>,
    pending_topic: Arc<str>,
    saved: Option<Saved>,
    /// Names and ids of the table topics, a line each.
    topics: String,
    store: ReferenceStore,
    room: WaitingRoom<Pending>,
    owned: BTreeSet<TopicPartition>,
    tape: Tape,
    row: Tape,
}

/// One version of a resource about to be emitted.
struct Fact<'a> {
    tenant: &'a str,
    id: &'a str,
    at: &'a TopicPartition,
    offset: i64,
    seq: u8,
    value: &'a [u8],
}

impl Enrich {
    /// Compiles the schemas of every `enriched.*` topic; `schema_id` gives the registered id of a subject.
    pub fn new(
        registry: &Registry,
        snapshots: Snapshots,
        schemas: Arc<dyn SchemaSource + Send + Sync>,
        schema_id: &dyn Fn(&str) -> Result<u32, Fault>,
        saved: Option<Saved>,
    ) -> Result<Enrich, Fault> {
        let resources = resource::compile(registry, &snapshots, schema_id)?;
        Ok(Enrich {
            resources,
            snapshots,
            schemas,
            pending_topic: PENDING.into(),
            saved,
            topics: String::new(),
            store: ReferenceStore::default(),
            room: WaitingRoom::default(),
            owned: BTreeSet::new(),
            tape: Tape::new(),
            row: Tape::new(),
        })
    }

    /// What a saved store is of: one of another declaration, or of other topics, is not read.
    fn declaration(&self) -> String {
        self.snapshots.declaration() + &self.topics
    }

    fn one(&mut self, record: Record<'_>, out: &mut Outputs) -> Result<Verdict, Fault> {
        let Some((tenant, id)) = record.key().and_then(split_fhir_key) else {
            return Ok(Rejection::new(Reason::MissingKey, "key").into());
        };
        let (at, offset) = (record.at(), record.offset());
        let Some(value) = record.value() else {
            self.delete(tenant, id, &record, out)?;
            return Ok(Verdict::Emit(1));
        };
        let before = out.len();
        match self.emit(&Fact { tenant, id, at, offset, seq: 0, value }, out)? {
            Ok(()) => Ok(Verdict::Emit(1)),
            Err(rejection) => {
                out.truncate(before);
                Ok(rejection.into())
            }
        }
    }

    fn delete(
        &mut self,
        tenant: &str,
        id: &str,
        record: &Record<'_>,
        out: &mut Outputs,
    ) -> Result<(), Fault> {
        let resource = resource::of(&self.resources, record.topic())?;
        let version = resource.input.version(record.offset(), 0).to_string();
        let source_ts = record.header_i64(HEADER_SOURCE_TS).unwrap_or(record.timestamp_ms()).to_string();
        out.to(&resource.output, format!("{tenant}/{id}").as_bytes())
            .header(HEADER_SOURCE_TS, source_ts.as_bytes())
            .header(HEADER_VERSION, version.as_bytes())
            .tombstone();
        let name = TargetKey { tenant, resource_type: &resource.resource_type, id }.name();
        pending::settle(&mut self.room, &self.pending_topic, &name, record.partition(), out);
        Ok(())
    }

    /// Emits one version of a resource and, where a target is missing, remembers it in the changelog.
    fn emit(&mut self, fact: &Fact<'_>, out: &mut Outputs) -> Result<Result<(), Rejection>, Fault> {
        let resource = resource::of(&self.resources, &fact.at.topic)?;
        let envelope = match FhirEnvelope::decode(fact.value, &*self.schemas) {
            Ok(envelope) => envelope,
            Err(error) => return error.rejection().map(Err),
        };
        if self.tape.parse_json(envelope.resource).is_err() {
            return Ok(Err(Rejection::new(Reason::MalformedJson, "resource")));
        }
        let ctx = Ctx::new(self.tape.root(), &NoFunctions);
        let mut missing = Vec::new();
        let references = resource.columns.references(&ctx).map(|mut references| {
            for reference in &mut references {
                let Some((resource_type, id)) = reference.literal else { continue };
                let key = TargetKey { tenant: fact.tenant, resource_type, id };
                reference.target = self.store.get(key);
                if reference.target.is_none() && self.snapshots.is_target(resource_type) {
                    missing.push(key.name());
                }
            }
            references
        });
        let version = resource.input.version(fact.offset, fact.seq);
        let written = references
            .and_then(|refs| resource.columns.write(&mut self.row, &ctx, &envelope, version, &refs))
            .and_then(|()| {
                out.to(&resource.output, format!("{}/{}", fact.tenant, fact.id).as_bytes())
                    .header(HEADER_SOURCE_TS, envelope.last_updated.to_string().as_bytes())
                    .header(HEADER_VERSION, version.to_string().as_bytes())
                    .value(|bytes| resource.encoder.encode(self.row.root(), bytes))
                    .map_err(|error| Rejection::new(Reason::InvalidFhir, error.path))
            });
        if let Err(rejection) = written {
            return Ok(Err(rejection));
        }
        let name =
            TargetKey { tenant: fact.tenant, resource_type: &resource.resource_type, id: fact.id }.name();
        if missing.is_empty() || fact.seq == u8::MAX {
            pending::settle(&mut self.room, &self.pending_topic, &name, fact.at.partition, out);
        } else {
            let pending = Pending {
                at: fact.at.clone(),
                offset: fact.offset,
                seq: fact.seq,
                awaits: missing,
                value: fact.value.into(),
            };
            pending.write(&self.pending_topic, &name, out);
            self.room.put(name.as_bytes(), fact.at.clone(), pending.awaits.clone(), pending);
        }
        Ok(Ok(()))
    }
}

impl Processor for Enrich {
    fn process(&mut self, batch: &Batch, out: &mut Outputs) -> Result<Verdicts, Fault> {
        batch.judge(|record| self.one(record, out))
    }

    fn committed(&mut self) {
        self.room.commit();
    }

    fn aborted(&mut self) {
        self.room.abort();
    }

    fn assigned(&mut self, partitions: &[Assigned]) -> Result<(), Fault> {
        // Planted: a rebalance empties the store, and what is known of targets goes back to nothing.
        if planted("reference-goes-back") {
            self.store = ReferenceStore::default();
        }
        self.owned.extend(partitions.iter().map(|partition| partition.at.clone()));
        self.room.retain(|at| self.owned.contains(at));
        // Targets that arrived while nobody owned the partition.
        for name in self.room.awaited(|at| partitions.iter().any(|partition| partition.at == *at)) {
            if self.store.get(TargetKey::of_name(&name)).is_some() {
                self.room.arrived(&name);
            }
        }
        Ok(())
    }

    fn revoked(&mut self, partitions: &[TopicPartition]) {
        self.owned.retain(|at| !partitions.contains(at));
        self.room.retain(|at| self.owned.contains(at));
    }

    fn identify(&mut self, topics: HashMap<String, String>) {
        let sorted: BTreeMap<_, _> = topics.into_iter().collect();
        self.topics = sorted.into_iter().map(|(name, id)| format!("{name}={id}\n")).collect();
    }

    fn table_start(&mut self) -> Vec<(TopicPartition, i64)> {
        let declaration = self.declaration();
        let Some((store, next)) = self.saved.as_ref().and_then(|saved| saved.load(&declaration)) else {
            return Vec::new();
        };
        self.store = store;
        next
    }

    fn checkpoint(&mut self, table_next: &[(TopicPartition, i64)]) -> Result<(), Fault> {
        let Some(saved) = &self.saved else { return Ok(()) };
        saved.save(&self.store, table_next, &self.declaration())
    }

    fn table(&mut self, record: Record<'_>) -> Result<(), Fault> {
        let resource = resource::of(&self.resources, record.topic())?;
        let Some((tenant, id)) = record.key().and_then(split_fhir_key) else { return Ok(()) };
        let key = TargetKey { tenant, resource_type: &resource.resource_type, id };
        let Some(value) = record.value() else {
            self.store.deactivate(key, record.offset());
            return Ok(());
        };
        // A record that cannot be read is rejected where it is an input; here it only is no target.
        let envelope = match FhirEnvelope::decode(value, &*self.schemas) {
            Ok(envelope) => envelope,
            Err(error) => return error.rejection().map(drop),
        };
        if self.tape.parse_json(envelope.resource).is_ok() {
            let target = self.snapshots.target(&resource.resource_type, record.offset(), self.tape.root());
            if self.store.put(key, target) {
                self.room.arrived(&key.name());
            }
        }
        Ok(())
    }

    fn restore(&mut self, record: Record<'_>) -> Result<(), Fault> {
        // Planted: what waits is forgotten with the instance that held it.
        let Some(key) = record.key().filter(|_| !planted("pending-forgotten")) else { return Ok(()) };
        match (record.value(), Pending::read(&record)) {
            (None, _) => self.room.remove(key),
            (Some(_), Some(pending)) => {
                self.room.put(key, pending.at.clone(), pending.awaits.clone(), pending);
            }
            (Some(_), None) => {
                return Err(Fault::fatal(format!("{PENDING} holds a record without its headers")));
            }
        }
        self.room.commit();
        Ok(())
    }

    fn wake(&mut self, out: &mut Outputs) -> Result<bool, Fault> {
        let ready = self.room.ready(WAKE_MAX);
        for key in &ready {
            let Some((at, pending)) = self.room.get(key) else { continue };
            let (at, value) = (at.clone(), pending.value.clone());
            let (offset, seq) = (pending.offset, pending.seq.saturating_add(1));
            let name = String::from_utf8_lossy(key);
            let TargetKey { tenant, id, .. } = TargetKey::of_name(&name);
            let fact = Fact { tenant, id, at: &at, offset, seq, value: &value };
            let before = out.len();
            if self.emit(&fact, out)?.is_err() {
                // It was emitted once, without the target; what the target adds cannot be written.
                out.truncate(before);
                pending::settle(&mut self.room, &self.pending_topic, &name, at.partition, out);
            }
        }
        Ok(self.room.ready_len() > ready.len())
    }
}
