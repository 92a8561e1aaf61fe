//! What a template always writes alike is written as one text.

use fhirehose_tape::Tape;

use super::{Entry, Object, Template, Watch};

/// Joins what is written out in the members of an object.
pub(crate) fn fold(object: &mut Object) {
    fold_each(object);
    // Of members that others may replace each is needed by its name.
    if !object.merges.is_empty() {
        return;
    }
    let mut entries: Vec<Entry> = Vec::new();
    for entry in object.entries.drain(..) {
        if let Some(before) = entries.last_mut()
            && let (Some(first), Some(second)) = (written(before), written(&entry))
        {
            before.value = Template::Literal([first, b",", &entry.json, second].concat().into());
        } else {
            entries.push(entry);
        }
    }
    object.entries = entries;
}

fn fold_each(object: &mut Object) {
    for entry in &mut object.entries {
        value(&mut entry.value);
        if let Template::Literal(json) = &entry.value {
            settle(&mut entry.watch, json);
        }
    }
    object.each_merged(&mut fold_each);
}

/// What an entry always writes, where there is nothing to judge of it.
fn written(entry: &Entry) -> Option<&[u8]> {
    match (&entry.value, entry.watch) {
        (Template::Literal(json), Watch::Nothing) => Some(json),
        _ => None,
    }
}

/// What is written out is judged once.
fn settle(watch: &mut Watch, json: &[u8]) {
    let taken = match *watch {
        Watch::Nothing | Watch::Resource => false,
        Watch::Scalar(rules) => rules.takes_scalar(json),
        Watch::Reference(rules) => rules.takes_reference(json),
        Watch::All(rules) => rules.takes(json, &mut Tape::new()),
    };
    if taken {
        *watch = Watch::Nothing;
    }
}

/// Folds a template that stands where one value belongs.
fn value(template: &mut Template) {
    match template {
        Template::Object(object) => {
            fold(object);
            if let [entry] = &*object.entries
                && object.merges.is_empty()
                && let Some(json) = written(entry)
            {
                let json = [b"{", &*entry.json, json, b"}"].concat();
                *template = Template::Literal(json.into());
            }
        }
        Template::List(list) => {
            list.iter_mut().for_each(element);
            let written: Option<Vec<&[u8]>> = list.iter().map(literal).collect();
            if let Some(written) = written.filter(|written| !written.is_empty()) {
                let json = [b"[", written.join(&b","[..]).as_slice(), b"]"].concat();
                *template = Template::Literal(json.into());
            }
        }
        Template::For { body, .. } | Template::Focus { body, .. } => element(body),
        Template::If { then, otherwise, .. } => {
            value(then);
            otherwise.iter_mut().for_each(|otherwise| value(otherwise));
        }
        Template::Scope { body, .. } => value(body),
        Template::Literal(_) | Template::First(_) | Template::All(_) | Template::Text(_) => {}
    }
}

/// Folds a template that stands among the elements of a list, where a list is part of that around it.
fn element(template: &mut Template) {
    match template {
        Template::List(list) => list.iter_mut().for_each(element),
        Template::For { body, .. } | Template::Focus { body, .. } | Template::Scope { body, .. } => {
            element(body)
        }
        Template::If { then, otherwise, .. } => {
            element(then);
            otherwise.iter_mut().for_each(|otherwise| element(otherwise));
        }
        other => value(other),
    }
}

fn literal(template: &Template) -> Option<&[u8]> {
    match template {
        Template::Literal(json) => Some(json),
        _ => None,
    }
}
