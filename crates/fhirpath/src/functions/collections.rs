//! Functions on collections as such.

use smallvec::smallvec;

use super::{Call, Function, plain};
use crate::eval::{Evaluated, boolean, single, single_integer};
use crate::item::{Collection, Item};
use crate::navigate::children;
use crate::ops::{check_set, distinct, has};

pub(super) const TABLE: &[Function] = &[
    plain("empty", 0..=0, |call| Ok(boolean(Some(call.input.is_empty())))),
    plain("not", 0..=0, not),
    plain("count", 0..=0, |call| Ok(smallvec![length(call.input.len())])),
    plain("allTrue", 0..=0, |call| every(&call, true)),
    plain("allFalse", 0..=0, |call| every(&call, false)),
    plain("anyTrue", 0..=0, |call| some(&call, true)),
    plain("anyFalse", 0..=0, |call| some(&call, false)),
    plain("first", 0..=0, |call| Ok(call.input.into_iter().take(1).collect())),
    plain("last", 0..=0, |mut call| Ok(call.input.pop().into_iter().collect())),
    plain("tail", 0..=0, |call| Ok(call.input.into_iter().skip(1).collect())),
    plain("skip", 1..=1, |call| slice(call, |items, n| items.into_iter().skip(n).collect())),
    plain("take", 1..=1, |call| slice(call, |items, n| items.into_iter().take(n).collect())),
    plain("single", 0..=0, |call| Ok(single(&call.input, "single()")?.cloned().into_iter().collect())),
    plain("distinct", 0..=0, |call| distinct(call.input)),
    plain("isDistinct", 0..=0, is_distinct),
    plain("union", 1..=1, |call| distinct(combine(call))),
    plain("combine", 1..=1, |call| Ok(combine(call))),
    plain("intersect", 1..=1, |call| distinct(kept(call, true)?)),
    plain("exclude", 1..=1, |call| kept(call, false)),
    plain("subsetOf", 1..=1, |call| subset(&call.input, call.arg(0))),
    plain("supersetOf", 1..=1, |call| subset(call.arg(0), &call.input)),
    plain("children", 0..=0, |call| Ok(below(&call.input))),
    plain("descendants", 0..=0, descendants),
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

fn slice<'a>(call: Call<'a>, cut: fn(Collection<'a>, usize) -> Collection<'a>) -> Evaluated<'a> {
    let Some(n) = single_integer(call.arg(0), call.name)? else {
        return call.error("takes a number of items");
    };
    Ok(cut(call.input, usize::try_from(n).unwrap_or(0)))
}

fn is_distinct(call: Call<'_>) -> Evaluated<'_> {
    let all = call.input.len();
    Ok(boolean(Some(distinct(call.input)?.len() == all)))
}

fn combine(mut call: Call<'_>) -> Collection<'_> {
    let other = call.args.pop().unwrap_or_default();
    call.input.extend(other);
    call.input
}

/// The input's items that the argument has, or those that it has not.
fn kept(mut call: Call<'_>, wanted: bool) -> Evaluated<'_> {
    let other = call.args.pop().unwrap_or_default();
    check_set(&call.input)?;
    check_set(&other)?;
    call.input.retain(|item| has(&other, item) == wanted);
    Ok(call.input)
}

fn subset<'a>(part: &[Item<'a>], whole: &[Item<'a>]) -> Evaluated<'a> {
    check_set(part)?;
    check_set(whole)?;
    Ok(boolean(Some(part.iter().all(|item| has(whole, item)))))
}

fn below<'a>(items: &[Item<'a>]) -> Collection<'a> {
    let mut out = Collection::new();
    items.iter().for_each(|item| children(item, &mut out));
    out
}

fn descendants(call: Call<'_>) -> Evaluated<'_> {
    let mut all = Collection::new();
    let mut level = below(&call.input);
    while !level.is_empty() {
        let next = below(&level);
        all.extend(level);
        level = next;
    }
    Ok(all)
}
