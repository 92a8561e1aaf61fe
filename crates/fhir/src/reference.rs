//! References: their form, and the resource types they may point to.

use fhirehose_tape::Value;

use crate::primitive::{id, solid};
use crate::validate::Rule;

/// Checks a Reference against the types allowed at its place, all where `targets` is `None`; `root` is where
/// `#id` looks for what is contained. An error tells where under the Reference.
pub(crate) fn check(
    reference: Value<'_>,
    targets: Option<&[&str]>,
    root: Value<'_>,
) -> Result<(), (&'static str, Rule)> {
    let pointed = match reference.get("reference").and_then(Value::as_str) {
        Some(text) => target(text, root).map_err(|rule| ("reference", rule))?,
        None => None,
    };
    let stated = reference.get("type").and_then(Value::as_str);
    if may_be(targets, stated) && may_be(targets, pointed) { Ok(()) } else { Err(("", Rule::Target)) }
}

/// Whether what a Reference says is sound and points outside of its resource, to an allowed type.
pub(crate) fn elsewhere(text: &str, targets: Option<&[&str]>) -> bool {
    !text.starts_with('#') && named(text).is_ok_and(|ty| may_be(targets, ty))
}

fn may_be(targets: Option<&[&str]>, ty: Option<&str>) -> bool {
    match (targets, ty) {
        (Some(targets), Some(ty)) => targets.contains(&ty),
        _ => true,
    }
}

/// The resource type a reference names, where it names one: as [`named`], or `#id` of a contained resource
/// (invariant ref-1).
fn target<'a>(text: &'a str, root: Value<'a>) -> Result<Option<&'a str>, Rule> {
    let Some(fragment) = text.strip_prefix('#').filter(|fragment| solid(fragment)) else {
        return named(text);
    };
    let of_type = |resource: Value<'a>| resource.get("resourceType").and_then(Value::as_str);
    if fragment.is_empty() {
        return Ok(of_type(root));
    }
    let mut contained = root.get("contained").into_iter().flat_map(Value::elements);
    let found = contained.find(|r| r.get("id").and_then(Value::as_str) == Some(fragment));
    found.map(of_type).ok_or(Rule::Invariant("ref-1"))
}

/// `Type/id[/_history/v]`, a URL ending so, or a conditional `Type?…`. `urn:` names none.
fn named(text: &str) -> Result<Option<&str>, Rule> {
    if !solid(text) {
        return Err(Rule::Format);
    }
    if let Some((ty, rest)) = text.split_once('/')
        && is_type(ty)
        && id(rest)
    {
        return Ok(Some(ty));
    }
    if let Some((ty, _)) = text.split_once('?').filter(|(ty, _)| is_type(ty)) {
        return Ok(Some(ty));
    }
    if text.starts_with("urn:") {
        return Ok(None);
    }
    let logical = text.split_once("/_history/").map_or(text, |(before, _)| before);
    let mut from_end = logical.rsplit('/');
    let (last, ty) = (from_end.next().unwrap_or_default(), from_end.next());
    match ty {
        Some(ty) if is_type(ty) && id(last) => Ok(Some(ty)),
        _ if text.contains("://") => Ok(None),
        _ => Err(Rule::Format),
    }
}

fn is_type(text: &str) -> bool {
    let (first, rest) = match text.as_bytes() {
        [first, rest @ ..] => (first, rest),
        [] => return false,
    };
    first.is_ascii_uppercase() && rest.iter().all(u8::is_ascii_alphabetic)
}
