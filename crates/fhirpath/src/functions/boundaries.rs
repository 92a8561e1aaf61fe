//! What an imprecise value can stand for, and how precise it is. A precision is the number of digits: `2014-01`
//! has 6, `T10:30` has 4, and of a decimal those behind the point count.

use rust_decimal::{Decimal, RoundingStrategy};
use smallvec::smallvec;

use super::{Call, Function, plain};
use crate::eval::{Evaluated, boolean, single, single_integer};
use crate::item::{Collection, Item};
use crate::kinds::Kinds;
use crate::ops::quantity;
use crate::quantity::Quantity;
use crate::temporal::{Precision, Temporal};
use crate::types::Type;

const PRECISE: Kinds = Kinds::NUMBER.or(Kinds::QUANTITY).or(Kinds::DATE).or(Kinds::TIME).or(Kinds::TEXT);

pub(super) const TABLE: &[Function] = &[
    plain("lowBoundary", 0..=1, |call| boundary(call, false))
        .takes(PRECISE)
        .gives_input()
        .about("precision", "the least that an imprecise number, quantity, date or time can stand for"),
    plain("highBoundary", 0..=1, |call| boundary(call, true))
        .takes(PRECISE)
        .gives_input()
        .about("precision", "the greatest"),
    plain("precision", 0..=0, precision)
        .takes(PRECISE)
        .gives(Kinds::NUMBER)
        .about("", "the digits of a date or time, those behind the point of a number"),
    plain("comparable", 1..=1, comparable)
        .takes(Kinds::NUMBER.or(Kinds::QUANTITY))
        .gives(Kinds::BOOLEAN)
        .about("other", "whether two quantities are of one dimension"),
];

/// Digits behind the point that decimals have unless said, and that they can have.
const PLACES: u32 = 8;
const MAX_PLACES: u32 = 28;

fn boundary(call: Call<'_>, high: bool) -> Evaluated<'_> {
    let Some(item) = single(&call.input, call.name)? else { return Ok(Collection::new()) };
    let asked = match call.args.first() {
        None => None,
        Some(asked) => match single_integer(asked, call.name)?.map(u32::try_from) {
            Some(Ok(asked)) => Some(asked),
            // Without a precision where one is named, and of a negative one, there is nothing.
            _ => return Ok(Collection::new()),
        },
    };
    let bound = match item.atom() {
        Item::Date(at) => temporal(at, Form::Date, high, asked),
        Item::DateTime(at) => temporal(at, Form::DateTime, high, asked),
        Item::Time(at) => temporal(at, Form::Time, high, asked),
        Item::String(text) => {
            let Some((at, form)) = of_text(&text, item) else { return Ok(Collection::new()) };
            temporal(at, form, high, asked)
        }
        other => match quantity(&other) {
            Some(of) => decimal(of.value, high, asked).map(|value| match other.as_decimal() {
                Some(_) => Item::Decimal(value),
                None => Item::Quantity(Box::new(Quantity { value, unit: of.unit })),
            }),
            None => return call.error("takes a number, quantity, date or time"),
        },
    };
    Ok(bound.into_iter().collect())
}

/// Half a unit of the last place away, then to the places asked for, away from the value.
fn decimal(value: Decimal, high: bool, asked: Option<u32>) -> Option<Decimal> {
    let places = asked.unwrap_or((value.scale() + 1).max(PLACES));
    let half = Decimal::try_new(5, value.scale() + 1).ok()?;
    let bound = if high { value.checked_add(half)? } else { value.checked_sub(half)? };
    if places > MAX_PLACES {
        return None;
    }
    let away = if high { RoundingStrategy::ToPositiveInfinity } else { RoundingStrategy::ToNegativeInfinity };
    let mut rounded = bound.round_dp_with_strategy(places, away);
    rounded.rescale(places);
    // A number that is too long for so many places keeps fewer.
    (rounded.scale() == places).then_some(rounded)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Date,
    DateTime,
    Time,
}

impl Form {
    /// Precisions, and the digits each has written.
    fn precisions(self) -> &'static [(u32, Precision)] {
        match self {
            Form::Date => &[(4, Precision::Year), (6, Precision::Month), (8, Precision::Day)],
            Form::DateTime => &[
                (4, Precision::Year),
                (6, Precision::Month),
                (8, Precision::Day),
                (10, Precision::Hour),
                (12, Precision::Minute),
                (14, Precision::Second),
                (17, Precision::Second),
            ],
            Form::Time => &[
                (2, Precision::Hour),
                (4, Precision::Minute),
                (6, Precision::Second),
                (9, Precision::Second),
            ],
        }
    }

    fn item<'a>(self, at: Temporal) -> Item<'a> {
        match self {
            Form::Date => Item::Date(at),
            Form::DateTime => Item::DateTime(at),
            Form::Time => Item::Time(at),
        }
    }
}

fn temporal<'a>(at: Temporal, form: Form, high: bool, asked: Option<u32>) -> Option<Item<'a>> {
    let precisions = form.precisions();
    let (most, finest) = *precisions.last()?;
    let wanted = asked.unwrap_or(most);
    let (_, precision) = *precisions.iter().find(|(digits, _)| *digits == wanted)?;
    // The earliest a time without offset can be is in the east, the latest in the west.
    let offset = (form == Form::DateTime).then_some(if high { -12 * 60 } else { 14 * 60 });
    let mut bound = at.boundary(high, finest, offset)?.cut(precision);
    if precision == Precision::Second && wanted < most {
        bound = bound.without_fraction();
    }
    if precision <= Precision::Day {
        bound = bound.date_part();
    }
    Some(form.item(bound))
}

/// A date or time of a document whose element's type is not known, by its form.
fn of_text(text: &str, item: &Item<'_>) -> Option<(Temporal, Form)> {
    let untyped = !matches!(item, Item::Node(node) if node.of != Type::UNKNOWN);
    let date = Temporal::date(text).filter(|_| untyped).map(|at| (at, Form::Date));
    date.or_else(|| Temporal::date_time(text).map(|at| (at, Form::DateTime)))
        .or_else(|| Temporal::time(text).map(|at| (at, Form::Time)))
}

fn precision(call: Call<'_>) -> Evaluated<'_> {
    let Some(item) = single(&call.input, call.name)? else { return Ok(Collection::new()) };
    let digits = match item.atom() {
        Item::Date(at) => written(at, Form::Date),
        Item::DateTime(at) => written(at, Form::DateTime),
        Item::Time(at) => written(at, Form::Time),
        Item::String(text) => match of_text(&text, item) {
            Some((at, form)) => written(at, form),
            None => return Ok(Collection::new()),
        },
        other => match quantity(&other) {
            Some(of) => of.value.scale(),
            None => return call.error("takes a number, quantity, date or time"),
        },
    };
    Ok(smallvec![Item::Integer(i64::from(digits))])
}

/// The digits a date or time was written with. A fraction counts as three, as in `14:30:00.000`.
fn written(at: Temporal, form: Form) -> u32 {
    let digits = |(digits, precision): &(u32, Precision)| {
        let fits = *precision == at.precision() && (at.has_fraction() || !matches!(digits, 9 | 17));
        fits.then_some(*digits)
    };
    form.precisions().iter().filter_map(digits).max().unwrap_or_default()
}

fn comparable(call: Call<'_>) -> Evaluated<'_> {
    let (left, right) = (single(&call.input, call.name)?, single(call.arg(0), call.name)?);
    let (Some(left), Some(right)) = (left, right) else { return Ok(Collection::new()) };
    match (quantity(&left.atom()), quantity(&right.atom())) {
        (Some(left), Some(right)) => Ok(boolean(Some(left.in_unit_of(&right).is_some()))),
        _ => call.error("takes quantities"),
    }
}
