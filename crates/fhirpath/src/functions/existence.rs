//! Functions that ask about a collection.

use super::{Call, Cost, Function, plain, stream};
use crate::eval::{Evaluated, boolean, single};
use crate::item::Item;
use crate::kinds::Kinds;
use crate::limits::check_set;
use crate::ops::{distinct, has};
use crate::stream::Stream;

const BOOLEAN: Kinds = Kinds::BOOLEAN;

pub(super) const TABLE: &[Function] = &[
    stream("empty", 0..=0, Stream::Empty).gives(BOOLEAN).about("", "whether there is no item"),
    plain("not", 0..=0, not).gives(BOOLEAN).about("", "the other boolean"),
    stream("count", 0..=0, Stream::Count).gives(Kinds::NUMBER).about("", "how many items there are"),
    plain("allTrue", 0..=0, |call| every(&call, true))
        .takes(BOOLEAN)
        .gives(BOOLEAN)
        .about("", "whether all are true; so of none"),
    plain("allFalse", 0..=0, |call| every(&call, false))
        .takes(BOOLEAN)
        .gives(BOOLEAN)
        .about("", "whether all are false; so of none"),
    plain("anyTrue", 0..=0, |call| some(&call, true))
        .takes(BOOLEAN)
        .gives(BOOLEAN)
        .about("", "whether one is true"),
    plain("anyFalse", 0..=0, |call| some(&call, false))
        .takes(BOOLEAN)
        .gives(BOOLEAN)
        .about("", "whether one is false"),
    plain("subsetOf", 1..=1, |call| subset(&call.input, call.arg(0)))
        .gives(BOOLEAN)
        .costs(Cost::Pairs)
        .about("other", "whether the other has all its items"),
    plain("supersetOf", 1..=1, |call| subset(call.arg(0), &call.input))
        .gives(BOOLEAN)
        .costs(Cost::Pairs)
        .about("other", "whether it has all items of the other"),
    plain("isDistinct", 0..=0, is_distinct)
        .gives(BOOLEAN)
        .costs(Cost::Pairs)
        .about("", "whether no two items are equal"),
];

pub(super) fn length<'a>(n: usize) -> Item<'a> {
    Item::Integer(i64::try_from(n).unwrap_or(i64::MAX))
}

/// Negates a boolean; the numbers 0 and 1 count as booleans here, any other item as true.
fn not(call: Call<'_>) -> Evaluated<'_> {
    let value = single(&call.input, "not()")?
        .map(|item| item.as_bool().or(item.as_i64().map(|number| number != 0)).unwrap_or(true));
    Ok(boolean(value.map(|value| !value)))
}

fn every<'a>(call: &Call<'a>, wanted: bool) -> Evaluated<'a> {
    for item in &call.input {
        match item.as_bool() {
            Some(value) if value == wanted => {}
            Some(_) => return Ok(boolean(Some(false))),
            None => return call.error("takes booleans"),
        }
    }
    Ok(boolean(Some(true)))
}

fn some<'a>(call: &Call<'a>, wanted: bool) -> Evaluated<'a> {
    for item in &call.input {
        match item.as_bool() {
            Some(value) if value == wanted => return Ok(boolean(Some(true))),
            Some(_) => {}
            None => return call.error("takes booleans"),
        }
    }
    Ok(boolean(Some(false)))
}

fn is_distinct(call: Call<'_>) -> Evaluated<'_> {
    let all = call.input.len();
    Ok(boolean(Some(distinct(call.input)?.len() == all)))
}

fn subset<'a>(part: &[Item<'a>], whole: &[Item<'a>]) -> Evaluated<'a> {
    check_set(part)?;
    check_set(whole)?;
    Ok(boolean(Some(part.iter().all(|item| has(whole, item)))))
}
