//! Codes and units written out in a template are checked when it is compiled, not when its first record comes.

use fhirehose_fhir::terminology;

use crate::problem::Problems;
use crate::terminology::{Terminology, check_code};
use crate::yaml::{Data, Key, Node};

/// Checks one object of a resource: a `system` beside a `code` or an identifier's `value`, and a `code` beside a `valueQuantity`.
pub(super) fn check(
    entries: &[(Key, Node)],
    file: &str,
    known: &mut Terminology,
    problems: &mut Problems<'_>,
) {
    if let (Some(system), Some(code), Some(node)) =
        (text(entries, "system"), text(entries, "code"), find(entries, "code"))
    {
        if let Err(error) = check_code(system, code) {
            problems.add(node.at, format!("`{code}` of {system}: {error}"));
        }
        if let Err(message) = known.code(system, code) {
            problems.add(node.at, message);
        }
        if let (Some(display), Some(node)) = (text(entries, "display"), find(entries, "display"))
            && let Err(message) = known.display(system, code, display, file)
        {
            problems.add(node.at, message);
        }
    }
    if let (Some(terminology::NPI), Some(value), Some(node)) =
        (text(entries, "system"), text(entries, "value"), find(entries, "value"))
        && let Err(error) = terminology::npi(value)
    {
        problems.add(node.at, format!("`{value}` of {}: {error}", terminology::NPI));
    }
    let Some(node) = find(entries, "valueQuantity") else { return };
    let value = node.text().unwrap_or_default();
    let Some(unit) = value.split_once(".quantity('").and_then(|(_, rest)| rest.split('\'').next()) else {
        return;
    };
    for loinc in loinc_codes(entries).into_iter().filter(|loinc| !terminology::unit_allowed(loinc, unit)) {
        problems.add(node.at, format!("the unit `{unit}` is not one of LOINC {loinc}"));
    }
}

fn find<'n>(entries: &'n [(Key, Node)], name: &str) -> Option<&'n Node> {
    entries.iter().find(|(key, _)| key.text == name).map(|(_, node)| node)
}

/// A text without holes.
fn text<'n>(entries: &'n [(Key, Node)], name: &str) -> Option<&'n str> {
    find(entries, name)?.text().filter(|text| !text.contains("{{"))
}

fn loinc_codes(entries: &[(Key, Node)]) -> Vec<&str> {
    let Some(Data::Map(concept)) = find(entries, "code").map(|node| &node.data) else { return Vec::new() };
    let Some(Data::List(codings)) = find(concept, "coding").map(|node| &node.data) else { return Vec::new() };
    codings
        .iter()
        .filter_map(|node| match &node.data {
            Data::Map(coding) if text(coding, "system") == Some(terminology::LOINC) => text(coding, "code"),
            _ => None,
        })
        .collect()
}
