use fhirehose_tape::{Kind, Value};

use crate::item::{Item, Node, each_of};
use crate::plan::{Namespace, TypeTest};
use crate::quantity::Unit;
use crate::temporal::Temporal;
use crate::types::{SYSTEM, Type};

/// What each item that is found is given to.
pub(crate) type Found<'f, 'a> = &'f mut dyn FnMut(Item<'a>);

/// The members of that name of an item, as in any JSON.
pub(crate) fn member<'a>(item: &Item<'a>, name: &str, out: Found<'_, 'a>) {
    match item {
        Item::Node(node) => {
            if let Some(value) = node.value().and_then(|value| value.get(name)) {
                each_of(value, Type::UNKNOWN, out);
            }
        }
        other => made(other, name, out),
    }
}

/// The elements of that name of an item, as FHIR's JSON spells them: the name, `_name` for id and extensions
/// of a primitive, or the name and a type for a choice. `defined` is its type where definitions tell it.
pub(crate) fn element<'a>(item: &Item<'a>, name: &str, defined: Type, out: Found<'_, 'a>) {
    let Item::Node(node) = item else { return made(item, name, out) };
    if let Some(object) = node.object() {
        // What is defined under that name is no choice.
        if defined != Type::UNKNOWN && !object.is_underscored() {
            return object.get(name).into_iter().for_each(|value| each_of(value, defined, out));
        }
        let (mut value, mut extra, mut of) = (None, None, Type::UNKNOWN);
        let mut exact = false;
        for (suffix, underscore, found) in object.starting(name) {
            if suffix.is_empty() {
                if !exact {
                    let known = if defined == Type::UNKNOWN { element_type(name) } else { defined };
                    (exact, value, extra, of) = (true, None, None, known);
                }
            } else {
                match Type::of_choice(suffix) {
                    Some(choice) if !exact && (of == Type::UNKNOWN || of == choice) => of = choice,
                    _ => continue,
                }
            }
            if underscore {
                extra = Some(found);
            } else {
                value = Some(found);
            }
        }
        return zip(value, extra, of, out);
    }
    if let Some(found) = node.extra().and_then(|extra| extra.get(name)) {
        each_of(found, Type::UNKNOWN, out);
    }
}

/// Types that an element's name alone tells, wherever it stands.
fn element_type(name: &str) -> Type {
    let of = match name {
        "extension" | "modifierExtension" => "Extension",
        "birthDate" => "date",
        "deceasedDateTime" | "effectiveDateTime" | "onsetDateTime" => "dateTime",
        "lastUpdated" | "issued" => "instant",
        "recordedDate" | "authoredOn" => "dateTime",
        _ => return Type::UNKNOWN,
    };
    Type::named(of).unwrap_or(Type::UNKNOWN)
}

/// Puts values and their extra elements together, pairwise where they are arrays.
fn zip<'a>(value: Option<Value<'a>>, extra: Option<Value<'a>>, of: Type, out: Found<'_, 'a>) {
    let Some(extra) = extra else {
        if let Some(value) = value {
            each_of(value, of, out);
        }
        return;
    };
    let one = |value: Value<'a>| (!value.is_null()).then_some(value);
    if extra.kind() != Kind::Array {
        Node::new(value.and_then(one), one(extra), of).map(Item::Node).into_iter().for_each(out);
        return;
    }
    let mut values = value.map(|value| value.elements());
    let mut extras = extra.elements();
    loop {
        let (value, extra) = (values.as_mut().and_then(Iterator::next), extras.next());
        if value.is_none() && extra.is_none() {
            return;
        }
        Node::new(value.and_then(one), extra.and_then(one), of)
            .map(Item::Node)
            .into_iter()
            .for_each(&mut *out);
    }
}

/// Members of what is no document: made objects and quantities.
fn made<'a>(item: &Item<'a>, name: &str, out: Found<'_, 'a>) {
    match item {
        Item::Object(members) => {
            members.iter().filter(|(key, _)| key == name).for_each(|(_, item)| out(item.clone()));
        }
        Item::Quantity(quantity) => match (name, &quantity.unit) {
            ("value", _) => out(Item::Decimal(quantity.value)),
            ("unit" | "code", Unit::Ucum(code)) => out(Item::String(code.clone())),
            ("unit" | "code", Unit::Calendar(word)) => out(Item::string(*word)),
            _ => {}
        },
        _ => {}
    }
}

/// All members of an item, in order; the type of a resource is none.
pub(crate) fn children<'a>(item: &Item<'a>, out: Found<'_, 'a>) {
    match item {
        Item::Node(node) => {
            if let Some(object) = node.object() {
                for (key, value) in object.entries() {
                    match key.strip_prefix('_') {
                        // Taken along with its primitive, where it has one.
                        Some(bare) if object.get(bare).is_some() => {}
                        Some(_) => zip(None, Some(value), Type::UNKNOWN, out),
                        None if key == "resourceType" => {}
                        None => {
                            let extra =
                                if value.kind() == Kind::Object { None } else { sibling(object, key) };
                            zip(Some(value), extra, element_type(key), out);
                        }
                    }
                }
            }
            if let Some(extra) = node.extra() {
                extra.entries().for_each(|(_, value)| each_of(value, Type::UNKNOWN, out));
            }
        }
        Item::Object(members) => members.iter().for_each(|(_, item)| out(item.clone())),
        _ => {}
    }
}

/// The `_name` beside a primitive's `name`.
fn sibling<'a>(object: Value<'a>, name: &str) -> Option<Value<'a>> {
    object.entries().find(|(key, _)| key.strip_prefix('_') == Some(name)).map(|(_, value)| value)
}

impl TypeTest {
    /// Whether an item is of the type.
    pub(crate) fn holds(&self, item: &Item<'_>) -> bool {
        let system = self.namespace != Namespace::Fhir;
        let fhir = self.namespace != Namespace::System;
        match item {
            Item::Node(node) => {
                (fhir && self.fhir_node(node)) || (system && !self.fhir && self.row_value(item))
            }
            other => {
                system && system_type(other).is_some_and(|name| *name == *self.name || *self.name == *"Any")
            }
        }
    }

    fn fhir_node(&self, node: &Node<'_>) -> bool {
        let name = &*self.name;
        if let Some(resource) = resource_type(node) {
            let domain = !matches!(resource, "Bundle" | "Binary" | "Parameters");
            return name == resource || name == "Resource" || (name == "DomainResource" && domain);
        }
        if node.of != Type::UNKNOWN {
            return node.of.is(name);
        }
        // What the element's definition would say, the value tells in part.
        let Some(value) = node.value() else { return false };
        match value.kind() {
            Kind::Bool => name == "boolean",
            Kind::Number => name == "decimal" || (name == "integer" && value.as_i64().is_some()),
            Kind::String => {
                let text = value.as_str().unwrap_or_default();
                match name {
                    "string" | "code" | "id" | "uri" | "markdown" => true,
                    "date" => Temporal::date(text).is_some(),
                    "dateTime" | "instant" => Temporal::date_time(text).is_some(),
                    "time" => Temporal::time(text).is_some(),
                    _ => false,
                }
            }
            Kind::Object => name == "Element",
            Kind::Null | Kind::Array => false,
        }
    }

    /// Scalars of a row are of FHIRPath's own types.
    fn row_value(&self, item: &Item<'_>) -> bool {
        SYSTEM.contains(&&*self.name) && system_type(&item.atom()) == Some(&*self.name)
    }
}

/// The `resourceType` of a resource.
pub(crate) fn resource_type<'a>(node: &Node<'a>) -> Option<&'a str> {
    node.object()?.get("resourceType")?.as_str()
}

/// The name of FHIRPath's own type of an item that is none of a document.
pub(crate) fn system_type(item: &Item<'_>) -> Option<&'static str> {
    Some(match item {
        Item::String(_) => "String",
        Item::Boolean(_) => "Boolean",
        Item::Integer(_) => "Integer",
        Item::Decimal(_) => "Decimal",
        Item::Date(_) => "Date",
        Item::DateTime(_) => "DateTime",
        Item::Time(_) => "Time",
        Item::Quantity(_) => "Quantity",
        Item::Node(_) | Item::Object(_) => return None,
    })
}
