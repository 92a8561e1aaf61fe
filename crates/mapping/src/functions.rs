//! The FHIRPath functions of ours. Pure: the record's tenant, source and zone in, nothing else.
//! Documented for authors in `docs/mapping.md`.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use bumpalo::Bump;
use fhirehose_fhir::{id_name, id_of};
use fhirehose_fhirpath::{Collection, Decimal, Env, EvalError, Function, Functions, Item, Members, Shape};
use fhirehose_stream::Reason;
use fhirehose_tape::{Kind, Value};
use jiff::tz::TimeZone;
use rust_decimal::RoundingStrategy;
use smallvec::SmallVec;
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use crate::concept_map::ConceptMap;
use crate::output::single;
use crate::remembered::Remembered;
use crate::time::{self, BadTime};

/// Concept maps by name: the file's name without `.csv`.
pub(crate) type ConceptMaps = BTreeMap<String, ConceptMap>;

/// What the functions need to know of a record.
pub(crate) struct Host<'r> {
    pub tenant: &'r str,
    /// Configured source, or device vendor.
    pub source: &'r str,
    pub zone_name: &'r str,
    pub zone: &'r TimeZone,
    pub maps: &'r ConceptMaps,
    /// Where what functions make lives.
    pub texts: &'r Bump,
    pub ids: &'r Remembered<(), Uuid>,
}

/// An environment that knows the functions; arguments that name a map, a table or a zone are checked.
pub(crate) fn env(maps: &ConceptMaps) -> Env {
    let members: BTreeMap<String, Vec<String>> =
        maps.iter().map(|(name, map)| (name.clone(), map.members().map(str::to_owned).collect())).collect();
    let names: BTreeSet<String> = maps.keys().cloned().collect();
    let known = move |args: &[Option<&str>]| match args.first().copied().flatten() {
        Some(name) if names.contains(name) => Ok(()),
        Some(name) => Err(format!("there is no concept map mappings/maps/{name}.csv")),
        None => Err("the concept map is a literal".to_owned()),
    };
    let table = |at: usize| {
        move |args: &[Option<&str>]| match args.get(at).copied().flatten() {
            Some(name) if name.split('.').count() == 2 && !name.contains(char::is_whitespace) => Ok(()),
            _ => Err("the table is a literal 'db.table'".to_owned()),
        }
    };
    let text = |_: &[Option<&str>]| Shape::of(&["string"]);
    let time = |_: &[Option<&str>]| Shape::of(&["string", "instant"]);
    let number = |_: &[Option<&str>]| Shape::of(&["decimal"]);
    Env::plain()
        .typed()
        .function(Function::new("translate", 1..=1).checked(known.clone()).gives(move |args| {
            let map = args.first().copied().flatten().and_then(|name| members.get(name));
            map.map_or_else(Shape::any, |names| Shape::object(names.iter().map(String::as_str)))
        }))
        .function(Function::new("memberOf", 1..=1).checked(known).gives(|_| Shape::of(&["boolean"])))
        .function(Function::new("fhirId", 2..=6).checked(table(0)).gives(text))
        .function(
            Function::new("reference", 3..=7)
                .checked(move |args| {
                    let of_type = args.first().copied().flatten().unwrap_or_default();
                    if !of_type.starts_with(|c: char| c.is_ascii_uppercase()) {
                        return Err("the resource type is a literal such as 'Patient'".to_owned());
                    }
                    table(1)(args)
                })
                .gives(text),
        )
        .function(Function::new("instant", 1..=1).checked(|args| zone_exists(args.first())).gives(time))
        .function(Function::new("localInstant", 2..=2).checked(|args| zone_exists(args.get(1))).gives(time))
        .function(Function::new("epochInstant", 0..=0).gives(time))
        .function(Function::new("epochMillis", 0..=0).gives(number))
        .function(Function::new("toMillis", 0..=0).gives(number))
        .function(Function::new("fixed", 1..=1).gives(number))
        .function(Function::new("quantity", 2..=2).gives(|_| Shape::of(&["Quantity", "BackboneElement"])))
}

fn zone_exists(arg: Option<&Option<&str>>) -> Result<(), String> {
    match arg.copied().flatten() {
        Some(name) if TimeZone::get(name).is_err() => Err(format!("there is no time zone `{name}`")),
        _ => Ok(()),
    }
}

impl Functions for Host<'_> {
    fn call<'a>(
        &'a self,
        name: &'static str,
        input: Collection<'a>,
        args: &[Collection<'a>],
    ) -> Result<Collection<'a>, EvalError> {
        match name {
            "translate" => self.translate(&input, args),
            "memberOf" => self.member_of(&input, args),
            "fhirId" => Ok(self.id(args).map(|id| self.identified("", id)).into_iter().collect()),
            "reference" => {
                let of_type = text(args.first()).unwrap_or_default();
                let id = self.id(args.get(1..).unwrap_or_default());
                Ok(id.map(|id| self.identified(&of_type, id)).into_iter().collect())
            }
            "instant" => one(&input, |item| self.instant(item, args.first())),
            "localInstant" => one(&input, |item| self.local_instant(item, args)),
            "epochInstant" => {
                one(&input, |item| self.time(time::epoch_millis(whole(item)?).and_then(time::utc)))
            }
            "epochMillis" => {
                one(&input, |item| Ok(Item::Integer(refuse_time(time::epoch_millis(whole(item)?))?)))
            }
            "toMillis" => one(&input, |item| {
                let text = item.text().unwrap_or_default();
                Ok(Item::Integer(refuse_time(time::millis(&text))?))
            }),
            "fixed" => one(&input, |item| fixed(item, args.first())),
            "quantity" => one(&input, |item| self.quantity(item, args)),
            _ => Err(EvalError::new(format!("{name}() is not a function of mappings"))),
        }
    }
}

impl Host<'_> {
    fn translate<'a>(
        &'a self,
        input: &Collection<'a>,
        args: &[Collection<'a>],
    ) -> Result<Collection<'a>, EvalError> {
        let name = text(args.first()).unwrap_or_default();
        let map = self.maps.get(&*name).ok_or(EvalError::new("translate(): no such concept map"))?;
        let mut found = Collection::new();
        for item in input {
            let object = item.text().and_then(|source| map.get(source.trim())).and_then(Item::of);
            found.push(object.ok_or_else(|| {
                EvalError::refused(Reason::UnknownCode.label(), format!("not in map {name}"))
            })?);
        }
        Ok(found)
    }

    /// Whether each item, a code, Coding or CodeableConcept, is one that the map translates to.
    fn member_of<'a>(
        &'a self,
        input: &Collection<'a>,
        args: &[Collection<'a>],
    ) -> Result<Collection<'a>, EvalError> {
        let name = text(args.first()).unwrap_or_default();
        let map = self.maps.get(&*name).ok_or(EvalError::new("memberOf(): no such concept map"))?;
        let coded = |coding: Value<'_>| {
            let text = |name| coding.get(name).and_then(Value::as_str);
            text("code").is_some_and(|code| map.has_target(text("system"), code))
        };
        let one = |item: &Item<'_>| match item.value().filter(|value| value.kind() == Kind::Object) {
            Some(object) => match object.get("coding") {
                Some(codings) => codings.elements().any(coded),
                None => coded(object),
            },
            None => item.text().is_some_and(|code| map.has_target(None, code.trim())),
        };
        Ok(input.iter().map(one).map(Item::Boolean).collect())
    }

    /// `args`: table, then the parts of the key. `None` where a part is empty.
    fn id(&self, args: &[Collection<'_>]) -> Option<Uuid> {
        let table = text(args.first())?;
        let parts = args.get(1..)?.iter().map(|part| text(Some(part)));
        let parts: SmallVec<[_; 4]> = parts.collect::<Option<_>>()?;
        let around = [self.tenant, self.source, &*table].into_iter();
        let name = id_name(around.chain(parts.iter().map(AsRef::as_ref)));
        self.ids.get((), &name, || Some(id_of(&name)))
    }

    /// `Patient/<id>`, or the id alone.
    fn identified<'a>(&'a self, of_type: &str, id: Uuid) -> Item<'a> {
        let mut id_text = [0; Hyphenated::LENGTH];
        let id = id.hyphenated().encode_lower(&mut id_text);
        let mut text =
            bumpalo::collections::String::with_capacity_in(of_type.len() + 1 + id.len(), self.texts);
        text.push_str(of_type);
        if !of_type.is_empty() {
            text.push('/');
        }
        text.push_str(id);
        Item::string(text.into_bump_str())
    }

    fn time<'a>(&'a self, time: Result<time::Text, BadTime>) -> Result<Item<'a>, EvalError> {
        Ok(Item::string(&*self.texts.alloc_str(&refuse_time(time)?)))
    }

    fn zone(&self, arg: Option<&Collection<'_>>) -> Result<TimeZone, EvalError> {
        let name = text(arg).unwrap_or_default();
        if name == self.zone_name {
            return Ok(self.zone.clone());
        }
        TimeZone::get(&name).map_err(|_| EvalError::new("no such time zone"))
    }

    fn instant<'a>(&'a self, item: &Item<'a>, zone: Option<&Collection<'a>>) -> Result<Item<'a>, EvalError> {
        let text = item.text().unwrap_or_default();
        self.time(time::instant(&text, &self.zone(zone)?))
    }

    fn local_instant<'a>(&'a self, item: &Item<'a>, args: &[Collection<'a>]) -> Result<Item<'a>, EvalError> {
        let (written, form) = (item.text().unwrap_or_default(), text(args.first()).unwrap_or_default());
        self.time(time::local_instant(&written, &form, &self.zone(args.get(1))?))
    }

    /// A FHIR Quantity with a UCUM code; the number keeps its digits.
    fn quantity<'a>(&'a self, item: &Item<'a>, args: &[Collection<'a>]) -> Result<Item<'a>, EvalError> {
        let value = match item {
            Item::Integer(value) => Item::Integer(*value),
            Item::Decimal(value) => Item::Decimal(*value),
            Item::Node(node) if node.value().is_some_and(|value| value.kind() == Kind::Number) => {
                Item::Node(*node)
            }
            _ => return Err(EvalError::refused(Reason::WrongType.label(), "not a number")),
        };
        let lasting = |at: usize| match text(args.get(at)).unwrap_or_default() {
            Cow::Borrowed(text) => text,
            Cow::Owned(text) => self.texts.alloc_str(&text),
        };
        let string = |text: &'a str| Item::string(text);
        // None of them owns anything: nothing is lost where the arena drops nothing.
        Ok(Item::Object(Members::Borrowed(self.texts.alloc([
            ("value".into(), value),
            ("unit".into(), string(lasting(1))),
            ("system".into(), string("http://unitsofmeasure.org")),
            ("code".into(), string(lasting(0))),
        ]))))
    }
}

/// Applies a function of one item; empty stays empty.
fn one<'a>(
    input: &Collection<'a>,
    function: impl FnOnce(&Item<'a>) -> Result<Item<'a>, EvalError>,
) -> Result<Collection<'a>, EvalError> {
    match input.as_slice() {
        [] => Ok(Collection::new()),
        [item] => function(item).map(single),
        _ => Err(EvalError::new("more than one item where one is needed")),
    }
}

fn text<'a>(items: Option<&Collection<'a>>) -> Option<std::borrow::Cow<'a, str>> {
    match items?.as_slice() {
        [item] => item.text(),
        _ => None,
    }
}

/// A whole number, or its text.
fn whole(item: &Item<'_>) -> Result<i64, EvalError> {
    let number = item.as_i64().or_else(|| item.text()?.trim().parse().ok());
    number.ok_or(EvalError::refused(Reason::WrongType.label(), "not a whole number"))
}

fn refuse_time<T>(result: Result<T, BadTime>) -> Result<T, EvalError> {
    result.map_err(|BadTime| EvalError::refused(Reason::InvalidTime.label(), "not a time that can be"))
}

fn fixed<'a>(item: &Item<'a>, places: Option<&Collection<'a>>) -> Result<Item<'a>, EvalError> {
    let places = places.and_then(|items| items.first()).and_then(Item::as_i64);
    let places = places.and_then(|n| u32::try_from(n).ok()).filter(|n| *n <= 9);
    let places = places.ok_or(EvalError::new("fixed() takes 0 to 9 decimal places"))?;
    let mut number = decimal(item)?.round_dp_with_strategy(places, RoundingStrategy::MidpointNearestEven);
    number.rescale(places);
    Ok(Item::Decimal(number))
}

fn decimal(item: &Item<'_>) -> Result<Decimal, EvalError> {
    item.as_decimal().ok_or(EvalError::refused(Reason::WrongType.label(), "not a number"))
}
