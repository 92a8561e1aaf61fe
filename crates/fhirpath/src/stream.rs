//! Paths item by item: `a.b.where(c).d.first()` makes no collection between its steps.

use crate::error::EvalError;
use crate::eval::{Evaluated, Scope, eval, placed, quick, single_integer, single_text, truth};
use crate::item::{Collection, Item};
use crate::limits::STEP_MEMBERS;
use crate::navigate::{element, member};
use crate::plan::Plan;
use crate::types::Type;

/// A function that takes its input item by item.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Where,
    Select,
    Exists,
    Empty,
    Count,
    First,
    Extension,
}

impl Stream {
    /// Whether its argument is evaluated for each item.
    pub(crate) fn is_lambda(self) -> bool {
        matches!(self, Stream::Where | Stream::Select | Stream::Exists)
    }
}

/// What each item is given to.
type Take<'t, 'a> = &'t mut dyn FnMut(Item<'a>) -> Result<(), EvalError>;

/// The items of a path, as a collection.
pub(crate) fn collected<'a>(plan: &'a Plan, scope: Scope<'_, 'a>) -> Evaluated<'a> {
    let mut items = Collection::new();
    steps(plan, scope, &mut |item| {
        items.push(item);
        Ok(())
    })?;
    Ok(items)
}

/// Gives `take` the items of a plan, one after the other.
pub(crate) fn each<'a>(plan: &'a Plan, scope: Scope<'_, 'a>, take: Take<'_, 'a>) -> Result<(), EvalError> {
    scope.ctx.budget.spend(1)?;
    steps(plan, scope, take).map_err(|error| placed(error, plan))
}

fn steps<'a>(plan: &'a Plan, scope: Scope<'_, 'a>, take: Take<'_, 'a>) -> Result<(), EvalError> {
    match plan {
        Plan::This => scope.this.iter().try_for_each(|item| take(item.clone())),
        Plan::Root => scope.ctx.focus.iter().try_for_each(|item| take(item.clone())),
        Plan::Variable(slot) => {
            let items = scope.ctx.variables.get(*slot);
            items.into_iter().flatten().try_for_each(|item| take(item.clone()))
        }
        Plan::Member { input, name } => {
            over(input, scope, &mut |item| step(scope, item, take, |out| member(item, name, out)))
        }
        Plan::Element { input, name, of } => {
            over(input, scope, &mut |item| step(scope, item, take, |out| element(item, name, *of, out)))
        }
        Plan::TypeRoot(test) => {
            scope.this.iter().filter(|item| test.holds(item)).try_for_each(|item| take(item.clone()))
        }
        Plan::OfType(input, test) => over(input, scope, &mut |item| match test.holds(item) {
            true => take(item.clone()),
            false => Ok(()),
        }),
        Plan::At(_, input, index) => {
            let index = single_integer(&eval(index, scope)?, "[]")?.and_then(|at| usize::try_from(at).ok());
            let (mut at, mut found) = (0, None);
            over(input, scope, &mut |item| {
                if Some(at) == index {
                    found = Some(item.clone());
                }
                at += 1;
                Ok(())
            })?;
            found.map_or(Ok(()), take)
        }
        Plan::Stream { input, run, args, .. } => function(plan, *run, input, args, scope, take),
        other => eval(other, scope)?.into_iter().try_for_each(take),
    }
}

/// The items of an input, without a copy of those that are there already.
fn over<'a>(
    input: &'a Plan,
    scope: Scope<'_, 'a>,
    see: &mut dyn FnMut(&Item<'a>) -> Result<(), EvalError>,
) -> Result<(), EvalError> {
    match input {
        Plan::This => scope.this.iter().try_for_each(see),
        Plan::Root => scope.ctx.focus.iter().try_for_each(see),
        Plan::Variable(slot) => scope.ctx.variables.get(*slot).into_iter().flatten().try_for_each(see),
        input => match quick(input, scope) {
            Some(item) => scope.ctx.budget.spend(1).and_then(|()| item.iter().try_for_each(see)),
            None => each(input, scope, &mut |item| see(&item)),
        },
    }
}

/// One step of a path from one item on, counted by the members that are looked at.
fn step<'a>(
    scope: Scope<'_, 'a>,
    item: &Item<'a>,
    take: Take<'_, 'a>,
    find: impl FnOnce(&mut dyn FnMut(Item<'a>)),
) -> Result<(), EvalError> {
    let members = match item {
        Item::Node(node) => node.value().map_or(0, fhirehose_tape::Value::len),
        _ => 0,
    };
    scope.ctx.budget.spend(1 + members / STEP_MEMBERS)?;
    let mut result = Ok(());
    find(&mut |found| {
        if result.is_ok() {
            result = take(found);
        }
    });
    result
}

fn function<'a>(
    plan: &'a Plan,
    run: Stream,
    input: &'a Plan,
    args: &'a [Plan],
    scope: Scope<'_, 'a>,
    take: Take<'_, 'a>,
) -> Result<(), EvalError> {
    // What fails in an argument, or here, stands here; what fails in `take` stands elsewhere.
    let holds = |item: &Item<'a>, index: usize| -> Result<bool, EvalError> {
        let Some(criterion) = args.first() else { return Ok(true) };
        let truth = truth(criterion, scope.at(item, index)).map_err(|error| placed(error, plan))?;
        Ok(truth == Some(true))
    };
    let mut seen = 0;
    match run {
        Stream::Where => over(input, scope, &mut |item| {
            seen += 1;
            if holds(item, seen - 1)? { take(item.clone()) } else { Ok(()) }
        }),
        Stream::Select => over(input, scope, &mut |item| {
            seen += 1;
            each(&args[0], scope.at(item, seen - 1), take)
        }),
        Stream::Exists | Stream::Empty => {
            let mut found = false;
            over(input, scope, &mut |item| {
                // Of what stands behind the first, the criterion is not asked.
                found = found || holds(item, seen)?;
                seen += 1;
                Ok(())
            })?;
            take(Item::Boolean(found == (run == Stream::Exists)))
        }
        Stream::Count => {
            over(input, scope, &mut |_| {
                seen += 1;
                Ok(())
            })?;
            take(Item::Integer(i64::try_from(seen).unwrap_or(i64::MAX)))
        }
        Stream::First => {
            let mut first = None;
            over(input, scope, &mut |item| {
                if first.is_none() {
                    first = Some(item.clone());
                }
                Ok(())
            })?;
            first.map_or(Ok(()), take)
        }
        Stream::Extension => {
            let address = args.first().map_or(Ok(Collection::new()), |arg| eval(arg, scope))?;
            let Some(url) = single_text(&address, "extension()")? else { return Ok(()) };
            let is_it = |item: &Item<'_>| {
                item.value().is_some_and(|value| value.get("url").and_then(|url| url.as_str()) == Some(&*url))
            };
            over(input, scope, &mut |item| {
                step(scope, item, take, |out| {
                    element(item, "extension", Type::UNKNOWN, &mut |found| {
                        if is_it(&found) {
                            out(found);
                        }
                    });
                })
            })
        }
    }
}
