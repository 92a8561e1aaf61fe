//! Invariants and terminology, by the type they belong to. What every vital sign passes through is written in Rust;
//! all else is the specification's own FHIRPath, compiled once per type.

use fhirehose_fhirpath::{Collection, Ctx, Env, EvalError, Expr, Function, Functions, Item, Slot};
use fhirehose_tape::Value;

use crate::definitions::{element_type, element_type_r5};
use crate::html;
use crate::observation;
use crate::primitive::{absolute, moment};
use crate::tables::{Type, Version};
use crate::terminology::{self, NPI, URI};
use crate::validate::Rule;
use crate::walk::{Inside, Path, Walk};

/// Nothing, or where under the object and what.
pub(crate) type Check = Result<(), (String, Rule)>;

/// Keys of the specification's invariants that are checked in Rust: here, in `walk.rs` and in `reference.rs`.
pub(crate) const IN_RUST: [&str; 8] =
    ["ele-1", "ext-1", "ref-1", "ref-2", "qty-3", "per-1", "obs-6", "obs-7"];

/// The types Rust has something to say about.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Special {
    #[default]
    None,
    Coding,
    Component,
    Extension,
    Identifier,
    Observation,
    Period,
    Quantity,
    Reference,
}

impl Special {
    pub fn of(ty: &str) -> Special {
        match ty {
            "Coding" => Special::Coding,
            "Observation.component" => Special::Component,
            "Extension" => Special::Extension,
            "Identifier" => Special::Identifier,
            "Observation" => Special::Observation,
            "Period" => Special::Period,
            "Quantity" | "Age" | "Count" | "Distance" | "Duration" => Special::Quantity,
            "Reference" => Special::Reference,
            _ => Special::None,
        }
    }
}

/// An invariant in FHIRPath.
pub(crate) struct Invariant {
    key: &'static str,
    /// The element it is about; the type itself where empty.
    element: &'static str,
    expr: Expr,
    resource: Slot,
    root: Slot,
    context: Slot,
}

/// Checks one object whose elements are sound.
pub(crate) fn check<'t>(
    walk: &mut Walk,
    value: Value<'t>,
    ty: &'static Type,
    at: &Path<'_>,
    inside: Inside<'t>,
) {
    // Of what stands beside a primitive the walk tells, which knows the primitive.
    if !ty.is_resource && ty.name != "Element" && value.len() == 1 && value.get("id").is_some() {
        return walk.fail(at, "", Rule::Invariant("ele-1"));
    }
    if let Err((tail, rule)) = in_rust(walk, value, ty, at) {
        return walk.fail(at, &tail, rule);
    }
    if walk.warnings
        && ty.special == Special::Identifier
        && text(value, "system") == Some(NPI)
        && let Some(Err(error)) = text(value, "value").map(terminology::npi)
    {
        walk.fail(at, "value", Rule::Npi(error));
    }
    for invariant in ty.invariants.get_or_init(|| compiled(ty, walk.version).0) {
        // The invariants of what is contained say nothing where nothing is.
        let skipped = invariant.key.starts_with("dom-") && value.get("contained").is_none();
        let absent = !invariant.element.is_empty() && !present(value, invariant.element);
        if !skipped && !absent && broken(invariant, walk, value, inside) {
            walk.fail(at, invariant.element, Rule::Invariant(invariant.key));
        }
    }
}

fn present(value: Value<'_>, element: &str) -> bool {
    has(value, element) || has_choice(value, element)
}

/// One that gives nothing, or cannot be evaluated on this object, is not broken.
fn broken<'t>(invariant: &Invariant, walk: &Walk, value: Value<'t>, inside: Inside<'t>) -> bool {
    let host = Host { inside, version: walk.version };
    let mut ctx = Ctx::new(value, &host);
    let one = |value| Item::of(value).into_iter().collect::<Collection<'_>>();
    ctx.set(invariant.resource, one(inside.resource));
    ctx.set(invariant.root, one(inside.root));
    ctx.set(invariant.context, one(value));
    matches!(invariant.expr.test(&ctx), Ok(Some(false)))
}

/// The invariants of a type in FHIRPath, and those whose expressions do not compile, with the reason.
pub(crate) fn compiled(ty: &Type, version: Version) -> (Vec<Invariant>, Vec<(&'static str, String)>) {
    let functions = [("resolve", 0..=0), ("htmlChecks", 0..=0), ("memberOf", 1..=1)];
    let env =
        functions.into_iter().fold(Env::fhir(), |env, (name, args)| env.function(Function::new(name, args)));
    let definitions = if version == Version::R4 { element_type } else { element_type_r5 };
    let mut typed = env.definitions(definitions);
    let (resource, root) = (typed.declare("resource"), typed.declare("rootResource"));
    let context = typed.declare("context");
    let typed = typed.of(ty.name);
    let (mut invariants, mut refused) = (Vec::new(), Vec::new());
    for &(key, element, expression) in ty.rules.iter().filter(|(key, ..)| !IN_RUST.contains(key)) {
        let about =
            if element.is_empty() { expression.to_owned() } else { format!("{element}.all({expression})") };
        match Expr::compile(&about, &typed) {
            Ok(expr) => invariants.push(Invariant { key, element, expr, resource, root, context }),
            Err(error) => refused.push((key, format!("{}: {}", ty.name, error.show(&about)))),
        }
    }
    (invariants, refused)
}

/// What invariants call.
struct Host<'t> {
    inside: Inside<'t>,
    version: Version,
}

impl Functions for Host<'_> {
    /// `resolve()` finds what is contained, `memberOf()` knows the tables' value sets, `htmlChecks()` reads XHTML.
    fn call<'a>(
        &'a self,
        name: &'static str,
        input: Collection<'a>,
        args: &[Collection<'a>],
    ) -> Result<Collection<'a>, EvalError> {
        let contained = |item: &Item<'a>| {
            let reference = item.as_str().or_else(|| text(item.value()?, "reference"))?.strip_prefix('#')?;
            elements(self.inside.root, "contained").find(|inner| text(*inner, "id") == Some(reference))
        };
        let member = |item: &Item<'a>| {
            let set = args.first().and_then(|arg| arg.first()).and_then(Item::as_str)?;
            let set = set.rsplit_once('/').map_or(set, |(_, name)| name);
            let set = self.version.definitions().sets.iter().find(|known| known.name == set)?;
            Some(set.has_code(item.as_str()?))
        };
        Ok(match name {
            "resolve" => input.iter().filter_map(contained).filter_map(Item::of).collect(),
            "memberOf" => input.iter().filter_map(member).map(Item::Boolean).collect(),
            _ => input.iter().filter_map(Item::as_str).map(|div| Item::Boolean(html::fits(div))).collect(),
        })
    }
}

fn in_rust(walk: &Walk, value: Value<'_>, ty: &Type, at: &Path<'_>) -> Check {
    match ty.special {
        Special::None => Ok(()),
        Special::Coding => coding(value),
        Special::Component => observation::component(value),
        Special::Extension => {
            let valued = value.entries().any(|(key, _)| key.trim_start_matches('_').starts_with("value"));
            require("ext-1", valued != has(value, "extension"))?;
            // Only inside of another one is a name enough.
            let nested = at.above.is_some_and(|above| above.name == "extension");
            if nested { Ok(()) } else { absolute_at("url", value) }
        }
        Special::Identifier => {
            absolute_at("system", value)?;
            // The system whose values are URIs.
            if text(value, "system") == Some(URI) { absolute_at("value", value) } else { Ok(()) }
        }
        Special::Observation => observation::observation(value),
        Special::Period => require("per-1", in_order(text(value, "start"), text(value, "end"))),
        Special::Quantity => {
            let named = value.get("system").is_some() || !has(value, "code") || has(value, "system");
            require("qty-3", named)
        }
        Special::Reference => {
            let named =
                ["reference", "identifier", "display", "extension"].iter().any(|name| has(value, name));
            require("ref-2", named || walk.version == Version::R4)
        }
    }
}

pub(crate) fn require(key: &'static str, holds: bool) -> Check {
    if holds { Ok(()) } else { Err((String::new(), Rule::Invariant(key))) }
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
    value.entries().any(|(key, _)| is_choice(key.strip_prefix('_').unwrap_or(key), base))
}

/// Whether a name in JSON is one of the choice `base[x]`.
pub(crate) fn is_choice(name: &str, base: &str) -> bool {
    name.strip_prefix(base).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()))
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
        Some(uri) if !absolute(uri) => Err((name.to_owned(), Rule::Format)),
        _ => Ok(()),
    }
}

fn coding(value: Value<'_>) -> Check {
    absolute_at("system", value)?;
    match (text(value, "system"), text(value, "code")) {
        (Some(system), Some(code)) => terminology::check_code(system, code)
            .map_err(|error| ("code".to_owned(), Rule::Terminology(error))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The specification's expressions that our FHIRPath refuses, and why that is so. All are of R5.
    const REFUSED: [(&str, &str); 5] = [
        ("bdl-13", "names a type that R4 does not have"),
        ("eld-11", "quotes a string as FHIRPath does not"),
        ("eld-28", "reads value of a boolean"),
        ("evv-1", "uses names of JSON for a choice"),
        ("nsd-3", "compares a boolean with a string"),
    ];

    #[test]
    fn every_invariant_compiles_but_for_those_listed() {
        let mut count = 0;
        let mut refused = Vec::new();
        for version in [Version::R4, Version::R5] {
            for ty in &version.definitions().types {
                let (invariants, wrong) = compiled(ty, version);
                count += invariants.len();
                refused.extend(
                    wrong.into_iter().filter(|(key, _)| !REFUSED.iter().any(|(known, _)| known == key)),
                );
            }
        }
        assert!(refused.is_empty(), "{refused:#?}");
        assert!(count > 1000, "{count}");
    }
}
