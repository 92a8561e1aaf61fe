//! Verdicts on parts of R4 resources, for those who write many of one shape: what the shape settles is judged when it
//! is compiled, what it leaves open is judged part by part as it is written. All of it errs on one side: a part that
//! is taken here is valid wherever it stands; one that is not may be valid all the same, and [`validate`] tells.
//!
//! [`validate`]: crate::validate()

use std::ptr;

use fhirehose_tape::{Tape, Value};

use crate::invariants::{self, IN_RUST, Special, is_choice};
use crate::primitive::{absolute, moment, text_fits};
use crate::reference;
use crate::tables::{Element, Primitive, Ty, Type, Version};
use crate::terminology::{self, LOINC, SNOMED, URI};
use crate::validate::Invalid;
use crate::walk::{Inside, Path, Walk};

/// More brackets than this are not looked into: what is nested deeply is judged where it stands.
const MAX_BRACKETS: usize = 48;

/// Longer than any reference that is looked at by itself.
const MAX_REFERENCE: usize = 1024;

/// An element of an R4 type.
#[derive(Clone, Copy)]
pub struct ElementRules(&'static Element);

impl PartialEq for ElementRules {
    fn eq(&self, other: &Self) -> bool {
        ptr::eq(self.0, other.0)
    }
}

/// What is known of a member before it is written, if it is written.
#[derive(Clone, Copy, Debug)]
pub enum Known<'k> {
    /// That text. It is always written.
    Text(&'k str),
    /// A text that begins so.
    Begins(&'k str),
    Anything,
}

impl ElementRules {
    /// By type and JSON name, as [`crate::element_type`]. None where a part cannot be judged alone: what stands beside a
    /// primitive, a contained resource, what has rules about the resource around it.
    pub fn of(of: &str, name: &str) -> Option<ElementRules> {
        let element = Version::R4.definitions().named(of)?.find(name)?;
        let alone = match element.ty {
            Ty::Primitive(_) => true,
            Ty::Resource => false,
            Ty::Complex(of) => {
                let ty = Version::R4.definitions().complex(of);
                *ty.stands_alone.get_or_init(|| stands_alone(ty, &mut vec![ty.name]))
            }
        };
        alone.then_some(ElementRules(element))
    }

    /// The name of its type.
    pub fn type_name(self) -> &'static str {
        match self.0.ty {
            Ty::Primitive(of) => of.name(),
            Ty::Complex(of) => Version::R4.definitions().complex(of).name,
            Ty::Resource => "Resource",
        }
    }

    pub fn is_primitive(self) -> bool {
        matches!(self.0.ty, Ty::Primitive(_))
    }

    /// Whether it has a rule of its own beside those of its type: a required binding.
    pub fn is_bound(self) -> bool {
        self.0.codes.is_some()
    }

    /// Takes one value of a primitive type, as JSON.
    pub fn takes_scalar(self, json: &[u8]) -> bool {
        let Ty::Primitive(of) = self.0.ty else { return false };
        let Ok(json) = std::str::from_utf8(json) else { return false };
        let whole = |min| json.parse::<i64>().is_ok_and(|n| (min..=i64::from(i32::MAX)).contains(&n));
        match of {
            Primitive::Boolean => matches!(json, "true" | "false"),
            Primitive::Decimal => json.starts_with(|c: char| c == '-' || c.is_ascii_digit()),
            Primitive::Integer => whole(i64::from(i32::MIN)),
            Primitive::UnsignedInt => whole(0),
            Primitive::PositiveInt => whole(1),
            _ => plain(json).is_some_and(|text| {
                let bound = self.0.codes.map(|set| Version::R4.definitions().set(set));
                text_fits(of, text) && bound.is_none_or(|set| set.has_code(text))
            }),
        }
    }

    /// Takes the text, as JSON, of `Reference.reference` where the element is a Reference of nothing else.
    pub fn takes_reference(self, json: &[u8]) -> bool {
        let text = std::str::from_utf8(json).ok().and_then(plain);
        text.is_some_and(|text| {
            text.len() <= MAX_REFERENCE && reference::elsewhere(text, self.0.targets.as_deref())
        })
    }

    /// Takes all that is written for the element, as JSON: a list where it repeats. `tape` is for reading it.
    pub fn takes(self, json: &[u8], tape: &mut Tape) -> bool {
        if let Ty::Complex(of) = self.0.ty
            && Version::R4.definitions().complex(of).special == Special::Period
            && let Some(in_order) = period(json)
        {
            return in_order;
        }
        let brackets = json.iter().filter(|byte| matches!(byte, b'{' | b'[')).count();
        brackets <= MAX_BRACKETS && self.findings(json, tape).is_some_and(|found| found.is_empty())
    }

    /// What is wrong with all that is written for the element, as JSON, by paths from the element on; none where it
    /// cannot be judged alone.
    pub fn findings(self, json: &[u8], tape: &mut Tape) -> Option<Vec<Invalid>> {
        // `#id` refers to what stands elsewhere in the resource.
        if json.windows(2).any(|two| two == b"\"#") || tape.parse_json(json).is_err() {
            return None;
        }
        let (mut walk, value) = (walk(), tape.root());
        let at = Path { above: None, name: &self.0.name, index: None };
        walk.element(value, value, self.0, at, Inside { resource: value, root: value });
        Some(walk.found)
    }
}

/// What is left to judge of an object whose members are each valid, and none of [`crate::required_elements`] left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    Nothing,
    /// Rules about several members.
    Rules,
    All,
}

/// What is left to judge of an object of an R4 type with these members, some of which may be left out.
pub fn left_to_judge(of: &str, members: &[(&str, Known<'_>)]) -> Left {
    let Some(ty) = Version::R4.definitions().named(of) else { return Left::All };
    let Some(elements) = members.iter().map(|(name, _)| ty.find(name)).collect::<Option<Vec<_>>>() else {
        return Left::All;
    };
    let mut slots: Vec<u8> = elements.iter().map(|element| element.slot).collect();
    slots.sort_unstable();
    let apart = slots.windows(2).all(|two| two[0] != two[1]);
    // An id alone is no content (ele-1).
    let only_id = !ty.is_resource && members.iter().any(|(name, _)| *name == "id");
    match apart && !only_id {
        true if rules_settle(ty, members) => Left::Nothing,
        true => Left::Rules,
        false => Left::All,
    }
}

fn rules_settle(ty: &Type, members: &[(&str, Known<'_>)]) -> bool {
    let known = |name: &str| members.iter().find(|(of, _)| *of == name).map(|(_, known)| *known);
    let has = |name: &str| members.iter().any(|(of, _)| *of == name || is_choice(of, name));
    // A rule that one of some members is there, or another is not: whether that is so whatever is left out.
    let always = |rule: &str| {
        let either = |part: &str| {
            let (name, asks) = part.split_once('.')?;
            let plain = name.bytes().all(|byte| byte.is_ascii_alphabetic());
            match asks {
                "exists()" if plain => Some(matches!(known(name), Some(Known::Text(_)))),
                "empty()" if plain => Some(!has(name)),
                _ => None,
            }
        };
        let parts: Option<Vec<bool>> = rule.split(" or ").map(either).collect();
        parts.is_some_and(|parts| parts.contains(&true))
    };
    let in_fhirpath =
        ty.rules.iter().filter(|(key, ..)| !IN_RUST.contains(key)).all(|(key, element, rule)| {
            let of_contained = key.starts_with("dom-") && !has("contained");
            of_contained || (!element.is_empty() && !has(element)) || (element.is_empty() && always(rule))
        });
    let begins_absolute = match known("system") {
        None => true,
        Some(Known::Text(text) | Known::Begins(text)) => absolute(text),
        Some(Known::Anything) => false,
    };
    in_fhirpath
        && match ty.special {
            Special::None | Special::Reference => true,
            Special::Coding => begins_absolute && code_settles(known("system"), known("code")),
            Special::Identifier => {
                let of_uris = match known("system") {
                    Some(Known::Text(system)) => system == URI,
                    Some(Known::Begins(start)) => URI.starts_with(start),
                    _ => false,
                };
                begins_absolute && !of_uris
            }
            Special::Period => !(has("start") && has("end")),
            Special::Quantity => known("code").is_none() || matches!(known("system"), Some(Known::Text(_))),
            Special::Component | Special::Extension | Special::Observation => false,
        }
}

/// Whether no code of the system is wrong, or this one is right.
fn code_settles(system: Option<Known<'_>>, code: Option<Known<'_>>) -> bool {
    match (system, code) {
        (None, _) | (_, None) => true,
        (Some(Known::Text(system)), Some(Known::Text(code))) => terminology::check_code(system, code).is_ok(),
        (Some(Known::Text(system)), _) => ![LOINC, SNOMED].contains(&system),
        (Some(Known::Begins(start)), _) => ![LOINC, SNOMED].iter().any(|system| system.starts_with(start)),
        (Some(Known::Anything), _) => false,
    }
}

/// Whether an R4 resource whose members are each valid breaks none of the rules about several of them.
pub fn rules_hold(resource: Value<'_>) -> bool {
    let name = resource.get("resourceType").and_then(Value::as_str).unwrap_or_default();
    let Some(ty) = Version::R4.definitions().resource(name) else { return false };
    let mut walk = walk();
    let at = Path { above: None, name: ty.name, index: None };
    invariants::check(&mut walk, resource, ty, &at, Inside { resource, root: resource });
    walk.found.is_empty()
}

fn walk() -> Walk {
    let version = Version::R4;
    let definitions = version.definitions();
    Walk { definitions, version, tell_names: false, warnings: false, found: Vec::new(), errors: 0 }
}

/// The verdict on a Period as nearly all are written, of a start and an end; none on any other.
fn period(json: &[u8]) -> Option<bool> {
    let json = std::str::from_utf8(json).ok()?;
    let (start, end) = json.strip_prefix("{\"start\":")?.strip_suffix('}')?.split_once(",\"end\":")?;
    Some(!moment(plain(start)?)?.after(moment(plain(end)?)?))
}

/// The text of a JSON string without escapes; none where it is empty.
fn plain(json: &str) -> Option<&str> {
    let text = json.strip_prefix('"')?.strip_suffix('"')?;
    // Without a way out early: compilers look at many bytes at once then.
    let escaped = text.bytes().fold(false, |any, byte| any | (byte == b'\\'));
    (!text.is_empty() && !escaped).then_some(text)
}

/// Whether neither the type nor what is in it has a rule about the resource around it.
fn stands_alone(ty: &'static Type, seen: &mut Vec<&'static str>) -> bool {
    let around = ["%resource", "%rootResource", "resolve("];
    let mut rules = ty.rules.iter().filter(|(key, ..)| !IN_RUST.contains(key));
    rules.all(|(.., rule)| !around.iter().any(|name| rule.contains(name)))
        && ty.elements.iter().all(|element| match element.ty {
            Ty::Primitive(_) => true,
            Ty::Resource => false,
            Ty::Complex(of) => {
                let inner = Version::R4.definitions().complex(of);
                seen.contains(&inner.name) || {
                    seen.push(inner.name);
                    stands_alone(inner, seen)
                }
            }
        })
}
