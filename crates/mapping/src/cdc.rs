mod compile;

use std::sync::Arc;

use fhirehose_fhirpath::{Ctx, Item, Slot};
use fhirehose_stream::{Reason, Rejection};
use fhirehose_tape::{Tape, Value};
use smallvec::SmallVec;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use crate::checker::Checker;
use crate::columns::{Column, Columns};
use crate::drafts::Drafts;
use crate::explain::Tracer;
use crate::functions::{ConceptMaps, Host};
use crate::header::{Made, Output, Resource, Rule};
use crate::output::{Stamp, judge, single};
use crate::render::{Arena, Renderer};
use crate::scratch::Scratch;
use crate::shared::Repeated;
use crate::source::Source;
use crate::template::Hole;
use crate::time;

/// The mapping of one table: `mappings/cdc/<db>/<table>.yaml`.
pub struct CdcMapping {
    /// `cdc/<db>/<table>`.
    pub name: Arc<str>,
    pub version: i32,
    /// `<db>.<table>`.
    pub table: Arc<str>,
    columns: Columns,
    facility: Option<Hole>,
    rules: Vec<Rule>,
    outputs: Vec<Output>,
    slots: Slots,
    repeated: Repeated,
    maps: Arc<ConceptMaps>,
}

/// What changed a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowOp {
    Create,
    /// Read in a snapshot.
    Read,
    Update,
    Delete,
}

impl RowOp {
    /// Debezium's letter.
    pub fn as_str(self) -> &'static str {
        match self {
            RowOp::Create => "c",
            RowOp::Read => "r",
            RowOp::Update => "u",
            RowOp::Delete => "d",
        }
    }
}

/// One change of one row.
#[derive(Clone, Copy)]
pub struct RowChange<'r> {
    pub op: RowOp,
    /// The record's key, for changes that come without the row before.
    pub key: Option<Value<'r>>,
    pub before: Option<Value<'r>>,
    pub after: Option<Value<'r>>,
    pub source: &'r Source,
    /// Orders the versions of a row in its source, such as `3.1544.0`.
    pub version_id: &'r str,
    /// When the source committed the change, milliseconds since the epoch.
    pub last_updated: i64,
    /// Kafka's timestamp of the record, milliseconds since the epoch.
    pub record_time: i64,
}

/// What of a [`Scratch`] the outputs of a row are made with.
struct Making<'s> {
    typed: &'s mut Tape,
    checker: &'s Checker,
    arena: &'s Arena,
}

impl<'s> Making<'s> {
    /// Forgets what was made of the row before.
    fn of(typed: &'s mut Tape, checker: &'s Checker, arena: &'s mut Arena) -> Self {
        arena.reset();
        Making { typed, checker, arena }
    }
}

struct Slots {
    tenant: Slot,
    source: Slot,
    table: Slot,
    zone: Slot,
    op: Slot,
    record_time: Slot,
}

impl CdcMapping {
    /// Declared columns.
    pub fn columns(&self) -> &[Column] {
        self.columns.all()
    }

    /// Logical topics of the outputs.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.outputs.iter().map(|output| &*output.topic)
    }

    /// `name@version`, for dead-letter headers.
    pub fn shape(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }

    /// What a change becomes: the outputs of the row as it is now, and tombstones for what the row before made
    /// and this one does not. On a rejection the drafts are empty.
    pub fn apply(
        &self,
        change: &RowChange<'_>,
        scratch: &mut Scratch,
        drafts: &mut Drafts,
    ) -> Result<(), Rejection> {
        self.apply_traced(change, scratch, drafts, None)
    }

    pub(crate) fn apply_traced(
        &self,
        change: &RowChange<'_>,
        scratch: &mut Scratch,
        drafts: &mut Drafts,
        trace: Option<Tracer<'_>>,
    ) -> Result<(), Rejection> {
        drafts.clear();
        let result = match change.after {
            Some(after) if change.op != RowOp::Delete => {
                let Scratch { row, checker, arena, .. } = &mut *scratch;
                let making = Making::of(row, checker, arena);
                self.make(after, change, making, drafts, trace).map(|()| change.op == RowOp::Update)
            }
            _ => Ok(true),
        };
        let result =
            result.and_then(|changed| if changed { self.withdraw(change, scratch, drafts) } else { Ok(()) });
        result.map_err(|rejection| {
            drafts.clear();
            rejection.of_shape(self.shape())
        })
    }

    /// Adds the outputs of a row.
    fn make(
        &self,
        row: Value<'_>,
        change: &RowChange<'_>,
        Making { typed, checker, arena }: Making<'_>,
        drafts: &mut Drafts,
        trace: Option<Tracer<'_>>,
    ) -> Result<(), Rejection> {
        self.columns.read(row, typed)?;
        let tenant = self.tenant(typed, change.source, arena)?;
        let record_time = utc(change.record_time)?;
        let host = self.host(&tenant, change.source, arena);
        let mut ctx = self.context(typed, change, &host, &record_time);
        let renderer = Renderer::new(arena, &self.repeated, trace).checking(checker);
        judge(&self.rules, &renderer, &ctx, drafts)?;
        let origin = bumpalo::format!(in &arena.texts, "urn:{}:{}", change.source.name, self.table);
        let (version_id, last_updated) = (change.version_id, change.last_updated);
        let stamp = Stamp { tenant: &tenant, origin: &origin, version_id, last_updated };
        for output in &self.outputs {
            let wanted = output.wanted(&renderer, &ctx)?;
            if let Some(trace) = trace {
                trace.borrow_mut().output(&output.name, &output.topic, wanted);
            }
            if !wanted {
                continue;
            }
            match &output.makes {
                Made::Resource(resource) => {
                    let id = self.id(resource, typed.root(), &tenant, change.source);
                    let id = id.ok_or_else(|| Rejection::new(Reason::MissingKey, &*output.name))?;
                    let mut id_text = [0; Hyphenated::LENGTH];
                    let id = id.hyphenated().encode_lower(&mut id_text);
                    resource.draft(&output.topic, id, stamp, &renderer, &mut ctx, drafts, checker)?;
                }
                Made::Record(record) => {
                    let key = record.key(&renderer, &mut ctx)?;
                    let key = key.ok_or_else(|| Rejection::new(Reason::MissingKey, &*output.name))?;
                    record.draft(&output.topic, &key, &tenant, &renderer, &mut ctx, drafts)?;
                }
            }
        }
        Ok(())
    }

    /// Adds tombstones for what the row before made and the drafts do not make again.
    fn withdraw(
        &self,
        change: &RowChange<'_>,
        scratch: &mut Scratch,
        drafts: &mut Drafts,
    ) -> Result<(), Rejection> {
        let made_again = |output: &Output| {
            // Of one row, a resource's key can change with the tenant only: the primary key stays the same.
            matches!(output.makes, Made::Resource(_))
                && drafts.iter().any(|draft| draft.topic == &output.topic)
        };
        let tenant_stays = self.facility.is_none() || change.source.facility_tenants.is_empty();
        let keys_stay = change.op == RowOp::Update && tenant_stays && self.single_outputs();
        if keys_stay && self.outputs.iter().all(made_again) {
            return Ok(());
        }
        let Scratch { row, part, checker, before, arena } = scratch;
        before.clear();
        // A row that was rejected made nothing, and what stands for it is what an earlier one made: then, and
        // on a delete, everything it could have made is withdrawn.
        let known = match change.before {
            Some(old) if change.op == RowOp::Update => {
                self.make(old, change, Making::of(row, checker, arena), before, None).is_ok()
            }
            _ => false,
        };
        if known {
            for draft in before.iter().filter(|draft| !drafts.has(draft.topic, draft.key)).collect::<Vec<_>>()
            {
                drafts.tombstone(draft.topic, draft.tenant, draft.key);
            }
            return Ok(());
        }
        let candidates = [change.before, change.key, change.after];
        let mut computed = false;
        for candidate in candidates.into_iter().flatten() {
            if self.columns.read_part(candidate, part).is_ok() {
                computed |= self.withdraw_possible(part, change, arena, drafts)?;
            }
        }
        if computed { Ok(()) } else { Err(Rejection::new(Reason::MissingKey, "key")) }
    }

    /// Whether every topic has at most one output, so that a topic tells the output.
    fn single_outputs(&self) -> bool {
        let topics = self.outputs.iter().map(|output| &output.topic);
        topics.clone().enumerate().all(|(i, topic)| !topics.clone().take(i).any(|other| other == topic))
    }

    /// Tombstones for every output whose key the row tells, in every tenant it can belong to. Whether there
    /// was one.
    fn withdraw_possible(
        &self,
        row: &Tape,
        change: &RowChange<'_>,
        arena: &Arena,
        drafts: &mut Drafts,
    ) -> Result<bool, Rejection> {
        let record_time = utc(change.record_time)?;
        let source = change.source;
        let tenants = match self.tenant(row, source, arena) {
            Ok(tenant) => vec![tenant],
            Err(_) => source.facility_tenants.values().cloned().collect(),
        };
        let mut any = false;
        for tenant in &tenants {
            let host = self.host(tenant, source, arena);
            let mut ctx = self.context(row, change, &host, &record_time);
            let renderer = Renderer::new(arena, &self.repeated, None);
            for output in &self.outputs {
                let key = match &output.makes {
                    Made::Resource(resource) => {
                        self.id(resource, row.root(), tenant, source).map(|id| format!("{tenant}/{id}"))
                    }
                    Made::Record(record) => record.key(&renderer, &mut ctx).ok().flatten(),
                };
                let Some(key) = key else { continue };
                any = true;
                if !drafts.has(&output.topic, &key) {
                    drafts.tombstone(&output.topic, tenant, &key);
                }
            }
        }
        Ok(any)
    }

    fn host<'r>(&'r self, tenant: &'r str, source: &'r Source, arena: &'r Arena) -> Host<'r> {
        Host {
            tenant,
            source: &source.name,
            zone_name: &source.zone.name,
            zone: &source.zone.zone,
            maps: &self.maps,
            texts: &arena.texts,
            ids: &arena.ids,
        }
    }

    fn context<'a>(
        &'a self,
        row: &'a Tape,
        change: &RowChange<'a>,
        host: &'a Host<'a>,
        record_time: &'a str,
    ) -> Ctx<'a> {
        let mut ctx = Ctx::new(row.root(), host);
        for (slot, text) in [
            (self.slots.tenant, host.tenant),
            (self.slots.source, host.source),
            (self.slots.table, &*self.table),
            (self.slots.zone, host.zone_name),
            (self.slots.op, change.op.as_str()),
            (self.slots.record_time, record_time),
        ] {
            ctx.set(slot, single(Item::string(text)));
        }
        ctx
    }

    /// The row's tenant: of its facility where the source has several, else the source's.
    fn tenant(&self, row: &Tape, source: &Source, arena: &Arena) -> Result<Arc<str>, Rejection> {
        let Some(facility) = self.facility.as_ref().filter(|_| !source.facility_tenants.is_empty()) else {
            return Ok(source.tenant.clone());
        };
        let host = self.host(&source.tenant, source, arena);
        let items = facility.expr.eval(&Ctx::new(row.root(), &host));
        let items =
            items.map_err(|error| Rejection::new(Reason::UnknownFacility, format!("facility: {error}")))?;
        let text = items.first().and_then(Item::text);
        let tenant = text.and_then(|facility| source.facility_tenants.get(&*facility));
        tenant.cloned().ok_or_else(|| Rejection::new(Reason::UnknownFacility, facility.expr.source()))
    }

    /// `None` where the row lacks a key column.
    fn id(&self, resource: &Resource, row: Value<'_>, tenant: &str, source: &Source) -> Option<Uuid> {
        let parts = resource.key.iter().map(|name| row.get(name).and_then(Item::of)?.text());
        let parts: SmallVec<[_; 4]> = parts.collect::<Option<_>>()?;
        let parts: SmallVec<[&str; 4]> = parts.iter().map(AsRef::as_ref).collect();
        let discriminator = resource.discriminator.as_deref();
        Some(fhirehose_fhir::id(tenant, &source.name, &self.table, &parts, discriminator))
    }
}

fn utc(millis: i64) -> Result<time::Text, Rejection> {
    time::utc(millis).map_err(|_| Rejection::new(Reason::InvalidTime, "record timestamp"))
}
