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
    let signature = |name: &str, shown: &str, least: usize| {
        let (mut text, mut optional) = (format!("{name}("), 0);
        for (at, arg) in shown.split(", ").enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            if at >= least && !arg.is_empty() {
                text.push('[');
                optional += 1;
            }
            text.push_str(comma);
            text.push_str(arg);
        }
        text + &"]".repeat(optional) + ")"
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
