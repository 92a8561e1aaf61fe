use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use fhirehose_tape::write_string;
use rust_decimal::Decimal;

use crate::error::EvalError;
use crate::item::exact;
use crate::ops::quotient;
use crate::parser::Op;

/// A number with a unit: a UCUM code, or a calendar word such as `year`.
#[derive(Clone)]
pub struct Quantity<'a> {
    pub value: Decimal,
    pub unit: Unit<'a>,
}

/// A quantity's unit.
#[derive(Clone, PartialEq, Eq)]
pub enum Unit<'a> {
    /// A UCUM code, compared as written or through the conversions known here.
    Ucum(Cow<'a, str>),
    /// `year` to `millisecond`, always singular: calendar time, so a year is no number of seconds.
    Calendar(&'static str),
}

impl fmt::Display for Quantity<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.unit {
            Unit::Ucum(code) => write!(f, "{} '{code}'", self.value),
            Unit::Calendar(word) if self.value == Decimal::ONE => write!(f, "{} {word}", self.value),
            Unit::Calendar(word) => write!(f, "{} {word}s", self.value),
        }
    }
}

impl Quantity<'_> {
    /// As a FHIR Quantity. A calendar word becomes its UCUM code.
    pub(crate) fn write_json(&self, out: &mut Vec<u8>) {
        let code = self.ucum();
        out.extend_from_slice(b"{\"value\":");
        out.extend_from_slice(self.value.to_string().as_bytes());
        out.extend_from_slice(b",\"unit\":");
        write_string(code, out);
        out.extend_from_slice(b",\"system\":\"http://unitsofmeasure.org\",\"code\":");
        write_string(code, out);
        out.push(b'}');
    }

    /// The unit as a UCUM code.
    pub(crate) fn ucum(&self) -> &str {
        match &self.unit {
            Unit::Ucum(code) => code,
            Unit::Calendar(word) => {
                CALENDAR.iter().find(|(name, ..)| name == word).map_or("1", |(_, code, _)| code)
            }
        }
    }
}

/// Calendar words with their UCUM codes and, where no calendar changes it, their nanoseconds.
const CALENDAR: &[(&str, &str, i64)] = &[
    ("year", "a", 0),
    ("month", "mo", 0),
    ("week", "wk", 604_800_000_000_000),
    ("day", "d", 86_400_000_000_000),
    ("hour", "h", 3_600_000_000_000),
    ("minute", "min", 60_000_000_000),
    ("second", "s", 1_000_000_000),
    ("millisecond", "ms", 1_000_000),
];

/// The calendar word, singular, of a word in singular or plural.
pub(crate) fn calendar(word: &str) -> Option<&'static str> {
    let singular = word.strip_suffix('s').unwrap_or(word);
    CALENDAR.iter().map(|(name, ..)| *name).find(|name| *name == singular)
}

impl<'a> Quantity<'a> {
    /// `4.5 'mg'`, `4 days` or `4`.
    pub(crate) fn parse(text: &str) -> Option<Quantity<'static>> {
        let text = text.trim();
        let end =
            text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '-' | '+'))).unwrap_or(text.len());
        let (number, rest) = text.split_at(end);
        let (value, unit) = (exact(number.strip_prefix('+').unwrap_or(number))?, rest.trim_start());
        let unit = if unit.is_empty() {
            Unit::Ucum(Cow::Borrowed("1"))
        } else if let Some(code) = unit.strip_prefix('\'').and_then(|code| code.strip_suffix('\'')) {
            Unit::Ucum(Cow::Owned(code.to_owned()))
        } else {
            Unit::Calendar(calendar(unit)?)
        };
        Some(Quantity { value, unit })
    }

    /// Which is more; `None` where the units measure different things or are not known here.
    pub(crate) fn compare(&self, other: &Self) -> Option<Ordering> {
        self.in_unit_of(other).map(|(a, b)| a.cmp(&b))
    }

    /// Years and months are of the calendar in words and of physics in UCUM: they are not comparable.
    pub(crate) fn calendar_clash(&self, other: &Self) -> bool {
        let uneven = |q: &Self| matches!(q.ucum(), "a" | "mo");
        let word = |q: &Self| matches!(q.unit, Unit::Calendar(_));
        word(self) != word(other) && uneven(self) && uneven(other)
    }

    /// Both values in one unit.
    pub(crate) fn in_unit_of(&self, other: &Self) -> Option<(Decimal, Decimal)> {
        if self.calendar_clash(other) {
            return None;
        }
        if self.ucum() == other.ucum() {
            return Some((self.value, other.value));
        }
        let (a, b) = (Scale::of(self.ucum())?, Scale::of(other.ucum())?);
        if a.dimensions != b.dimensions {
            return None;
        }
        Some((self.value.checked_mul(a.factor)?, other.value.checked_mul(b.factor)?))
    }

    /// `+ - * /`; `None` where the result has no unit known here.
    pub(crate) fn combine(&self, op: Op, other: &Self) -> Result<Option<Self>, EvalError> {
        let value = match op {
            Op::Add | Op::Subtract => {
                let Some((a, b)) = self.in_unit_of(other) else { return Ok(None) };
                let sum = if op == Op::Add { a.checked_add(b) } else { a.checked_sub(b) };
                if self.ucum() == other.ucum() {
                    return Ok(sum.map(|value| Quantity { value, unit: self.unit.clone() }));
                }
                let factor = Scale::of(self.ucum()).map(|scale| scale.factor);
                sum.zip(factor).and_then(|(sum, factor)| quotient(sum, factor))
            }
            Op::Multiply | Op::Divide => return Ok(self.scaled(op, other)),
            _ => return Err(EvalError::new("div and mod take numbers without unit")),
        };
        Ok(value.map(|value| Quantity { value, unit: self.unit.clone() }))
    }

    /// A product or quotient in base units, except where one side is a bare number.
    fn scaled(&self, op: Op, other: &Self) -> Option<Self> {
        let value =
            |a: Decimal, b: Decimal| if op == Op::Multiply { a.checked_mul(b) } else { quotient(a, b) };
        if other.ucum() == "1" {
            return Some(Quantity { value: value(self.value, other.value)?, unit: self.unit.clone() });
        }
        if self.ucum() == "1" && op == Op::Multiply {
            return Some(Quantity { value: value(self.value, other.value)?, unit: other.unit.clone() });
        }
        let (a, b) = (Scale::of(self.ucum())?, Scale::of(other.ucum())?);
        let product = value(self.value.checked_mul(a.factor)?, other.value.checked_mul(b.factor)?)?;
        let sign = if op == Op::Multiply { 1 } else { -1 };
        let mut dimensions = a.dimensions;
        dimensions.iter_mut().zip(b.dimensions).for_each(|(own, other)| *own += sign * other);
        Some(Quantity { value: product.normalize(), unit: Unit::Ucum(Cow::Owned(base_unit(dimensions))) })
    }

    /// Months and nanoseconds of that many of the unit, for moving dates: whole units above the second.
    pub(crate) fn duration(&self, value: Decimal) -> Option<(i64, i128)> {
        let code = self.ucum();
        let &(word, _, nanos) = CALENDAR.iter().find(|(_, ucum, _)| *ucum == code)?;
        match word {
            "year" => Some((i64::try_from(value.trunc()).ok()?.checked_mul(12)?, 0)),
            "month" => Some((i64::try_from(value.trunc()).ok()?, 0)),
            "second" | "millisecond" => {
                Some((0, i128::try_from(value.checked_mul(nanos.into())?.trunc()).ok()?))
            }
            _ => Some((0, i128::try_from(value.trunc()).ok()?.checked_mul(nanos.into())?)),
        }
    }
}

/// A unit as a factor of base units: metre, gram, second, mole.
struct Scale {
    factor: Decimal,
    dimensions: [i32; 4],
}

const BASE: [&str; 4] = ["m", "g", "s", "mol"];

/// Units, each with its factor (as text: decimals are exact) and dimensions. UCUM has 300; these are those
/// that clinical quantities are compared across.
const UNITS: &[(&str, &str, [i32; 4])] = &[
    ("m", "1", [1, 0, 0, 0]),
    ("g", "1", [0, 1, 0, 0]),
    ("s", "1", [0, 0, 1, 0]),
    ("mol", "1", [0, 0, 0, 1]),
    ("L", "0.001", [3, 0, 0, 0]),
    ("l", "0.001", [3, 0, 0, 0]),
    ("Hz", "1", [0, 0, -1, 0]),
    ("Pa", "1000", [-1, 1, -2, 0]),
    ("m[Hg]", "133322387.415", [-1, 1, -2, 0]),
    ("m[H2O]", "9806650", [-1, 1, -2, 0]),
    ("min", "60", [0, 0, 1, 0]),
    ("h", "3600", [0, 0, 1, 0]),
    ("d", "86400", [0, 0, 1, 0]),
    ("wk", "604800", [0, 0, 1, 0]),
    ("mo", "2629800", [0, 0, 1, 0]),
    ("a", "31557600", [0, 0, 1, 0]),
    ("[lb_av]", "453.59237", [0, 1, 0, 0]),
    ("[oz_av]", "28.349523125", [0, 1, 0, 0]),
    ("[in_i]", "0.0254", [1, 0, 0, 0]),
    ("[ft_i]", "0.3048", [1, 0, 0, 0]),
    ("%", "0.01", [0, 0, 0, 0]),
];

/// Prefixes; what has none of its own (`min`, `[lb_av]`) is found as it stands first.
const PREFIXES: &[(&str, &str)] = &[
    ("k", "1000"),
    ("h", "100"),
    ("da", "10"),
    ("d", "0.1"),
    ("c", "0.01"),
    ("m", "0.001"),
    ("u", "0.000001"),
    ("n", "0.000000001"),
    ("p", "0.000000000001"),
    ("M", "1000000"),
    ("G", "1000000000"),
];

impl Scale {
    /// Of a UCUM code: units with `.`, `/` and exponents. Annotations in braces count as 1.
    fn of(code: &str) -> Option<Scale> {
        let mut scale = Scale { factor: Decimal::ONE, dimensions: [0; 4] };
        let mut sign = 1;
        let mut rest = code;
        loop {
            let end = rest.find(['.', '/']).unwrap_or(rest.len());
            let (term, after) = rest.split_at(end);
            scale.apply(term, sign)?;
            sign = match after.bytes().next() {
                None => return Some(scale),
                Some(b'/') => -1,
                Some(_) => 1,
            };
            rest = &after[1..];
        }
    }

    fn apply(&mut self, term: &str, sign: i32) -> Option<()> {
        if term.is_empty() || term == "1" || (term.starts_with('{') && term.ends_with('}')) {
            return Some(());
        }
        let digits = term.len() - term.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        let (unit, exponent) = term.split_at(term.len() - digits);
        let (unit, negative) = match unit.strip_suffix('-') {
            Some(unit) if digits > 0 => (unit, -1),
            _ => (unit, 1),
        };
        let exponent: i32 = if digits == 0 { 1 } else { exponent.parse().ok().filter(|n| *n <= 9)? };
        let known = |name: &str| UNITS.iter().find(|(unit, ..)| *unit == name);
        let (prefix, (_, factor, dimensions)) = known(unit).map(|unit| ("1", unit)).or_else(|| {
            PREFIXES.iter().find_map(|(prefix, factor)| Some((*factor, known(unit.strip_prefix(prefix)?)?)))
        })?;
        let factor = exact(factor)?.checked_mul(exact(prefix)?)?;
        let power = sign * negative * exponent;
        for _ in 0..exponent {
            let product =
                if power > 0 { self.factor.checked_mul(factor) } else { self.factor.checked_div(factor) };
            self.factor = product?;
        }
        self.dimensions.iter_mut().zip(dimensions).for_each(|(own, other)| *own += power * other);
        Some(())
    }
}

/// The UCUM code of base units: `m2`, `g/m`, `1`.
fn base_unit(dimensions: [i32; 4]) -> String {
    let part = |sign: i32| {
        let terms = BASE.iter().zip(dimensions).filter(move |(_, n)| n.signum() == sign);
        terms.map(|(unit, n)| if n.abs() == 1 { (*unit).to_owned() } else { format!("{unit}{}", n.abs()) })
    };
    let above = part(1).collect::<Vec<_>>().join(".");
    let above = if above.is_empty() { "1".to_owned() } else { above };
    part(-1).fold(above, |code, unit| code + "/" + &unit)
}
