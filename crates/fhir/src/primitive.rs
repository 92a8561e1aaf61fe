//! Formats of the primitive types, R4 2.24.0.1, and the moment a date or dateTime stands for.

use fhirehose_tape::{Kind, Value};

use crate::tables::Primitive;
use crate::validate::Rule;

/// Checks JSON kind and format of a primitive.
pub(crate) fn check(primitive: Primitive, value: Value<'_>) -> Result<(), Rule> {
    let wanted = match primitive {
        Primitive::Boolean => Kind::Bool,
        Primitive::Decimal | Primitive::Integer | Primitive::PositiveInt | Primitive::UnsignedInt => {
            Kind::Number
        }
        _ => Kind::String,
    };
    if value.kind() != wanted {
        return Err(Rule::Kind);
    }
    let fits = match primitive {
        // A JSON number always has the form of a FHIR decimal.
        Primitive::Boolean | Primitive::Decimal => true,
        Primitive::Integer => integer(value, i64::from(i32::MIN)),
        Primitive::UnsignedInt => integer(value, 0),
        Primitive::PositiveInt => integer(value, 1),
        _ => {
            let text = value.as_str().unwrap_or_default();
            if text.is_empty() {
                return Err(Rule::Empty);
            }
            text_fits(primitive, text)
        }
    };
    if fits { Ok(()) } else { Err(Rule::Format) }
}

fn integer(value: Value<'_>, min: i64) -> bool {
    value.as_i64().is_some_and(|n| (min..=i64::from(i32::MAX)).contains(&n))
}

/// Whether a text that is not empty has the format of a primitive that is written as a string.
pub(crate) fn text_fits(primitive: Primitive, text: &str) -> bool {
    match primitive {
        Primitive::String | Primitive::Markdown => printable(text) && text.len() <= 1024 * 1024,
        Primitive::Xhtml => printable(text) && text.starts_with("<div") && text.ends_with("</div>"),
        Primitive::Code => code(text),
        Primitive::Id => id(text),
        Primitive::Uri | Primitive::Url => solid(text),
        Primitive::Canonical => solid(text) && (absolute(text) || text.starts_with('#')),
        Primitive::Oid => text.strip_prefix("urn:oid:").is_some_and(oid),
        Primitive::Uuid => text.strip_prefix("urn:uuid:").is_some_and(uuid),
        Primitive::Date => text.len() <= 10 && moment(text).is_some(),
        Primitive::DateTime => moment(text).is_some(),
        Primitive::Instant => text.len() > 10 && moment(text).is_some(),
        Primitive::Time => time(text.as_bytes()).is_some_and(|(_, rest)| rest.is_empty()),
        Primitive::Base64Binary => base64(text),
        Primitive::Integer64 => text.parse::<i64>().is_ok() && !text.starts_with('+'),
        Primitive::Boolean
        | Primitive::Decimal
        | Primitive::Integer
        | Primitive::PositiveInt
        | Primitive::UnsignedInt => false,
    }
}

fn printable(text: &str) -> bool {
    text.bytes().fold(true, |all, b| all & (b >= 0x20 || matches!(b, b'\t' | b'\n' | b'\r')))
}

/// ASCII without blanks or control characters, as nearly all codes and URIs are.
fn solid_ascii(text: &str) -> bool {
    // Without a way out early: compilers look at many bytes at once then.
    text.bytes().fold(true, |all, b| all & b.is_ascii_graphic())
}

/// Without blanks and control characters, of any script.
pub(crate) fn solid(text: &str) -> bool {
    solid_ascii(text) || !text.chars().any(|c| c.is_whitespace() || c.is_control())
}

/// Whether a URI names its scheme.
pub(crate) fn absolute(uri: &str) -> bool {
    uri.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
    })
}

/// No white space at the ends, single spaces between; no control characters.
fn code(text: &str) -> bool {
    solid_ascii(text) || text.split(' ').all(|word| !word.is_empty() && solid(word))
}

/// `[A-Za-z0-9\-\.]{1,64}`
pub(crate) fn id(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
}

fn oid(text: &str) -> bool {
    let arc =
        |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit()) && (s == "0" || !s.starts_with('0'));
    text.starts_with(['0', '1', '2']) && text.contains('.') && text.split('.').all(arc)
}

fn uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => b == b'-',
            _ => matches!(b, b'0'..=b'9' | b'a'..=b'f'),
        })
}

/// White space is allowed between the characters.
fn base64(text: &str) -> bool {
    let mut digits = 0usize;
    let mut padding = 0usize;
    for b in text.bytes().filter(|b| !b.is_ascii_whitespace()) {
        match b {
            b'=' => padding += 1,
            _ if padding > 0 => return false,
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' => digits += 1,
            _ => return false,
        }
    }
    padding <= 2 && (digits + padding).is_multiple_of(4)
}

/// A date (`Seconds` absent) or dateTime.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Moment {
    /// Year, month, day; 0 where the precision ends.
    pub date: (u16, u8, u8),
    /// Seconds and nanoseconds since the epoch, of a dateTime with its zone.
    pub utc: Option<(i64, u32)>,
}

impl Moment {
    /// Whether it is certainly later than the other: UTC against UTC, else as far as both are precise.
    pub fn after(self, other: Moment) -> bool {
        if let (Some(a), Some(b)) = (self.utc, other.utc) {
            return a > b;
        }
        let (a, b) = (self.date, other.date);
        let precise = |x: u8, y: u8| x != 0 && y != 0;
        a.0 > b.0
            || (a.0 == b.0
                && precise(a.1, b.1)
                && (a.1 > b.1 || (a.1 == b.1 && precise(a.2, b.2) && a.2 > b.2)))
    }
}

/// Reads `YYYY`, `YYYY-MM`, `YYYY-MM-DD` or a dateTime with seconds and zone; dates that no calendar has are refused.
pub(crate) fn moment(text: &str) -> Option<Moment> {
    let bytes = text.as_bytes();
    let year = u16::try_from(digits(bytes.get(..4)?)?).ok().filter(|y| *y > 0)?;
    let [b'-', rest @ ..] = &bytes[4..] else {
        return (bytes.len() == 4).then_some(Moment { date: (year, 0, 0), utc: None });
    };
    let month = u8::try_from(digits(rest.get(..2)?)?).ok().filter(|m| (1..=12).contains(m))?;
    let [b'-', rest @ ..] = &rest[2..] else {
        return (rest.len() == 2).then_some(Moment { date: (year, month, 0), utc: None });
    };
    let day =
        u8::try_from(digits(rest.get(..2)?)?).ok().filter(|d| (1..=days_in(year, month)).contains(d))?;
    let date = (year, month, day);
    let [b'T', rest @ ..] = &rest[2..] else {
        return (rest.len() == 2).then_some(Moment { date, utc: None });
    };
    let ((seconds, nanos), zone) = time(rest)?;
    let offset = offset(zone)?;
    Some(Moment {
        date,
        utc: Some((epoch_day(date) * 86_400 + i64::from(seconds) - i64::from(offset), nanos)),
    })
}

/// `hh:mm:ss[.fraction]` as seconds of the day and nanoseconds, and what follows.
fn time(bytes: &[u8]) -> Option<((u32, u32), &[u8])> {
    let [h1, h2, b':', m1, m2, b':', s1, s2, rest @ ..] = bytes else { return None };
    let (hour, minute, second) = (digits(&[*h1, *h2])?, digits(&[*m1, *m2])?, digits(&[*s1, *s2])?);
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = hour * 3600 + minute * 60 + second;
    let [b'.', rest @ ..] = rest else { return Some(((seconds, 0), rest)) };
    let end = rest.iter().position(|b| !b.is_ascii_digit()).unwrap_or(rest.len());
    let kept = digits(rest.get(..end.min(9))?)?;
    let nanos = kept * 10u32.pow(9 - u32::try_from(end.min(9)).ok()?);
    (end > 0).then_some(((seconds, nanos), &rest[end..]))
}

/// `Z` or `±hh:mm`, at most 14 hours, in seconds.
fn offset(bytes: &[u8]) -> Option<i32> {
    let [sign, h1, h2, b':', m1, m2] = bytes else { return (bytes == b"Z").then_some(0) };
    let (hour, minute) = (digits(&[*h1, *h2])?, digits(&[*m1, *m2])?);
    let seconds = i32::try_from(hour * 3600 + minute * 60).ok()?;
    match sign {
        _ if minute > 59 || seconds > 14 * 3600 => None,
        b'+' => Some(seconds),
        b'-' => Some(-seconds),
        _ => None,
    }
}

fn digits(bytes: &[u8]) -> Option<u32> {
    bytes.iter().try_fold(0u32, |n, b| b.is_ascii_digit().then(|| n * 10 + u32::from(b - b'0')))
}

fn days_in(year: u16, month: u8) -> u8 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar (Howard Hinnant's `days_from_civil`).
fn epoch_day((year, month, day): (u16, u8, u8)) -> i64 {
    let year = i64::from(year) - i64::from(month <= 2);
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((i64::from(month) + 9) % 12) + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_and_times() {
        for good in
            ["2026", "2026-01", "2024-02-29", "2026-01-02T03:04:05Z", "2026-01-02T03:04:05.123456+02:00"]
        {
            assert!(moment(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "20",
            "2026-",
            "2026-1",
            "2026-13",
            "2026-00",
            "2025-02-29",
            "2026-04-31",
            "2026-01-02T",
            "0000",
            "2026-01-02T03:04",
            "2026-01-02T03:04:05",
            "2026-01-02T25:04:05Z",
            "2026-01-02T03:04:05+15:00",
            "2026-01-02T03:04:05.Z",
            "2026-01-02 03:04:05Z",
            "2026-01-02T03:04:05z",
            "2026/01/02",
            "２０２６",
        ] {
            assert!(moment(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn moments_compare_across_zones_and_precisions() {
        let after = |a, b| moment(a).unwrap().after(moment(b).unwrap());
        assert!(after("2026-01-02T03:00:00+02:00", "2026-01-02T00:59:59Z"));
        assert!(!after("2026-01-02T03:00:00+02:00", "2026-01-02T01:00:00Z"));
        assert!(after("2026-01-02T01:00:00.5Z", "2026-01-02T01:00:00Z"));
        assert!(after("2026-02", "2026-01-31"));
        assert!(!after("2026-01-31", "2026"), "not certain");
        assert_eq!(moment("1970-01-01T00:00:00Z").unwrap().utc, Some((0, 0)));
        assert_eq!(moment("2000-03-01T00:00:00Z").unwrap().utc, Some((951_868_800, 0)));
    }

    #[test]
    fn texts() {
        assert!(code("a b") && !code(" a") && !code("a  b") && !code("a\tb") && !code("a\u{1}b"));
        assert!(
            absolute("urn:x:y")
                && absolute("http://x")
                && !absolute("x/y")
                && !absolute("2026-01-01T10:00:00")
        );
        assert!(id("A-1.b") && !id("a_b") && !id("") && !id(&"a".repeat(65)));
        assert!(oid("1.2.840") && !oid("3.1") && !oid("1.02") && !oid("1"));
        assert!(
            uuid("2ed6657d-e927-568b-95e1-2665a8aea6a2") && !uuid("2ED6657D-e927-568b-95e1-2665a8aea6a2")
        );
        assert!(base64("AAA=") && !base64("AAA") && !base64("A=AA"));
    }
}
