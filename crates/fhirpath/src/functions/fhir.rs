//! Functions that FHIR and SQL-on-FHIR add to FHIRPath.

use std::borrow::Cow;

use smallvec::smallvec;

use super::{Call, Function, plain};
use crate::eval::{Evaluated, boolean, single, single_text};
use crate::item::{Collection, Item, Node};
use crate::navigate::{element, resource_type, system_type};
use crate::temporal::{Precision, Temporal};
use crate::types::Type;

pub(super) const TABLE: &[Function] = &[
    plain("extension", 1..=1, extension),
    plain("hasValue", 0..=0, has_value),
    plain("getValue", 0..=0, get_value),
    plain("type", 0..=0, of_type),
    plain("getResourceKey", 0..=0, resource_key),
    plain("getReferenceKey", 0..=1, reference_key),
    plain("lowBoundary", 0..=1, |call| boundary(call, false)),
    plain("highBoundary", 0..=1, |call| boundary(call, true)),
];

fn extension(call: Call<'_>) -> Evaluated<'_> {
    let Some(url) = single_text(call.arg(0), call.name)? else { return Ok(Collection::new()) };
    let mut all = Collection::new();
    call.input.iter().for_each(|item| element(item, "extension", &mut all));
    all.retain(|item| item.value().and_then(|value| value.get("url")?.as_str()) == Some(&*url));
    Ok(all)
}

fn is_scalar(item: &Item<'_>) -> bool {
    item.text().is_some()
}

fn has_value(call: Call<'_>) -> Evaluated<'_> {
    Ok(boolean(Some(matches!(call.input.as_slice(), [item] if is_scalar(item)))))
}

fn get_value(call: Call<'_>) -> Evaluated<'_> {
    Ok(match call.input.as_slice() {
        [item] if is_scalar(item) => smallvec![item.atom()],
        _ => Collection::new(),
    })
}

/// Namespace and name of the type, as far as the document tells them.
fn of_type(call: Call<'_>) -> Evaluated<'_> {
    let described = |item: &Item<'_>| -> (&'static str, String) {
        match item {
            Item::Node(node) => ("FHIR", node_type(node)),
            other => ("System", system_type(other).unwrap_or("Any").to_owned()),
        }
    };
    let object = |(namespace, name): (&'static str, String)| {
        Item::object([
            (Cow::Borrowed("namespace"), Item::string(namespace)),
            (Cow::Borrowed("name"), Item::string(name)),
        ])
    };
    Ok(call.input.iter().map(|item| object(described(item))).collect())
}

fn node_type(node: &Node<'_>) -> String {
    let known = resource_type(node).or_else(|| node.of.name());
    let name = known.unwrap_or_else(|| match system_type(&Item::Node(*node).atom()) {
        Some("Boolean") => "boolean",
        Some("Integer") => "integer",
        Some("Decimal") => "decimal",
        Some(_) => "string",
        None => "Element",
    });
    name.to_owned()
}

/// The id, which is the key in every table made from resources of the type.
fn resource_key(call: Call<'_>) -> Evaluated<'_> {
    let mut ids = Collection::new();
    for item in &call.input {
        match item {
            Item::Node(node) if resource_type(node).is_some() => element(item, "id", &mut ids),
            _ => return call.error("takes a resource"),
        }
    }
    Ok(ids)
}

/// The key of a reference's target, where it is of the type asked for.
fn reference_key(call: Call<'_>) -> Evaluated<'_> {
    let wanted = single_text(call.arg(0), call.name)?;
    let Some(reference) = single(&call.input, call.name)? else { return Ok(Collection::new()) };
    let mut text = Collection::new();
    element(reference, "reference", &mut text);
    let key =
        text.first().and_then(Item::value).and_then(|value| target_key(value.as_str()?, wanted.as_deref()));
    Ok(key.map(Item::string).into_iter().collect())
}

/// `Patient/1`, `http://server/Patient/1/_history/2`: the id. A `urn:uuid:` tells no type. A reference
/// within the resource (`#p`) has no key.
fn target_key<'r>(reference: &'r str, wanted: Option<&str>) -> Option<&'r str> {
    if let Some(uuid) = reference.strip_prefix("urn:uuid:") {
        return Some(uuid);
    }
    let unversioned = reference.split_once("/_history/").map_or(reference, |(before, _)| before);
    let (before, id) = unversioned.rsplit_once('/')?;
    let of = before.rsplit('/').next()?;
    (!id.is_empty() && wanted.is_none_or(|wanted| wanted == of)).then_some(id)
}

/// The least or greatest value an imprecise one can stand for, at the precision of its type.
fn boundary(call: Call<'_>, high: bool) -> Evaluated<'_> {
    if !call.args.is_empty() {
        return call.error("with a precision is not supported");
    }
    let Some(item) = single(&call.input, call.name)? else { return Ok(Collection::new()) };
    // The earliest a time without offset can be is in the east, the latest in the west.
    let offset = if high { -12 * 60 } else { 14 * 60 };
    let bound = match item.atom() {
        Item::Date(at) => at.boundary(high, Precision::Day, None).map(Item::Date),
        Item::DateTime(at) => at.boundary(high, Precision::Second, Some(offset)).map(Item::DateTime),
        Item::Time(at) => at.boundary(high, Precision::Second, None).map(Item::Time),
        Item::String(text) => text_boundary(&text, item, high, offset),
        number => number.as_decimal().and_then(|value| {
            let half = rust_decimal::Decimal::new(5, (value.scale() + 1).min(28));
            let bound = if high { value.checked_add(half) } else { value.checked_sub(half) };
            bound.map(Item::Decimal)
        }),
    };
    Ok(bound.into_iter().collect())
}

/// A date or time of a document whose element's type is not known, by its form.
fn text_boundary<'a>(text: &str, item: &Item<'a>, high: bool, offset: i16) -> Option<Item<'a>> {
    let of = match item {
        Item::Node(node) => node.of,
        _ => Type::UNKNOWN,
    };
    if of == Type::UNKNOWN
        && let Some(at) = Temporal::date(text)
    {
        return at.boundary(high, Precision::Day, None).map(Item::Date);
    }
    if let Some(at) = Temporal::date_time(text) {
        return at.boundary(high, Precision::Second, Some(offset)).map(Item::DateTime);
    }
    Temporal::time(text)?.boundary(high, Precision::Second, None).map(Item::Time)
}
