use regex::Regex;

use crate::functions::Run;
use crate::item::{Collection, Item};
use crate::parser::Op;

/// What an expression compiles to.
pub(crate) enum Plan {
    Empty,
    Literal(Item<'static>),
    This,
    Index,
    Total,
    /// The focus the whole expression is evaluated on: `%context`, `%resource`.
    Root,
    Variable(usize),
    Member {
        input: Box<Plan>,
        name: Box<str>,
    },
    /// The same on FHIR JSON: choices, extensions of primitives.
    Element {
        input: Box<Plan>,
        name: Box<str>,
    },
    /// A leading name with a capital: the focus where it is of that type.
    TypeRoot(TypeTest),
    At(Box<Plan>, Box<Plan>),
    Negate(Box<Plan>),
    Plus(Box<Plan>),
    Binary(Op, Box<Plan>, Box<Plan>),
    Union(Box<[Plan]>),
    /// A union of literals, made one set at compile time.
    Set(Collection<'static>),
    /// `is` of one item.
    Is(Box<Plan>, TypeTest),
    /// `as` and `ofType`: the items of that type.
    OfType(Box<Plan>, TypeTest),
    Call {
        input: Box<Plan>,
        name: &'static str,
        run: Run,
        args: Box<[Plan]>,
    },
    /// A call with a pattern known at compile time.
    Match {
        input: Box<Plan>,
        pattern: Box<Regex>,
    },
    ReplaceMatches {
        input: Box<Plan>,
        pattern: Box<Regex>,
        with: Box<Plan>,
    },
    Host {
        input: Box<Plan>,
        name: &'static str,
        args: Box<[Plan]>,
    },
}

/// A type's name in an expression.
pub(crate) struct TypeTest {
    pub namespace: Namespace,
    pub name: Box<str>,
    /// Whether the document is FHIR JSON, whose scalars are of FHIR's types; others are of FHIRPath's own.
    pub fhir: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Namespace {
    Any,
    System,
    Fhir,
}
