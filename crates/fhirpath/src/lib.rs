//! FHIRPath, compiled once to a plan and evaluated over tape values. Reads expressions and borrowed
//! documents, gives collections of items; promises exact decimals, precision-aware dates and the same result
//! for the same input; never reads a clock, never does I/O, never puts a value into an error.

mod check;
mod compile;
mod env;
mod error;
mod eval;
mod functions;
mod item;
mod kinds;
mod known;
mod lexer;
pub mod limits;
mod navigate;
mod ops;
mod parser;
mod plan;
mod quantity;
pub mod reference;
mod stream;
mod temporal;
mod types;
mod why;

pub use env::{Check, Ctx, Env, Function, Functions, NoFunctions, Shape, Slot};
pub use error::{CompileError, EvalError};
pub use item::{Collection, Item, Members, Node, Object, collect};
pub use quantity::{Quantity, Unit};
pub use rust_decimal::Decimal;
pub use temporal::{Precision, Temporal};

/// A compiled expression; `Send + Sync`, evaluated any number of times.
pub struct Expr {
    source: Box<str>,
    plan: plan::Plan,
    /// What it gives, as far as that is known.
    known: known::Known,
}

impl Expr {
    /// Compiles an expression. Unknown functions, variables, types and (where the environment knows them)
    /// columns and elements are errors here, as are `today()`, `now()` and `timeOfDay()` where the environment has
    /// no [`Env::clock`]: a replay must give the same bytes.
    pub fn compile(source: &str, env: &Env) -> Result<Expr, CompileError> {
        let ast = parser::parse(source)?;
        let (plan, known) = compile::compile(&ast, env)?;
        Ok(Expr { source: source.into(), plan, known })
    }

    /// The text it was compiled from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether what it gives can stand in JSON where an element of that FHIR type belongs; if it never can, what
    /// it gives instead, for a message.
    pub fn fits(&self, of: &str) -> Result<(), String> {
        let element = kinds::Kinds::of_type(of);
        let written = self.known.kinds;
        if written.meets(element.in_json()) { Ok(()) } else { Err(written.to_string()) }
    }

    /// What its items are, for a variable that holds them.
    pub fn shape(&self) -> Shape {
        self.known.shape()
    }

    /// Its value in a context. Expressions outlive the contexts they are evaluated in.
    pub fn eval<'a>(&'a self, ctx: &Ctx<'a>) -> Result<Collection<'a>, EvalError> {
        ctx.budget.refill();
        eval::eval(&self.plan, eval::Scope::of(ctx))
    }

    /// The same as [`Expr::eval`], item by item: what stands before an error has been given then.
    pub fn each<'a>(&'a self, ctx: &Ctx<'a>, take: &mut dyn FnMut(Item<'a>)) -> Result<(), EvalError> {
        ctx.budget.refill();
        stream::each(&self.plan, eval::Scope::of(ctx), &mut |item| {
            take(item);
            Ok(())
        })
    }

    /// Why it is empty in a context, for those who look at one record: the innermost part that is. `None` where it
    /// is not empty, fails, or no part says more.
    pub fn why_empty<'a>(&'a self, ctx: &Ctx<'a>) -> Option<String> {
        ctx.budget.refill();
        why::why(&self.plan, eval::Scope::of(ctx))
    }

    /// Its value as a condition: `None` where it is empty. A single item that is no boolean counts as true;
    /// more than one item is an error.
    pub fn test<'a>(&'a self, ctx: &Ctx<'a>) -> Result<Option<bool>, EvalError> {
        ctx.budget.refill();
        eval::truth(&self.plan, eval::Scope::of(ctx))
    }
}
