//! Why an expression came out empty, for those who look at one record.

use fhirehose_tape::Kind;

use crate::eval::{Scope, eval};
use crate::item::Item;
use crate::plan::Plan;
use crate::stream::Stream;

/// What made a plan empty: the innermost part that is. `None` where it is not empty, or fails.
pub(crate) fn why<'a>(plan: &'a Plan, scope: Scope<'_, 'a>) -> Option<String> {
    let items = |plan| eval(plan, scope).ok();
    if !items(plan)?.is_empty() {
        return None;
    }
    // The part it is made of, if that is empty too.
    let of = |plan| why(plan, scope);
    match plan {
        Plan::Member { input, name } | Plan::Element { input, name, .. } => {
            of(input).or_else(|| Some(missing(&items(input)?, name)))
        }
        Plan::At(_, input, index) => of(input).or_else(|| of(index)).or_else(|| {
            let found = items(input)?.len();
            Some(format!("there are only {found} items"))
        }),
        Plan::Negate(_, operand) | Plan::Plus(_, operand) | Plan::Is(_, operand, _) => of(operand),
        Plan::Binary(_, _, left, right) => of(left).or_else(|| of(right)),
        Plan::OfType(input, of_type) => {
            of(input).or_else(|| Some(format!("nothing of it is of type {}", of_type.name)))
        }
        Plan::Stream { input, run: Stream::Where, .. } => of(input).or_else(|| {
            let found = items(input)?.len();
            Some(format!("where() kept none of {found}"))
        }),
        Plan::Stream { input, .. } => of(input),
        Plan::Match { input, .. } | Plan::ReplaceMatches { input, .. } => of(input),
        Plan::Call { name: "iif", args, .. } => {
            let empty: Vec<String> = args.iter().skip(1).filter_map(of).collect();
            (args.len() < 3 && empty.is_empty())
                .then(|| "the condition is not true".into())
                .or(empty.into_iter().next())
        }
        Plan::Call { input, name, args, .. } => {
            of(input).or_else(|| args.iter().find_map(of)).or_else(|| Some(format!("{name}() gave nothing")))
        }
        Plan::Host { input, name, args, .. } => {
            // What stands before the dot is the row where nothing does.
            of(input).or_else(|| args.iter().find_map(of)).or_else(|| Some(format!("{name}() gave nothing")))
        }
        Plan::Variable(_) => Some("the variable is empty".into()),
        Plan::This | Plan::Root => Some("what it is asked of is empty".into()),
        _ => None,
    }
}

/// Why none of the items has a member.
fn missing(items: &[Item<'_>], name: &str) -> String {
    let values = || items.iter().filter_map(Item::value);
    if values().any(|value| value.get(name).is_some_and(|member| member.is_null())) {
        return format!("{name} is null");
    }
    if values().any(|value| value.kind() == Kind::Object) {
        return format!("there is no {name}");
    }
    format!("there is no {name}: it is no object")
}
