//! Functions on strings. Positions and lengths count characters.

use smallvec::smallvec;

use super::collections::length;
use super::{Call, Function, pattern, plain};
use crate::error::EvalError;
use crate::eval::{Evaluated, boolean, single_integer, single_text};
use crate::item::{Collection, Item};

pub(super) const TABLE: &[Function] = &[
    plain("startsWith", 1..=1, |call| test(&call, |text, with| text.starts_with(with))),
    plain("endsWith", 1..=1, |call| test(&call, |text, with| text.ends_with(with))),
    plain("contains", 1..=1, |call| test(&call, |text, with| text.contains(with))),
    plain("indexOf", 1..=1, |call| index(&call, |text, part| text.find(part))),
    plain("lastIndexOf", 1..=1, |call| index(&call, |text, part| text.rfind(part))),
    plain("length", 0..=0, |call| map(&call, |text| length(text.chars().count()))),
    plain("upper", 0..=0, |call| map(&call, |text| Item::string(text.to_uppercase()))),
    plain("lower", 0..=0, |call| map(&call, |text| Item::string(text.to_lowercase()))),
    plain("trim", 0..=0, |call| map(&call, |text| Item::string(text.trim().to_owned()))),
    plain("substring", 1..=2, substring),
    plain("toChars", 0..=0, |call| many(&call, |text| text.chars().map(String::from).collect())),
    plain("split", 1..=1, split),
    plain("join", 0..=1, join),
    plain("replace", 2..=2, replace),
    plain("matches", 1..=1, matches),
    plain("matchesFull", 1..=1, matches),
    plain("replaceMatches", 2..=2, replace_matches),
];

fn map<'a>(call: &Call<'a>, change: impl Fn(&str) -> Item<'a>) -> Evaluated<'a> {
    let text = single_text(&call.input, call.name)?;
    Ok(text.map(|text| change(&text)).into_iter().collect())
}

fn many<'a>(call: &Call<'a>, cut: impl Fn(&str) -> Vec<String>) -> Evaluated<'a> {
    let text = single_text(&call.input, call.name)?;
    Ok(text.into_iter().flat_map(|text| cut(&text)).map(Item::string).collect())
}

/// The input and the first argument, where there are both.
fn pair<'a, T>(call: &Call<'a>, then: impl Fn(&str, &str) -> T) -> Result<Option<T>, EvalError> {
    let (text, arg) = (single_text(&call.input, call.name)?, single_text(call.arg(0), call.name)?);
    Ok(text.zip(arg).map(|(text, arg)| then(&text, &arg)))
}

fn test<'a>(call: &Call<'a>, holds: impl Fn(&str, &str) -> bool) -> Evaluated<'a> {
    pair(call, holds).map(boolean)
}

fn index<'a>(call: &Call<'a>, find: impl Fn(&str, &str) -> Option<usize>) -> Evaluated<'a> {
    let at = pair(call, |text, part| match find(text, part) {
        Some(byte) => length(text[..byte].chars().count()),
        None => Item::Integer(-1),
    })?;
    Ok(at.into_iter().collect())
}

fn substring(call: Call<'_>) -> Evaluated<'_> {
    let text = single_text(&call.input, call.name)?;
    let start = single_integer(call.arg(0), call.name)?;
    let (Some(text), Some(start)) = (text, start) else { return Ok(Collection::new()) };
    let take = match call.args.len() {
        1 => usize::MAX,
        _ => match single_integer(call.arg(1), call.name)? {
            Some(take) => usize::try_from(take).unwrap_or(0),
            None => usize::MAX,
        },
    };
    let size = text.chars().count();
    Ok(match usize::try_from(start).ok().filter(|start| *start < size) {
        Some(start) => smallvec![Item::string(text.chars().skip(start).take(take).collect::<String>())],
        None => Collection::new(),
    })
}

fn split(call: Call<'_>) -> Evaluated<'_> {
    let parts = pair(&call, |text, separator| match separator {
        "" => text.chars().map(String::from).collect(),
        separator => text.split(separator).map(str::to_owned).collect::<Vec<_>>(),
    })?;
    Ok(parts.into_iter().flatten().map(Item::string).collect())
}

fn join(call: Call<'_>) -> Evaluated<'_> {
    let separator = single_text(call.arg(0), call.name)?.unwrap_or_default();
    if call.input.is_empty() {
        return Ok(Collection::new());
    }
    let mut joined = String::new();
    for (i, item) in call.input.iter().enumerate() {
        if i > 0 {
            joined.push_str(&separator);
        }
        match item.text() {
            Some(text) => joined.push_str(&text),
            None => return call.error("takes scalars"),
        }
    }
    Ok(smallvec![Item::string(joined)])
}

fn replace(call: Call<'_>) -> Evaluated<'_> {
    let Some(with) = single_text(call.arg(1), call.name)? else { return Ok(Collection::new()) };
    let replaced = pair(&call, |text, part| text.replace(part, &with))?;
    Ok(replaced.map(Item::string).into_iter().collect())
}

/// With a pattern that is not a literal; see `Plan::Match`.
fn matches(call: Call<'_>) -> Evaluated<'_> {
    let full = call.name == "matchesFull";
    let found = pair(&call, |text, with| pattern(with, full).map(|pattern| pattern.is_match(text)))?;
    found.transpose().map(boolean).or_else(|_| call.error("takes a regular expression"))
}

fn replace_matches(call: Call<'_>) -> Evaluated<'_> {
    let Some(with) = single_text(call.arg(1), call.name)? else { return Ok(Collection::new()) };
    let replaced = pair(&call, |text, part| match part {
        "" => Ok(text.to_owned()),
        part => pattern(part, false).map(|pattern| pattern.replace_all(text, &*with).into_owned()),
    })?;
    match replaced.transpose() {
        Ok(text) => Ok(text.map(Item::string).into_iter().collect()),
        Err(_) => call.error("takes a regular expression"),
    }
}
