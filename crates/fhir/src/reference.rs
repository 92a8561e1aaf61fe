//! References: their form, and the resource types they may point to.

use fhirehose_tape::Value;

use crate::primitive::id;
use crate::validate::Rule;

/// Checks a Reference against the types allowed at its place; `root` is where `#id` looks for what is contained.
pub(crate) fn check(reference: Value<'_>, targets: &[&str], root: Value<'_>) -> Result<(), Rule> {
    let stated = reference.get("type").and_then(Value::as_str);
    let pointed = match reference.get("reference").and_then(Value::as_str) {
        Some(text) => target(text, root)?,
        None => None,
    };
    let allowed = |ty: Option<&str>| ty.is_none_or(|ty| targets.contains(&ty));
    if allowed(stated) && allowed(pointed) { Ok(()) } else { Err(Rule::Target) }
}

/// The resource type a reference names, where it names one: `Type/id[/_history/v]`, a URL ending so, a conditional
/// `Type?…`, or `#id` of a contained resource (invariant ref-1). `urn:` names none.
pub(crate) fn target<'a>(text: &'a str, root: Value<'a>) -> Result<Option<&'a str>, Rule> {
    if let Some(fragment) = text.strip_prefix('#') {
        if fragment.is_empty() {
            return Ok(root.get("resourceType").and_then(Value::as_str));
        }
        let contained = root.get("contained").map(Value::elements).into_iter().flatten();
        let found = contained.into_iter().find(|r| r.get("id").and_then(Value::as_str) == Some(fragment));
        return found.map(|r| r.get("resourceType").and_then(Value::as_str)).ok_or(Rule::Invariant("ref-1"));
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
    text.starts_with(|c: char| c.is_ascii_uppercase()) && text.bytes().all(|b| b.is_ascii_alphabetic())
}
