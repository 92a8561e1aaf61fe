//! What an expression may cost. Expressions are written by others, and records come from outside: what neither
//! needs is refused, with an error, before it costs memory or time.

use std::borrow::Cow;
use std::cell::Cell;

use crate::error::EvalError;
use crate::item::Item;

/// Bytes of an expression.
pub const MAX_SOURCE: usize = 1 << 16;

/// Parentheses nested deeper, and paths and chains of operators longer than this are refused: parser, compiler
/// and evaluator recurse.
pub const MAX_DEPTH: usize = 64;

/// Steps of one evaluation: parts evaluated, items made, items and texts read and compared, by their size. All of
/// them take a second or so. A clock would end a replay elsewhere than the first run; steps do not.
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

/// Bytes of a text that are read or compared in a step.
pub(crate) const STEP_READ: usize = 64;

/// Bytes of a text that a pattern is looked for in, in a step.
pub(crate) const STEP_MATCHED: usize = 16;

/// Values and keys of an object, above which comparing takes more than a step for each: members are looked for.
const STEP_NODES: usize = 256;

/// The steps an evaluation has left.
#[derive(Clone)]
pub(crate) struct Budget {
    left: Cell<u64>,
    /// Of how many.
    steps: u64,
    /// Whether all evaluations share them.
    shared: bool,
}

impl Budget {
    pub(crate) fn full() -> Self {
        Budget { left: Cell::new(MAX_STEPS), steps: MAX_STEPS, shared: false }
    }

    pub(crate) fn shared(steps: u64) -> Self {
        Budget { left: Cell::new(steps), steps, shared: true }
    }

    pub(crate) fn used(&self) -> u64 {
        self.steps - self.left.get()
    }

    /// Each evaluation has all of them, unless they are shared.
    pub(crate) fn refill(&self) {
        if !self.shared {
            self.left.set(self.steps);
        }
    }

    pub(crate) fn spend(&self, steps: usize) -> Result<(), EvalError> {
        let Some(left) = self.left.get().checked_sub(steps as u64) else {
            // What is evaluated next has none either.
            self.left.set(0);
            let whose = if self.shared { "all that is evaluated" } else { "the expression" };
            return Err(EvalError::new(format!("{whose} takes more than {} steps", self.steps)));
        };
        self.left.set(left);
        Ok(())
    }

    /// For the items of a result.
    pub(crate) fn items(&self, items: &[Item<'_>]) -> Result<(), EvalError> {
        if items.len() > MAX_ITEMS {
            return Err(too_many());
        }
        self.spend(items.len())
    }

    /// For the texts a function reads, `each` bytes of them in a step.
    pub(crate) fn read(&self, items: &[Item<'_>], each: usize) -> Result<(), EvalError> {
        self.spend(items.iter().map(|item| text_len(item) / each).sum())
    }

    /// For items that are each compared with one other.
    pub(crate) fn compare(&self, items: &[Item<'_>]) -> Result<(), EvalError> {
        self.spend(items.iter().map(|item| weight(item) - 1).sum())
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
pub(crate) fn pairs(left: &[Item<'_>], right: Option<&[Item<'_>]>) -> usize {
    let others = right.map_or(left.len() / 2, <[_]>::len);
    let weights: usize = left.iter().map(weight).sum();
    weights.saturating_mul(others) / STEP_PAIRS
}

/// How much there is to compare in an item: 1 for what is small.
pub(crate) fn weight(item: &Item<'_>) -> usize {
    match item {
        Item::Node(node) => match node.value() {
            Some(value) if !value.is_empty() => {
                let nodes = value.nodes();
                nodes.saturating_mul(1 + nodes / STEP_NODES)
            }
            _ => 1 + text_len(item) / STEP_READ,
        },
        Item::Object(members) => members.iter().map(|(_, item)| weight(item)).sum::<usize>().max(1),
        _ => 1 + text_len(item) / STEP_READ,
    }
}

fn text_len(item: &Item<'_>) -> usize {
    item.as_str().map_or(0, str::len)
}
