//! What an expression may cost. Expressions are written by others, and records come from outside: what neither
//! needs is refused, with an error, before it costs memory or time.

use std::borrow::Cow;
use std::cell::Cell;

use crate::error::EvalError;
use crate::item::{Collection, Item};

/// Bytes of an expression.
pub const MAX_SOURCE: usize = 1 << 16;

/// Parentheses nested deeper, and paths and chains of operators longer than this are refused: parser, compiler
/// and evaluator recurse.
pub const MAX_DEPTH: usize = 64;

/// Steps of one evaluation: parts evaluated, items made, eight pairs compared. All of them take a second or so.
pub const MAX_STEPS: u64 = 5_000_000;

/// Items of a collection.
pub const MAX_ITEMS: usize = 1 << 19;

/// Bytes of a text that an expression makes.
pub const MAX_TEXT: usize = 1 << 24;

/// Items that functions on sets take: they compare each with each.
pub const MAX_SET: usize = 4096;

/// Items that `repeat` may gather; beyond it the expression goes in circles or the input is hostile.
pub const MAX_REPEATED: usize = 10_000;

/// Pairs compared that cost a step.
pub(crate) const STEP_PAIRS: usize = 8;

/// Members of an object that are looked at in a step.
pub(crate) const STEP_MEMBERS: usize = 16;

/// Bytes of a made text that cost a step.
const STEP_BYTES: u64 = 16;

/// The steps an evaluation has left.
#[derive(Clone)]
pub(crate) struct Budget(Cell<u64>);

impl Budget {
    pub(crate) fn full() -> Self {
        Budget(Cell::new(MAX_STEPS))
    }

    pub(crate) fn left(&self) -> u64 {
        self.0.get()
    }

    /// Each evaluation has all of them.
    pub(crate) fn refill(&self) {
        self.0.set(MAX_STEPS);
    }

    pub(crate) fn spend(&self, steps: usize) -> Result<(), EvalError> {
        let left = self.0.get().checked_sub(steps as u64);
        let Some(left) = left else {
            return Err(EvalError::new(format!("the expression takes more than {MAX_STEPS} steps")));
        };
        self.0.set(left);
        Ok(())
    }

    /// For the items of a result.
    pub(crate) fn items(&self, items: &[Item<'_>]) -> Result<(), EvalError> {
        if items.len() > MAX_ITEMS {
            return Err(too_many());
        }
        self.spend(items.len())
    }

    /// For the texts a function or operator made.
    pub(crate) fn texts(&self, items: &[Item<'_>]) -> Result<(), EvalError> {
        for item in items {
            if let Item::String(Cow::Owned(text)) = item {
                fits(text.len())?;
                self.spend((text.len() as u64 / STEP_BYTES) as usize)?;
            }
        }
        Ok(())
    }
}

pub(crate) fn too_many() -> EvalError {
    EvalError::new(format!("a collection of more than {MAX_ITEMS} items"))
}

/// Whether a text of that many bytes may be made.
pub(crate) fn fits(bytes: usize) -> Result<(), EvalError> {
    if bytes > MAX_TEXT {
        return Err(EvalError::new(format!("a text of more than {MAX_TEXT} bytes")));
    }
    Ok(())
}

/// Whether functions on sets take a collection.
pub(crate) fn check_set(items: &[Item<'_>]) -> Result<(), EvalError> {
    if items.len() > MAX_SET {
        return Err(EvalError::new(format!("a set of more than {MAX_SET} items")));
    }
    Ok(())
}

/// Steps that comparing each with each of two collections, or of one, costs.
pub(crate) fn pairs(left: &Collection<'_>, right: Option<&Collection<'_>>) -> usize {
    let others = right.map_or(left.len() / 2, |right| right.len());
    left.len().saturating_mul(others) / STEP_PAIRS
}
