//! The functions of FHIRPath, one table per group. The tables are also what the compiler checks calls against
//! and what the reference is made of.

mod boundaries;
mod collections;
mod conversion;
mod existence;
mod fhir;
mod lambdas;
mod math;
pub(crate) mod strings;
mod text;

use std::ops::RangeInclusive;

use regex::{Regex, RegexBuilder};
use smallvec::SmallVec;

use crate::error::EvalError;
use crate::eval::{Evaluated, Scope};
use crate::item::Collection;
use crate::kinds::Kinds;
use crate::plan::Plan;
use crate::stream::Stream;

pub(crate) type Args<'a> = SmallVec<[Collection<'a>; 3]>;

/// A function's input and evaluated arguments.
pub(crate) struct Call<'a> {
    pub name: &'static str,
    pub input: Collection<'a>,
    pub args: Args<'a>,
}

/// How a function runs on its whole input: on evaluated arguments, or on arguments it evaluates itself.
#[derive(Clone, Copy)]
pub(crate) enum Apply {
    Plain(for<'a> fn(Call<'a>) -> Evaluated<'a>),
    Lambda(for<'a> fn(Scope<'_, 'a>, Collection<'a>, &'a [Plan]) -> Evaluated<'a>),
}

/// How a function runs.
#[derive(Clone, Copy)]
pub(crate) enum Run {
    Whole(Apply),
    /// Without a collection of its input.
    Stream(Stream),
}

impl Run {
    /// Whether arguments are evaluated with `$this` another than outside.
    pub(crate) fn is_lambda(self) -> bool {
        match self {
            Run::Whole(Apply::Plain(_)) => false,
            Run::Whole(Apply::Lambda(_)) => true,
            Run::Stream(stream) => stream.is_lambda(),
        }
    }
}

/// What a function's result is.
#[derive(Clone, Copy)]
pub(crate) enum Gives {
    /// Items of its input.
    Input,
    Kinds(Kinds),
}

/// What a call costs beside its items.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cost {
    Little,
    /// Each item is compared with each.
    Pairs,
    /// A regular expression is compiled.
    Pattern,
}

pub(crate) struct Function {
    pub name: &'static str,
    pub args: RangeInclusive<usize>,
    pub run: Run,
    pub cost: Cost,
    /// What its input must be.
    pub takes: Kinds,
    pub gives: Gives,
    /// Its arguments as the reference shows them.
    pub shown: &'static str,
    pub about: &'static str,
}

const fn plain(
    name: &'static str,
    args: RangeInclusive<usize>,
    run: for<'a> fn(Call<'a>) -> Evaluated<'a>,
) -> Function {
    function(name, args, Run::Whole(Apply::Plain(run)))
}

const fn lambda(
    name: &'static str,
    args: RangeInclusive<usize>,
    run: for<'a> fn(Scope<'_, 'a>, Collection<'a>, &'a [Plan]) -> Evaluated<'a>,
) -> Function {
    function(name, args, Run::Whole(Apply::Lambda(run)))
}

const fn stream(name: &'static str, args: RangeInclusive<usize>, run: Stream) -> Function {
    function(name, args, Run::Stream(run))
}

const fn function(name: &'static str, args: RangeInclusive<usize>, run: Run) -> Function {
    let (takes, gives) = (Kinds::ANY, Gives::Kinds(Kinds::ANY));
    Function { name, args, run, cost: Cost::Little, takes, gives, shown: "", about: "" }
}

impl Function {
    const fn takes(self, takes: Kinds) -> Function {
        Function { takes, ..self }
    }

    const fn gives(self, kinds: Kinds) -> Function {
        Function { gives: Gives::Kinds(kinds), ..self }
    }

    const fn gives_input(self) -> Function {
        Function { gives: Gives::Input, ..self }
    }

    const fn costs(self, cost: Cost) -> Function {
        Function { cost, ..self }
    }

    const fn about(self, shown: &'static str, about: &'static str) -> Function {
        Function { shown, about, ..self }
    }
}

/// The tables, by the names of their groups.
pub(crate) const GROUPS: [(&str, &[Function]); 8] = [
    ("Existence", existence::TABLE),
    ("Filtering, projection and aggregates", lambdas::TABLE),
    ("Collections", collections::TABLE),
    ("Strings", strings::TABLE),
    ("Conversion", conversion::TABLE),
    ("Math", math::TABLE),
    ("Boundaries and precision", boundaries::TABLE),
    ("FHIR", fhir::TABLE),
];

pub(crate) fn all() -> impl Iterator<Item = &'static Function> {
    GROUPS.iter().flat_map(|(_, table)| table.iter())
}

pub(crate) fn find(name: &str) -> Option<&'static Function> {
    all().find(|function| function.name == name)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_function_stands_once_and_is_described() {
        let names: Vec<&str> = all().map(|function| function.name).collect();
        for (at, function) in all().enumerate() {
            assert!(!names[..at].contains(&function.name), "{} twice", function.name);
            assert!(!function.about.is_empty(), "{} is not described", function.name);
            assert_eq!(function.shown.is_empty(), *function.args.end() == 0, "{}", function.name);
        }
    }
}
