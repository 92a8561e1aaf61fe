//! Functions on numbers. What cannot be exact (roots, logarithms) is computed in decimals, never in binary
//! floating point, so results are the same on every machine.

use std::cmp::Ordering;
use std::ops::RangeInclusive;

use rust_decimal::{Decimal, MathematicalOps, RoundingStrategy};
use smallvec::smallvec;

use super::{Call, Function, plain};
use crate::error::EvalError;
use crate::eval::{Evaluated, single, single_decimal, single_integer};
use crate::item::{Collection, Item};
use crate::kinds::Kinds;
use crate::ops::{arithmetic, compare};
use crate::parser::Op;
use crate::quantity::Quantity;

const NUMBER: Kinds = Kinds::NUMBER;

/// What has an order.
const ORDERED: Kinds = NUMBER.or(Kinds::QUANTITY).or(Kinds::TEXT).or(Kinds::DATE).or(Kinds::TIME);

/// A function of a number.
const fn of_number(
    name: &'static str,
    args: RangeInclusive<usize>,
    run: for<'a> fn(Call<'a>) -> Evaluated<'a>,
) -> Function {
    plain(name, args, run).takes(NUMBER).gives(NUMBER)
}

pub(super) const TABLE: &[Function] = &[
    of_number("abs", 0..=0, abs)
        .takes(NUMBER.or(Kinds::QUANTITY))
        .gives_input()
        .about("", "without its sign; of a quantity too"),
    of_number("ceiling", 0..=0, |call| whole(&call, |value| value.ceil()))
        .about("", "the least integer that is not less"),
    of_number("floor", 0..=0, |call| whole(&call, |value| value.floor()))
        .about("", "the greatest integer that is not more"),
    of_number("truncate", 0..=0, |call| whole(&call, |value| value.trunc())).about("", "the integer part"),
    of_number("round", 0..=1, round)
        .about("places", "to the nearest with so many places; halves away from zero"),
    of_number("sqrt", 0..=0, |call| decimal(&call, |value| value.sqrt()))
        .about("", "the square root; nothing of a negative number"),
    of_number("exp", 0..=0, |call| decimal(&call, |value| value.checked_exp())).about("", "e to its power"),
    of_number("ln", 0..=0, |call| decimal(&call, |value| value.checked_ln()))
        .about("", "the natural logarithm"),
    of_number("log", 1..=1, log).about("base", "the logarithm, to 8 places"),
    of_number("power", 1..=1, power).about("exponent", "to that power; nothing where that is no real number"),
    of_number("sum", 0..=0, |call| sum(&call).map(|sum| sum.into_iter().collect()))
        .takes(NUMBER.or(Kinds::QUANTITY))
        .gives_input()
        .about("", "the sum of numbers, or of quantities of one dimension"),
    of_number("min", 0..=0, |call| extreme(call, Ordering::Less))
        .takes(ORDERED)
        .gives_input()
        .about("", "the least of numbers, quantities, strings, dates or times"),
    of_number("max", 0..=0, |call| extreme(call, Ordering::Greater))
        .takes(ORDERED)
        .gives_input()
        .about("", "the greatest of them"),
    of_number("avg", 0..=0, average)
        .takes(NUMBER.or(Kinds::QUANTITY))
        .gives_input()
        .about("", "the sum divided by the number of items"),
];

fn decimal<'a>(call: &Call<'a>, compute: impl Fn(Decimal) -> Option<Decimal>) -> Evaluated<'a> {
    let value = single_decimal(&call.input, call.name)?;
    Ok(value.and_then(compute).map(Item::Decimal).into_iter().collect())
}

fn whole<'a>(call: &Call<'a>, round: impl Fn(Decimal) -> Decimal) -> Evaluated<'a> {
    let value = single_decimal(&call.input, call.name)?;
    Ok(value.and_then(|value| i64::try_from(round(value)).ok()).map(Item::Integer).into_iter().collect())
}

fn abs(call: Call<'_>) -> Evaluated<'_> {
    let Some(item) = single(&call.input, call.name)? else { return Ok(Collection::new()) };
    Ok(match item.atom() {
        Item::Integer(value) => value.checked_abs().map(Item::Integer).into_iter().collect(),
        Item::Decimal(value) => smallvec![Item::Decimal(value.abs())],
        Item::Quantity(quantity) => {
            smallvec![Item::Quantity(Box::new(Quantity { value: quantity.value.abs(), ..*quantity }))]
        }
        _ => return call.error("takes a number"),
    })
}

fn round(call: Call<'_>) -> Evaluated<'_> {
    let places = single_integer(call.arg(0), call.name)?.unwrap_or(0);
    let Ok(places) = u32::try_from(places) else { return call.error("takes no negative number of places") };
    decimal(&call, |value| Some(value.round_dp_with_strategy(places, RoundingStrategy::MidpointAwayFromZero)))
}

fn log(call: Call<'_>) -> Evaluated<'_> {
    let base = single_decimal(call.arg(0), call.name)?.and_then(|base| base.checked_ln());
    let Some(base) = base.filter(|base| !base.is_zero()) else { return Ok(Collection::new()) };
    // Both logarithms are rounded in their last places: what is left of it beyond 8 places says nothing.
    decimal(&call, |value| crate::ops::quotient(value.checked_ln()?, base))
}

fn power(call: Call<'_>) -> Evaluated<'_> {
    let value = single(&call.input, call.name)?.map(Item::atom);
    let exponent = single(call.arg(0), call.name)?.map(Item::atom);
    let result = match (value, exponent) {
        (Some(Item::Integer(value)), Some(Item::Integer(exponent))) if exponent >= 0 => {
            u32::try_from(exponent).ok().and_then(|exponent| value.checked_pow(exponent)).map(Item::Integer)
        }
        (Some(value), Some(exponent)) => {
            let (Some(value), Some(exponent)) = (value.as_decimal(), exponent.as_decimal()) else {
                return call.error("takes numbers");
            };
            // A root of a negative number is no number.
            let real = !value.is_sign_negative() || exponent.fract().is_zero();
            real.then(|| value.checked_powd(exponent)).flatten().map(Item::Decimal)
        }
        _ => None,
    };
    Ok(result.into_iter().collect())
}

fn sum<'a>(call: &Call<'a>) -> Result<Option<Item<'a>>, EvalError> {
    let mut items = call.input.iter().map(Item::atom);
    let Some(first) = items.next() else { return Ok(None) };
    // A single item must be a number too.
    crate::ops::negate(std::slice::from_ref(&first))?;
    let total = items.try_fold(first, |total, item| match arithmetic(Op::Add, &total, &item)? {
        Some(Item::String(_)) => call.error("takes numbers"),
        Some(total) => Ok(total),
        None => call.error("is too large, or of units that do not fit"),
    })?;
    Ok(Some(total))
}

fn average(call: Call<'_>) -> Evaluated<'_> {
    let Some(total) = sum(&call)? else { return Ok(Collection::new()) };
    let count = super::existence::length(call.input.len());
    Ok(arithmetic(Op::Divide, &total, &count)?.into_iter().collect())
}

/// The item that is most of what is asked; nothing where two cannot be told apart for their precision.
fn extreme(call: Call<'_>, wanted: Ordering) -> Evaluated<'_> {
    let mut items = call.input.iter();
    let Some(mut best) = items.next() else { return Ok(Collection::new()) };
    compare(best, best)?;
    for item in items {
        match compare(item, best)? {
            Some(order) if order == wanted => best = item,
            Some(_) => {}
            None => return Ok(Collection::new()),
        }
    }
    Ok(smallvec![best.atom()])
}
