//! Functions on numbers. What cannot be exact (roots, logarithms) is computed in decimals, never in binary
//! floating point, so results are the same on every machine.

use rust_decimal::{Decimal, MathematicalOps, RoundingStrategy};
use smallvec::smallvec;

use super::{Call, Function, plain};
use crate::error::EvalError;
use crate::eval::{Evaluated, single, single_decimal, single_integer};
use crate::item::{Collection, Item};
use crate::quantity::Quantity;

pub(super) const TABLE: &[Function] = &[
    plain("abs", 0..=0, abs),
    plain("ceiling", 0..=0, |call| whole(&call, |value| value.ceil())),
    plain("floor", 0..=0, |call| whole(&call, |value| value.floor())),
    plain("truncate", 0..=0, |call| whole(&call, |value| value.trunc())),
    plain("round", 0..=1, round),
    plain("sqrt", 0..=0, |call| decimal(&call, |value| value.sqrt())),
    plain("exp", 0..=0, |call| decimal(&call, |value| value.checked_exp())),
    plain("ln", 0..=0, |call| decimal(&call, |value| value.checked_ln())),
    plain("log", 1..=1, log),
    plain("power", 1..=1, power),
    plain("sum", 0..=0, |call| fold(&call, |total, value| total.checked_add(value))),
    plain("min", 0..=0, |call| fold(&call, |least, value| Some(least.min(value)))),
    plain("max", 0..=0, |call| fold(&call, |most, value| Some(most.max(value)))),
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

fn fold<'a>(call: &Call<'a>, add: impl Fn(Decimal, Decimal) -> Option<Decimal>) -> Evaluated<'a> {
    let mut total = None;
    let mut integers = true;
    for item in &call.input {
        let Some(value) = item.as_decimal() else { return call.error("takes numbers") };
        integers &= matches!(item.atom(), Item::Integer(_));
        total = match total {
            None => Some(value),
            Some(total) => match add(total, value) {
                Some(total) => Some(total),
                None => return Err(EvalError::new("a sum is too large")),
            },
        };
    }
    let item = |total: Decimal| match i64::try_from(total) {
        Ok(total) if integers => Item::Integer(total),
        _ => Item::Decimal(total),
    };
    Ok(total.map(item).into_iter().collect())
}
