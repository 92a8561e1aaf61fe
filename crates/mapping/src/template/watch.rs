//! What of a resource its template settles, so that only the rest is judged of every record.

use fhirehose_fhir::{ElementRules, Known, Left, left_to_judge, required_elements};

use super::cardinality::{self, is};
use super::{Entry, Object, Piece, Template};

/// What is judged of an entry's value as it is written.
#[derive(Clone, Copy)]
pub(crate) enum Watch {
    /// Nothing: it is settled, or its own entries are watched.
    Nothing,
    /// One value of a primitive type.
    Scalar(ElementRules),
    /// `Reference.reference`, where the element is a Reference of nothing else that matters.
    Reference(ElementRules),
    /// All that is written for the element.
    All(ElementRules),
    /// It cannot be judged alone: the resource is, whole.
    Resource,
}

/// Sets what is watched of each entry; tells what is left to judge of the finished object.
pub(crate) fn watch(of: &str, object: &mut Object) -> Left {
    let left = left(of, object);
    if left != Left::All {
        watch_entries(of, object);
    }
    left
}

fn left(of: &str, object: &Object) -> Left {
    let of_members = |entries: Vec<&Entry>| {
        let members: Vec<_> = entries.iter().map(|entry| (&*entry.key, known(&entry.value))).collect();
        let required = required_elements(of).all(|name| entries.iter().any(|entry| is(&entry.key, name)));
        if required { left_to_judge(of, &members) } else { Left::All }
    };
    let each = alternatives(object).map(|all| all.into_iter().map(of_members).collect::<Vec<_>>());
    let or = |left, other| match (left, other) {
        (Left::Nothing, other) | (other, Left::Nothing) => other,
        (Left::Rules, Left::Rules) => Left::Rules,
        _ => Left::All,
    };
    each.map_or(Left::All, |each| each.into_iter().fold(Left::Nothing, or))
}

/// More combinations of branches are not looked at.
const MAX_ALTERNATIVES: usize = 32;

/// The members that an object may have, by the branches of what is merged into it; none where they are not known.
fn alternatives(object: &Object) -> Option<Vec<Vec<&Entry>>> {
    let mut all = vec![object.entries.iter().collect::<Vec<_>>()];
    for merge in &object.merges {
        let more = merged(merge)?;
        let with = |before: &Vec<_>| more.iter().map(|one| [&**before, one].concat()).collect::<Vec<_>>();
        all = all.iter().flat_map(with).collect();
        if all.len() > MAX_ALTERNATIVES {
            return None;
        }
    }
    Some(all)
}

fn merged(template: &Template) -> Option<Vec<Vec<&Entry>>> {
    match template {
        Template::Object(object) => alternatives(object),
        Template::If { then, otherwise, .. } => {
            let otherwise = otherwise.as_deref().map_or(Some(vec![Vec::new()]), merged)?;
            Some([merged(then)?, otherwise].concat())
        }
        Template::Scope { body, .. } => merged(body),
        _ => None,
    }
}

fn watch_entries(of: &str, object: &mut Object) {
    object.each_merged(&mut |merged| watch_entries(of, merged));
    for entry in &mut object.entries {
        entry.required = required_elements(of).any(|name| is(&entry.key, name));
        entry.watch = match ElementRules::of(of, &entry.key) {
            Some(rules) => of_entry(rules, of, entry),
            None => Watch::Resource,
        };
    }
}

fn of_entry(rules: ElementRules, of: &str, entry: &mut Entry) -> Watch {
    if rules.is_primitive() {
        return match &entry.value {
            _ if cardinality::repeats(of, &entry.key) => Watch::All(rules),
            // Judged when it was compiled.
            Template::Literal(json) if !matches!(&**json, b"null" | b"\"\"") => Watch::Nothing,
            _ => Watch::Scalar(rules),
        };
    }
    let inner = rules.type_name();
    let listed = cardinality::is_list(&entry.value) == Some(cardinality::repeats(of, &entry.key));
    let mut objects = Vec::new();
    let settled = listed
        && !rules.is_bound()
        && objects_of(&mut entry.value, &mut objects)
        && objects.iter().all(|object| left(inner, object) == Left::Nothing)
        // The type that a Reference says it refers to is judged beside what it says.
        && (inner != "Reference" || objects.iter().all(|object| refers_alone(object)));
    if !settled {
        return Watch::All(rules);
    }
    for object in objects {
        watch_entries(inner, object);
        if inner == "Reference" {
            let references = object.entries.iter_mut().filter(|entry| &*entry.key == "reference");
            references.for_each(|entry| entry.watch = Watch::Reference(rules));
        }
    }
    Watch::Nothing
}

fn refers_alone(object: &Object) -> bool {
    object.merges.is_empty() && object.entries.iter().all(|entry| &*entry.key != "type")
}

/// Gathers the objects a template writes; whether it writes nothing else.
fn objects_of<'t>(template: &'t mut Template, objects: &mut Vec<&'t mut Object>) -> bool {
    match template {
        Template::Object(object) => {
            objects.push(object);
            true
        }
        Template::List(list) => list.iter_mut().all(|one| objects_of(one, objects)),
        Template::If { then, otherwise, .. } => {
            objects_of(then, objects) && otherwise.as_deref_mut().is_none_or(|one| objects_of(one, objects))
        }
        Template::For { body, .. } | Template::Focus { body, .. } | Template::Scope { body, .. } => {
            objects_of(body, objects)
        }
        Template::Literal(_) | Template::First(_) | Template::All(_) | Template::Text(_) => false,
    }
}

fn known(template: &Template) -> Known<'_> {
    match template {
        Template::Literal(json) => {
            let inner = json.strip_prefix(b"\"").and_then(|json| json.strip_suffix(b"\""));
            inner.and_then(plain).map_or(Known::Anything, Known::Text)
        }
        Template::Text(pieces) => match pieces.first() {
            Some(Piece::Static(start)) => plain(start.as_bytes()).map_or(Known::Anything, Known::Begins),
            _ => Known::Anything,
        },
        _ => Known::Anything,
    }
}

/// A text that is in JSON as it is, and not empty.
fn plain(json: &[u8]) -> Option<&str> {
    std::str::from_utf8(json).ok().filter(|text| !text.is_empty() && !text.contains('\\'))
}
