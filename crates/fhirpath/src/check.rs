//! What can never be meant: comparisons of kinds that are never equal, arithmetic on what is no number. Only
//! where definitions are given; without them a name may be anything.

use crate::env::Env;
use crate::error::CompileError;
use crate::functions::Function;
use crate::kinds::Kinds;
use crate::known::Known;
use crate::parser::Op;

const NUMBER: Kinds = Kinds::NUMBER;
const QUANTITY: Kinds = Kinds::QUANTITY;
const TEXT: Kinds = Kinds::TEXT;

/// What arithmetic takes on its sides, and what it gives then.
fn arithmetic(op: Op) -> &'static [(Kinds, Kinds, Kinds)] {
    const SCALE: &[(Kinds, Kinds, Kinds)] = &[
        (NUMBER, NUMBER, NUMBER),
        (QUANTITY, NUMBER, QUANTITY),
        (NUMBER, QUANTITY, QUANTITY),
        (QUANTITY, QUANTITY, QUANTITY),
    ];
    const MOVE: &[(Kinds, Kinds, Kinds)] = &[
        (NUMBER, NUMBER, NUMBER),
        (QUANTITY, NUMBER, QUANTITY),
        (NUMBER, QUANTITY, QUANTITY),
        (QUANTITY, QUANTITY, QUANTITY),
        (Kinds::DATE, QUANTITY, Kinds::DATE),
        (Kinds::TIME, QUANTITY, Kinds::TIME),
        (TEXT, QUANTITY, Kinds::DATE),
        (TEXT, TEXT, TEXT),
    ];
    match op {
        Op::Add => MOVE,
        Op::Subtract => &MOVE[..MOVE.len() - 1],
        Op::Multiply | Op::Divide => SCALE,
        Op::Div | Op::Mod => &SCALE[..1],
        Op::Concatenate => &MOVE[MOVE.len() - 1..],
        _ => &[],
    }
}

fn typed(env: &Env) -> bool {
    env.typed || env.definitions.is_some()
}

fn error<T>(at: usize, message: String) -> Result<T, CompileError> {
    Err(CompileError { offset: at, message })
}

/// What an operator gives.
pub(crate) fn binary(
    env: &Env,
    at: usize,
    op: Op,
    left: &Known,
    right: &Known,
) -> Result<Known, CompileError> {
    let (a, b) = (left.kinds, right.kinds);
    let rules = arithmetic(op);
    if !rules.is_empty() {
        let fitting = rules.iter().filter(|(left, right, _)| a.meets(*left) && b.meets(*right));
        return match fitting.map(|(_, _, gives)| *gives).reduce(Kinds::or) {
            Some(gives) => Ok(Known::of(gives)),
            None if typed(env) => error(at, format!("{} does not go with {a} and {b}", op.text())),
            None => Ok(Known::default()),
        };
    }
    if typed(env) {
        match op {
            Op::And | Op::Or | Op::Xor | Op::Implies => {}
            Op::Less | Op::LessOrEqual | Op::Greater | Op::GreaterOrEqual => {
                let unordered = Kinds::BOOLEAN | Kinds::OBJECT;
                for side in [a, b] {
                    if unordered.or(side) == unordered {
                        return error(at, format!("{side} has no order"));
                    }
                }
                meeting(at, left, right, "cannot be compared")?;
            }
            _ => meeting(at, left, right, "are never equal")?,
        }
    }
    Ok(Known::of(Kinds::BOOLEAN))
}

fn meeting(at: usize, left: &Known, right: &Known, what: &str) -> Result<(), CompileError> {
    if !left.kinds.comparable().meets(right.kinds) {
        return error(at, format!("{} and {} {what}", left.kinds, right.kinds));
    }
    if left.kinds == Kinds::OBJECT
        && right.kinds == Kinds::OBJECT
        && let (Some(a), Some(b)) = (left.types(), right.types())
        && !a.iter().any(|of| b.contains(of))
    {
        return error(at, format!("{} and {} {what}", a.join(" or "), b.join(" or ")));
    }
    Ok(())
}

/// Whether a function takes its input.
pub(crate) fn input(env: &Env, at: usize, function: &Function, input: &Known) -> Result<(), CompileError> {
    if typed(env) && !function.takes.meets(input.kinds) {
        return error(at, format!("{}() takes {}, not {}", function.name, function.takes, input.kinds));
    }
    Ok(())
}
