use regex::Regex;

use crate::functions::{Apply, Cost};
use crate::item::{Collection, Item};
use crate::parser::Op;
use crate::stream::Stream;
use crate::types::Type;

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
        /// Its type, where definitions tell it.
        of: Type,
    },
    /// A leading name with a capital: the focus where it is of that type.
    TypeRoot(TypeTest),
    At(Place, Box<Plan>, Box<Plan>),
    Negate(Place, Box<Plan>),
    Plus(Place, Box<Plan>),
    Binary(Place, Op, Box<Plan>, Box<Plan>),
    Union(Box<[Plan]>),
    /// A union of literals, made one set at compile time.
    Set(Collection<'static>),
    /// `is` of one item.
    Is(Place, Box<Plan>, TypeTest),
    /// `as` and `ofType`: the items of that type.
    OfType(Box<Plan>, TypeTest),
    Call {
        at: Place,
        input: Box<Plan>,
        name: &'static str,
        run: Apply,
        cost: Cost,
        args: Box<[Plan]>,
    },
    /// A call that takes its input item by item.
    Stream {
        at: Place,
        input: Box<Plan>,
        run: Stream,
        args: Box<[Plan]>,
    },
    /// A call with a pattern known at compile time.
    Match {
        at: Place,
        input: Box<Plan>,
        pattern: Box<Regex>,
    },
    ReplaceMatches {
        at: Place,
        input: Box<Plan>,
        pattern: Box<Regex>,
        with: Box<Plan>,
    },
    Host {
        at: Place,
        input: Box<Plan>,
        name: &'static str,
        args: Box<[Plan]>,
    },
}

/// The byte of the source a part stands at, for errors.
pub(crate) type Place = u32;

impl Plan {
    /// Where a part stands that can fail by itself.
    pub(crate) fn place(&self) -> Option<Place> {
        match self {
            Plan::At(at, ..) | Plan::Negate(at, _) | Plan::Plus(at, _) | Plan::Binary(at, ..) => Some(*at),
            Plan::Is(at, ..) => Some(*at),
            Plan::Call { at, .. }
            | Plan::Stream { at, .. }
            | Plan::Match { at, .. }
            | Plan::ReplaceMatches { at, .. }
            | Plan::Host { at, .. } => Some(*at),
            _ => None,
        }
    }
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
