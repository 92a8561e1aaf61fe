//! The shape validator: one walk over a finished resource, table-driven, without allocation unless it fails.

use fhirehose_tape::{Kind, Value};

use crate::tables::{self, ELEMENT, Element, Special, Ty, Type};
use crate::terminology::CodeError;
use crate::{invariants, primitive, reference};

/// What is wrong, and where. Carries no value of the resource.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {rule}")]
pub struct Invalid {
    /// `Observation.component[0].valueQuantity.code`; an unknown element is `*` under its parent, since its
    /// name is input.
    pub path: String,
    /// The rule that is broken.
    pub rule: Rule,
}

/// A rule of R4 or of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rule {
    /// No table for that resource type, or no `resourceType`.
    #[error("unknown resource type")]
    UnknownResource,
    /// The type has no such element.
    #[error("unknown element")]
    UnknownElement,
    /// Minimum cardinality.
    #[error("required element is missing")]
    Missing,
    /// More than one in JSON means an array, at most one means none.
    #[error("array where one value belongs, or one value where an array belongs")]
    Cardinality,
    /// A number in quotes, an object for a string, a null.
    #[error("wrong JSON type")]
    Kind,
    /// The primitive's format: dates, ids, codes, ranges of integers.
    #[error("malformed value")]
    Format,
    /// Empty string, array or object.
    #[error("empty value")]
    Empty,
    /// Two of a choice such as value[x].
    #[error("more than one of a choice")]
    Choice,
    /// A required binding.
    #[error("code outside its required value set")]
    Code,
    /// A reference to a resource type that may not stand there.
    #[error("reference to a type that is not allowed here")]
    Target,
    /// A code whose check digit or shape is wrong.
    #[error("code: {0}")]
    Terminology(CodeError),
    /// The unit is not one its LOINC code may carry (UCUM).
    #[error("unit not allowed for this code")]
    Unit,
    /// An invariant of the specification, by its key.
    #[error("invariant {0}")]
    Invariant(&'static str),
}

impl Invalid {
    pub(crate) fn at(segment: &str, rule: Rule) -> Invalid {
        Invalid { path: segment.to_owned(), rule }
    }

    /// The same failure seen from one level up.
    fn under(mut self, segment: &str, index: Option<usize>) -> Invalid {
        let tail = std::mem::take(&mut self.path);
        self.path = segment.to_owned();
        if let Some(index) = index {
            self.path.push_str(&format!("[{index}]"));
        }
        if !tail.is_empty() {
            self.path.push('.');
            self.path.push_str(&tail);
        }
        self
    }
}

/// Checks a resource of a type there is a table for (see [`resource_types`]) against R4: elements, cardinality,
/// JSON types, formats, required bindings, choices, emptiness, reference targets, invariants; and against
/// terminology: LOINC and SNOMED CT check digits, UCUM per LOINC, the base rules of the vital-signs profiles.
pub fn validate(resource: Value<'_>) -> Result<(), Invalid> {
    let name = resource.get("resourceType").and_then(Value::as_str).unwrap_or_default();
    let Some(ty) = Type::resource(name) else {
        return Err(Invalid::at("resourceType", Rule::UnknownResource));
    };
    Walk { root: resource }.resource(resource, ty).map_err(|e| e.under(ty.name, None))
}

/// The resource types that can be validated.
pub fn resource_types() -> impl Iterator<Item = &'static str> {
    tables::RESOURCES.iter().map(|t| t.name)
}

/// Whether a resource type has an element, by dotted JSON names without indexes:
/// `element_exists("Observation", "component.valueQuantity.code")`.
pub fn element_exists(resource_type: &str, path: &str) -> bool {
    let Some(mut ty) = Type::resource(resource_type) else { return false };
    let mut names = path.split('.').peekable();
    if path == "resourceType" {
        return true;
    }
    while let Some(name) = names.next() {
        let (sibling, name) = name.strip_prefix('_').map_or((false, name), |base| (true, base));
        let Some((_, element)) = ty.find(name) else { return false };
        match (&element.ty, sibling) {
            (Ty::Primitive(_), true) => ty = &ELEMENT,
            (Ty::Primitive(_), false) => return names.peek().is_none(),
            (Ty::Complex(inner), false) => ty = inner,
            // What a contained resource holds is known only with its type.
            (Ty::Resource, false) => return true,
            (Ty::Complex(_) | Ty::Resource, true) => return false,
        }
    }
    true
}

pub(crate) struct Walk<'t> {
    /// Where `#id` references look for what is contained.
    pub root: Value<'t>,
}

impl<'t> Walk<'t> {
    fn resource(&self, value: Value<'t>, ty: &'static Type) -> Result<(), Invalid> {
        self.object(value, ty, true)
    }

    fn object(&self, value: Value<'t>, ty: &'static Type, is_resource: bool) -> Result<(), Invalid> {
        if value.kind() != Kind::Object {
            return Err(Invalid::at(
                "",
                if value.kind() == Kind::Array { Rule::Cardinality } else { Rule::Kind },
            ));
        }
        if value.is_empty() {
            return Err(Invalid::at("", Rule::Empty));
        }
        let mut seen = 0u64;
        for (key, child) in value.entries() {
            if is_resource && key == "resourceType" {
                continue;
            }
            let (sibling, name) = key.strip_prefix('_').map_or((false, key), |base| (true, base));
            let Some((bit, element)) = ty.find(name) else {
                return Err(Invalid::at("*", Rule::UnknownElement));
            };
            seen |= 1 << bit;
            if sibling { self.sibling(child, element) } else { self.element(value, child, element) }?;
        }
        let missing = ty.required & !seen;
        if missing != 0 {
            return Err(Invalid::at(ty.elements[missing.trailing_zeros() as usize].name, Rule::Missing));
        }
        for choice in ty.choices {
            match (seen & choice.mask).count_ones() {
                0 if choice.required => return Err(Invalid::at(choice.name, Rule::Missing)),
                0 | 1 => {}
                _ => return Err(Invalid::at(choice.name, Rule::Choice)),
            }
        }
        invariants::check(ty.special, value)
    }

    /// All values of one element: the cardinality, then each.
    fn element(&self, parent: Value<'t>, value: Value<'t>, element: &'static Element) -> Result<(), Invalid> {
        let here = |e: Invalid, index| e.under(element.name, index);
        if !element.many {
            return self.single(value, element).map_err(|e| here(e, None));
        }
        if value.kind() != Kind::Array {
            return Err(Invalid::at(element.name, Rule::Cardinality));
        }
        if value.is_empty() {
            return Err(Invalid::at(element.name, Rule::Empty));
        }
        for (index, item) in value.elements().enumerate() {
            // A null holds the place of a primitive that has only extensions.
            if item.is_null() && has_sibling(parent, element, index) {
                continue;
            }
            self.single(item, element).map_err(|e| here(e, Some(index)))?;
        }
        Ok(())
    }

    fn single(&self, value: Value<'t>, element: &'static Element) -> Result<(), Invalid> {
        match element.ty {
            Ty::Primitive(primitive) => {
                if value.kind() == Kind::Array {
                    return Err(Invalid::at("", Rule::Cardinality));
                }
                primitive::check(primitive, value).map_err(|rule| Invalid::at("", rule))?;
            }
            Ty::Complex(ty) => {
                self.object(value, ty, false)?;
                if ty.special == Special::Reference {
                    let targets = match element.rule {
                        tables::Rule::Targets(targets) => Some(targets),
                        _ => None,
                    };
                    return reference::check(value, targets, self.root);
                }
            }
            Ty::Resource => {
                let name = value.get("resourceType").and_then(Value::as_str).unwrap_or_default();
                let ty = Type::resource(name).ok_or_else(|| Invalid::at("", Rule::UnknownResource))?;
                self.resource(value, ty)?;
            }
        }
        match element.rule {
            tables::Rule::Codes(set) => bound(value, set).map_err(|rule| Invalid::at("", rule)),
            tables::Rule::Any | tables::Rule::Targets(_) => Ok(()),
        }
    }

    /// `_birthDate`: what a primitive carries beside its value.
    fn sibling(&self, value: Value<'t>, element: &'static Element) -> Result<(), Invalid> {
        let here = |e: Invalid, index| e.under(element.name, index);
        if !matches!(element.ty, Ty::Primitive(_)) {
            return Err(Invalid::at("*", Rule::UnknownElement));
        }
        if !element.many {
            return self.object(value, &ELEMENT, false).map_err(|e| here(e, None));
        }
        if value.kind() != Kind::Array {
            return Err(Invalid::at(element.name, Rule::Cardinality));
        }
        for (index, item) in value.elements().enumerate().filter(|(_, item)| !item.is_null()) {
            self.object(item, &ELEMENT, false).map_err(|e| here(e, Some(index)))?;
        }
        Ok(())
    }
}

fn has_sibling(parent: Value<'_>, element: &Element, index: usize) -> bool {
    matches!(element.ty, Ty::Primitive(_))
        && parent
            .entries()
            .find(|(key, _)| key.strip_prefix('_') == Some(element.name))
            .and_then(|(_, siblings)| siblings.elements().nth(index))
            .is_some_and(|sibling| !sibling.is_null())
}

/// A required binding of a code, a Coding or a CodeableConcept (one of its codings must be in the set).
fn bound(value: Value<'_>, set: &tables::ValueSet) -> Result<(), Rule> {
    let coding = |coding: Value<'_>| {
        let text = |name| coding.get(name).and_then(Value::as_str).unwrap_or_default();
        set.has(text("system"), text("code"))
    };
    let known = match value.as_str() {
        Some(code) => set.has_code(code),
        None => match value.get("coding") {
            Some(codings) => codings.elements().any(coding),
            None => coding(value),
        },
    };
    if known { Ok(()) } else { Err(Rule::Code) }
}
