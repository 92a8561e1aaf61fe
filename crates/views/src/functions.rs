//! Where a function means another thing in a view than in FHIRPath.

use std::borrow::Cow;

use fhirehose_fhirpath::{Collection, Env, EvalError, Function, Functions, Item};

/// The functions of views.
pub(crate) struct ViewFunctions;

/// An environment that knows them.
pub(crate) fn declared(env: &Env) -> Env {
    env.clone().function(Function::new("join", 0..=1))
}

impl Functions for ViewFunctions {
    fn call<'a>(
        &'a self,
        name: &'static str,
        input: Collection<'a>,
        args: &[Collection<'a>],
    ) -> Result<Collection<'a>, EvalError> {
        match name {
            "join" => join(&input, args.first()),
            _ => Err(EvalError::new(format!("{name}() cannot be called in a view"))),
        }
    }
}

/// The texts put together. Of nothing it is the empty text, as the standard's tests have it; in FHIRPath it is
/// nothing.
fn join<'a>(input: &[Item<'a>], separator: Option<&Collection<'a>>) -> Result<Collection<'a>, EvalError> {
    let separator = match separator.map(|separator| separator.as_slice()) {
        None | Some([]) => Cow::Borrowed(""),
        Some([one]) => one.text().ok_or_else(|| EvalError::new("join() takes a text as separator"))?,
        Some(_) => return Err(EvalError::new("join() takes one separator")),
    };
    let mut joined = String::new();
    for (i, item) in input.iter().enumerate() {
        if i > 0 {
            joined.push_str(&separator);
        }
        joined.push_str(&item.text().ok_or_else(|| EvalError::new("join() takes scalars"))?);
    }
    Ok(std::iter::once(Item::string(joined)).collect())
}
