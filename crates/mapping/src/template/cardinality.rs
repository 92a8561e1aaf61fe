//! How often elements may stand, as far as a template tells before it is filled.

use std::collections::BTreeSet;

use fhirehose_fhir::{element_repeats, required_elements};

use super::{Object, Template};

/// What is wrong with writing a template into an element; nothing where it depends on the data.
pub(super) fn of_element(of: &str, name: &str, path: &str, value: &Template) -> Option<String> {
    let many = repeats(of, name);
    match is_list(value)? {
        list if list == many => None,
        true => Some(format!("`{path}` is one value, not a list")),
        false => Some(format!("`{path}` is a list: write [ … ]")),
    }
}

/// Whether an element is a list. What a primitive carries beside its value repeats as it does.
pub(super) fn repeats(of: &str, name: &str) -> bool {
    element_repeats(of, name.strip_prefix('_').unwrap_or(name))
}

/// Whether a template writes a list; nothing where it depends on the data.
pub(super) fn is_list(template: &Template) -> Option<bool> {
    match template {
        Template::Literal(json) => (&**json != b"null").then_some(false),
        Template::First(_) | Template::Text(_) | Template::Object(_) => Some(false),
        Template::All(_) | Template::List(_) | Template::For { .. } | Template::Focus { .. } => Some(true),
        Template::Scope { body, .. } => is_list(body),
        Template::If { then, otherwise, .. } => match otherwise {
            Some(otherwise) => is_list(then).filter(|list| is_list(otherwise) == Some(*list)),
            None => is_list(then),
        },
    }
}

/// The required elements that what a template writes never has.
pub(super) fn missing(of: &str, template: &Template) -> BTreeSet<&'static str> {
    match template {
        Template::Object(object) => missing_of(of, object),
        Template::List(list) => list.iter().flat_map(|element| missing(of, element)).collect(),
        Template::If { then, otherwise, .. } => [Some(then), otherwise.as_ref()]
            .into_iter()
            .flatten()
            .flat_map(|branch| missing(of, branch))
            .collect(),
        Template::For { body, .. } | Template::Focus { body, .. } | Template::Scope { body, .. } => {
            missing(of, body)
        }
        _ => BTreeSet::new(),
    }
}

/// The required elements that an object never has.
pub(crate) fn missing_of(of: &str, object: &Object) -> BTreeSet<&'static str> {
    let mut names = BTreeSet::new();
    // What merges an object of the data may add anything.
    if !members(object, &mut names) {
        return BTreeSet::new();
    }
    required_elements(of).filter(|required| !names.iter().any(|name| is(name, required))).collect()
}

/// Whether an element, or what a primitive carries beside its value, is that one, or one of its choice.
pub(super) fn is(name: &str, defined: &str) -> bool {
    let rest = name.strip_prefix('_').unwrap_or(name).strip_prefix(defined);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(|c: char| c.is_ascii_uppercase()))
}

/// Gathers the names an object may have; whether they are all known.
fn members<'t>(object: &'t Object, names: &mut BTreeSet<&'t str>) -> bool {
    names.extend(object.entries.iter().map(|entry| &*entry.key));
    object.merges.iter().all(|merge| merged(merge, names))
}

fn merged<'t>(template: &'t Template, names: &mut BTreeSet<&'t str>) -> bool {
    match template {
        Template::Object(object) => members(object, names),
        Template::If { then, otherwise, .. } => {
            merged(then, names) && otherwise.as_deref().is_none_or(|other| merged(other, names))
        }
        Template::Scope { body, .. } => merged(body, names),
        _ => false,
    }
}
