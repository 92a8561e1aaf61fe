use std::borrow::Cow;
use std::sync::Arc;

use fhirehose_tape::{Kind, Tape, Value, write_string};
use rust_decimal::Decimal;
use smallvec::SmallVec;

use crate::quantity::Quantity;
use crate::temporal::Temporal;
use crate::types::Type;

/// What every expression yields: items in order. One or two need no heap.
pub type Collection<'a> = SmallVec<[Item<'a>; 2]>;

/// One item of a collection. It has no `Debug`: it may hold personal data.
#[derive(Clone)]
pub enum Item<'a> {
    /// A value that stands in a document: an object, or a scalar not read further yet.
    Node(Node<'a>),
    String(Cow<'a, str>),
    Boolean(bool),
    Integer(i64),
    /// Exact, with its digits: `36.50` stays `36.50`.
    Decimal(Decimal),
    Date(Temporal),
    DateTime(Temporal),
    Time(Temporal),
    Quantity(Box<Quantity<'a>>),
    /// An object a host function made.
    Object(Members<'a>),
}

/// Members of a made object, in the order they are written.
pub type Object<'a> = [(Cow<'a, str>, Item<'a>)];

/// Members that were made for an item, or live where its document does.
#[derive(Clone)]
pub enum Members<'a> {
    Shared(Arc<Object<'a>>),
    Borrowed(&'a Object<'a>),
}

impl<'a> std::ops::Deref for Members<'a> {
    type Target = Object<'a>;

    fn deref(&self) -> &Object<'a> {
        match self {
            Members::Shared(members) => members,
            Members::Borrowed(members) => members,
        }
    }
}

/// A value in a document, and of a FHIR primitive the element that holds its id and extensions.
#[derive(Clone, Copy)]
pub struct Node<'a> {
    tape: &'a Tape,
    value: u32,
    extra: u32,
    pub(crate) of: Type,
}

/// In place of a position: there is none.
const NONE: u32 = u32::MAX;

impl<'a> Node<'a> {
    pub(crate) fn new(value: Option<Value<'a>>, extra: Option<Value<'a>>, of: Type) -> Option<Self> {
        let tape = value.or(extra)?.tape();
        let at = |value: Option<Value<'_>>| value.map_or(NONE, Value::position);
        Some(Node { tape, value: at(value), extra: at(extra), of })
    }

    /// The value; `None` for a FHIR primitive that has only extensions.
    pub fn value(&self) -> Option<Value<'a>> {
        (self.value != NONE).then(|| self.tape.at(self.value))
    }

    /// The object with id and extensions of a FHIR primitive.
    pub(crate) fn extra(&self) -> Option<Value<'a>> {
        (self.extra != NONE).then(|| self.tape.at(self.extra))
    }

    /// The value as an object.
    pub(crate) fn object(&self) -> Option<Value<'a>> {
        self.value().filter(|value| value.kind() == Kind::Object)
    }

    pub(crate) fn same(&self, other: &Self) -> bool {
        std::ptr::eq(self.tape, other.tape) && self.value == other.value && self.extra == other.extra
    }
}

/// A document's value as a collection: an array's elements, nothing for null, else the value itself.
pub fn collect(value: Value<'_>) -> Collection<'_> {
    let mut items = Collection::new();
    each_of(value, Type::UNKNOWN, &mut |item| items.push(item));
    items
}

/// Gives a value; of arrays the elements, at any depth.
pub(crate) fn each_of<'a>(value: Value<'a>, of: Type, out: &mut dyn FnMut(Item<'a>)) {
    match value.kind() {
        Kind::Null => {}
        Kind::Array => value.elements().for_each(|element| each_of(element, of, out)),
        _ => Node::new(Some(value), None, of).map(Item::Node).into_iter().for_each(out),
    }
}

impl<'a> Item<'a> {
    /// An owned or borrowed string.
    pub fn string(text: impl Into<Cow<'a, str>>) -> Self {
        Item::String(text.into())
    }

    /// A document's value as an item; `None` for null.
    pub fn of(value: Value<'a>) -> Option<Self> {
        if value.is_null() { None } else { Node::new(Some(value), None, Type::UNKNOWN).map(Item::Node) }
    }

    /// An object with those members; empty ones are for the caller to leave out.
    pub fn object(members: impl IntoIterator<Item = (Cow<'a, str>, Item<'a>)>) -> Self {
        Item::Object(Members::Shared(members.into_iter().collect()))
    }

    /// The same item without the copy a clone of an owned text would make.
    pub fn borrow<'s>(&'s self) -> Item<'s> {
        match self {
            Item::String(text) => Item::String(Cow::Borrowed(text)),
            other => other.clone(),
        }
    }

    /// The document's value this item is.
    pub fn value(&self) -> Option<Value<'a>> {
        match self {
            Item::Node(node) => node.value(),
            _ => None,
        }
    }

    /// A scalar of a document as the FHIRPath value it stands for; everything else as it is. Numbers that
    /// cannot be represented exactly (more than 28 digits) stay nodes.
    pub fn atom(&self) -> Item<'a> {
        let Item::Node(node) = self else { return self.clone() };
        let Some(value) = node.value() else { return self.clone() };
        let atom = match value.kind() {
            Kind::Bool => value.as_bool().map(Item::Boolean),
            Kind::Number => value.as_number().and_then(|text| number(text, node.of.is_decimal())),
            Kind::String => value.as_str().map(|text| {
                let temporal = match node.of.name() {
                    Some("date") => Temporal::date(text).map(Item::Date),
                    Some("dateTime" | "instant") => Temporal::date_time(text).map(Item::DateTime),
                    Some("time") => Temporal::time(text).map(Item::Time),
                    _ => None,
                };
                temporal.unwrap_or(Item::String(Cow::Borrowed(text)))
            }),
            Kind::Null | Kind::Array | Kind::Object => None,
        };
        atom.unwrap_or_else(|| self.clone())
    }

    /// As [`Item::atom`], and as [`Item::borrow`] without a copy of a text.
    pub(crate) fn scalar(&self) -> Item<'_> {
        match self {
            Item::Node(_) => self.atom(),
            made => made.borrow(),
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Item::Boolean(value) => Some(*value),
            _ => self.value()?.as_bool(),
        }
    }

    /// An integer; a decimal is none, even without fraction.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Item::Integer(value) => Some(*value),
            _ => self.value()?.as_i64(),
        }
    }

    /// An integer or decimal.
    pub fn as_decimal(&self) -> Option<Decimal> {
        match self.atom() {
            Item::Integer(value) => Some(Decimal::from(value)),
            Item::Decimal(value) => Some(value),
            _ => None,
        }
    }

    /// A string's text, where it is borrowed from this item or its document.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Item::String(text) => Some(text),
            _ => self.value()?.as_str(),
        }
    }

    /// The text of any scalar, as `toString()` gives it; `None` for objects.
    pub fn text(&self) -> Option<Cow<'a, str>> {
        if let Some(value) = self.value() {
            // As written: reading numbers and dates first would not change a digit, only cost.
            return match value.kind() {
                Kind::String => value.as_str().map(Cow::Borrowed),
                Kind::Number => value.as_number().map(Cow::Borrowed),
                Kind::Bool => value.as_bool().map(|b| Cow::Borrowed(if b { "true" } else { "false" })),
                Kind::Null | Kind::Array | Kind::Object => None,
            };
        }
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = match self {
            Item::String(text) => return Some(text.clone()),
            Item::Boolean(value) => return Some(Cow::Borrowed(if *value { "true" } else { "false" })),
            Item::Integer(value) => return Some(Cow::Owned(value.to_string())),
            Item::Decimal(value) => return Some(Cow::Owned(value.to_string())),
            Item::Date(at) => at.show_date(&mut out),
            Item::DateTime(at) => at.show_date_time(&mut out),
            Item::Time(at) => at.show_time(&mut out),
            Item::Quantity(quantity) => return Some(Cow::Owned(quantity.to_string())),
            Item::Node(_) | Item::Object(_) => return None,
        };
        Some(Cow::Owned(out))
    }

    /// Appends the item as JSON. Numbers keep their digits; a primitive without value is `null`; a quantity
    /// is a FHIR Quantity.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        match self {
            Item::Node(node) => match node.value() {
                Some(value) => value.write_json(out),
                None => out.extend_from_slice(b"null"),
            },
            Item::Boolean(_) | Item::Integer(_) | Item::Decimal(_) => {
                out.extend_from_slice(self.text().unwrap_or_default().as_bytes());
            }
            Item::String(text) => write_string(text, out),
            Item::Date(_) | Item::DateTime(_) | Item::Time(_) => {
                write_string(&self.text().unwrap_or_default(), out);
            }
            Item::Quantity(quantity) => quantity.write_json(out),
            Item::Object(members) => {
                out.push(b'{');
                for (i, (name, item)) in members.iter().enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    write_string(name, out);
                    out.push(b':');
                    item.write_json(out);
                }
                out.push(b'}');
            }
        }
    }
}

/// A number by its JSON text; `decimal` where an integer's text is of an element that is a decimal.
pub(crate) fn number<'a>(text: &str, decimal: bool) -> Option<Item<'a>> {
    if !decimal && let Ok(integer) = text.parse() {
        return Some(Item::Integer(integer));
    }
    exact(text).map(Item::Decimal)
}

/// A decimal by its text with every digit; `None` where 28 digits do not hold it.
pub(crate) fn exact(text: &str) -> Option<Decimal> {
    match text.split_once(['e', 'E']) {
        // Reading scientific notation would round the digits before the exponent.
        Some((digits, _)) => {
            Decimal::from_str_exact(digits).and_then(|_| Decimal::from_scientific(text)).ok()
        }
        None => Decimal::from_str_exact(text).ok(),
    }
}
