//! The invariants and terminology rules that no table of elements can hold, by the type they belong to.

use fhirehose_tape::Value;

use crate::primitive::{absolute, moment};
use crate::tables::Special;
use crate::terminology::{self, LOINC, UCUM};
use crate::validate::{Invalid, Rule};
use crate::vital_signs;

type Check = Result<(), Invalid>;

/// Checks one object of a type with invariants of its own; its children are right already.
pub(crate) fn check(special: Special, value: Value<'_>) -> Check {
    match special {
        // References are judged where their targets are known: `reference.rs`.
        Special::None | Special::Reference => Ok(()),
        Special::Coding => coding(value),
        Special::Identifier => absolute_at("system", value),
        Special::Quantity => require("qty-3", value.get("code").is_none() || value.get("system").is_some()),
        Special::Period => require("per-1", in_order(text(value, "start"), text(value, "end"))),
        Special::Extension => {
            let valued = value.entries().any(|(key, _)| key.trim_start_matches('_').starts_with("value"));
            require("ext-1", valued != has(value, "extension"))
        }
        Special::ContactPoint => require("cpt-2", !has(value, "value") || has(value, "system")),
        Special::Attachment => require("att-1", !has(value, "data") || has(value, "contentType")),
        Special::PatientContact => {
            let named = ["name", "telecom", "address", "organization"].iter().any(|name| has(value, name));
            require("pat-1", named)
        }
        Special::Organization => organization(value),
        Special::Condition => condition(value),
        Special::ReferenceRange => {
            require("obs-3", ["low", "high", "text"].iter().any(|name| has(value, name)))
        }
        Special::Component => measured(value),
        Special::Observation => observation(value),
    }
}

pub(crate) fn require(key: &'static str, holds: bool) -> Check {
    if holds { Ok(()) } else { Err(Invalid::at("", Rule::Invariant(key))) }
}

/// Whether the element is there, or its `_` sibling.
pub(crate) fn has(value: Value<'_>, name: &str) -> bool {
    value.entries().any(|(key, _)| key.strip_prefix('_').unwrap_or(key) == name)
}

pub(crate) fn text<'t>(value: Value<'t>, name: &str) -> Option<&'t str> {
    value.get(name).and_then(Value::as_str)
}

/// Whether a choice such as `value[x]` is there.
pub(crate) fn has_choice(value: Value<'_>, base: &str) -> bool {
    value.entries().any(|(key, _)| {
        let rest = key.strip_prefix('_').unwrap_or(key).strip_prefix(base);
        rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()))
    })
}

pub(crate) fn elements<'t>(value: Value<'t>, name: &str) -> impl Iterator<Item = Value<'t>> {
    value.get(name).into_iter().flat_map(Value::elements)
}

/// Whether a CodeableConcept has that coding.
pub(crate) fn coded(concept: Value<'_>, system: &str, code: &str) -> bool {
    elements(concept, "coding").any(|c| text(c, "system") == Some(system) && text(c, "code") == Some(code))
}

fn in_order(start: Option<&str>, end: Option<&str>) -> bool {
    match (start.and_then(moment), end.and_then(moment)) {
        (Some(start), Some(end)) => !start.after(end),
        _ => true,
    }
}

/// A relative URI of a system would mean nothing elsewhere.
fn absolute_at(name: &str, value: Value<'_>) -> Check {
    match text(value, name) {
        Some(uri) if !absolute(uri) => Err(Invalid::at(name, Rule::Format)),
        _ => Ok(()),
    }
}

fn coding(value: Value<'_>) -> Check {
    absolute_at("system", value)?;
    match (text(value, "system"), text(value, "code")) {
        (Some(system), Some(code)) => terminology::check_code(system, code)
            .map_err(|error| Invalid::at("code", Rule::Terminology(error))),
        _ => Ok(()),
    }
}

fn organization(value: Value<'_>) -> Check {
    let is_home = |item: Value<'_>| text(item, "use") == Some("home");
    require("org-1", has(value, "name") || has(value, "identifier"))?;
    require("org-2", !elements(value, "address").any(is_home))?;
    require("org-3", !elements(value, "telecom").any(is_home))
}

fn condition(value: Value<'_>) -> Check {
    const CLINICAL: &str = "http://terminology.hl7.org/CodeSystem/condition-clinical";
    const VERIFICATION: &str = "http://terminology.hl7.org/CodeSystem/condition-ver-status";
    const CATEGORY: &str = "http://terminology.hl7.org/CodeSystem/condition-category";
    let clinical = value.get("clinicalStatus");
    let in_error =
        value.get("verificationStatus").is_some_and(|v| coded(v, VERIFICATION, "entered-in-error"));
    let on_problem_list = elements(value, "category").any(|c| coded(c, CATEGORY, "problem-list-item"));
    let over = |c| ["inactive", "resolved", "remission"].iter().any(|code| coded(c, CLINICAL, code));
    require("con-3", clinical.is_some() || in_error || !on_problem_list)?;
    require("con-4", !has_choice(value, "abatement") || clinical.is_none_or(over))?;
    require("con-5", !in_error || clinical.is_none())
}

fn observation(value: Value<'_>) -> Check {
    require("obs-6", !has(value, "dataAbsentReason") || !has_choice(value, "value"))?;
    if has_choice(value, "value") {
        let same = value.get("code").is_some_and(|code| {
            elements(code, "coding").any(|c| {
                let (system, code) = (text(c, "system"), text(c, "code"));
                code.is_some()
                    && elements(value, "component").any(|component| {
                        component.get("code").is_some_and(|concept| {
                            elements(concept, "coding")
                                .any(|o| (text(o, "system"), text(o, "code")) == (system, code))
                        })
                    })
            })
        });
        require("obs-7", !same)?;
    }
    measured(value)?;
    vital_signs::check(value)
}

/// A quantity under a LOINC code we have a rule for carries a UCUM unit of the allow-list.
fn measured(value: Value<'_>) -> Check {
    let (Some(code), Some(quantity)) = (value.get("code"), value.get("valueQuantity")) else {
        return Ok(());
    };
    for coding in elements(code, "coding").filter(|c| text(*c, "system") == Some(LOINC)) {
        let Some(allowed) = text(coding, "code").and_then(terminology::units) else { continue };
        let unit = text(quantity, "code").unwrap_or_default();
        if text(quantity, "system") != Some(UCUM) || !allowed.contains(&unit) {
            return Err(Invalid::at("valueQuantity.code", Rule::Unit));
        }
    }
    Ok(())
}
