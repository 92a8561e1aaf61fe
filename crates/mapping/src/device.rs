mod compile;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use fhirehose_fhirpath::{Ctx, Item, Slot, collect};
use fhirehose_stream::{Reason, Record, Rejection};
use fhirehose_tape::{Kind, Tape, Value};

use crate::drafts::Drafts;
use crate::explain::Tracer;
use crate::functions::{ConceptMaps, Host};
use crate::header::{Made, Output, Rule};
use crate::output::{Stamp, judge, single};
use crate::render::{Arena, Renderer};
use crate::scratch::Scratch;
use crate::shared::Repeated;
use crate::source::Vendor;
use crate::template::Hole;
use crate::time;

/// The topic of emergencies: its outputs need no assignment and are made by a processor of their own.
const ALERTS: &str = "alert.emergency";
/// A reading from further in the future than this is taken for one of a wrong clock, in milliseconds.
const CLOCK_SKEW: i64 = 5 * 60 * 1000;

/// The mapping of one kind of message: `mappings/device/<vendor>/<message>.yaml`.
pub struct DeviceMapping {
    /// `device/<vendor>/<message>`.
    pub name: Arc<str>,
    pub version: i32,
    /// `device.<vendor>`.
    pub topic: Arc<str>,
    matches: Hole,
    /// The message itself is the one reading where there is none.
    items: Option<Hole>,
    device: Hole,
    /// The record's time is taken where there is none.
    time: Option<Hole>,
    rules: Vec<Rule>,
    outputs: Vec<Output>,
    slots: Slots,
    repeated: Repeated,
    maps: Arc<ConceptMaps>,
}

/// A message of a device.
#[derive(Clone, Copy)]
pub struct Message<'m> {
    pub body: Value<'m>,
    /// Record headers as an object of texts.
    pub headers: Value<'m>,
    pub vendor: &'m Vendor,
    /// Kafka's timestamp of the record, milliseconds since the epoch.
    pub record_time: i64,
}

/// Record headers as an object of texts, for [`Message::headers`]; one that is no text is left out.
pub fn read_headers(record: &Record<'_>, tape: &mut Tape) {
    let text =
        |value: Option<&'_ [u8]>| value.and_then(|value| std::str::from_utf8(value).ok().map(str::to_owned));
    // Of a name that stands twice the last counts, as for Kafka's own clients.
    let texts: BTreeMap<&str, String> =
        record.headers().filter_map(|(name, value)| Some((name, text(value)?))).collect();
    tape.clear();
    tape.begin_object();
    for (name, value) in &texts {
        tape.key(name);
        tape.string(value);
    }
    tape.end();
}

/// One reading of a message: of one device at one time. No `Debug`: it names a device.
#[derive(Clone, PartialEq, Eq)]
pub struct Reading {
    /// Its number in the message, from 0.
    pub item: usize,
    /// Hardware address in upper-case hex without separators, or IMEI.
    pub device: String,
    /// Milliseconds since the epoch; the record's time where the device sent none, or one ahead of it.
    pub observed_at: i64,
    /// The device's own time was more than five minutes ahead.
    pub clock_skew: bool,
    position: u32,
}

/// Whose device it was at the time of a reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    pub tenant: Arc<str>,
    /// Logical FHIR id of the patient.
    pub patient: Arc<str>,
    /// Logical FHIR id of the facility.
    pub facility: Option<Arc<str>>,
}

/// Which outputs of a message are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plane {
    /// Everything but alerts; each needs an assignment.
    Readings,
    /// `alert.emergency`, with or without an assignment.
    Alerts,
}

struct Slots {
    tenant: Slot,
    source: Slot,
    vendor: Slot,
    zone: Slot,
    record_time: Slot,
    header: Slot,
    message: Slot,
    item: Slot,
    device: Slot,
    time: Slot,
    assignment: Slot,
}

/// The one form of a device's id: hex digits and letters in upper case, separators left out.
pub fn device_id(written: &str) -> String {
    written.chars().filter(|c| c.is_ascii_alphanumeric()).map(|c| c.to_ascii_uppercase()).collect()
}

impl DeviceMapping {
    /// Logical topics of the outputs of a plane.
    pub fn topics(&self, plane: Plane) -> impl Iterator<Item = &str> {
        self.outputs.iter().filter(move |output| Plane::of(output) == plane).map(|output| &*output.topic)
    }

    /// `name@version`, for dead-letter headers.
    pub fn shape(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }

    /// Whether it has outputs of that plane.
    pub fn has(&self, plane: Plane) -> bool {
        self.topics(plane).next().is_some()
    }

    pub(crate) fn matches(&self, message: &Message<'_>) -> Result<bool, Rejection> {
        let arena = Arena::default();
        let host = self.host("", message, &arena);
        let record_time = self.record_time(message)?;
        let ctx = self.context(message, &host, &record_time);
        Renderer::new(&arena, &self.repeated, None).test(&self.matches, &ctx)
    }

    /// The readings of a message that matched.
    pub fn readings(&self, message: &Message<'_>) -> Result<Vec<Reading>, Rejection> {
        self.read(message).map_err(|rejection| rejection.of_shape(self.shape()))
    }

    fn read(&self, message: &Message<'_>) -> Result<Vec<Reading>, Rejection> {
        let arena = Arena::default();
        let host = self.host("", message, &arena);
        let record_time = self.record_time(message)?;
        let mut ctx = self.context(message, &host, &record_time);
        let renderer = Renderer::new(&arena, &self.repeated, None);
        let items = match &self.items {
            Some(items) => renderer.eval(items, &ctx)?,
            None => collect(message.body),
        };
        let mut readings = Vec::with_capacity(items.len());
        for (number, item) in items.into_iter().enumerate() {
            let value = item.value().filter(|value| value.kind() == Kind::Object);
            let value = value.ok_or_else(|| Rejection::new(Reason::WrongType, format!("items[{number}]")))?;
            ctx.set(self.slots.item, single(item.clone()));
            let outer = ctx.refocus(item);
            let device = renderer.eval(&self.device, &ctx)?;
            let device = device.first().and_then(Item::text).map(|text| device_id(&text));
            let device = device.filter(|id| !id.is_empty());
            let device = device.ok_or_else(|| Rejection::new(Reason::MissingKey, "device"))?;
            let (observed_at, clock_skew) = self.observed_at(message, &renderer, &ctx)?;
            readings.push(Reading {
                item: number,
                device,
                observed_at,
                clock_skew,
                position: value.position(),
            });
            ctx.restore(outer);
        }
        if readings.is_empty() {
            return Err(Rejection::new(Reason::MissingElement, "items"));
        }
        Ok(readings)
    }

    fn observed_at<'a>(
        &'a self,
        message: &Message<'_>,
        renderer: &Renderer<'a>,
        ctx: &Ctx<'a>,
    ) -> Result<(i64, bool), Rejection> {
        let items = self.time.as_ref().map(|hole| renderer.eval(hole, ctx)).transpose()?;
        let Some(item) = items.as_ref().and_then(|items| items.first()) else {
            return Ok((message.record_time, false));
        };
        let millis = item.text().and_then(|text| time::millis(&text).ok());
        let millis = millis.ok_or_else(|| Rejection::new(Reason::InvalidTime, "time"))?;
        let skewed = millis > message.record_time.saturating_add(CLOCK_SKEW);
        Ok(if skewed { (message.record_time, true) } else { (millis, false) })
    }

    /// Adds the outputs of one reading to the drafts, which may hold those of others. After a rejection what
    /// they hold is of no use.
    pub fn apply(
        &self,
        message: &Message<'_>,
        reading: &Reading,
        assignment: Option<&Assignment>,
        plane: Plane,
        scratch: &mut Scratch,
        drafts: &mut Drafts,
    ) -> Result<(), Rejection> {
        let result = self.apply_traced(message, reading, assignment, plane, scratch, drafts, None);
        result.map_err(|rejection| rejection.of_shape(self.shape()))
    }

    #[expect(clippy::too_many_arguments, reason = "the public form has one less, and names them")]
    pub(crate) fn apply_traced(
        &self,
        message: &Message<'_>,
        reading: &Reading,
        assignment: Option<&Assignment>,
        plane: Plane,
        scratch: &mut Scratch,
        drafts: &mut Drafts,
        trace: Option<Tracer<'_>>,
    ) -> Result<(), Rejection> {
        let tenant = assignment.map_or("", |assignment| &assignment.tenant);
        let Scratch { checker, arena, .. } = scratch;
        arena.reset();
        let (checker, arena) = (&*checker, &*arena);
        let host = self.host(tenant, message, arena);
        let record_time = self.record_time(message)?;
        let observed =
            time::utc(reading.observed_at).map_err(|_| Rejection::new(Reason::InvalidTime, "time"))?;
        let mut ctx = self.context(message, &host, &record_time);
        let renderer = Renderer::new(arena, &self.repeated, trace).checking(checker);
        let item = message.body.tape().at(reading.position);
        ctx.set(self.slots.item, collect(item));
        ctx.set(self.slots.device, single(Item::string(reading.device.as_str())));
        ctx.set(self.slots.time, single(Item::string(observed.as_str())));
        if let Some(assignment) = assignment {
            ctx.set(self.slots.tenant, single(Item::string(tenant)));
            ctx.set(self.slots.assignment, single(assignment.item()));
        }
        ctx.restore(collect(item));
        judge(&self.rules, &renderer, &ctx, drafts)?;
        if reading.clock_skew {
            drafts.flag(&"clock-skew".into());
        }
        let origin = format!("urn:device:{}", message.vendor.name);
        // A reading never changes: it has one version.
        let stamp = Stamp { tenant, origin: &origin, version_id: "1", last_updated: message.record_time };
        for output in self.outputs.iter().filter(|output| Plane::of(output) == plane) {
            let wanted = output.wanted(&renderer, &ctx)?;
            if let Some(trace) = trace {
                trace.borrow_mut().output(&output.name, &output.topic, wanted);
            }
            if !wanted {
                continue;
            }
            match &output.makes {
                Made::Resource(resource) => {
                    let code = resource.discriminator.as_deref().unwrap_or_default();
                    let discriminator = format!("{code}/{}", reading.observed_at);
                    let (vendor, key) = (&message.vendor.name, [reading.device.as_str()]);
                    let id =
                        fhirehose_fhir::id(tenant, vendor, "device", &key, Some(&discriminator)).to_string();
                    resource.draft(&output.topic, &id, stamp, &renderer, &mut ctx, drafts, checker)?;
                }
                Made::Record(record) => {
                    let key = record.key(&renderer, &mut ctx)?;
                    let key = key.ok_or_else(|| Rejection::new(Reason::MissingKey, &*output.name))?;
                    record.draft(&output.topic, &key, tenant, &renderer, &mut ctx, drafts)?;
                }
            }
        }
        Ok(())
    }

    fn record_time(&self, message: &Message<'_>) -> Result<time::Text, Rejection> {
        time::utc(message.record_time).map_err(|_| Rejection::new(Reason::InvalidTime, "record timestamp"))
    }

    fn host<'r>(&'r self, tenant: &'r str, message: &Message<'r>, arena: &'r Arena) -> Host<'r> {
        let Vendor { name, zone } = message.vendor;
        Host {
            tenant,
            source: name,
            zone_name: &zone.name,
            zone: &zone.zone,
            maps: &self.maps,
            texts: &arena.texts,
            ids: &arena.ids,
        }
    }

    fn context<'a>(&self, message: &Message<'a>, host: &'a Host<'a>, record_time: &'a str) -> Ctx<'a> {
        let mut ctx = Ctx::new(message.body, host);
        for (slot, text) in [
            (self.slots.source, host.source),
            (self.slots.vendor, host.source),
            (self.slots.zone, host.zone_name),
            (self.slots.record_time, record_time),
        ] {
            ctx.set(slot, single(Item::string(text)));
        }
        ctx.set(self.slots.header, collect(message.headers));
        ctx.set(self.slots.message, collect(message.body));
        ctx
    }
}

impl Plane {
    fn of(output: &Output) -> Plane {
        if &*output.topic == ALERTS { Plane::Alerts } else { Plane::Readings }
    }
}

impl Assignment {
    /// What an expression may ask of it.
    const MEMBERS: [&str; 4] = ["patient", "patient_reference", "tenant", "facility"];

    fn item(&self) -> Item<'_> {
        let text = |text: &'_ str| Item::string(Cow::Owned(text.to_owned()));
        let mut members = vec![
            (Cow::Borrowed("patient"), text(&self.patient)),
            (Cow::Borrowed("patient_reference"), Item::string(format!("Patient/{}", self.patient))),
            (Cow::Borrowed("tenant"), text(&self.tenant)),
        ];
        if let Some(facility) = &self.facility {
            members.push((Cow::Borrowed("facility"), text(facility)));
        }
        Item::object(members)
    }
}
