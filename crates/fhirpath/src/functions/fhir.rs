//! Functions that FHIR and SQL-on-FHIR add to FHIRPath.

use std::borrow::Cow;

use smallvec::smallvec;

use super::{Call, Function, plain, stream};
use crate::eval::{Evaluated, boolean, single, single_text};
use crate::item::{Collection, Item, Node};
use crate::kinds::Kinds;
use crate::navigate::{element, resource_type, system_type};
use crate::stream::Stream;
use crate::types::Type;

pub(super) const TABLE: &[Function] = &[
    stream("extension", 1..=1, Stream::Extension)
        .gives(Kinds::OBJECT)
        .about("url", "the extensions of that address"),
    plain("hasValue", 0..=0, has_value)
        .gives(Kinds::BOOLEAN)
        .about("", "whether it is one primitive with a value, not only extensions"),
    plain("getValue", 0..=0, get_value).gives_input().about("", "that value"),
    plain("type", 0..=0, of_type)
        .gives(Kinds::OBJECT)
        .about("", "`namespace` and `name` of the type, as far as document and definitions tell"),
    plain("checkModifiers", 1..=1, check_modifiers)
        .gives_input()
        .about("url", "its input; an error if it has a modifier extension of another address"),
    plain("getResourceKey", 0..=0, resource_key)
        .gives(Kinds::TEXT)
        .about("", "the key of a resource in tables made of it (SQL-on-FHIR)"),
    plain("getReferenceKey", 0..=1, reference_key)
        .gives(Kinds::TEXT)
        .about("type", "the key of a reference's target, if it is of the type (SQL-on-FHIR)"),
];

/// Every modifier extension is of the address given: what is not known must not be passed over.
fn check_modifiers(call: Call<'_>) -> Evaluated<'_> {
    let known = single_text(call.arg(0), call.name)?;
    let mut all = Collection::new();
    call.input
        .iter()
        .for_each(|item| element(item, "modifierExtension", Type::UNKNOWN, &mut |found| all.push(found)));
    let url = |item: &Item<'_>| item.value().and_then(|value| Some(value.get("url")?.as_str()?.to_owned()));
    if all.iter().any(|item| url(item).as_deref() != known.as_deref()) {
        return call.error("finds a modifier extension that is not known");
    }
    Ok(call.input)
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
            Item::Node(node) if resource_type(node).is_some() => {
                element(item, "id", Type::UNKNOWN, &mut |id| ids.push(id));
            }
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
    element(reference, "reference", Type::UNKNOWN, &mut |found| text.push(found));
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
