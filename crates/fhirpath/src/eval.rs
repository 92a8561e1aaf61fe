use std::borrow::Cow;

use fhirehose_tape::Kind;
use rust_decimal::Decimal;
use smallvec::smallvec;

use crate::env::Ctx;
use crate::error::EvalError;
use crate::functions::strings::replaced;
use crate::functions::{Apply, Args, Call, Cost};
use crate::item::{Collection, Item};
use crate::limits::{STEP_MATCHED, STEP_READ, check_set, pairs};
use crate::ops;
use crate::parser::Op;
use crate::plan::Plan;
use crate::stream::collected;

/// What `$this`, `$index` and `$total` are, and the context around.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'s, 'a> {
    pub ctx: &'s Ctx<'a>,
    pub this: &'s [Item<'a>],
    pub index: Option<i64>,
    pub total: Option<&'s Collection<'a>>,
}

pub(crate) type Evaluated<'a> = Result<Collection<'a>, EvalError>;

impl<'s, 'a> Scope<'s, 'a> {
    pub(crate) fn of(ctx: &'s Ctx<'a>) -> Self {
        Scope { ctx, this: &ctx.focus, index: None, total: None }
    }

    /// The scope of a lambda at one item.
    pub(crate) fn at(self, item: &'s Item<'a>, index: usize) -> Self {
        Scope { this: std::slice::from_ref(item), index: i64::try_from(index).ok(), ..self }
    }
}

pub(crate) fn eval<'a>(plan: &'a Plan, scope: Scope<'_, 'a>) -> Evaluated<'a> {
    let budget = &scope.ctx.budget;
    if let Some(item) = quick(plan, scope) {
        budget.spend(1)?;
        return Ok(item.map_or_else(Collection::new, |item| smallvec![item]));
    }
    let result = budget.spend(1).and_then(|()| evaluate(plan, scope));
    // One or two items are in the step.
    let items = match result {
        Ok(items) if items.len() > 2 => budget.items(&items).map(|()| items),
        result => result,
    };
    items.map_err(|error| placed(error, plan))
}

pub(crate) fn placed(error: EvalError, plan: &Plan) -> EvalError {
    match plan.place() {
        Some(at) => error.within(at),
        None => error,
    }
}

fn evaluate<'a>(plan: &'a Plan, scope: Scope<'_, 'a>) -> Evaluated<'a> {
    Ok(match plan {
        Plan::Empty => Collection::new(),
        Plan::Literal(item) => smallvec![item.borrow()],
        Plan::This => scope.this.iter().cloned().collect(),
        Plan::Root => scope.ctx.focus.clone(),
        Plan::Index => scope.index.map(Item::Integer).into_iter().collect(),
        Plan::Total => scope.total.cloned().unwrap_or_default(),
        Plan::Variable(slot) => scope.ctx.variables.get(*slot).cloned().unwrap_or_default(),
        Plan::Member { .. }
        | Plan::Element { .. }
        | Plan::TypeRoot(_)
        | Plan::OfType(..)
        | Plan::At(..)
        | Plan::Stream { .. } => collected(plan, scope)?,
        Plan::Negate(_, operand) => ops::negate(&eval(operand, scope)?)?,
        Plan::Plus(_, operand) => {
            let value = eval(operand, scope)?;
            ops::negate(&value)?;
            value
        }
        Plan::Set(items) => items.iter().map(Item::borrow).collect(),
        Plan::Union(parts) => {
            let mut all = Collection::new();
            for part in parts {
                all.extend(eval(part, scope)?);
            }
            check_set(&all)?;
            scope.ctx.budget.spend(pairs(&all, None))?;
            ops::distinct(all)?
        }
        Plan::Binary(_, Op::Concatenate, left, right) => {
            let text = |side| {
                let item = operand(side, scope, "&")?;
                single_text(item.as_slice(), "&").map(Option::unwrap_or_default)
            };
            made(scope, smallvec![Item::string(text(left)? + text(right)?)])?
        }
        Plan::Binary(_, op, left, right) if ops::is_arithmetic(*op) => {
            let name = "arithmetic";
            match (operand(left, scope, name)?, operand(right, scope, name)?) {
                (Some(left), Some(right)) => {
                    made(scope, ops::arithmetic(*op, &left, &right)?.into_iter().collect())?
                }
                _ => Collection::new(),
            }
        }
        Plan::Binary(..) | Plan::Is(..) | Plan::Match { .. } => boolean(truth(plan, scope)?),
        Plan::Call { input, name, run, cost, args, .. } => {
            let input = eval(input, scope)?;
            match run {
                Apply::Lambda(run) => run(scope, input, args)?,
                Apply::Plain(run) => {
                    let args = evaluated(args, scope)?;
                    let budget = &scope.ctx.budget;
                    budget.read(&input, STEP_READ)?;
                    match cost {
                        Cost::Little => args.iter().try_for_each(|arg| budget.read(arg, STEP_READ))?,
                        Cost::Pairs => budget.spend(pairs(&input, args.first().map(|arg| arg.as_slice())))?,
                        Cost::Pattern => {
                            budget.spend(PATTERN_STEPS)?;
                            budget.read(&input, STEP_MATCHED)?;
                        }
                    }
                    made(scope, run(Call { name, input, args })?)?
                }
            }
        }
        Plan::ReplaceMatches { input, pattern, with, .. } => {
            let (input, with) = (eval(input, scope)?, eval(with, scope)?);
            scope.ctx.budget.read(&input, STEP_MATCHED)?;
            match (single_text(&input, "replaceMatches()")?, single_text(&with, "replaceMatches()")?) {
                (Some(text), Some(with)) => made(scope, smallvec![replaced(pattern, &text, &with)?])?,
                _ => Collection::new(),
            }
        }
        Plan::Host { input, name, args, .. } => {
            let input = eval(input, scope)?;
            scope.ctx.host.call(name, input, &evaluated(args, scope)?)?
        }
    })
}

/// Steps that compiling a pattern counts as.
const PATTERN_STEPS: usize = 10_000;

/// What a function or operator made, counted.
fn made<'a>(scope: Scope<'_, 'a>, items: Collection<'a>) -> Evaluated<'a> {
    scope.ctx.budget.texts(&items)?;
    Ok(items)
}

fn evaluated<'a>(args: &'a [Plan], scope: Scope<'_, 'a>) -> Result<Args<'a>, EvalError> {
    let mut all = Args::new();
    for arg in args {
        all.push(eval(arg, scope)?);
    }
    Ok(all)
}

/// An operand that is at most one item.
fn operand<'a>(plan: &'a Plan, scope: Scope<'_, 'a>, name: &str) -> Result<Option<Item<'a>>, EvalError> {
    match quick(plan, scope) {
        Some(item) => Ok(item),
        None => Ok(single(&eval(plan, scope)?, name)?.cloned()),
    }
}

/// A literal or a scalar column, without making a collection of it; `None` for whatever else a plan may be.
#[inline]
pub(crate) fn quick<'a>(plan: &'a Plan, scope: Scope<'_, 'a>) -> Option<Option<Item<'a>>> {
    match (plan, scope.this) {
        (Plan::Literal(item), _) => Some(Some(item.borrow())),
        (Plan::Member { input, name }, [Item::Node(node)]) if matches!(**input, Plan::This) => {
            match node.value()?.get(name) {
                Some(value) if value.kind() == Kind::Array => None,
                value => Some(value.and_then(Item::of)),
            }
        }
        _ => None,
    }
}

/// An expression as a condition, in three-valued logic.
pub(crate) fn truth<'a>(plan: &'a Plan, scope: Scope<'_, 'a>) -> Result<Option<bool>, EvalError> {
    let result = scope.ctx.budget.spend(1).and_then(|()| holds(plan, scope));
    result.map_err(|error| placed(error, plan))
}

fn holds<'a>(plan: &'a Plan, scope: Scope<'_, 'a>) -> Result<Option<bool>, EvalError> {
    let sides = |left: &'a Plan, right: &'a Plan| -> Result<_, EvalError> {
        Ok((eval(left, scope)?, eval(right, scope)?))
    };
    Ok(match plan {
        Plan::Binary(_, op, left, right) => match op {
            Op::And => match truth(left, scope)? {
                Some(false) => Some(false),
                left => match (left, truth(right, scope)?) {
                    (_, Some(false)) => Some(false),
                    (Some(true), right) => right,
                    _ => None,
                },
            },
            Op::Or => match truth(left, scope)? {
                Some(true) => Some(true),
                left => match (left, truth(right, scope)?) {
                    (_, Some(true)) => Some(true),
                    (Some(false), right) => right,
                    _ => None,
                },
            },
            Op::Xor => match (truth(left, scope)?, truth(right, scope)?) {
                (Some(left), Some(right)) => Some(left != right),
                _ => None,
            },
            Op::Implies => match truth(left, scope)? {
                Some(false) => Some(true),
                left => match (left, truth(right, scope)?) {
                    (_, Some(true)) => Some(true),
                    (Some(true), right) => right,
                    _ => None,
                },
            },
            Op::Equal | Op::NotEqual => {
                let compared = |left: &[Item<'a>], right: &[Item<'a>]| {
                    scope.ctx.budget.compare(left)?;
                    Ok(ops::equal(left, right))
                };
                let equal = match (quick(left, scope), quick(right, scope)) {
                    (Some(left), Some(right)) => compared(left.as_slice(), right.as_slice())?,
                    _ => {
                        let (left, right) = sides(left, right)?;
                        compared(&left, &right)?
                    }
                };
                equal.map(|equal| equal == (*op == Op::Equal))
            }
            Op::Equivalent | Op::NotEquivalent => {
                let (left, right) = sides(left, right)?;
                scope.ctx.budget.spend(pairs(&left, Some(&right)))?;
                // Texts are taken letter by letter.
                scope.ctx.budget.read(&left, STEP_MATCHED)?;
                Some(ops::equivalent(&left, &right) == (*op == Op::Equivalent))
            }
            Op::Less | Op::LessOrEqual | Op::Greater | Op::GreaterOrEqual => {
                let name = "a comparison";
                let order = match (operand(left, scope, name)?, operand(right, scope, name)?) {
                    (Some(left), Some(right)) => {
                        scope.ctx.budget.compare(std::slice::from_ref(&left))?;
                        ops::compare(&left, &right)?
                    }
                    _ => None,
                };
                order.map(|order| match op {
                    Op::Less => order.is_lt(),
                    Op::LessOrEqual => order.is_le(),
                    Op::Greater => order.is_gt(),
                    _ => order.is_ge(),
                })
            }
            Op::In => member_of(left, right, scope)?,
            Op::Contains => member_of(right, left, scope)?,
            _ => singleton(&evaluate(plan, scope)?)?,
        },
        Plan::Is(_, input, test) => match eval(input, scope)?.as_slice() {
            [] => None,
            [item] => Some(test.holds(item)),
            _ => return Err(EvalError::new("'is' asks about one item, not several")),
        },
        Plan::Match { input, pattern, .. } => {
            let input = eval(input, scope)?;
            scope.ctx.budget.read(&input, STEP_MATCHED)?;
            single_text(&input, "matches()")?.map(|text| pattern.is_match(&text))
        }
        plan => singleton(&evaluate(plan, scope)?)?,
    })
}

/// `in`: whether a collection has an item.
fn member_of<'a>(item: &'a Plan, all: &'a Plan, scope: Scope<'_, 'a>) -> Result<Option<bool>, EvalError> {
    Ok(match (operand(item, scope, "'in' or 'contains'")?, all) {
        (None, _) => None,
        (Some(item), Plan::Set(all)) => Some(ops::has(all, &item)),
        (Some(item), all) => {
            let all = eval(all, scope)?;
            scope.ctx.budget.spend(pairs(&all, Some(std::slice::from_ref(&item))))?;
            Some(ops::has(&all, &item))
        }
    })
}

/// A collection as a condition: an item that is no boolean counts as true.
fn singleton(items: &[Item<'_>]) -> Result<Option<bool>, EvalError> {
    match items {
        [] => Ok(None),
        [item] => Ok(Some(item.as_bool().unwrap_or(true))),
        _ => Err(EvalError::new("a condition must be one item, not several")),
    }
}

pub(crate) fn boolean<'a>(value: Option<bool>) -> Collection<'a> {
    value.map_or_else(Collection::new, |value| smallvec![Item::Boolean(value)])
}

/// The single item; `None` where there is none.
pub(crate) fn single<'c, 'a>(items: &'c [Item<'a>], name: &str) -> Result<Option<&'c Item<'a>>, EvalError> {
    match items {
        [] => Ok(None),
        [item] => Ok(Some(item)),
        _ => Err(EvalError::new(format!("{name} takes one item, not several"))),
    }
}

/// The single item as a string; a number or date is none.
pub(crate) fn single_text<'a>(items: &[Item<'a>], name: &str) -> Result<Option<Cow<'a, str>>, EvalError> {
    let Some(item) = single(items, name)? else { return Ok(None) };
    let is_text = match item {
        Item::Node(node) => node.value().is_none_or(|value| value.as_str().is_some()),
        Item::String(_) => true,
        _ => false,
    };
    match item.text() {
        Some(text) if is_text => Ok(Some(text)),
        // A primitive that has only extensions has no text.
        None if is_text => Ok(None),
        _ => Err(EvalError::new(format!("{name} takes a string"))),
    }
}

pub(crate) fn single_integer(items: &[Item<'_>], name: &str) -> Result<Option<i64>, EvalError> {
    let Some(item) = single(items, name)? else { return Ok(None) };
    item.as_i64().map(Some).ok_or_else(|| EvalError::new(format!("{name} takes an integer")))
}

pub(crate) fn single_decimal(items: &[Item<'_>], name: &str) -> Result<Option<Decimal>, EvalError> {
    let Some(item) = single(items, name)? else { return Ok(None) };
    item.as_decimal().map(Some).ok_or_else(|| EvalError::new(format!("{name} takes a number")))
}
