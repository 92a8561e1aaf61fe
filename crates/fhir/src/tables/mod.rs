//! The R4 definitions as static tables: what elements a type has, how often, of what type, under what rule.

use std::cmp::Ordering;

mod codes;
mod datatypes;
mod resources;

pub(crate) use datatypes::ELEMENT;
pub(crate) use resources::RESOURCES;

/// A resource, a datatype or a backbone element.
pub(crate) struct Type {
    /// `Observation`, `Observation.component`, `Period`.
    pub name: &'static str,
    /// Which invariants beyond its elements it has.
    pub special: Special,
    /// Bits of the elements that must be there; choice elements are in `choices`.
    pub required: u64,
    pub choices: &'static [Choice],
    /// Sorted by name.
    pub elements: &'static [Element],
}

/// The types `invariants.rs` has more to say about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Special {
    None,
    Attachment,
    Coding,
    Component,
    Condition,
    ContactPoint,
    Extension,
    Identifier,
    Observation,
    Organization,
    PatientContact,
    Period,
    Quantity,
    Reference,
    ReferenceRange,
}

/// A choice such as `value[x]`: at most one of its elements may be there.
pub(crate) struct Choice {
    /// `value`
    pub name: &'static str,
    /// Bits of its elements.
    pub mask: u64,
    pub required: bool,
}

pub(crate) struct Element {
    /// As in JSON: a choice is spelt out, `valueQuantity`.
    pub name: &'static str,
    /// The name's first eight bytes, which order as the names do.
    head: u64,
    pub ty: Ty,
    pub many: bool,
    pub rule: Rule,
}

pub(crate) enum Ty {
    Primitive(Primitive),
    Complex(&'static Type),
    /// Any resource (`contained`).
    Resource,
}

pub(crate) enum Rule {
    Any,
    /// A required binding.
    Codes(&'static ValueSet),
    /// The resource types a reference may point to.
    Targets(&'static [&'static str]),
}

#[derive(Clone, Copy)]
pub(crate) enum Primitive {
    Base64Binary,
    Boolean,
    Canonical,
    Code,
    Date,
    DateTime,
    Decimal,
    Id,
    Instant,
    Integer,
    Markdown,
    Oid,
    PositiveInt,
    String,
    Time,
    UnsignedInt,
    Uri,
    Url,
    Uuid,
    Xhtml,
}

/// The codes of a value set, by code system.
pub(crate) struct ValueSet(pub &'static [CodeGroup]);

pub(crate) struct CodeGroup {
    pub system: &'static str,
    /// Sorted.
    pub codes: &'static [&'static str],
}

const ONE: bool = false;
const MANY: bool = true;

const fn element(name: &'static str, ty: Ty, many: bool, rule: Rule) -> Element {
    Element { name, head: head(name), ty, many, rule }
}

/// The first eight bytes as a number: most comparisons of names are one comparison of numbers.
const fn head(name: &str) -> u64 {
    let bytes = name.as_bytes();
    let (mut head, mut i) = (0, 0);
    while i < 8 {
        head = head << 8 | if i < bytes.len() { bytes[i] as u64 } else { 0 };
        i += 1;
    }
    head
}

impl Type {
    /// The element of that JSON name, and its bit's position.
    pub fn find(&self, name: &str) -> Option<(usize, &'static Element)> {
        let wanted = match name.as_bytes().first_chunk() {
            Some(bytes) => u64::from_be_bytes(*bytes),
            None => head(name),
        };
        let order = |e: &Element| match e.head.cmp(&wanted) {
            // All of a short name is in its head; a zero byte at its end is told by the length.
            Ordering::Equal if name.len() <= 8 => e.name.len().cmp(&name.len()),
            Ordering::Equal => e.name.cmp(name),
            unequal => unequal,
        };
        let at = self.elements.binary_search_by(order).ok()?;
        Some((at, &self.elements[at]))
    }

    /// The table of a resource type.
    pub fn resource(name: &str) -> Option<&'static Type> {
        RESOURCES.iter().copied().find(|t| t.name == name)
    }
}

impl ValueSet {
    /// Whether a `code` element, which carries no system, may have that value.
    pub fn has_code(&self, code: &str) -> bool {
        self.0.iter().any(|g| g.codes.binary_search(&code).is_ok())
    }

    /// Whether a coding is in the set.
    pub fn has(&self, system: &str, code: &str) -> bool {
        self.0.iter().any(|g| g.system == system && g.codes.binary_search(&code).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_is_found_by_its_name_and_by_no_other() {
        for ty in RESOURCES {
            for (at, element) in ty.elements.iter().enumerate() {
                let name = element.name;
                assert!(ty.find(name).is_some_and(|(found, _)| found == at), "{}.{name}", ty.name);
                let others = [format!("{name}\0"), format!("{name}x"), name[..name.len() - 1].to_owned()];
                assert!(others.iter().all(|other| ty.find(other).is_none()), "{}.{name}", ty.name);
            }
        }
    }

    /// The binary searches and bit masks rest on it.
    #[test]
    fn tables_are_sorted_and_complete() {
        fn walk(ty: &'static Type, seen: &mut Vec<&'static str>) {
            if seen.contains(&ty.name) {
                return;
            }
            seen.push(ty.name);
            assert!(ty.elements.is_sorted_by(|a, b| a.name < b.name), "{}", ty.name);
            assert!(ty.elements.len() <= 64, "{}", ty.name);
            for element in ty.elements {
                if let Rule::Codes(set) = &element.rule {
                    assert!(
                        set.0.iter().all(|g| g.codes.is_sorted() && !g.codes.is_empty()),
                        "{}",
                        element.name
                    );
                }
                if let Ty::Complex(inner) = element.ty {
                    walk(inner, seen);
                }
            }
        }
        let mut seen = Vec::new();
        for resource in RESOURCES {
            walk(resource, &mut seen);
        }
        assert_eq!(seen.len() + 1, 60, "every generated type is reachable, and Element: {seen:?}");
    }
}
