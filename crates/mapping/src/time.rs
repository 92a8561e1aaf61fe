//! Times of sources: texts and numbers in, FHIR instants out. Nothing is guessed: what is no time is an error.

use arrayvec::ArrayString;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// No time at all, or one that cannot be: a Buddhist-era year, a 30th of February.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadTime;

/// A time as FHIR writes it, or a part of one.
pub(crate) type Text = ArrayString<40>;

/// Years from here on are taken for Buddhist-era ones, 543 ahead; no source has data of the real ones.
const BUDDHIST_YEARS: i16 = 2400;
/// Epoch numbers beyond this are milliseconds: in seconds it would be the year 5138.
const SECONDS_LIMIT: u64 = 100_000_000_000;
/// Epoch numbers beyond this are microseconds: in milliseconds it would be the year 5138.
const MILLIS_LIMIT: u64 = 100_000_000_000_000;

/// `YYYY-MM-DD`, checked.
pub(crate) fn date(text: &str) -> Result<Date, BadTime> {
    match text.as_bytes() {
        [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] => {
            let year = number(&[*y1, *y2, *y3, *y4])?;
            checked(year, number(&[*m1, *m2])?, number(&[*d1, *d2])?)
        }
        _ => Err(BadTime),
    }
}

/// Days since 1970-01-01, as Debezium and Avro write dates.
pub(crate) fn date_of_days(days: i64) -> Result<Date, BadTime> {
    let days = i32::try_from(days).map_err(|_| BadTime)?;
    let epoch = Date::new(1970, 1, 1).map_err(|_| BadTime)?;
    let date = epoch.checked_add(SignedDuration::from_hours(i64::from(days) * 24)).map_err(|_| BadTime)?;
    checked(i64::from(date.year()), i64::from(date.month()), i64::from(date.day()))
}

fn checked(year: i64, month: i64, day: i64) -> Result<Date, BadTime> {
    let year = i16::try_from(year).map_err(|_| BadTime)?;
    if !(1..BUDDHIST_YEARS).contains(&year) {
        return Err(BadTime);
    }
    let (month, day) = (i8::try_from(month).map_err(|_| BadTime)?, i8::try_from(day).map_err(|_| BadTime)?);
    Date::new(year, month, day).map_err(|_| BadTime)
}

/// Digits only; a sign or a blank is no number here.
fn number(digits: &[u8]) -> Result<i64, BadTime> {
    if digits.is_empty() || digits.len() > 18 {
        return Err(BadTime);
    }
    digits.iter().try_fold(0, |sum, b| match b {
        b'0'..=b'9' => Ok(sum * 10 + i64::from(b - b'0')),
        _ => Err(BadTime),
    })
}

/// A time of day and what stands behind the seconds.
struct Local<'t> {
    time: DateTime,
    /// Digits of the fraction, as written.
    fraction: &'t str,
    /// `Z`, `+02:00`, `-0330`, or nothing.
    offset: &'t str,
}

/// `YYYY-MM-DD`, a blank or `T`, `HH:MM:SS`, perhaps a fraction, perhaps an offset.
fn local(text: &str) -> Result<Local<'_>, BadTime> {
    let (day, rest) = text.split_at_checked(10).ok_or(BadTime)?;
    let date = date(day)?;
    let rest = rest.strip_prefix(['T', ' ']).ok_or(BadTime)?;
    let (clock, rest) = rest.split_at_checked(8).ok_or(BadTime)?;
    let time = clock_time(date, clock)?;
    let (fraction, offset) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())),
        None => ("", rest),
    };
    if rest.starts_with('.') && !(1..=9).contains(&fraction.len()) {
        return Err(BadTime);
    }
    Ok(Local { time, fraction, offset })
}

fn clock_time(date: Date, clock: &str) -> Result<DateTime, BadTime> {
    let [h1, h2, b':', m1, m2, b':', s1, s2] = clock.as_bytes() else { return Err(BadTime) };
    let part = |a: &u8, b: &u8| number(&[*a, *b]).and_then(|n| i8::try_from(n).map_err(|_| BadTime));
    let (hour, minute, second) = (part(h1, h2)?, part(m1, m2)?, part(s1, s2)?);
    let time = jiff::civil::Time::new(hour, minute, second, 0).map_err(|_| BadTime)?;
    Ok(date.to_datetime(time))
}

/// Minutes east of UTC.
fn offset_minutes(offset: &str) -> Result<i64, BadTime> {
    let (sign, rest) = match offset.as_bytes() {
        [b'Z' | b'z'] => return Ok(0),
        [b'+', rest @ ..] => (1, rest),
        [b'-', rest @ ..] => (-1, rest),
        _ => return Err(BadTime),
    };
    let (hours, minutes) = match rest {
        [h1, h2, b':', m1, m2] | [h1, h2, m1, m2] => (number(&[*h1, *h2])?, number(&[*m1, *m2])?),
        [h1, h2] => (number(&[*h1, *h2])?, 0),
        _ => return Err(BadTime),
    };
    if hours > 14 || minutes > 59 { Err(BadTime) } else { Ok(sign * (hours * 60 + minutes)) }
}

/// The FHIR instant of a text: with its own offset, or in `zone` where it has none. A time that the zone's
/// clocks skipped is moved forward; of one they showed twice it is the first.
pub(crate) fn instant(text: &str, zone: &TimeZone) -> Result<Text, BadTime> {
    let Local { time, fraction, offset } = local(text.trim())?;
    if offset.is_empty() {
        return in_zone(time, fraction, zone);
    }
    let minutes = offset_minutes(offset)?;
    if minutes == 0 { written(time, fraction, None) } else { written(time, fraction, Some(minutes * 60)) }
}

fn in_zone(time: DateTime, fraction: &str, zone: &TimeZone) -> Result<Text, BadTime> {
    let zoned = zone.to_ambiguous_zoned(time).compatible().map_err(|_| BadTime)?;
    written(zoned.datetime(), fraction, Some(i64::from(zoned.offset().seconds())))
}

/// `None` for UTC, written `Z`.
fn written(time: DateTime, fraction: &str, offset_seconds: Option<i64>) -> Result<Text, BadTime> {
    let mut text = day(time.date())?;
    for (before, part) in [('T', time.hour()), (':', time.minute()), (':', time.second())] {
        text.push(before);
        two_digits(&mut text, part.unsigned_abs());
    }
    // At most nine digits, of which there is always room.
    if !fraction.is_empty() {
        text.push('.');
        text.push_str(fraction);
    }
    match offset_seconds {
        None => text.push('Z'),
        // FHIR's offsets have whole minutes: local mean times of the 19th century are not written.
        Some(seconds) if seconds % 60 != 0 => return Err(BadTime),
        Some(seconds) => {
            let (sign, minutes) = (if seconds < 0 { '-' } else { '+' }, seconds.abs() / 60);
            text.push(sign);
            two_digits(&mut text, (minutes / 60) as u8);
            text.push(':');
            two_digits(&mut text, (minutes % 60) as u8);
        }
    }
    Ok(text)
}

/// `YYYY-MM-DD`
pub(crate) fn day(date: Date) -> Result<Text, BadTime> {
    let mut text = Text::new();
    let year = u8::try_from(date.year() / 100).map_err(|_| BadTime)?;
    two_digits(&mut text, year);
    two_digits(&mut text, (date.year() % 100) as u8);
    for part in [date.month(), date.day()] {
        text.push('-');
        two_digits(&mut text, part.unsigned_abs());
    }
    Ok(text)
}

fn two_digits(text: &mut Text, number: u8) {
    text.push(char::from(b'0' + number / 10));
    text.push(char::from(b'0' + number % 10));
}

/// Milliseconds since the epoch of a number of seconds or, beyond the year 5138, of milliseconds.
pub(crate) fn epoch_millis(number: i64) -> Result<i64, BadTime> {
    let millis = if number.unsigned_abs() < SECONDS_LIMIT { number * 1000 } else { number };
    utc(millis).map(|_| millis)
}

/// A FHIR instant in UTC; milliseconds are written where there are any.
pub(crate) fn utc(millis: i64) -> Result<Text, BadTime> {
    let (time, fraction) = civil(millis.checked_mul(1000).ok_or(BadTime)?)?;
    written(time, &fraction, None)
}

/// A zone-less time as Debezium writes it: milliseconds or, beyond the year 5138, microseconds since the epoch
/// of the same clock in UTC. Text `YYYY-MM-DDTHH:MM:SS[.fff]`.
pub(crate) fn zoneless_of_epoch(number: i64) -> Result<Text, BadTime> {
    utc_of_epoch(number).map(without_z)
}

fn without_z(mut text: Text) -> Text {
    text.pop();
    text
}

/// Milliseconds or microseconds since the epoch, told apart as above, as an instant in UTC.
pub(crate) fn utc_of_epoch(number: i64) -> Result<Text, BadTime> {
    let micros = if number.unsigned_abs() < MILLIS_LIMIT { number * 1000 } else { number };
    let (time, fraction) = civil(micros)?;
    written(time, &fraction, None)
}

/// Time in UTC, and three or six digits of fraction, or none.
fn civil(micros: i64) -> Result<(DateTime, ArrayString<6>), BadTime> {
    let time = Timestamp::from_microsecond(micros).map_err(|_| BadTime)?;
    let time = TimeZone::UTC.to_datetime(time);
    checked(i64::from(time.year()), i64::from(time.month()), i64::from(time.day()))?;
    let part = micros.rem_euclid(1_000_000);
    let digits = match part {
        0 => 0,
        part if part % 1000 == 0 => 3,
        _ => 6,
    };
    let mut fraction = ArrayString::new();
    for place in [100_000, 10_000, 1000, 100, 10, 1].into_iter().take(digits) {
        fraction.push(char::from(b'0' + (part / place % 10) as u8));
    }
    Ok((time, fraction))
}

/// A zone-less text of a row, checked and in one form; a blank becomes `T`. A `Z` behind it is how Debezium's
/// `time.precision.mode=isostring` writes the very same, and says nothing about a zone.
pub(crate) fn zoneless(text: &str) -> Result<Text, BadTime> {
    let Local { time, fraction, offset } = local(text)?;
    if !matches!(offset, "" | "Z") {
        return Err(BadTime);
    }
    written(time, fraction, None).map(without_z)
}

/// A text with an offset, checked and in one form.
pub(crate) fn timestamp(text: &str) -> Result<Text, BadTime> {
    let with_offset = local(text)?.offset;
    if with_offset.is_empty() { Err(BadTime) } else { instant(text, &TimeZone::UTC) }
}

/// Milliseconds since the epoch of a FHIR instant; finer digits are cut off.
pub(crate) fn millis(instant: &str) -> Result<i64, BadTime> {
    let Local { time, fraction, offset } = local(instant)?;
    let seconds = TimeZone::UTC.to_timestamp(time).map_err(|_| BadTime)?.as_second();
    let thousandths =
        fraction.bytes().chain([b'0'; 3]).take(3).fold(0, |sum, b| sum * 10 + i64::from(b - b'0'));
    Ok((seconds - offset_minutes(offset)? * 60) * 1000 + thousandths)
}

/// The instant of a text in a vendor's form, such as `dd/MM/yyyy HH:mm:ss`, in `zone`. Runs of `y M d H m s`
/// stand for as many digits; everything else stands for itself.
pub(crate) fn local_instant(text: &str, form: &str, zone: &TimeZone) -> Result<Text, BadTime> {
    let (mut text, mut form) = (text.trim().as_bytes(), form.as_bytes());
    let mut parts = [("y", 0), ("M", 1), ("d", 1), ("H", 0), ("m", 0), ("s", 0)];
    while let Some(&letter) = form.first() {
        let run = form.iter().take_while(|b| **b == letter).count();
        let (field, rest) = text.split_at_checked(run).ok_or(BadTime)?;
        match parts.iter_mut().find(|(name, _)| name.as_bytes()[0] == letter) {
            Some((_, value)) => *value = number(field)?,
            None if field.iter().all(|b| *b == letter) => {}
            None => return Err(BadTime),
        }
        (text, form) = (rest, &form[run..]);
    }
    let [year, month, day, hour, minute, second] = parts.map(|(_, value)| value);
    let date = checked(year, month, day)?;
    if !text.is_empty() || hour > 99 || minute > 99 || second > 99 {
        return Err(BadTime);
    }
    in_zone(clock_time(date, &format!("{hour:02}:{minute:02}:{second:02}"))?, "", zone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).unwrap()
    }

    #[test]
    fn zoneless_text_gets_the_zones_offset() {
        let khartoum = zone("Africa/Khartoum");
        assert_eq!(&*instant("2026-01-02 03:04:05", &khartoum).unwrap(), "2026-01-02T03:04:05+02:00");
        // Sudan was three hours ahead until 2017-11-01.
        assert_eq!(
            &*instant("2016-01-02T03:04:05.120000", &khartoum).unwrap(),
            "2016-01-02T03:04:05.120000+03:00"
        );
        assert_eq!(&*instant("2026-01-02T03:04:05-0330", &khartoum).unwrap(), "2026-01-02T03:04:05-03:30");
        assert_eq!(&*instant("2026-01-02T03:04:05.5Z", &khartoum).unwrap(), "2026-01-02T03:04:05.5Z");
        let london = zone("Europe/London");
        assert_eq!(
            &*instant("2026-03-29 01:30:00", &london).unwrap(),
            "2026-03-29T02:30:00+01:00",
            "skipped"
        );
        assert_eq!(&*instant("2026-10-25 01:30:00", &london).unwrap(), "2026-10-25T01:30:00+01:00", "twice");
    }

    #[test]
    fn what_is_no_time_is_refused() {
        let utc = TimeZone::UTC;
        for bad in [
            "",
            "2026-02-30 00:00:00",
            "2569-01-02 03:04:05",
            "0000-00-00 00:00:00",
            "2026-01-02",
            "2026-01-02 24:00:00",
            "2026-01-02 03:04:05.",
            "2026-01-02 03:04:05+25:00",
            "2026-01-02 03:04:05 tomorrow",
            "２026-01-02 03:04:05",
        ] {
            assert_eq!(instant(bad, &utc), Err(BadTime), "{bad}");
        }
        assert_eq!(date("2522-07-13"), Err(BadTime));
        assert!(date("2023-02-29").is_err() && date("2024-02-29").is_ok() && date("20240229").is_err());
    }

    #[test]
    fn epochs_of_every_unit() {
        assert_eq!(&*utc(epoch_millis(1_767_323_045).unwrap()).unwrap(), "2026-01-02T03:04:05Z");
        assert_eq!(&*utc(epoch_millis(1_767_323_045_120).unwrap()).unwrap(), "2026-01-02T03:04:05.120Z");
        assert_eq!(&*zoneless_of_epoch(1_767_323_045_000).unwrap(), "2026-01-02T03:04:05");
        assert_eq!(&*zoneless_of_epoch(1_767_323_045_000_001).unwrap(), "2026-01-02T03:04:05.000001");
        assert_eq!(&*zoneless_of_epoch(-1).unwrap(), "1969-12-31T23:59:59.999");
        assert_eq!(date_of_days(20_455).unwrap().to_string(), "2026-01-02");
        assert_eq!(date_of_days(-719_200), Err(BadTime));
        assert_eq!(utc(i64::MAX), Err(BadTime));
        assert_eq!(utc(253_402_300_799_000 / 3), Err(BadTime));
    }

    #[test]
    fn millis_and_back() {
        for text in ["2026-01-02T03:04:05.120Z", "1969-12-31T23:59:59.999Z", "2026-01-02T03:04:05Z"] {
            assert_eq!(&*utc(millis(text).unwrap()).unwrap(), text);
        }
        assert_eq!(millis("2026-01-02T03:04:05.1209+02:00").unwrap(), 1_767_323_045_120 - 7_200_000);
        assert_eq!(millis("2026-01-02T03:04:05"), Err(BadTime));
    }

    #[test]
    fn vendor_forms() {
        let bangkok = zone("Asia/Bangkok");
        let form = "dd/MM/yyyy HH:mm:ss";
        assert_eq!(
            &*local_instant("02/01/2026 03:04:05", form, &bangkok).unwrap(),
            "2026-01-02T03:04:05+07:00"
        );
        for bad in
            ["02/01/2569 03:04:05", "2/1/2026 03:04:05", "02-01-2026 03:04:05", "02/01/2026 03:04:05x", ""]
        {
            assert_eq!(local_instant(bad, form, &bangkok), Err(BadTime), "{bad}");
        }
    }
}
