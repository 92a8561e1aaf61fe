//! The functions of FHIRPath, one table per kind.

mod collections;
mod conversion;
mod fhir;
mod lambdas;
mod math;
mod strings;

use std::ops::RangeInclusive;

use regex::{Regex, RegexBuilder};
use smallvec::SmallVec;

use crate::error::EvalError;
use crate::eval::{Evaluated, Scope};
use crate::item::Collection;
use crate::plan::Plan;

pub(crate) type Args<'a> = SmallVec<[Collection<'a>; 2]>;

/// A function's input and evaluated arguments.
pub(crate) struct Call<'a> {
    pub name: &'static str,
    pub input: Collection<'a>,
    pub args: Args<'a>,
}

/// How a function runs: on evaluated arguments, or on arguments it evaluates itself, item by item.
#[derive(Clone, Copy)]
pub(crate) enum Run {
    Plain(for<'a> fn(Call<'a>) -> Evaluated<'a>),
    Lambda(for<'a> fn(Scope<'_, 'a>, Collection<'a>, &'a [Plan]) -> Evaluated<'a>),
}

pub(crate) struct Function {
    pub name: &'static str,
    pub args: RangeInclusive<usize>,
    pub run: Run,
}

const fn plain(
    name: &'static str,
    args: RangeInclusive<usize>,
    run: for<'a> fn(Call<'a>) -> Evaluated<'a>,
) -> Function {
    Function { name, args, run: Run::Plain(run) }
}

const fn lambda(
    name: &'static str,
    args: RangeInclusive<usize>,
    run: for<'a> fn(Scope<'_, 'a>, Collection<'a>, &'a [Plan]) -> Evaluated<'a>,
) -> Function {
    Function { name, args, run: Run::Lambda(run) }
}

const TABLES: [&[Function]; 6] =
    [lambdas::TABLE, collections::TABLE, strings::TABLE, conversion::TABLE, math::TABLE, fhir::TABLE];

pub(crate) fn find(name: &str) -> Option<&'static Function> {
    TABLES.iter().flat_map(|table| table.iter()).find(|function| function.name == name)
}

/// The names there are, for messages.
pub(crate) fn known() -> impl Iterator<Item = &'static str> {
    TABLES.iter().flat_map(|table| table.iter()).map(|function| function.name)
}

/// A pattern of `matches` and its like: the dot matches line ends too. The engine is linear in the text, and
/// the size of what it compiles to is bounded.
pub(crate) fn pattern(text: &str, full: bool) -> Result<Regex, regex::Error> {
    let anchored;
    let text = if full {
        anchored = format!("^(?:{text})$");
        &anchored
    } else {
        text
    };
    RegexBuilder::new(text).dot_matches_new_line(true).size_limit(1 << 20).build()
}

/// The argument at a place; an empty collection where the call has none.
impl<'a> Call<'a> {
    fn arg(&self, at: usize) -> &[crate::Item<'a>] {
        self.args.get(at).map_or(&[], |arg| arg.as_slice())
    }

    fn error<T>(&self, what: &str) -> Result<T, EvalError> {
        Err(EvalError::new(format!("{}() {what}", self.name)))
    }
}
