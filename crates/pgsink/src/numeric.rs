//! Decimal text to PostgreSQL's binary `numeric`: base-10000 digits, so any number of digits arrives as written.

use crate::WrongType;

const NEGATIVE: u16 = 0x4000;
/// Longer numbers are not measurements; PostgreSQL's own limit is higher.
const MAX_DIGITS: usize = 1000;

/// Appends the number; its scale is the number of digits after the point, trailing zeros included.
pub(crate) fn write(text: &str, out: &mut Vec<u8>) -> Result<(), WrongType> {
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], unsigned[at + 1..].parse::<i32>().map_err(|_| WrongType)?),
        None => (unsigned, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty()
        || !is_digits(whole)
        || !is_digits(fraction)
        || exponent.unsigned_abs() as usize > MAX_DIGITS
    {
        return Err(WrongType);
    }
    // Digits as one run, and how many of them stand before the point.
    let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).map(|byte| byte - b'0').collect();
    let mut point = whole.len() as i32 + exponent;
    if digits.len() > MAX_DIGITS {
        return Err(WrongType);
    }
    if point < 0 {
        digits.splice(0..0, std::iter::repeat_n(0, point.unsigned_abs() as usize));
        point = 0;
    }
    let point = point as usize;
    if digits.len() < point {
        digits.resize(point, 0);
    }
    let scale = digits.len() - point;

    // Groups of four are counted from the point in both directions.
    let lead = (4 - point % 4) % 4;
    digits.splice(0..0, std::iter::repeat_n(0, lead));
    let tail = (4 - digits.len() % 4) % 4;
    digits.resize(digits.len() + tail, 0);
    let groups: Vec<u16> = digits
        .chunks(4)
        .map(|group| group.iter().fold(0, |value, digit| value * 10 + u16::from(*digit)))
        .collect();
    let first = groups.iter().position(|group| *group != 0).unwrap_or(groups.len());
    let last = groups.iter().rposition(|group| *group != 0).map_or(first, |at| at + 1);
    let significant = &groups[first..last];
    let weight = if significant.is_empty() { 0 } else { (point + lead) as i16 / 4 - 1 - first as i16 };
    let sign = if negative && !significant.is_empty() { NEGATIVE } else { 0 };

    for word in [significant.len() as u16, weight as u16, sign, scale as u16] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    for group in significant {
        out.extend_from_slice(&group.to_be_bytes());
    }
    Ok(())
}
