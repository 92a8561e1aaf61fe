//! One walk over a resource by the tables: elements, cardinality, types, formats, bindings, choices, references; at
//! each object whose elements are sound, its invariants. Allocates only for what it finds.

use fhirehose_tape::{Kind, Value};

use crate::tables::{Definitions, Element, Primitive, Ty, Type, ValueSet, Version};
use crate::validate::{Invalid, Rule};
use crate::{invariants, primitive, reference};

pub(crate) struct Walk {
    pub definitions: &'static Definitions,
    pub version: Version,
    /// Whether paths tell the names of elements that there are none of.
    pub tell_names: bool,
    /// Whether to go on to what only warns.
    pub warnings: bool,
    pub found: Vec<Invalid>,
    /// How many of what was found are errors: what only warns leaves the rest to be judged.
    pub errors: usize,
}

/// Where in the document: from the element up to the resource.
#[derive(Clone, Copy)]
pub(crate) struct Path<'p> {
    pub above: Option<&'p Path<'p>>,
    pub name: &'p str,
    pub index: Option<usize>,
}

impl Path<'_> {
    /// `Observation.component[0].code`
    fn write(&self, out: &mut String) {
        if let Some(above) = self.above {
            above.write(out);
            out.push('.');
        }
        out.push_str(self.name);
        if let Some(index) = self.index {
            out.push_str(&format!("[{index}]"));
        }
    }
}

/// The resource an object is part of, and the one that contains that.
#[derive(Clone, Copy)]
pub(crate) struct Inside<'t> {
    pub resource: Value<'t>,
    /// Where `#id` references look for what is contained.
    pub root: Value<'t>,
}

impl Walk {
    pub fn fail(&mut self, at: &Path<'_>, tail: &str, rule: Rule) {
        let mut path = String::new();
        at.write(&mut path);
        if !tail.is_empty() {
            path.push('.');
            path.push_str(tail);
        }
        self.errors += usize::from(!rule.is_warning());
        self.found.push(Invalid { path, rule });
    }

    /// A resource, alone or inside of another.
    pub fn resource<'t>(
        &mut self,
        value: Value<'t>,
        ty: &'static Type,
        at: &Path<'_>,
        root: Option<Value<'t>>,
    ) {
        self.object(value, ty, at, Inside { resource: value, root: root.unwrap_or(value) });
    }

    fn object<'t>(&mut self, value: Value<'t>, ty: &'static Type, at: &Path<'_>, inside: Inside<'t>) {
        if value.kind() != Kind::Object {
            let rule = if value.kind() == Kind::Array { Rule::Cardinality } else { Rule::Kind };
            return self.fail(at, "", rule);
        }
        if value.is_empty() {
            return self.fail(at, "", Rule::Empty);
        }
        let before = self.errors;
        let (mut seen, mut doubled) = (0_u64, 0_u64);
        for (key, child) in value.entries() {
            if ty.is_resource && key == "resourceType" {
                continue;
            }
            let (sibling, name) = key.strip_prefix('_').map_or((false, key), |base| (true, base));
            let known = ty.find(name).filter(|element| !sibling || may_have_sibling(ty, element));
            let Some(element) = known else {
                self.fail(at, if self.tell_names { key } else { "*" }, Rule::UnknownElement);
                continue;
            };
            let bit = 1 << element.slot;
            if element.choice {
                doubled |= seen & bit;
            }
            seen |= bit;
            let at = Path { above: Some(at), name: &element.name, index: None };
            if sibling {
                self.sibling(value, child, element, at, inside);
            } else {
                self.element(value, child, element, at, inside);
            }
        }
        for slot in bits(ty.required & !seen) {
            self.fail(at, ty.slots[slot], Rule::Missing);
        }
        for slot in bits(doubled).filter(|slot| several(value, ty, *slot)) {
            self.fail(at, ty.slots[slot], Rule::Choice);
        }
        if self.errors == before {
            invariants::check(self, value, ty, at, inside);
        }
    }

    /// All values of one element: the cardinality, then each.
    pub fn element<'t>(
        &mut self,
        parent: Value<'t>,
        value: Value<'t>,
        element: &'static Element,
        at: Path<'_>,
        inside: Inside<'t>,
    ) {
        if !element.many {
            return self.single(value, element, &at, inside);
        }
        if value.kind() != Kind::Array {
            return self.fail(&at, "", Rule::Cardinality);
        }
        if value.is_empty() {
            return self.fail(&at, "", Rule::Empty);
        }
        for (index, item) in value.elements().enumerate() {
            // A null holds the place of a primitive that has only extensions.
            if item.is_null() && has_sibling(parent, element, index) {
                continue;
            }
            self.single(item, element, &Path { index: Some(index), ..at }, inside);
        }
    }

    fn single<'t>(&mut self, value: Value<'t>, element: &'static Element, at: &Path<'_>, inside: Inside<'t>) {
        let before = self.errors;
        let mut targeted = None;
        match element.ty {
            Ty::Primitive(of) => match (value.kind(), primitive::check(of, value)) {
                (Kind::Array, _) => self.fail(at, "", Rule::Cardinality),
                (_, Err(rule)) => self.fail(at, "", rule),
                (_, Ok(())) => {}
            },
            Ty::Complex(of) => {
                let ty = self.definitions.complex(of);
                self.object(value, ty, at, inside);
                if ty.name == "Reference" {
                    targeted = Some(value);
                } else if ty.name == "CodeableReference" {
                    targeted = value.get("reference").filter(|_| element.targets.is_some());
                }
            }
            Ty::Resource => {
                let name = value.get("resourceType").and_then(Value::as_str).unwrap_or_default();
                match self.definitions.resource(name) {
                    // What is contained refers to what stands beside it; what an entry or a parameter has is whole.
                    Some(ty) => {
                        self.resource(value, ty, at, (&*element.name == "contained").then_some(inside.root));
                    }
                    None => self.fail(at, "", Rule::UnknownResource),
                }
            }
        }
        if self.errors > before {
            return;
        }
        if let Some(reference) = targeted
            && let Err((tail, rule)) = reference::check(reference, element.targets.as_deref(), inside.root)
        {
            self.fail(at, tail, rule);
        }
        if let Some(set) = element.codes
            && !bound(value, self.definitions.set(set))
        {
            self.fail(at, "", Rule::Code);
        }
    }

    /// `_birthDate`: what a primitive carries beside its value.
    fn sibling<'t>(
        &mut self,
        parent: Value<'t>,
        value: Value<'t>,
        element: &'static Element,
        at: Path<'_>,
        inside: Inside<'t>,
    ) {
        let ty = self.definitions.element();
        let main = parent.get(&element.name);
        if !element.many {
            return self.object_beside(main, value, ty, &at, inside);
        }
        if value.kind() != Kind::Array {
            return self.fail(&at, "", Rule::Cardinality);
        }
        if value.is_empty() {
            return self.fail(&at, "", Rule::Empty);
        }
        let mut mains = main.into_iter().flat_map(Value::elements);
        for (index, item) in value.elements().enumerate() {
            let (main, at) = (mains.next(), Path { index: Some(index), ..at });
            match (item.is_null(), main) {
                (false, main) => self.object_beside(main, item, ty, &at, inside),
                (true, None) => self.fail(&at, "", Rule::Empty),
                // Of two nulls the other is told.
                (true, Some(_)) => {}
            }
        }
    }

    fn object_beside<'t>(
        &mut self,
        main: Option<Value<'t>>,
        value: Value<'t>,
        ty: &'static Type,
        at: &Path<'_>,
        inside: Inside<'t>,
    ) {
        let before = self.errors;
        self.object(value, ty, at, inside);
        // An id alone is no content (ele-1, which of other objects is checked with their invariants).
        if main.is_none_or(Value::is_null) && self.errors == before && value.get("extension").is_none() {
            self.fail(at, "", Rule::Invariant("ele-1"));
        }
    }
}

/// Whether `_name` may stand beside it: beside a primitive, but not beside XHTML or what is an attribute in XML.
fn may_have_sibling(ty: &Type, element: &Element) -> bool {
    let attribute = match &*element.name {
        "id" => !ty.is_resource,
        "url" => ty.name == "Extension",
        _ => false,
    };
    matches!(element.ty, Ty::Primitive(of) if of != Primitive::Xhtml) && !attribute
}

fn bits(mut mask: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = (mask != 0).then(|| mask.trailing_zeros() as usize)?;
        mask &= mask - 1;
        Some(bit)
    })
}

/// Whether two of a choice are there; `valueString` and `_valueString` are one.
fn several(value: Value<'_>, ty: &Type, slot: usize) -> bool {
    let of_choice = |key: &str| ty.find(key.strip_prefix('_').unwrap_or(key));
    let mut names =
        value.entries().filter_map(|(key, _)| of_choice(key)).filter(|e| usize::from(e.slot) == slot);
    let first = names.next().map(|element| &element.name);
    names.any(|element| Some(&element.name) != first)
}

fn has_sibling(parent: Value<'_>, element: &Element, index: usize) -> bool {
    matches!(element.ty, Ty::Primitive(_))
        && parent
            .entries()
            .find(|(key, _)| key.strip_prefix('_') == Some(&*element.name))
            .and_then(|(_, siblings)| siblings.elements().nth(index))
            .is_some_and(|sibling| !sibling.is_null())
}

/// A required binding of a code, a Coding, a Quantity, a CodeableConcept or what a CodeableReference has of one (one of
/// its codings must be in the set).
fn bound(value: Value<'_>, set: &ValueSet) -> bool {
    let coding = |coding: Value<'_>| {
        let text = |name| coding.get(name).and_then(Value::as_str).unwrap_or_default();
        set.has(text("system"), text("code"))
    };
    let concept =
        |concept: Value<'_>| concept.get("coding").into_iter().flat_map(Value::elements).any(coding);
    match (value.as_str(), value.get("concept"), value.get("coding"), value.get("code")) {
        (Some(code), ..) => set.has_code(code),
        (_, Some(of), ..) => concept(of),
        (.., Some(_), _) => concept(value),
        (.., Some(_)) => coding(value),
        // A CodeableReference that only refers.
        _ => value.get("reference").is_some(),
    }
}
