use fhirehose_fhirpath::{Item, Temporal};
use fhirehose_tape::Value;

use crate::ViewError;
use crate::json::{ANYWHERE, error, join, sql_name};

/// Names that expressions have for other things.
const TAKEN: &[&str] = &["context", "resource", "rootResource", "rowIndex"];

/// Name and value of a constant.
pub(crate) fn constant<'v>(constant: Value<'v>, at: &str) -> Result<(&'v str, Item<'static>), ViewError> {
    let name = sql_name(constant, at)?;
    if TAKEN.contains(&name) {
        return error(&join(at, "name"), format!("%{name} is the standard's own"));
    }
    let mut values = Vec::new();
    for (key, value) in constant.entries() {
        match key.strip_prefix("value") {
            Some(of) => values.push((key, of, value)),
            None if key == "name" || ANYWHERE.contains(&key) => {}
            None => return error(&join(at, key), "unknown element"),
        }
    }
    let &[(key, of, value)] = values.as_slice() else {
        return error(at, "a constant has exactly one value");
    };
    let item = match item(of, value) {
        Some(item) => item,
        None => return error(&join(at, key), "a constant cannot be of this type"),
    };
    match item {
        Some(item) => Ok((name, item)),
        None => error(&join(at, key), "not a value of its type"),
    }
}

/// The value of a type, by the name's end: `None` where the standard has no such constants, nothing within where
/// it is not a value of the type.
fn item(of: &str, value: Value<'_>) -> Option<Option<Item<'static>>> {
    let text = value.as_str();
    let integer = |least: i64, greatest: i64| {
        value.as_i64().filter(|value| (least..=greatest).contains(value)).map(Item::Integer)
    };
    let greatest = i64::from(i32::MAX);
    Some(match of {
        "Boolean" => value.as_bool().map(Item::Boolean),
        "Integer" => integer(i64::from(i32::MIN), greatest),
        "PositiveInt" => integer(1, greatest),
        "UnsignedInt" => integer(0, greatest),
        // R5 writes it as a string, so that no reader rounds it.
        "Integer64" => text.map_or(value.as_i64(), |text| text.parse().ok()).map(Item::Integer),
        "Decimal" => Item::of(value).and_then(|item| item.as_decimal()).map(Item::Decimal),
        "Date" => text.and_then(Temporal::date).map(Item::Date),
        "DateTime" | "Instant" => text.and_then(Temporal::date_time).map(Item::DateTime),
        "Time" => text.and_then(Temporal::time).map(Item::Time),
        "String" | "Code" | "Id" | "Uri" | "Url" | "Canonical" | "Oid" | "Uuid" | "Base64Binary" => {
            text.map(|text| Item::string(text.to_owned()))
        }
        _ => return None,
    })
}
