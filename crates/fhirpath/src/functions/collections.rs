//! Functions on collections as such.

use super::{Call, Cost, Function, plain, stream};
use crate::eval::{Evaluated, single, single_integer};
use crate::item::{Collection, Item};
use crate::limits::check_set;
use crate::navigate::children;
use crate::ops::{distinct, has};
use crate::stream::Stream;

pub(super) const TABLE: &[Function] = &[
    stream("first", 0..=0, Stream::First).gives_input().about("", "the first item"),
    plain("last", 0..=0, |mut call| Ok(call.input.pop().into_iter().collect()))
        .gives_input()
        .about("", "the last item"),
    plain("tail", 0..=0, |call| Ok(call.input.into_iter().skip(1).collect()))
        .gives_input()
        .about("", "all but the first"),
    plain("skip", 1..=1, |call| slice(call, |items, n| items.into_iter().skip(n).collect()))
        .gives_input()
        .about("n", "all but the first n"),
    plain("take", 1..=1, |call| slice(call, |items, n| items.into_iter().take(n).collect()))
        .gives_input()
        .about("n", "the first n"),
    plain("single", 0..=0, |call| Ok(single(&call.input, "single()")?.cloned().into_iter().collect()))
        .gives_input()
        .about("", "the only item; an error if there are more"),
    plain("distinct", 0..=0, |call| distinct(call.input))
        .gives_input()
        .costs(Cost::Pairs)
        .about("", "each item once, the first of equal ones"),
    plain("union", 1..=1, |call| distinct(combine(call)))
        .costs(Cost::Pairs)
        .about("other", "the items of both, each once; the same as `|`"),
    plain("combine", 1..=1, |call| Ok(combine(call))).about("other", "the items of both, also equal ones"),
    plain("intersect", 1..=1, |call| distinct(kept(call, true)?))
        .gives_input()
        .costs(Cost::Pairs)
        .about("other", "the items that both have, each once"),
    plain("exclude", 1..=1, |call| kept(call, false))
        .gives_input()
        .costs(Cost::Pairs)
        .about("other", "the items that the other does not have"),
    plain("children", 0..=0, |call| Ok(below(&call.input)))
        .about("", "the elements directly in the items, in order"),
    plain("descendants", 0..=0, descendants).about("", "the elements in the items at any depth"),
];

fn slice<'a>(call: Call<'a>, cut: fn(Collection<'a>, usize) -> Collection<'a>) -> Evaluated<'a> {
    let Some(n) = single_integer(call.arg(0), call.name)? else {
        return call.error("takes a number of items");
    };
    Ok(cut(call.input, usize::try_from(n).unwrap_or(0)))
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

fn below<'a>(items: &[Item<'a>]) -> Collection<'a> {
    let mut out = Collection::new();
    items.iter().for_each(|item| children(item, &mut |child| out.push(child)));
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
