use std::borrow::Cow;
use std::fmt;

use fhirehose_tape::write_string;
use rust_decimal::Decimal;

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

/// Calendar words, their UCUM codes and, where a calendar does not change it, their seconds.
pub(crate) const CALENDAR: &[(&str, &str, bool)] = &[
    ("year", "a", false),
    ("month", "mo", false),
    ("week", "wk", true),
    ("day", "d", true),
    ("hour", "h", true),
    ("minute", "min", true),
    ("second", "s", true),
    ("millisecond", "ms", true),
];

/// The calendar word, singular, of a word in singular or plural.
pub(crate) fn calendar(word: &str) -> Option<&'static str> {
    let singular = word.strip_suffix('s').unwrap_or(word);
    CALENDAR.iter().map(|(name, ..)| *name).find(|name| *name == singular)
}
