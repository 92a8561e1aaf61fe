//! What there is, for documentation: made from the tables the compiler and the parser use.

use crate::compile::REFUSED;
use crate::functions::GROUPS;
use crate::parser::OPERATORS;

/// A function or operator.
pub struct Entry {
    pub group: &'static str,
    /// As it is written, with what it takes.
    pub signature: String,
    pub about: &'static str,
}

/// The functions, by group.
pub fn functions() -> Vec<Entry> {
    let entries = GROUPS.iter().flat_map(|(group, table)| table.iter().map(|function| (*group, function)));
    let signature = |name: &str, shown: &str, least: usize| match shown.split_once(", ") {
        _ if least > 0 && !shown.contains(", ") => format!("{name}({shown})"),
        None if !shown.is_empty() => format!("{name}([{shown}])"),
        Some((first, rest)) if least == 1 => format!("{name}({first}[, {rest}])"),
        _ => format!("{name}({shown})"),
    };
    entries
        .map(|(group, function)| Entry {
            group,
            signature: signature(function.name, function.shown, *function.args.start()),
            about: function.about,
        })
        .chain(["is", "as", "ofType"].map(|name| Entry {
            group: "Types",
            signature: format!("{name}(type)"),
            about: match name {
                "is" => "whether the item is of the type; also the operator `is`",
                "as" => "the items of the type; also the operator `as`",
                _ => "the items of the type, such as `value.ofType(Quantity)`",
            },
        }))
        .collect()
}

/// The operators, those that bind most strongly first. `is` and `as` stand between comparison and equality.
pub fn operators() -> Vec<Entry> {
    let group = |strength: u8| match strength {
        10 => "Multiplication",
        9 => "Addition",
        8 => "Union",
        7 => "Comparison",
        5 => "Equality",
        4 => "Membership",
        _ => "Logic",
    };
    OPERATORS
        .iter()
        .map(|(text, op, strength)| Entry {
            group: group(*strength),
            signature: (*text).to_owned(),
            about: op.about(),
        })
        .collect()
}

/// Functions that are known and refused, and why. Those of the clock are there with [`crate::Env::clock`], any
/// other where the environment has a function of that name.
pub fn refused() -> Vec<Entry> {
    let entry = |(name, about): &(&str, &'static str)| Entry {
        group: "Refused",
        signature: format!("{name}()"),
        about,
    };
    REFUSED.iter().map(entry).collect()
}
