//! Reads the tables' text. Lines, their parts split by tabs:
//! ```text
//! =address-use                              a value set by the last part of its URL; a line per code system follows:
//!         http://hl7.org/fhir/address-use   billing  home …
//! :Observation  DomainResource  resource    a type, what it inherits from, whether resources are of it
//! value[x]  ?  Quantity CodeableConcept     an element: name, cardinality (? 0..1, 1 1..1, * 0..*, + 1..*), types
//! subject   ?  Reference(Patient|Group)     … with the resource types a reference may point to
//! component *  .                            … the type `Observation.component`
//! status    1  code  =observation-status    … with a required binding
//! !obs-6    (element)  expression           an invariant, of the type or of one of its elements
//! ```

use std::collections::HashMap;

use super::{Definitions, Element, Primitive, Ty, Type, ValueSet, head, order};
use crate::invariants::Special;

/// What it was defined with, kept for the types that inherit it.
#[derive(Clone)]
struct Definition {
    /// With `[x]`, where it is a choice.
    name: &'static str,
    card: &'static str,
    types: &'static str,
    binding: Option<u16>,
    /// The type whose definition it is, which `.` stands for a part of.
    of: &'static str,
}

struct Parsed {
    name: &'static str,
    is_resource: bool,
    definitions: Vec<Definition>,
    rules: Vec<(&'static str, &'static str, &'static str)>,
}

pub(super) fn read(text: &'static str) -> Result<Definitions, String> {
    let (mut sets, mut parsed) = (Vec::<ValueSet>::new(), Vec::<Parsed>::new());
    let (mut set_index, mut by_name) = (HashMap::new(), HashMap::<&str, u16>::new());
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let wrong = || format!("not a line of the tables: {line}");
        let mut parts = line.split('\t');
        let first = parts.next().unwrap_or_default();
        if let Some(name) = first.strip_prefix('=') {
            set_index.insert(name, index(sets.len())?);
            sets.push(ValueSet { name, groups: Vec::new() });
        } else if first.is_empty() {
            let system = parts.next().ok_or_else(wrong)?;
            sets.last_mut().ok_or_else(wrong)?.groups.push((system, parts.collect()));
        } else if let Some(name) = first.strip_prefix(':') {
            let base = parts.next().unwrap_or_default();
            let base = by_name.get(base).and_then(|at| parsed.get(usize::from(*at)));
            let (definitions, rules) =
                base.map(|base| (base.definitions.clone(), base.rules.clone())).unwrap_or_default();
            by_name.insert(name, index(parsed.len())?);
            parsed.push(Parsed { name, is_resource: parts.next() == Some("resource"), definitions, rules });
        } else if let Some(key) = first.strip_prefix('!') {
            let (element, expression) = parts.next().zip(parts.next()).ok_or_else(wrong)?;
            parsed.last_mut().ok_or_else(wrong)?.rules.push((key, element, expression));
        } else {
            let (card, types) = parts.next().zip(parts.next()).ok_or_else(wrong)?;
            let binding = match parts.next().and_then(|set| set.strip_prefix('=')) {
                Some(set) => Some(*set_index.get(set).ok_or_else(wrong)?),
                None => None,
            };
            let ty = parsed.last_mut().ok_or_else(wrong)?;
            let definition = Definition { name: first, card, types, binding, of: ty.name };
            match ty.definitions.iter_mut().find(|inherited| inherited.name == first) {
                Some(inherited) => *inherited = definition,
                None => ty.definitions.push(definition),
            }
        }
    }
    let resources: Vec<bool> = parsed.iter().map(|ty| ty.is_resource).collect();
    let types = parsed.into_iter().map(|ty| build(ty, &by_name, &resources)).collect::<Result<_, _>>()?;
    let element = *by_name.get("Element").ok_or("no type Element")?;
    Ok(Definitions { types, sets, by_name, element })
}

fn index(at: usize) -> Result<u16, String> {
    u16::try_from(at).map_err(|_| "too many".to_owned())
}

fn build(parsed: Parsed, by_name: &HashMap<&'static str, u16>, resources: &[bool]) -> Result<Type, String> {
    let name = parsed.name;
    if parsed.definitions.len() > 64 {
        return Err(format!("{name} has more than 64 elements"));
    }
    let mut ty = Type { name, is_resource: parsed.is_resource, rules: parsed.rules, ..Type::default() };
    ty.special = Special::of(name);
    for (slot, definition) in parsed.definitions.iter().enumerate() {
        let base = definition.name.strip_suffix("[x]");
        ty.slots.push(base.unwrap_or(definition.name));
        if matches!(definition.card, "1" | "+") {
            ty.required |= 1 << slot;
        }
        for code in definition.types.split(' ') {
            let (code, targets) = match code.strip_suffix(')').and_then(|code| code.split_once('(')) {
                Some((code, targets)) => (code, Some(targets.split('|').collect())),
                None => (code, None),
            };
            let spelt: Box<str> = match (base, code.split_at_checked(1)) {
                (Some(base), Some((first, rest))) => {
                    format!("{base}{}{rest}", first.to_ascii_uppercase()).into()
                }
                _ => definition.name.into(),
            };
            let complex = match code {
                "." => by_name.get(&*format!("{}.{}", definition.of, definition.name)),
                code => by_name.get(code),
            };
            let inner = match (Primitive::named(code), complex) {
                (Some(primitive), _) => Ty::Primitive(primitive),
                (None, _) if code == "Resource" => Ty::Resource,
                (None, Some(at)) if resources.get(usize::from(*at)) == Some(&true) => Ty::Resource,
                (None, Some(at)) => Ty::Complex(*at),
                (None, None) => return Err(format!("{name}.{spelt}: no type {code}")),
            };
            ty.elements.push(Element {
                name: spelt,
                slot: u8::try_from(slot).unwrap_or_default(),
                choice: base.is_some(),
                many: matches!(definition.card, "*" | "+"),
                ty: inner,
                codes: definition.binding,
                targets,
            });
        }
    }
    ty.elements.sort_by(order);
    ty.heads = ty.elements.iter().map(|element| head(&element.name)).collect();
    Ok(ty)
}
