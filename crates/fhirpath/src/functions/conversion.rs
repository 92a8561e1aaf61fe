//! Conversions between FHIRPath's types: `toX` gives the value or nothing, `convertsToX` says whether.

use super::{Call, Function, plain};
use crate::eval::{Evaluated, boolean, single};
use crate::item::{Item, exact};
use crate::kinds::Kinds;
use crate::quantity::Quantity;
use crate::temporal::{Precision, Temporal};

pub(super) const TABLE: &[Function] = &[
    plain("toBoolean", 0..=0, |call| to(&call, to_boolean)).gives(Kinds::BOOLEAN).about("", "a boolean: of true, t, yes, y, 1, 1.0 and their opposites in any case"),
    plain("toInteger", 0..=0, |call| to(&call, to_integer)).gives(Kinds::NUMBER).about("", "an integer: of a text of digits, of a boolean"),
    plain("toDecimal", 0..=0, |call| to(&call, to_decimal)).gives(Kinds::NUMBER).about("", "a decimal: of a number, of its text, of a boolean"),
    plain("toString", 0..=0, |call| to(&call, to_text)).gives(Kinds::TEXT).about("", "a string: of any scalar"),
    plain("toDate", 0..=0, |call| to(&call, to_date)).gives(Kinds::DATE).about("", "a date: of a date and time, of a text"),
    plain("toDateTime", 0..=0, |call| to(&call, to_date_time)).gives(Kinds::DATE).about("", "a date and time: of a date, of a text"),
    plain("toTime", 0..=0, |call| to(&call, to_time)).gives(Kinds::TIME).about("", "a time: of a date and time, of a text"),
    plain("toQuantity", 0..=1, |call| to(&call, to_quantity)).gives(Kinds::QUANTITY).about("unit", "a quantity: of a number, a FHIR Quantity, a text such as `4.5 'mg'` or `4 days`; with a unit, where it is in that unit"),
    plain("convertsToBoolean", 0..=0, |call| converts(&call, to_boolean)).gives(Kinds::BOOLEAN).about("", "whether `toBoolean` gives something"),
    plain("convertsToInteger", 0..=0, |call| converts(&call, to_integer)).gives(Kinds::BOOLEAN).about("", "whether `toInteger` gives something"),
    plain("convertsToDecimal", 0..=0, |call| converts(&call, to_decimal)).gives(Kinds::BOOLEAN).about("", "whether `toDecimal` gives something"),
    plain("convertsToString", 0..=0, |call| converts(&call, to_text)).gives(Kinds::BOOLEAN).about("", "whether `toString` gives something"),
    plain("convertsToDate", 0..=0, |call| converts(&call, to_date)).gives(Kinds::BOOLEAN).about("", "whether `toDate` gives something"),
    plain("convertsToDateTime", 0..=0, |call| converts(&call, to_date_time)).gives(Kinds::BOOLEAN).about("", "whether `toDateTime` gives something"),
    plain("convertsToTime", 0..=0, |call| converts(&call, to_time)).gives(Kinds::BOOLEAN).about("", "whether `toTime` gives something"),
    plain("convertsToQuantity", 0..=1, |call| converts(&call, to_quantity)).gives(Kinds::BOOLEAN).about("unit", "whether `toQuantity` gives something"),
];

type Convert = for<'a> fn(&Item<'a>) -> Option<Item<'a>>;

fn to<'a>(call: &Call<'a>, convert: Convert) -> Evaluated<'a> {
    let item = single(&call.input, call.name)?;
    let result = item.and_then(|item| convert(&item.atom())).filter(|item| fits(call, item));
    Ok(result.into_iter().collect())
}

fn converts<'a>(call: &Call<'a>, convert: Convert) -> Evaluated<'a> {
    let item = single(&call.input, call.name)?;
    let able = |item: &Item<'a>| convert(&item.atom()).is_some_and(|item| fits(call, &item));
    Ok(boolean(item.map(able)))
}

/// A quantity is asked for in a unit, where the call names one.
fn fits(call: &Call<'_>, item: &Item<'_>) -> bool {
    match (item, call.arg(0)) {
        (Item::Quantity(quantity), [unit]) => unit.as_str() == Some(quantity.ucum()),
        _ => true,
    }
}

fn to_boolean<'a>(item: &Item<'a>) -> Option<Item<'a>> {
    let value = match item {
        Item::Boolean(value) => *value,
        Item::String(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "t" | "yes" | "y" | "1" | "1.0" => true,
            "false" | "f" | "no" | "n" | "0" | "0.0" => false,
            _ => return None,
        },
        number => match number.as_decimal()? {
            number if number.is_zero() => false,
            number if number == rust_decimal::Decimal::ONE => true,
            _ => return None,
        },
    };
    Some(Item::Boolean(value))
}

fn to_integer<'a>(item: &Item<'a>) -> Option<Item<'a>> {
    match item {
        Item::Integer(value) => Some(Item::Integer(*value)),
        Item::Boolean(value) => Some(Item::Integer(i64::from(*value))),
        Item::String(text) => text.parse().ok().map(Item::Integer),
        _ => None,
    }
}

fn to_decimal<'a>(item: &Item<'a>) -> Option<Item<'a>> {
    match item {
        Item::Boolean(value) => Some(Item::Decimal(i64::from(*value).into())),
        Item::String(text) if is_decimal(text) => {
            exact(text.strip_prefix('+').unwrap_or(text)).map(Item::Decimal)
        }
        number => number.as_decimal().map(Item::Decimal),
    }
}

/// `(\+|-)?\d+(\.\d+)?`, as the specification has it: no exponent.
fn is_decimal(text: &str) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    match unsigned.split_once('.') {
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => digits(unsigned),
    }
}

fn to_text<'a>(item: &Item<'a>) -> Option<Item<'a>> {
    item.text().map(Item::String)
}

fn to_date<'a>(item: &Item<'a>) -> Option<Item<'a>> {
    match item {
        Item::Date(at) => Some(Item::Date(*at)),
        Item::DateTime(at) => Some(Item::Date(at.date_part())),
        Item::String(text) => Temporal::date_time(text).map(|at| Item::Date(at.date_part())),
        _ => None,
    }
}

fn to_date_time<'a>(item: &Item<'a>) -> Option<Item<'a>> {
    match item {
        Item::Date(at) | Item::DateTime(at) => Some(Item::DateTime(*at)),
        Item::String(text) => Temporal::date_time(text).map(Item::DateTime),
        _ => None,
    }
}

fn to_time<'a>(item: &Item<'a>) -> Option<Item<'a>> {
    match item {
        Item::Time(at) => Some(Item::Time(*at)),
        Item::DateTime(at) if at.precision() > Precision::Day => Some(Item::Time(at.time_part())),
        Item::String(text) => Temporal::time(text).map(Item::Time),
        _ => None,
    }
}

fn to_quantity<'a>(item: &Item<'a>) -> Option<Item<'a>> {
    let quantity = match item {
        Item::Boolean(value) => crate::ops::quantity(&Item::Integer(i64::from(*value)))?,
        Item::String(text) => Quantity::parse(text)?,
        other => crate::ops::quantity(other)?,
    };
    Some(Item::Quantity(Box::new(quantity)))
}
