use std::borrow::Cow;
use std::cmp::Ordering;

use fhirehose_tape::{Kind, Value};
use rust_decimal::Decimal;
use smallvec::smallvec;

use crate::error::EvalError;
use crate::eval::{Evaluated, single};
use crate::item::{Collection, Item, Node};
use crate::limits::check_set;
use crate::parser::Op;
use crate::quantity::{Quantity, Unit};
use crate::temporal::Temporal;

/// Decimal places of a quotient: the step FHIRPath's decimals have.
const QUOTIENT_PLACES: u32 = 8;

pub(crate) fn is_arithmetic(op: Op) -> bool {
    matches!(op, Op::Add | Op::Subtract | Op::Multiply | Op::Divide | Op::Div | Op::Mod)
}

/// `=`: pairwise and in order; `None` where a side is empty or dates are too imprecise to tell.
pub(crate) fn equal(left: &[Item<'_>], right: &[Item<'_>]) -> Option<bool> {
    if left.is_empty() || right.is_empty() {
        return None;
    }
    if left.len() != right.len() {
        return Some(false);
    }
    let mut result = Some(true);
    for (left, right) in left.iter().zip(right) {
        match item_equal(left, right) {
            Some(true) => {}
            Some(false) => return Some(false),
            None => result = None,
        }
    }
    result
}

pub(crate) fn item_equal(left: &Item<'_>, right: &Item<'_>) -> Option<bool> {
    let (left, right) = (left.scalar(), right.scalar());
    match (&left, &right) {
        (Item::String(a), Item::String(b)) => return Some(a == b),
        (Item::Boolean(a), Item::Boolean(b)) => return Some(a == b),
        (Item::Integer(a), Item::Integer(b)) => return Some(a == b),
        (Item::Node(a), Item::Node(b)) if a.same(b) => return Some(true),
        _ => {}
    }
    if let (Some(a), Some(b)) = (left.as_decimal(), right.as_decimal()) {
        return Some(a == b);
    }
    if let Some((a, b)) = temporals(&left, &right) {
        return a.compare(b).map(Ordering::is_eq);
    }
    if let Some((a, b)) = quantities(&left, &right) {
        return a
            .compare(&b)
            .map_or(Some(false).filter(|_| !a.calendar_clash(&b)), |order| Some(order.is_eq()));
    }
    match (&left, &right) {
        (Item::Node(a), Item::Node(b)) => Some(match (a.value(), b.value()) {
            (Some(a), Some(b)) => same_value(a, b),
            (None, None) => a.same(b),
            _ => false,
        }),
        (Item::Object(members), other) | (other, Item::Object(members)) => Some(same_object(members, other)),
        _ => Some(false),
    }
}

/// Deep equality of values in documents. The order of members says nothing.
fn same_value(a: Value<'_>, b: Value<'_>) -> bool {
    match (a.kind(), b.kind()) {
        (Kind::Object, Kind::Object) => {
            a.len() == b.len()
                && a.entries().all(|(key, value)| b.get(key).is_some_and(|other| same_value(value, other)))
        }
        (Kind::Array, Kind::Array) => {
            a.len() == b.len() && a.elements().zip(b.elements()).all(|(a, b)| same_value(a, b))
        }
        (Kind::Number, Kind::Number) => match (Item::of(a), Item::of(b)) {
            (Some(a), Some(b)) => match (a.as_decimal(), b.as_decimal()) {
                (Some(a), Some(b)) => a == b,
                _ => a.text() == b.text(),
            },
            _ => false,
        },
        (x, y) => x == y && a.as_str() == b.as_str() && a.as_bool() == b.as_bool(),
    }
}

fn same_object(members: &[(Cow<'_, str>, Item<'_>)], other: &Item<'_>) -> bool {
    let found = |name: &str| match other {
        Item::Object(others) => others.iter().find(|(key, _)| key == name).map(|(_, item)| item.clone()),
        Item::Node(node) => node.value()?.get(name).and_then(Item::of),
        _ => None,
    };
    let len = match other {
        Item::Object(others) => others.len(),
        Item::Node(node) => node.value().map_or(0, Value::len),
        _ => 0,
    };
    members.len() == len
        && members
            .iter()
            .all(|(name, item)| found(name).is_some_and(|other| item_equal(item, &other) == Some(true)))
}

/// `~`: in any order, text without regard to case and spacing, numbers to the lesser precision.
pub(crate) fn equivalent(left: &[Item<'_>], right: &[Item<'_>]) -> bool {
    if left.len() != right.len() {
        return false;
    }
    let mut open: Vec<&Item<'_>> = right.iter().collect();
    left.iter().all(|item| {
        let found = open.iter().position(|other| item_equivalent(item, other));
        found.map(|at| open.swap_remove(at)).is_some()
    })
}

fn item_equivalent(left: &Item<'_>, right: &Item<'_>) -> bool {
    let (left, right) = (left.scalar(), right.scalar());
    if let (Item::String(a), Item::String(b)) = (&left, &right) {
        return same_text(a, b);
    }
    if let (Some(a), Some(b)) = (left.as_decimal(), right.as_decimal()) {
        return same_decimal(a, b);
    }
    if let Some((a, b)) = temporals(&left, &right) {
        return a.compare(b).is_some_and(Ordering::is_eq);
    }
    if let Some((a, b)) = quantities(&left, &right) {
        return a.in_unit_of(&b).is_some_and(|(a, b)| same_decimal(a, b));
    }
    match (&left, &right) {
        (Item::Node(a), Item::Node(b)) => match (a.value(), b.value()) {
            (Some(a), Some(b)) => equivalent_value(a, b),
            _ => false,
        },
        _ => item_equal(&left, &right) == Some(true),
    }
}

fn equivalent_value(a: Value<'_>, b: Value<'_>) -> bool {
    match (a.kind(), b.kind()) {
        (Kind::Object, Kind::Object) => {
            a.len() == b.len()
                && a.entries()
                    .all(|(key, value)| b.get(key).is_some_and(|other| equivalent_value(value, other)))
        }
        (Kind::Array, Kind::Array) => equivalent(&crate::item::collect(a), &crate::item::collect(b)),
        (Kind::String, Kind::String) => {
            same_text(a.as_str().unwrap_or_default(), b.as_str().unwrap_or_default())
        }
        (Kind::Number, Kind::Number) => {
            let exact = |value| Item::of(value).and_then(|item| item.as_decimal());
            match (exact(a), exact(b)) {
                (Some(a), Some(b)) => same_decimal(a, b),
                _ => a.as_number() == b.as_number(),
            }
        }
        (x, y) => x == y && a.as_bool() == b.as_bool(),
    }
}

fn same_text(a: &str, b: &str) -> bool {
    let words = |text: &str| text.split_whitespace().map(str::to_lowercase).collect::<Vec<_>>();
    words(a) == words(b)
}

fn same_decimal(a: Decimal, b: Decimal) -> bool {
    let places = a.scale().min(b.scale());
    a.round_dp(places) == b.round_dp(places)
}

/// Both as dates or times, where at least one is and the other can be read as such.
fn temporals(left: &Item<'_>, right: &Item<'_>) -> Option<(Temporal, Temporal)> {
    match (left, right) {
        (Item::Date(a) | Item::DateTime(a), Item::Date(b) | Item::DateTime(b)) => Some((*a, *b)),
        (Item::Time(a), Item::Time(b)) => Some((*a, *b)),
        // Text of a document: JSON has no type for dates.
        (Item::Date(a) | Item::DateTime(a), Item::String(text)) => Some((*a, Temporal::date_time(text)?)),
        (Item::String(text), Item::Date(b) | Item::DateTime(b)) => Some((Temporal::date_time(text)?, *b)),
        (Item::Time(a), Item::String(text)) => Some((*a, Temporal::time(text)?)),
        (Item::String(text), Item::Time(b)) => Some((Temporal::time(text)?, *b)),
        _ => None,
    }
}

/// Both as quantities, where at least one is.
fn quantities<'a>(left: &Item<'a>, right: &Item<'a>) -> Option<(Quantity<'a>, Quantity<'a>)> {
    let literal = |item: &Item<'a>| matches!(item, Item::Quantity(_));
    let plausible = literal(left) || literal(right) || {
        let coded = |item: &Item<'a>| match item {
            Item::Node(node) => {
                node.object().is_some_and(|o| o.get("value").is_some() && o.get("code").is_some())
            }
            _ => false,
        };
        coded(left) && coded(right)
    };
    if plausible { Some((quantity(left)?, quantity(right)?)) } else { None }
}

/// An item as a quantity: a number has the unit 1, a FHIR Quantity its code or else its unit.
pub(crate) fn quantity<'a>(item: &Item<'a>) -> Option<Quantity<'a>> {
    let text = |node: &Node<'a>, name| node.object()?.get(name)?.as_str();
    match item {
        Item::Quantity(quantity) => Some((**quantity).clone()),
        Item::Node(node) if node.object().is_some() => {
            let value = Item::of(node.object()?.get("value")?)?.as_decimal()?;
            let unit = text(node, "code").or(text(node, "unit")).unwrap_or("1");
            Some(Quantity { value, unit: Unit::Ucum(Cow::Borrowed(unit)) })
        }
        other => Some(Quantity { value: other.as_decimal()?, unit: Unit::Ucum(Cow::Borrowed("1")) }),
    }
}

/// `<` and its like; `None` where dates are too imprecise or units too different to tell.
pub(crate) fn compare(left: &Item<'_>, right: &Item<'_>) -> Result<Option<Ordering>, EvalError> {
    let (left, right) = (left.scalar(), right.scalar());
    if let (Item::Integer(a), Item::Integer(b)) = (&left, &right) {
        return Ok(Some(a.cmp(b)));
    }
    if let (Some(a), Some(b)) = (left.as_decimal(), right.as_decimal()) {
        return Ok(Some(a.cmp(&b)));
    }
    if let (Item::String(a), Item::String(b)) = (&left, &right) {
        return Ok(Some(a.cmp(b)));
    }
    if let Some((a, b)) = temporals(&left, &right) {
        return Ok(a.compare(b));
    }
    if let Some((a, b)) = quantities(&left, &right) {
        return Ok(a.compare(&b));
    }
    Err(EvalError::new("values of different kinds cannot be compared"))
}

/// `+ - * / div mod`; `None` where a result does not fit and where a divisor is zero.
pub(crate) fn arithmetic<'a>(
    op: Op,
    left: &Item<'a>,
    right: &Item<'a>,
) -> Result<Option<Item<'a>>, EvalError> {
    let (left, right) = (left.atom(), right.atom());
    Ok(match (&left, &right) {
        (Item::Integer(a), Item::Integer(b)) => integers(op, *a, *b),
        (Item::String(a), Item::String(b)) if op == Op::Add => Some(Item::string(a.clone() + b.clone())),
        (Item::Date(_) | Item::DateTime(_) | Item::Time(_), Item::Quantity(by)) => moved(op, &left, by)?,
        (Item::String(text), Item::Quantity(by)) => match dated(text) {
            Some(at) => moved(op, &at, by)?,
            None => return Err(kinds()),
        },
        _ => match (left.as_decimal(), right.as_decimal()) {
            (Some(a), Some(b)) => decimals(op, a, b),
            _ => match quantities(&left, &right) {
                Some((a, b)) => a.combine(op, &b)?.map(|quantity| Item::Quantity(Box::new(quantity))),
                None => return Err(kinds()),
            },
        },
    })
}

fn kinds() -> EvalError {
    EvalError::new("arithmetic on values of kinds that do not fit")
}

fn integers<'a>(op: Op, a: i64, b: i64) -> Option<Item<'a>> {
    match op {
        Op::Add => a.checked_add(b),
        Op::Subtract => a.checked_sub(b),
        Op::Multiply => a.checked_mul(b),
        Op::Div => a.checked_div(b),
        Op::Mod => a.checked_rem(b),
        _ => return decimals(op, Decimal::from(a), Decimal::from(b)),
    }
    .map(Item::Integer)
}

pub(crate) fn decimals<'a>(op: Op, a: Decimal, b: Decimal) -> Option<Item<'a>> {
    Some(match op {
        Op::Add => Item::Decimal(a.checked_add(b)?),
        Op::Subtract => Item::Decimal(a.checked_sub(b)?),
        Op::Multiply => Item::Decimal(a.checked_mul(b)?),
        Op::Mod => Item::Decimal(a.checked_rem(b)?),
        Op::Div => Item::Integer(i64::try_from(a.checked_div(b)?.trunc()).ok()?),
        _ => Item::Decimal(quotient(a, b)?),
    })
}

/// A quotient to 8 places, without zeros that say nothing.
pub(crate) fn quotient(a: Decimal, b: Decimal) -> Option<Decimal> {
    Some(a.checked_div(b)?.round_dp(QUOTIENT_PLACES).normalize())
}

/// A date of a document, for arithmetic.
fn dated<'a>(text: &str) -> Option<Item<'a>> {
    Temporal::date(text).map(Item::Date).or_else(|| Temporal::date_time(text).map(Item::DateTime))
}

/// A date or time moved by a calendar duration. Parts of a unit finer than a second are cut off.
fn moved<'a>(op: Op, at: &Item<'a>, by: &Quantity<'_>) -> Result<Option<Item<'a>>, EvalError> {
    let value = match op {
        Op::Add => by.value,
        Op::Subtract => -by.value,
        _ => return Err(kinds()),
    };
    let Some((months, nanos)) = by.duration(value) else {
        return Err(EvalError::new("a date moves by years, months, weeks, days, hours, minutes and seconds"));
    };
    Ok(match at {
        Item::Date(at) => at.shift_by(months, nanos, false).map(Item::Date),
        Item::DateTime(at) => at.shift_by(months, nanos, false).map(Item::DateTime),
        Item::Time(at) => at.shift_by(0, nanos, true).map(Item::Time),
        _ => None,
    })
}

pub(crate) fn negate<'a>(items: &[Item<'a>]) -> Evaluated<'a> {
    let Some(item) = single(items, "a sign")? else { return Ok(Collection::new()) };
    Ok(match item.atom() {
        Item::Integer(value) => value.checked_neg().map(Item::Integer).into_iter().collect(),
        // There is no negative zero.
        Item::Decimal(value) if value.is_zero() => smallvec![Item::Decimal(value.abs())],
        Item::Decimal(value) => smallvec![Item::Decimal(-value)],
        Item::Quantity(quantity) => {
            smallvec![Item::Quantity(Box::new(Quantity { value: -quantity.value, ..*quantity }))]
        }
        _ => return Err(EvalError::new("a sign needs a number")),
    })
}

/// Whether the collection has an equal item.
pub(crate) fn has(items: &[Item<'_>], wanted: &Item<'_>) -> bool {
    items.iter().any(|item| item_equal(item, wanted) == Some(true))
}

/// Each item once, the first of equal ones.
pub(crate) fn distinct(items: Collection<'_>) -> Evaluated<'_> {
    check_set(&items)?;
    let mut kept = Collection::with_capacity(items.len());
    for item in items {
        if !has(&kept, &item) {
            kept.push(item);
        }
    }
    Ok(kept)
}
