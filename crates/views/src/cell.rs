use std::borrow::Cow;

use fhirehose_fhirpath::{Env, Expr, Item, Temporal};

/// What a column's cells are, from its FHIR type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// No type is declared: a cell is what the scalar is.
    Any,
    Boolean,
    Integer,
    Decimal,
    Text,
    Date,
    DateTime,
    Time,
    /// An object type.
    Json,
}

/// One value of a row. Numbers and times are the text the resource has, digit for digit. It has no `Debug`:
/// it holds personal data.
#[derive(Clone, PartialEq)]
pub enum Cell<'a> {
    Null,
    Bool(bool),
    Integer(i64),
    Decimal(Cow<'a, str>),
    Text(Cow<'a, str>),
    /// `YYYY`, `YYYY-MM` or `YYYY-MM-DD`.
    Date(Cow<'a, str>),
    /// A date, or a date and time with or without offset.
    DateTime(Cow<'a, str>),
    Time(Cow<'a, str>),
    /// Compact JSON.
    Json(Vec<u8>),
}

impl Cell<'_> {
    /// Bytes of its text or JSON.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Cell::Null | Cell::Bool(_) | Cell::Integer(_) => 0,
            Cell::Decimal(text)
            | Cell::Text(text)
            | Cell::Date(text)
            | Cell::DateTime(text)
            | Cell::Time(text) => text.len(),
            Cell::Json(json) => json.len(),
        }
    }
}

impl ColumnType {
    /// Of a FHIR type's name (`null` in the name's place is `Any`); `None` where the name is none.
    pub(crate) fn of(name: &str) -> Option<Self> {
        let name = name.strip_prefix("http://hl7.org/fhirpath/System.").unwrap_or(name);
        Some(match name {
            "boolean" | "Boolean" => ColumnType::Boolean,
            "integer" | "integer64" | "positiveInt" | "unsignedInt" | "Integer" => ColumnType::Integer,
            "decimal" | "Decimal" => ColumnType::Decimal,
            "date" | "Date" => ColumnType::Date,
            "dateTime" | "instant" | "DateTime" => ColumnType::DateTime,
            "time" | "Time" => ColumnType::Time,
            "string" | "code" | "id" | "uri" | "url" | "canonical" | "oid" | "uuid" | "markdown"
            | "xhtml" | "base64Binary" | "String" => ColumnType::Text,
            _ if is_object_type(name) => ColumnType::Json,
            _ => return None,
        })
    }

    /// The item as a cell; `None` where it is of another type.
    pub(crate) fn cell<'a>(self, item: &Item<'a>) -> Option<Cell<'a>> {
        if node(item).is_some_and(|node| node.value().is_none()) {
            // A primitive that has extensions only.
            return Some(Cell::Null);
        }
        // Only where it is wanted: of what an expression makes it is made.
        let text = || item.text();
        Some(match self {
            ColumnType::Any => match item.atom() {
                Item::Boolean(value) => Cell::Bool(value),
                Item::Integer(value) => Cell::Integer(value),
                Item::Decimal(_) => Cell::Decimal(text()?),
                Item::Date(_) => Cell::Date(text()?),
                Item::DateTime(_) => Cell::DateTime(text()?),
                Item::Time(_) => Cell::Time(text()?),
                Item::String(text) => Cell::Text(text),
                Item::Node(_) | Item::Quantity(_) | Item::Object(_) => return None,
            },
            ColumnType::Boolean => Cell::Bool(item.as_bool()?),
            ColumnType::Integer => Cell::Integer(item.as_i64()?),
            ColumnType::Decimal => item.as_decimal().and_then(|_| text()).map(Cell::Decimal)?,
            ColumnType::Text => Cell::Text(text()?),
            ColumnType::Date => Cell::Date(text().filter(|text| Temporal::date(text).is_some())?),
            ColumnType::DateTime => {
                Cell::DateTime(text().filter(|text| Temporal::date_time(text).is_some())?)
            }
            ColumnType::Time => Cell::Time(text().filter(|text| Temporal::time(text).is_some())?),
            ColumnType::Json => json(item),
        })
    }
}

/// A data type, a resource type, or the path of an element that has a type of its own:
/// `Observation.component`.
fn is_object_type(name: &str) -> bool {
    let mut parts = name.split('.');
    let named = parts.next().is_some_and(|first| {
        let is_name = first.starts_with(|c: char| c.is_ascii_uppercase());
        is_name && Expr::compile(&format!("$this is {first}"), &Env::fhir()).is_ok()
    });
    named && parts.all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

fn node<'i, 'a>(item: &'i Item<'a>) -> Option<&'i fhirehose_fhirpath::Node<'a>> {
    match item {
        Item::Node(node) => Some(node),
        _ => None,
    }
}

fn json<'a>(item: &Item<'_>) -> Cell<'a> {
    let mut out = Vec::new();
    item.write_json(&mut out);
    Cell::Json(out)
}
