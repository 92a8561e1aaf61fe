//! Functions that evaluate an argument for every item, or not at all.

use super::{Function, lambda, stream};
use crate::error::EvalError;
use crate::eval::{Evaluated, Scope, boolean, eval, truth};
use crate::item::Collection;
use crate::kinds::Kinds;
use crate::limits::{MAX_REPEATED, STEP_PAIRS, weight};
use crate::ops::has;
use crate::plan::Plan;
use crate::stream::Stream;

pub(super) const TABLE: &[Function] = &[
    stream("where", 1..=1, Stream::Where).gives_input().about("criterion", "the items it is true for"),
    stream("select", 1..=1, Stream::Select)
        .about("projection", "what it gives for each item, as one collection"),
    stream("exists", 0..=1, Stream::Exists)
        .gives(Kinds::BOOLEAN)
        .about("criterion", "whether there is an item, for which it is true"),
    lambda("all", 1..=1, all)
        .gives(Kinds::BOOLEAN)
        .about("criterion", "whether it is true for all; so of none"),
    lambda("repeat", 1..=1, repeat)
        .about("projection", "what it gives for each item, and for what it gave, and so on; each once"),
    lambda("repeatAll", 1..=1, repeat_all).about("projection", "the same, also equal items"),
    lambda("aggregate", 1..=2, aggregate)
        .about("aggregator, init", "its last value: for each item it sees the one before as `$total`"),
    lambda("iif", 2..=3, iif).about("condition, then, otherwise", "one or the other; only that is evaluated"),
    lambda("coalesce", 1..=16, coalesce).about("first, …", "the first of the arguments that is not empty"),
    lambda("trace", 1..=2, trace)
        .gives_input()
        .about("name, projection", "its input. Nothing is logged: it would be values of records"),
];

fn all<'a>(scope: Scope<'_, 'a>, input: Collection<'a>, args: &'a [Plan]) -> Evaluated<'a> {
    for (index, item) in input.iter().enumerate() {
        if truth(&args[0], scope.at(item, index))? != Some(true) {
            return Ok(boolean(Some(false)));
        }
    }
    Ok(boolean(Some(true)))
}

fn repeat<'a>(scope: Scope<'_, 'a>, input: Collection<'a>, args: &'a [Plan]) -> Evaluated<'a> {
    rounds(scope, input, &args[0], false)
}

fn repeat_all<'a>(scope: Scope<'_, 'a>, input: Collection<'a>, args: &'a [Plan]) -> Evaluated<'a> {
    rounds(scope, input, &args[0], true)
}

/// Evaluates for each item, and for each item that gave, until there are no new ones.
fn rounds<'a>(
    scope: Scope<'_, 'a>,
    input: Collection<'a>,
    projection: &'a Plan,
    every: bool,
) -> Evaluated<'a> {
    let mut found = Collection::new();
    let mut round = input;
    while !round.is_empty() {
        let mut next = Collection::new();
        for (index, item) in round.iter().enumerate() {
            for item in eval(projection, scope.at(item, index))? {
                if !every {
                    scope.ctx.budget.spend(found.len().saturating_mul(weight(&item)) / STEP_PAIRS)?;
                    if has(&found, &item) {
                        continue;
                    }
                }
                found.push(item.clone());
                next.push(item);
            }
        }
        if found.len() > MAX_REPEATED {
            return Err(EvalError::new("repeat() finds no end"));
        }
        round = next;
    }
    Ok(found)
}

fn coalesce<'a>(scope: Scope<'_, 'a>, _: Collection<'a>, args: &'a [Plan]) -> Evaluated<'a> {
    for arg in args {
        let items = eval(arg, scope)?;
        if !items.is_empty() {
            return Ok(items);
        }
    }
    Ok(Collection::new())
}

fn aggregate<'a>(scope: Scope<'_, 'a>, input: Collection<'a>, args: &'a [Plan]) -> Evaluated<'a> {
    let mut total = args.get(1).map_or(Ok(Collection::new()), |start| eval(start, scope))?;
    for (index, item) in input.iter().enumerate() {
        total = eval(&args[0], Scope { total: Some(&total), ..scope.at(item, index) })?;
    }
    Ok(total)
}

/// The condition and both branches see the input as `$this`, where it is one item.
fn iif<'a>(scope: Scope<'_, 'a>, input: Collection<'a>, args: &'a [Plan]) -> Evaluated<'a> {
    let scope = Scope { this: &input, ..scope };
    if truth(&args[0], scope)? == Some(true) {
        return eval(&args[1], scope);
    }
    args.get(2).map_or(Ok(Collection::new()), |otherwise| eval(otherwise, scope))
}

/// Gives its input: what it would log are values of records, and those are never logged.
fn trace<'a>(_: Scope<'_, 'a>, input: Collection<'a>, _: &'a [Plan]) -> Evaluated<'a> {
    Ok(input)
}
