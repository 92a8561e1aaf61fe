//! The official definitions: what elements a type has, how often, of what type, under what rule. They are text in the
//! binary, read once per version at first use.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::{LazyLock, OnceLock};

use crate::invariants::{Invariant, Special};

mod parse;
mod primitive;

pub(crate) use primitive::Primitive;

/// A release of FHIR that resources are judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 4.0.1
    R4,
    /// 5.0.0
    R5,
}

static R4: LazyLock<Definitions> = LazyLock::new(|| read(include_str!("r4.txt")));
static R5: LazyLock<Definitions> = LazyLock::new(|| read(include_str!("r5.txt")));

/// The tables are part of the program; a test holds that they can be read.
fn read(text: &'static str) -> Definitions {
    parse::read(text).unwrap_or_default()
}

/// All types of one release.
#[derive(Default)]
pub(crate) struct Definitions {
    pub types: Vec<Type>,
    pub sets: Vec<ValueSet>,
    by_name: HashMap<&'static str, u16>,
    /// `Element`: what a primitive carries beside its value.
    element: u16,
}

/// A resource, a data type or a backbone element.
#[derive(Default)]
pub(crate) struct Type {
    /// `Observation`, `Observation.component`, `Period`.
    pub name: &'static str,
    pub is_resource: bool,
    /// What Rust has to say beyond its elements.
    pub special: Special,
    /// Slots of the elements that must be there.
    pub required: u64,
    /// The definitions' names by slot: `status`, `value`.
    pub slots: Vec<&'static str>,
    /// First eight bytes of the elements' names.
    heads: Vec<u64>,
    /// Sorted by name, choices spelt out.
    pub elements: Vec<Element>,
    /// What FHIRPath has to say: key, element (none: the type itself), expression.
    pub rules: Vec<(&'static str, &'static str, &'static str)>,
    /// The rules, compiled at first use.
    pub invariants: OnceLock<Vec<Invariant>>,
    /// Whether no rule in it is about the resource around it; found out at first use.
    pub stands_alone: OnceLock<bool>,
}

pub(crate) struct Element {
    /// As in JSON: a choice is spelt out, `valueQuantity`.
    pub name: Box<str>,
    /// Which of its type's definitions it is; the elements of a choice share one. Less than 64.
    pub slot: u8,
    /// Whether it is one of a choice such as `value[x]`.
    pub choice: bool,
    pub many: bool,
    pub ty: Ty,
    /// A required binding: which of the value sets.
    pub codes: Option<u16>,
    /// The resource types a reference may point to.
    pub targets: Option<Box<[&'static str]>>,
}

#[derive(Clone, Copy)]
pub(crate) enum Ty {
    Primitive(Primitive),
    /// One of the types.
    Complex(u16),
    /// Any resource (`contained`).
    Resource,
}

/// The codes of a value set, sorted, by code system.
pub(crate) struct ValueSet {
    /// The last part of its URL.
    pub name: &'static str,
    pub groups: Vec<(&'static str, Vec<&'static str>)>,
}

impl Version {
    pub(crate) fn definitions(self) -> &'static Definitions {
        match self {
            Version::R4 => &R4,
            Version::R5 => &R5,
        }
    }
}

impl Definitions {
    pub fn named(&self, name: &str) -> Option<&Type> {
        self.types.get(usize::from(*self.by_name.get(name)?))
    }

    pub fn resource(&self, name: &str) -> Option<&Type> {
        self.named(name).filter(|ty| ty.is_resource)
    }

    pub fn complex(&self, index: u16) -> &Type {
        &self.types[usize::from(index)]
    }

    pub fn element(&self) -> &Type {
        self.complex(self.element)
    }

    pub fn set(&self, index: u16) -> &ValueSet {
        &self.sets[usize::from(index)]
    }
}

/// The first eight bytes as a number: most comparisons of names are one comparison of numbers.
fn head(name: &str) -> u64 {
    match name.as_bytes().first_chunk() {
        Some(bytes) => u64::from_be_bytes(*bytes),
        None => name.bytes().fold(0, |head, byte| head << 8 | u64::from(byte)) << (8 * (8 - name.len())),
    }
}

impl Type {
    /// The element of that JSON name.
    pub fn find(&self, name: &str) -> Option<&Element> {
        if name.is_empty() {
            return None;
        }
        let wanted = head(name);
        let mut at = self.heads.partition_point(|head| *head < wanted);
        while self.heads.get(at) == Some(&wanted) {
            let element = &self.elements[at];
            if *element.name == *name {
                return Some(element);
            }
            at += 1;
        }
        None
    }
}

impl ValueSet {
    /// Whether a `code` element, which carries no system, may have that value.
    pub fn has_code(&self, code: &str) -> bool {
        self.groups.iter().any(|(_, codes)| codes.binary_search(&code).is_ok())
    }

    /// Whether a coding is in the set.
    pub fn has(&self, system: &str, code: &str) -> bool {
        self.groups.iter().any(|(of, codes)| *of == system && codes.binary_search(&code).is_ok())
    }
}

/// Order of elements of a type: as their names, so that equal heads stand together.
fn order(a: &Element, b: &Element) -> Ordering {
    a.name.cmp(&b.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both() -> [(&'static Definitions, &'static str); 2] {
        [
            (Version::R4.definitions(), include_str!("r4.txt")),
            (Version::R5.definitions(), include_str!("r5.txt")),
        ]
    }

    #[test]
    fn the_tables_can_be_read() {
        for (definitions, text) in both() {
            if let Err(error) = parse::read(text) {
                panic!("{error}");
            }
            assert!(definitions.types.iter().filter(|ty| ty.is_resource).count() > 140);
            assert_eq!(definitions.element().name, "Element");
        }
    }

    #[test]
    fn every_element_is_found_by_its_name_and_by_no_other() {
        for ty in both().iter().flat_map(|(definitions, _)| &definitions.types) {
            assert!(ty.elements.is_sorted_by(|a, b| a.name < b.name), "{}", ty.name);
            for element in &ty.elements {
                let name = &*element.name;
                assert!(
                    ty.find(name).is_some_and(|found| std::ptr::eq(found, element)),
                    "{}.{name}",
                    ty.name
                );
                let others = [format!("{name}\0"), format!("{name}y"), name[..name.len() - 1].to_owned()];
                let others = others.iter().filter(|other| !ty.elements.iter().any(|e| *e.name == ***other));
                for other in others {
                    assert!(ty.find(other).is_none(), "{}.{other}", ty.name);
                }
            }
        }
    }

    #[test]
    fn value_sets_are_sorted_and_none_is_empty() {
        for set in both().iter().flat_map(|(definitions, _)| &definitions.sets) {
            assert!(
                set.groups.iter().all(|(_, codes)| codes.is_sorted() && !codes.is_empty()),
                "{}",
                set.name
            );
        }
    }
}
