//! Reading a definition's JSON, with the place of every mistake.

use fhirehose_tape::{Kind, Value};

use crate::ViewError;

/// Elements that every element of a resource may have, and that say nothing about rows.
pub(crate) const ANYWHERE: &[&str] = &["id", "extension"];

/// The objects of an array member, each with its path; nothing where there is no such member.
pub(crate) fn objects<'v>(
    object: Value<'v>,
    at: &str,
    name: &str,
) -> Result<Vec<(Value<'v>, String)>, ViewError> {
    array(object, at, name)?
        .into_iter()
        .map(|(element, at)| match element.kind() {
            Kind::Object => Ok((element, at)),
            _ => error(&at, "an object expected"),
        })
        .collect()
}

/// The strings of an array member, each with its path; nothing where there is no such member.
pub(crate) fn strings<'v>(
    object: Value<'v>,
    at: &str,
    name: &str,
) -> Result<Vec<(&'v str, String)>, ViewError> {
    array(object, at, name)?
        .into_iter()
        .map(|(element, at)| match element.as_str() {
            Some(text) => Ok((text, at)),
            None => error(&at, "a string expected"),
        })
        .collect()
}

fn array<'v>(object: Value<'v>, at: &str, name: &str) -> Result<Vec<(Value<'v>, String)>, ViewError> {
    let path = join(at, name);
    let Some(array) = object.get(name) else { return Ok(Vec::new()) };
    if array.kind() != Kind::Array {
        return error(&path, "an array expected");
    }
    Ok(array.elements().enumerate().map(|(i, element)| (element, format!("{path}[{i}]"))).collect())
}

pub(crate) fn optional<'v>(object: Value<'v>, at: &str, name: &str) -> Result<Option<&'v str>, ViewError> {
    match object.get(name) {
        None => Ok(None),
        Some(value) => match value.as_str() {
            Some(text) => Ok(Some(text)),
            None => error(&join(at, name), "a string expected"),
        },
    }
}

pub(crate) fn required<'v>(object: Value<'v>, at: &str, name: &str) -> Result<&'v str, ViewError> {
    match optional(object, at, name)? {
        Some(text) => Ok(text),
        None => error(&join(at, name), "is missing"),
    }
}

/// A name that databases take as it is.
pub(crate) fn sql_name<'v>(object: Value<'v>, at: &str) -> Result<&'v str, ViewError> {
    let name = required(object, at, "name")?;
    let sound = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if sound {
        return Ok(name);
    }
    error(&join(at, "name"), "a name is letters, digits and _, beginning with a letter")
}

/// Refuses elements of other names. `_name` beside a primitive holds its extensions, which say nothing either.
pub(crate) fn known(object: Value<'_>, at: &str, names: &[&str]) -> Result<(), ViewError> {
    let named = |key: &str| names.contains(&key) || ANYWHERE.contains(&key);
    match object.entries().find(|(key, _)| !named(key.strip_prefix('_').unwrap_or(key))) {
        Some((key, _)) => error(&join(at, key), "unknown element"),
        None => Ok(()),
    }
}

pub(crate) fn join(at: &str, name: &str) -> String {
    if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") }
}

pub(crate) fn error<T>(path: &str, message: impl Into<String>) -> Result<T, ViewError> {
    Err(ViewError { path: path.to_owned(), message: message.into(), expression: None })
}
