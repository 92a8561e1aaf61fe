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
mod temporal;
mod types;

pub use env::{Check, Ctx, Env, Function, Functions, NoFunctions, Slot};
pub use error::{CompileError, EvalError};
pub use item::{Collection, Item, Node, Object, collect};
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

    /// Its value in a context. Expressions outlive the contexts they are evaluated in.
    pub fn eval<'a>(&'a self, ctx: &Ctx<'a>) -> Result<Collection<'a>, EvalError> {
        ctx.budget.refill();
        eval::eval(&self.plan, eval::Scope::of(ctx))
    }

    /// Its value as a condition: `None` where it is empty. A single item that is no boolean counts as true;
    /// more than one item is an error.
    pub fn test<'a>(&'a self, ctx: &Ctx<'a>) -> Result<Option<bool>, EvalError> {
        ctx.budget.refill();
        eval::truth(&self.plan, eval::Scope::of(ctx))
    }
}
