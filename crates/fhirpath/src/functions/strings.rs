//! Functions on strings. Positions and lengths count characters.

use std::ops::RangeInclusive;

use regex::Regex;
use smallvec::smallvec;

use super::existence::length;
use super::text::{decode, encode, escape, unescape};
use super::{Call, Cost, Function, pattern, plain};
use crate::error::EvalError;
use crate::eval::{Evaluated, boolean, single_integer, single_text};
use crate::item::{Collection, Item};
use crate::kinds::Kinds;
use crate::limits::{MAX_ITEMS, fits, too_many};

const TEXT: Kinds = Kinds::TEXT;

/// A function of a string.
const fn of_text(
    name: &'static str,
    args: RangeInclusive<usize>,
    run: for<'a> fn(Call<'a>) -> Evaluated<'a>,
) -> Function {
    plain(name, args, run).takes(TEXT).gives(TEXT)
}

/// A question about a string.
const fn asks(name: &'static str, run: for<'a> fn(Call<'a>) -> Evaluated<'a>) -> Function {
    of_text(name, 1..=1, run).gives(Kinds::BOOLEAN)
}

pub(super) const TABLE: &[Function] = &[
    asks("startsWith", |call| test(&call, |text, with| text.starts_with(with)))
        .about("prefix", "whether it begins with that"),
    asks("endsWith", |call| test(&call, |text, with| text.ends_with(with)))
        .about("suffix", "whether it ends with that"),
    asks("contains", |call| test(&call, |text, with| text.contains(with)))
        .about("part", "whether that is in it"),
    of_text("indexOf", 1..=1, |call| index(&call, |text, part| text.find(part)))
        .gives(Kinds::NUMBER)
        .about("part", "where that is first found, counted from 0; -1 if it is not"),
    of_text("lastIndexOf", 1..=1, |call| index(&call, |text, part| text.rfind(part)))
        .gives(Kinds::NUMBER)
        .about("part", "where that is last found, counted from 0; -1 if it is not"),
    of_text("length", 0..=0, |call| map(&call, |text| length(text.chars().count())))
        .gives(Kinds::NUMBER)
        .about("", "its number of characters"),
    of_text("upper", 0..=0, |call| map(&call, |text| Item::string(text.to_uppercase())))
        .about("", "in upper case"),
    of_text("lower", 0..=0, |call| map(&call, |text| Item::string(text.to_lowercase())))
        .about("", "in lower case"),
    of_text("trim", 0..=0, |call| map(&call, |text| Item::string(text.trim().to_owned())))
        .about("", "without white space around it"),
    of_text("substring", 1..=2, substring)
        .about("start, length", "the characters from a place on, counted from 0; all, or so many"),
    of_text("toChars", 0..=0, to_chars).about("", "its characters, each a string"),
    of_text("split", 1..=1, split).about("separator", "the parts between separators"),
    of_text("join", 0..=1, join).takes(Kinds::ANY).about("separator", "the scalars' texts as one, in order"),
    of_text("replace", 2..=2, replace).about("part, with", "with every such part replaced"),
    asks("matches", matches).costs(Cost::Pattern).about("regex", "whether the expression is found in it"),
    asks("matchesFull", matches)
        .costs(Cost::Pattern)
        .about("regex", "whether the expression matches all of it"),
    of_text("replaceMatches", 2..=2, replace_matches)
        .costs(Cost::Pattern)
        .about("regex, with", "with all matches replaced; `$1` and `${name}` are the groups"),
    of_text("encode", 1..=1, encode).about("format", "as `hex`, `base64` or `urlbase64`"),
    of_text("decode", 1..=1, decode).about("format", "what `encode` made such a text of"),
    of_text("escape", 1..=1, escape).about("target", "as it must stand in `html` or `json`"),
    of_text("unescape", 1..=1, unescape).about("target", "what `escape` made such a text of"),
];

fn map<'a>(call: &Call<'a>, change: impl Fn(&str) -> Item<'a>) -> Evaluated<'a> {
    let text = single_text(&call.input, call.name)?;
    Ok(text.map(|text| change(&text)).into_iter().collect())
}

fn to_chars(call: Call<'_>) -> Evaluated<'_> {
    let text = single_text(&call.input, call.name)?;
    text.map_or(Ok(Collection::new()), |text| characters(&text))
}

fn characters<'a>(text: &str) -> Evaluated<'a> {
    if text.len() > MAX_ITEMS {
        return Err(too_many());
    }
    Ok(text.chars().map(|char| Item::string(String::from(char))).collect())
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
        "" => characters(text),
        separator if text.len() / separator.len() > MAX_ITEMS => Err(too_many()),
        separator => Ok(text.split(separator).map(|part| Item::string(part.to_owned())).collect()),
    })?;
    parts.unwrap_or(Ok(Collection::new()))
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
        fits(joined.len())?;
    }
    Ok(smallvec![Item::string(joined)])
}

fn replace(call: Call<'_>) -> Evaluated<'_> {
    let Some(with) = single_text(call.arg(1), call.name)? else { return Ok(Collection::new()) };
    let replaced = pair(&call, |text, part| {
        fits(text.len().saturating_add(text.matches(part).count().saturating_mul(with.len())))?;
        Ok(text.replace(part, &with))
    })?;
    Ok(replaced.transpose()?.map(Item::string).into_iter().collect())
}

/// A text with all matches replaced.
pub(crate) fn replaced<'a>(pattern: &Regex, text: &str, with: &str) -> Result<Item<'a>, EvalError> {
    let mut out = String::new();
    let mut after = 0;
    for found in pattern.captures_iter(text) {
        let Some(all) = found.get(0) else { continue };
        out.push_str(&text[after..all.start()]);
        found.expand(with, &mut out);
        after = all.end();
        fits(out.len())?;
    }
    out.push_str(&text[after..]);
    Ok(Item::string(out))
}

/// With a pattern that is not a literal; see `Plan::Match`.
fn matches(call: Call<'_>) -> Evaluated<'_> {
    let full = call.name == "matchesFull";
    let found = pair(&call, |text, with| pattern(with, full).map(|pattern| pattern.is_match(text)))?;
    found.transpose().map(boolean).or_else(|_| call.error("takes a regular expression"))
}

fn replace_matches(call: Call<'_>) -> Evaluated<'_> {
    let Some(with) = single_text(call.arg(1), call.name)? else { return Ok(Collection::new()) };
    let result = pair(&call, |text, part| match part {
        "" => Ok(Item::string(text.to_owned())),
        part => match pattern(part, false) {
            Ok(pattern) => replaced(&pattern, text, &with),
            Err(_) => call.error("takes a regular expression"),
        },
    })?;
    Ok(result.transpose()?.into_iter().collect())
}
