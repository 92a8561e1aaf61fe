//! What is written out in a template is judged when it is compiled: every record would be rejected for it.

use fhirehose_fhir::{ElementRules, Rule, element_takes};
use fhirehose_tape::Tape;

use super::Template;

/// Whether an element may have what is written out for it; if not, where under it and why.
pub(super) fn fits(of: &str, name: &str, template: &Template) -> Result<(), (String, Rule)> {
    literals_fit(of, name, template).map_err(|rule| (String::new(), rule))?;
    whole_fits(of, name, template)
}

fn literals_fit(of: &str, name: &str, template: &Template) -> Result<(), Rule> {
    match template {
        Template::Literal(json) => {
            let mut tape = Tape::new();
            // An empty text and a null are left out.
            let written = tape.parse_json(json).is_ok() && !matches!(&**json, b"null" | b"\"\"");
            if written { element_takes(of, name, tape.root()) } else { Ok(()) }
        }
        Template::List(list) => list.iter().try_for_each(|one| literals_fit(of, name, one)),
        Template::If { then, otherwise, .. } => {
            std::iter::once(then).chain(otherwise).try_for_each(|branch| literals_fit(of, name, branch))
        }
        Template::For { body, .. } | Template::Focus { body, .. } | Template::Scope { body, .. } => {
            literals_fit(of, name, body)
        }
        Template::First(_) | Template::All(_) | Template::Text(_) | Template::Object(_) => Ok(()),
    }
}

/// An element that is an object, or several, written out in full.
fn whole_fits(of: &str, name: &str, template: &Template) -> Result<(), (String, Rule)> {
    let Some(rules) = ElementRules::of(of, name).filter(|rules| !rules.is_primitive()) else { return Ok(()) };
    let mut json = Vec::new();
    if !written_out(template, &mut json) {
        return Ok(());
    }
    let findings = rules.findings(&json, &mut Tape::new()).unwrap_or_default();
    // Of codes and their systems is told with their terminology.
    let told = |rule: &Rule| matches!(rule, Rule::Terminology(_) | Rule::Npi(_));
    match findings.into_iter().find(|invalid| !told(&invalid.rule)) {
        Some(invalid) => Err((invalid.path.strip_prefix(name).unwrap_or_default().to_owned(), invalid.rule)),
        None => Ok(()),
    }
}

/// Adds what a template always writes; whether it always writes the same.
fn written_out(template: &Template, json: &mut Vec<u8>) -> bool {
    let separated = |first: &mut bool, json: &mut Vec<u8>| {
        if !std::mem::take(first) {
            json.push(b',');
        }
    };
    let mut first = true;
    match template {
        Template::Literal(text) => {
            json.extend_from_slice(text);
            true
        }
        Template::Object(object) if object.merges.is_empty() && !object.entries.is_empty() => {
            json.push(b'{');
            let all = object.entries.iter().all(|entry| {
                separated(&mut first, json);
                json.extend_from_slice(&entry.json);
                written_out(&entry.value, json)
            });
            json.push(b'}');
            all
        }
        Template::List(list) if !list.is_empty() => {
            json.push(b'[');
            let all = list.iter().all(|one| {
                separated(&mut first, json);
                !matches!(one, Template::List(_)) && written_out(one, json)
            });
            json.push(b']');
            all
        }
        _ => false,
    }
}
