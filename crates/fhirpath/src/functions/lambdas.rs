//! Functions that evaluate an argument for every item, or not at all.

use super::{Function, lambda};
use crate::error::EvalError;
use crate::eval::{Evaluated, Scope, boolean, eval, truth};
use crate::item::Collection;
use crate::ops::has;
use crate::plan::Plan;

pub(super) const TABLE: &[Function] = &[
    lambda("where", 1..=1, filter),
    lambda("select", 1..=1, select),
    lambda("exists", 0..=1, exists),
    lambda("all", 1..=1, all),
    lambda("repeat", 1..=1, repeat),
    lambda("aggregate", 1..=2, aggregate),
    lambda("iif", 2..=3, iif),
    lambda("trace", 1..=2, trace),
];

/// Items that `repeat` may gather; beyond it the expression goes in circles or the input is hostile.
const MAX_REPEATED: usize = 10_000;

fn filter<'a>(scope: Scope<'_, 'a>, input: Collection<'a>, args: &'a [Plan]) -> Evaluated<'a> {
    let mut kept = Collection::new();
    for (index, item) in input.iter().enumerate() {
        if truth(&args[0], scope.at(item, index))? == Some(true) {
            kept.push(item.clone());
        }
    }
    Ok(kept)
}

fn select<'a>(scope: Scope<'_, 'a>, input: Collection<'a>, args: &'a [Plan]) -> Evaluated<'a> {
    let mut out = Collection::new();
    for (index, item) in input.iter().enumerate() {
        out.extend(eval(&args[0], scope.at(item, index))?);
    }
    Ok(out)
}

fn exists<'a>(scope: Scope<'_, 'a>, input: Collection<'a>, args: &'a [Plan]) -> Evaluated<'a> {
    let Some(criterion) = args.first() else { return Ok(boolean(Some(!input.is_empty()))) };
    for (index, item) in input.iter().enumerate() {
        if truth(criterion, scope.at(item, index))? == Some(true) {
            return Ok(boolean(Some(true)));
        }
    }
    Ok(boolean(Some(false)))
}

fn all<'a>(scope: Scope<'_, 'a>, input: Collection<'a>, args: &'a [Plan]) -> Evaluated<'a> {
    for (index, item) in input.iter().enumerate() {
        if truth(&args[0], scope.at(item, index))? != Some(true) {
            return Ok(boolean(Some(false)));
        }
    }
    Ok(boolean(Some(true)))
}

fn repeat<'a>(scope: Scope<'_, 'a>, input: Collection<'a>, args: &'a [Plan]) -> Evaluated<'a> {
    let mut found = Collection::new();
    let mut round = input;
    while !round.is_empty() {
        let mut next = Collection::new();
        for (index, item) in round.iter().enumerate() {
            for item in eval(&args[0], scope.at(item, index))? {
                // Nodes of a tree are met once each; only made values could come round again.
                let seen = match &item {
                    crate::Item::Node(_) => false,
                    other => has(&found, other),
                };
                if !seen {
                    found.push(item.clone());
                    next.push(item);
                }
            }
        }
        if found.len() > MAX_REPEATED {
            return Err(EvalError::new("repeat() finds no end"));
        }
        round = next;
    }
    Ok(found)
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
