//! Text of the values that JSON has no form of its own for.

use base64::Engine;
use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;

use crate::schema::Meaning;

const EPOCH: Date = jiff::civil::date(1970, 1, 1);

/// ISO text of an integer that counts time; `None` where it has no text form or lies outside the calendar.
pub(crate) fn from_integer(meaning: Meaning, value: i64) -> Option<String> {
    match meaning {
        Meaning::Date { text: true } => {
            let days = jiff::Span::new().try_days(value).ok()?;
            Some(EPOCH.checked_add(days).ok()?.to_string())
        }
        Meaning::Time { per_second } => {
            let day = 0..per_second * 86_400;
            let nanos = day.contains(&value).then(|| value * (1_000_000_000 / per_second))?;
            let span = jiff::Span::new().try_nanoseconds(nanos).ok()?;
            Some(Time::midnight().checked_add(span).ok()?.to_string())
        }
        Meaning::Timestamp { per_second, text: true } => {
            let (seconds, rest) = (value.div_euclid(per_second), value.rem_euclid(per_second));
            let nanos = i32::try_from(rest * (1_000_000_000 / per_second)).ok()?;
            let at = Timestamp::new(seconds, nanos).ok()?;
            Some(TimeZone::UTC.to_datetime(at).to_string())
        }
        _ => None,
    }
}

/// The integer of ISO text: a date, or an instant with its offset. Finer digits than the unit are cut off.
pub(crate) fn to_integer(meaning: Meaning, text: &str) -> Option<i64> {
    match meaning {
        Meaning::Date { .. } => {
            let date: Date = text.get(..10).filter(|date| date.len() == text.len())?.parse().ok()?;
            EPOCH.until(date).ok().map(|span| i64::from(span.get_days()))
        }
        Meaning::Timestamp { per_second, text: false } => {
            let at: Timestamp = text.parse().ok()?;
            i64::try_from(at.as_nanosecond().div_euclid(1_000_000_000 / i128::from(per_second))).ok()
        }
        // Without a zone.
        Meaning::Timestamp { per_second, text: true } => {
            let at: DateTime = text.parse().ok()?;
            let at = TimeZone::UTC.to_timestamp(at).ok()?;
            i64::try_from(at.as_nanosecond().div_euclid(1_000_000_000 / i128::from(per_second))).ok()
        }
        Meaning::Number | Meaning::Time { .. } => None,
    }
}

/// Decimal digits of an unscaled big-endian two's complement integer. At most 64 bytes (a `DECIMAL` has 65
/// digits at most, in 28 bytes) and scales to ±1000: beyond that the bytes are not a decimal but an attack.
pub(crate) fn decimal(unscaled: &[u8], scale: i32) -> Option<String> {
    if unscaled.len() > 64 || !(-1000..=1000).contains(&scale) {
        return None;
    }
    let negative = unscaled.first().is_some_and(|first| first & 0x80 != 0);
    // Digits from the last to the first.
    let mut digits: Vec<char> = match unscaled.len() {
        0..=16 => {
            let start = if negative { -1i128 } else { 0 };
            let value = unscaled.iter().fold(start, |value, byte| value << 8 | i128::from(*byte));
            value.unsigned_abs().to_string().chars().rev().collect()
        }
        _ => long_digits(unscaled, negative),
    };
    if digits != ['0'] {
        digits.splice(0..0, (0..-scale).map(|_| '0'));
    }
    let places = usize::try_from(scale).unwrap_or(0);
    while digits.len() <= places {
        digits.push('0');
    }
    if places > 0 {
        digits.insert(places, '.');
    }
    if negative {
        digits.push('-');
    }
    Some(digits.into_iter().rev().collect())
}

/// Digits, from the last to the first, of an integer of more than 128 bits.
fn long_digits(unscaled: &[u8], negative: bool) -> Vec<char> {
    let mut magnitude = unscaled.to_vec();
    if negative {
        magnitude.iter_mut().for_each(|byte| *byte = !*byte);
        for byte in magnitude.iter_mut().rev() {
            let (sum, carry) = byte.overflowing_add(1);
            *byte = sum;
            if !carry {
                break;
            }
        }
    }
    let mut digits = Vec::new();
    while magnitude.iter().any(|byte| *byte != 0) {
        let mut rest = 0u32;
        for byte in &mut magnitude {
            let value = rest << 8 | u32::from(*byte);
            // Below 10 * 256, so the quotient is a byte.
            *byte = (value / 10) as u8;
            rest = value % 10;
        }
        digits.extend(char::from_digit(rest, 10));
    }
    if digits.is_empty() { vec!['0'] } else { digits }
}

/// Standard base64 with padding, as Connect's JSON converter writes bytes.
pub(crate) fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_keep_their_places() {
        let cases: &[(&[u8], i32, &str)] = &[
            (&[], 0, "0"),
            (&[0], 2, "0.00"),
            (&[0x0e, 0x42], 2, "36.50"),
            (&[0xff], 2, "-0.01"),
            (&[0x80], 0, "-128"),
            (&[0x01], -3, "1000"),
            (&[0x00], -3, "0"),
            (&[0xff, 0x00], 1, "-25.6"),
            (
                &[
                    0x4b, 0x3b, 0x4c, 0xa8, 0x5a, 0x86, 0xc4, 0x7a, 0x09, 0x8a, 0x22, 0x3f, 0xff, 0xff, 0xff,
                    0xff,
                ],
                0,
                "99999999999999999999999999999999999999",
            ),
        ];
        for (bytes, scale, text) in cases {
            assert_eq!(decimal(bytes, *scale).as_deref(), Some(*text));
        }
        // The same through both ways.
        for bytes in [[0x00; 16], [0xff; 16], [0x7f; 16], [0x80; 16]] {
            let longer = [&[if bytes[0] & 0x80 == 0 { 0 } else { 0xff }; 4], &bytes[..]].concat();
            assert_eq!(decimal(&longer, 3), decimal(&bytes, 3));
        }
        assert_eq!(decimal(&[1; 65], 0), None);
        assert_eq!(decimal(&[1], 1_000_000), None);
    }

    #[test]
    fn time_becomes_text_and_text_time() {
        let micros = Meaning::Timestamp { per_second: 1_000_000, text: true };
        assert_eq!(
            from_integer(micros, 1_767_322_987_000_001).as_deref(),
            Some("2026-01-02T03:03:07.000001")
        );
        assert_eq!(to_integer(micros, "2026-01-02T03:03:07.000001"), Some(1_767_322_987_000_001));
        assert_eq!(from_integer(Meaning::Date { text: true }, -1).as_deref(), Some("1969-12-31"));
        assert_eq!(from_integer(Meaning::Date { text: true }, i64::MAX), None);
        assert_eq!(
            from_integer(Meaning::Time { per_second: 1_000 }, 3_600_500).as_deref(),
            Some("01:00:00.5")
        );
        assert_eq!(from_integer(Meaning::Time { per_second: 1_000 }, 86_400_000), None);
        assert_eq!(to_integer(Meaning::Date { text: false }, "1970-02-01"), Some(31));
        assert_eq!(to_integer(Meaning::Date { text: false }, "1970-02"), None);
        let millis = Meaning::Timestamp { per_second: 1_000, text: false };
        assert_eq!(to_integer(millis, "1970-01-01T02:00:00.0019+02:00"), Some(1));
        assert_eq!(to_integer(millis, "1970-01-01T02:00:00"), None);
    }
}
