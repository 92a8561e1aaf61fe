//! What is known of an expression's items before it is evaluated: by literals, by the functions they come from
//! and, where definitions are given, by the elements they stand in.

use std::sync::Arc;

use crate::env::Shape;
use crate::error::CompileError;
use crate::kinds::Kinds;
use crate::types::Type;

/// The type of an element, by its parent's type and its JSON name; without a name the type itself.
pub(crate) type TypeOf = fn(&str, &str) -> Option<&'static str>;

/// The definitions expressions are checked against.
#[derive(Clone, Copy)]
pub(crate) struct Definitions(pub(crate) TypeOf);

/// What the items of an expression are, as far as it is known.
#[derive(Clone)]
pub(crate) struct Known {
    pub kinds: Kinds,
    /// The elements they may be; `None` where that is not known.
    elements: Option<Vec<Element>>,
    /// The members an object of a host may have; `None` where that is not known.
    members: Option<Arc<[Box<str>]>>,
}

#[derive(Clone)]
struct Element {
    /// Not within another: a resource, or whatever a type begins with.
    whole: bool,
    /// For messages.
    shown: String,
    /// Whether the last name is a choice spelled out: `valueQuantity` of `value`.
    choice: bool,
    of: &'static str,
}

/// An element that may be any resource, whose type only the document tells.
const ANY_RESOURCE: &str = "Resource";

impl Default for Known {
    fn default() -> Self {
        Known::of(Kinds::ANY)
    }
}

impl Known {
    /// Items of those kinds.
    pub(crate) fn of(kinds: Kinds) -> Self {
        Known { kinds, elements: None, members: None }
    }

    /// What a host says of items.
    pub(crate) fn shaped(shape: &Shape) -> Self {
        Known { kinds: shape.kinds, elements: None, members: shape.members.clone() }
    }

    /// What a host is told of items.
    pub(crate) fn shape(&self) -> Shape {
        Shape { kinds: self.kinds, members: self.members.clone() }
    }

    /// A step to the members of a name, of objects that are no FHIR.
    pub(crate) fn member(&self, at: usize, name: &str) -> Result<Known, CompileError> {
        let message = match &self.members {
            _ if !self.kinds.meets(Kinds::OBJECT) => format!("{} has no member {name}", self.kinds),
            Some(members) if !members.iter().any(|member| **member == *name) => {
                format!("no member {name}; there are {}", members.join(", "))
            }
            _ => return Ok(Known::default()),
        };
        Err(CompileError { offset: at, message })
    }

    /// What either may be.
    pub(crate) fn or(self, other: Known) -> Known {
        let elements = self.elements.zip(other.elements).map(|(own, others)| [own, others].concat());
        Known { kinds: self.kinds | other.kinds, elements, members: None }
    }

    fn elements(elements: Vec<Element>) -> Known {
        let kind = |element: &Element| Kinds::of_type(element.of);
        let kinds = elements.iter().map(kind).reduce(Kinds::or).unwrap_or(Kinds::ANY);
        Known { kinds, elements: Some(elements), members: None }
    }

    /// The one type that all its items have: of a choice the document tells it.
    pub(crate) fn only_type(&self) -> Type {
        match self.elements.as_deref() {
            Some([Element { of, choice: false, .. }]) => Type::named(of).unwrap_or(Type::UNKNOWN),
            _ => Type::UNKNOWN,
        }
    }

    /// The names of all types it may be of, where they are known.
    pub(crate) fn types(&self) -> Option<Vec<&'static str>> {
        Some(self.elements.as_ref()?.iter().map(|element| element.of).collect())
    }

    /// Whether it is a resource as a whole, of a type that is not that one.
    pub(crate) fn is_other_resource(&self, name: &str) -> Option<&str> {
        match self.elements.as_deref() {
            Some([Element { of, whole: true, .. }]) if *of != name => Some(of),
            _ => None,
        }
    }
}

impl Definitions {
    /// Items of a type; nothing is known of a type that is not defined here.
    pub(crate) fn named(self, name: &str) -> Known {
        match self.0(name, "") {
            Some(of) => {
                Known::elements(vec![Element { whole: true, shown: name.to_owned(), choice: false, of }])
            }
            None => Known::default(),
        }
    }

    /// A step to the elements of a name.
    pub(crate) fn step(self, at: usize, input: &Known, name: &str) -> Result<Known, CompileError> {
        let Some(elements) = &input.elements else { return Ok(Known::default()) };
        if elements.iter().any(|element| element.of == ANY_RESOURCE) {
            return Ok(Known::default());
        }
        let mut found = Vec::new();
        for element in elements {
            if let Some(spelled) = self.spelled_choice(element, name) {
                return Err(CompileError { offset: at, message: spelled });
            }
            if let Some(element) = self.element(element, name, name, false) {
                found.push(element);
                continue;
            }
            found.extend(self.choices(element, name));
        }
        match (name, found.is_empty()) {
            (_, false) => Ok(Known::elements(found)),
            // Every element has them, a primitive in its `_name`.
            ("extension", true) => Ok(self.named("Extension")),
            ("id", true) => Ok(Known::of(Kinds::TEXT)),
            _ => {
                let of = elements.first().map_or("it", |element| element.shown.as_str());
                Err(CompileError { offset: at, message: format!("{of} has no element {name}") })
            }
        }
    }

    /// The elements of a choice. One with a single type is a name that happens to end so (`birthDate`), and so is
    /// one of another type than it ends with (`recordedDate`, which is a dateTime).
    fn choices(self, parent: &Element, name: &str) -> Vec<Element> {
        let spelled = |of: String| {
            let element = self.element(parent, name, &format!("{name}{of}"), true)?;
            (Type::capital(element.of) == of).then_some(element)
        };
        let found: Vec<Element> = Type::choices().filter_map(spelled).collect();
        if found.len() == 1 { Vec::new() } else { found }
    }

    /// What to write in place of a choice spelled as in JSON: `valueQuantity`.
    fn spelled_choice(self, parent: &Element, name: &str) -> Option<String> {
        let of = self.0(parent.of, name)?;
        let bare = name.strip_suffix(&Type::capital(of)).filter(|bare| !bare.is_empty())?;
        (!self.choices(parent, bare).is_empty())
            .then(|| format!("{name} is its name in JSON; write {bare}.ofType({of})"))
    }

    /// The element of a parent by its JSON name.
    fn element(self, parent: &Element, name: &str, json: &str, choice: bool) -> Option<Element> {
        let shown = format!("{}.{name}", parent.shown);
        let of = self.0(parent.of, json)?;
        Some(Element { whole: false, shown, choice, of })
    }

    /// The items that are of a type, as `ofType()` keeps them.
    pub(crate) fn narrow(self, at: usize, input: &Known, name: &str) -> Result<Known, CompileError> {
        let Some(elements) = &input.elements else { return Ok(self.named(name)) };
        let keeps = |element: &&Element| element.of == ANY_RESOURCE || is_a(element.of, name);
        let kept: Vec<Element> = elements.iter().filter(keeps).cloned().collect();
        if kept.is_empty() {
            let of = elements.first().map_or("it", |element| element.shown.as_str());
            return Err(CompileError { offset: at, message: format!("{of} is never of type {name}") });
        }
        match kept.iter().any(|element| element.of == ANY_RESOURCE) {
            true => Ok(self.named(name)),
            false => Ok(Known::elements(kept)),
        }
    }
}

/// Whether a type of the definitions is another or specialises it.
fn is_a(of: &str, name: &str) -> bool {
    let backbone = of.contains('.') && matches!(name, "BackboneElement" | "Element");
    let abstract_resource = matches!(name, "Resource" | "DomainResource");
    of == name || backbone || abstract_resource || Type::named(of).is_some_and(|of| of.is(name))
}
