use std::cmp::Ordering;
use std::fmt;

use jiff::civil;

/// How much of a date or time is given. A second and its fraction are one precision, as FHIRPath has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Precision {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
}

/// A date, time or both, as precise as it was written. Which of the three it is, its holder knows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Temporal {
    pub(crate) year: i16,
    pub(crate) month: u8,
    pub(crate) day: u8,
    pub(crate) hour: u8,
    pub(crate) minute: u8,
    pub(crate) second: u8,
    /// Digits of the fraction as written, at most 9.
    pub(crate) digits: u8,
    pub(crate) nanos: u32,
    pub(crate) precision: Precision,
    /// Minutes east of UTC, where given.
    pub(crate) offset: Option<i16>,
}

impl Temporal {
    const ZERO: Temporal = Temporal {
        year: 1,
        month: 1,
        day: 1,
        hour: 0,
        minute: 0,
        second: 0,
        digits: 0,
        nanos: 0,
        precision: Precision::Year,
        offset: None,
    };

    /// `YYYY`, `YYYY-MM` or `YYYY-MM-DD`, a day that exists.
    pub fn date(text: &str) -> Option<Self> {
        let mut reader = Reader(text.as_bytes());
        let date = reader.date()?;
        reader.0.is_empty().then_some(date)
    }

    /// A date, optionally followed by `T` and a time with or without offset.
    pub fn date_time(text: &str) -> Option<Self> {
        let mut reader = Reader(text.as_bytes());
        let mut at = reader.date()?;
        if reader.take(b'T') && !reader.0.is_empty() {
            if at.precision != Precision::Day {
                return None;
            }
            reader.time(&mut at)?;
            reader.offset(&mut at)?;
        }
        reader.0.is_empty().then_some(at)
    }

    /// `hh`, `hh:mm`, `hh:mm:ss` or `hh:mm:ss.fff`.
    pub fn time(text: &str) -> Option<Self> {
        let mut reader = Reader(text.as_bytes());
        let mut at = Temporal::ZERO;
        reader.time(&mut at)?;
        reader.0.is_empty().then_some(at)
    }

    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// The date part alone.
    pub(crate) fn date_part(mut self) -> Self {
        (self.hour, self.minute, self.second, self.nanos, self.digits) = (0, 0, 0, 0, 0);
        self.offset = None;
        self.precision = self.precision.min(Precision::Day);
        self
    }

    /// Whether parts of a second are given.
    pub(crate) fn has_fraction(&self) -> bool {
        self.digits > 0
    }

    /// Cut to whole seconds.
    pub(crate) fn without_fraction(self) -> Self {
        Temporal { nanos: 0, digits: 0, ..self }
    }

    /// The time part alone.
    pub(crate) fn time_part(self) -> Self {
        let Temporal { year, month, day, .. } = Temporal::ZERO;
        Temporal { year, month, day, offset: None, ..self }
    }

    fn civil(&self) -> Option<civil::DateTime> {
        let (hour, minute, second) = (self.hour as i8, self.minute as i8, self.second as i8);
        civil::DateTime::new(
            self.year,
            self.month as i8,
            self.day as i8,
            hour,
            minute,
            second,
            self.nanos as i32,
        )
        .ok()
    }

    fn with_civil(mut self, at: civil::DateTime) -> Self {
        self.year = at.year();
        (self.month, self.day) = (at.month() as u8, at.day() as u8);
        (self.hour, self.minute, self.second) = (at.hour() as u8, at.minute() as u8, at.second() as u8);
        self.nanos = at.subsec_nanosecond() as u32;
        self
    }

    /// The same instant written in UTC, where there is an offset.
    fn utc(self) -> Self {
        let Some(offset) = self.offset.filter(|_| self.precision > Precision::Day) else { return self };
        let shifted = self
            .civil()
            .and_then(|at| at.checked_sub(jiff::SignedDuration::from_mins(i64::from(offset))).ok());
        shifted.map_or(self, |at| self.with_civil(at))
    }

    /// Which is earlier; `None` where their precision (or a missing offset) leaves it open.
    pub fn compare(self, other: Self) -> Option<Ordering> {
        // With an offset on one side only, the instants are known to differ only where no offset could make
        // them meet: offsets go from -14 to +14 hours.
        let timed = self.precision > Precision::Day && other.precision > Precision::Day;
        if timed && self.offset.is_some() != other.offset.is_some() {
            let (a, b) = (self.utc().civil()?, other.utc().civil()?);
            let apart = a.duration_since(b);
            return (apart.abs() > jiff::SignedDuration::from_hours(14)).then(|| a.cmp(&b));
        }
        // Between a day and a time of some day, an offset decides nothing.
        let (a, b) = if timed { (self.utc(), other.utc()) } else { (self, other) };
        for precision in [
            Precision::Year,
            Precision::Month,
            Precision::Day,
            Precision::Hour,
            Precision::Minute,
            Precision::Second,
        ] {
            match (precision <= a.precision, precision <= b.precision) {
                (true, true) => {}
                (false, false) => return Some(Ordering::Equal),
                _ => return None,
            }
            let order = a.part(precision).cmp(&b.part(precision));
            if order != Ordering::Equal {
                return Some(order);
            }
        }
        Some(Ordering::Equal)
    }

    fn part(&self, precision: Precision) -> i64 {
        match precision {
            Precision::Year => i64::from(self.year),
            Precision::Month => i64::from(self.month),
            Precision::Day => i64::from(self.day),
            Precision::Hour => i64::from(self.hour),
            Precision::Minute => i64::from(self.minute),
            Precision::Second => i64::from(self.second) * 1_000_000_000 + i64::from(self.nanos),
        }
    }

    /// Moved by whole months, then nanoseconds, then cut to its own precision again. The day of the month is
    /// kept where the month has it, else the month's last day is taken. `None` outside years 1 to 9999.
    pub(crate) fn shift_by(self, months: i64, nanos: i128, wrap_day: bool) -> Option<Self> {
        let span = jiff::Span::new().try_months(months).ok()?;
        let at = self.civil()?.checked_add(span).ok()?;
        let seconds = i64::try_from(nanos.div_euclid(1_000_000_000)).ok()?;
        let rest = (nanos.rem_euclid(1_000_000_000)) as i32;
        let moved = at.checked_add(jiff::SignedDuration::new(seconds, rest)).ok()?;
        let mut result = self.with_civil(moved);
        if wrap_day {
            (result.year, result.month, result.day) = (self.year, self.month, self.day);
        }
        if result.nanos != 0 {
            result.digits = result.digits.max(3);
        }
        (1..=9999).contains(&result.year).then(|| result.cut(self.precision))
    }

    /// Cut to a precision: what is finer is as at its start.
    pub(crate) fn cut(mut self, precision: Precision) -> Self {
        if precision < Precision::Month {
            self.month = 1;
        }
        if precision < Precision::Day {
            self.day = 1;
        }
        if precision < Precision::Hour {
            self.hour = 0;
        }
        if precision < Precision::Minute {
            self.minute = 0;
        }
        if precision < Precision::Second {
            (self.second, self.nanos, self.digits) = (0, 0, 0);
        }
        self.precision = precision;
        self
    }

    /// The first or last instant it could mean, at the finest precision of its kind.
    pub(crate) fn boundary(self, high: bool, finest: Precision, offset: Option<i16>) -> Option<Self> {
        let mut at = self;
        if self.precision < Precision::Month {
            at.month = if high { 12 } else { 1 };
        }
        if self.precision < Precision::Day {
            let first = civil::Date::new(at.year, at.month as i8, 1).ok()?;
            at.day = if high { first.days_in_month() as u8 } else { 1 };
        }
        if finest == Precision::Second {
            if self.precision < Precision::Hour {
                at.hour = if high { 23 } else { 0 };
            }
            if self.precision < Precision::Minute {
                at.minute = if high { 59 } else { 0 };
            }
            if self.precision < Precision::Second {
                at.second = if high { 59 } else { 0 };
            }
            let unit = 10u32.pow(9 - u32::from(self.digits.min(3)));
            if high {
                at.nanos += unit - 1_000_000;
            }
            at.digits = 3;
            if at.offset.is_none() {
                at.offset = offset;
            }
        }
        at.precision = finest;
        Some(at)
    }

    /// As a date: `2026-01-02`.
    pub fn show_date(&self, out: &mut impl fmt::Write) -> fmt::Result {
        write!(out, "{:04}", self.year)?;
        if self.precision >= Precision::Month {
            write!(out, "-{:02}", self.month)?;
        }
        if self.precision >= Precision::Day {
            write!(out, "-{:02}", self.day)?;
        }
        Ok(())
    }

    /// As a date and time: `2026-01-02T03:04:05+03:00`.
    pub fn show_date_time(&self, out: &mut impl fmt::Write) -> fmt::Result {
        self.show_date(out)?;
        if self.precision <= Precision::Day {
            return Ok(());
        }
        out.write_char('T')?;
        self.show_time(out)?;
        match self.offset {
            Some(0) => out.write_char('Z'),
            Some(offset) => {
                let (sign, minutes) = (if offset < 0 { '-' } else { '+' }, offset.abs());
                write!(out, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)
            }
            None => Ok(()),
        }
    }

    /// As a time: `03:04:05.123`.
    pub fn show_time(&self, out: &mut impl fmt::Write) -> fmt::Result {
        write!(out, "{:02}", self.hour)?;
        if self.precision >= Precision::Minute {
            write!(out, ":{:02}", self.minute)?;
        }
        if self.precision >= Precision::Second {
            write!(out, ":{:02}", self.second)?;
            if self.digits > 0 {
                let digits = usize::from(self.digits);
                write!(out, ".{:0digits$}", self.nanos / 10u32.pow(9 - u32::from(self.digits)))?;
            }
        }
        Ok(())
    }
}

/// Reads the text of dates and times from the front.
struct Reader<'t>(&'t [u8]);

impl Reader<'_> {
    fn take(&mut self, byte: u8) -> bool {
        let found = self.0.first() == Some(&byte);
        if found {
            self.0 = &self.0[1..];
        }
        found
    }

    fn number(&mut self, digits: usize) -> Option<u32> {
        let (number, rest) = self.0.split_at_checked(digits)?;
        self.0 = rest;
        number.iter().try_fold(0, |n, &digit| Some(n * 10 + char::from(digit).to_digit(10)?))
    }

    fn date(&mut self) -> Option<Temporal> {
        let mut at = Temporal { year: self.number(4)? as i16, ..Temporal::ZERO };
        if self.take(b'-') {
            at.month = self.number(2)? as u8;
            at.precision = Precision::Month;
            if self.take(b'-') {
                at.day = self.number(2)? as u8;
                at.precision = Precision::Day;
            }
        }
        civil::Date::new(at.year, at.month as i8, at.day as i8).ok()?;
        (at.year > 0).then_some(at)
    }

    fn time(&mut self, at: &mut Temporal) -> Option<()> {
        at.hour = self.number(2)? as u8;
        at.precision = Precision::Hour;
        if self.take(b':') {
            at.minute = self.number(2)? as u8;
            at.precision = Precision::Minute;
            if self.take(b':') {
                at.second = self.number(2)? as u8;
                at.precision = Precision::Second;
                if self.take(b'.') {
                    let digits = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
                    if digits == 0 {
                        return None;
                    }
                    at.digits = digits.min(9) as u8;
                    at.nanos = self.number(digits.min(9))? * 10u32.pow(9 - digits.min(9) as u32);
                    // Beyond nanoseconds nothing is measured.
                    self.0 = &self.0[digits - digits.min(9)..];
                }
            }
        }
        (at.hour < 24 && at.minute < 60 && at.second < 60).then_some(())
    }

    fn offset(&mut self, at: &mut Temporal) -> Option<()> {
        if self.take(b'Z') {
            at.offset = Some(0);
        } else if let Some(&sign @ (b'+' | b'-')) = self.0.first() {
            self.0 = &self.0[1..];
            let hours = self.number(2)?;
            let minutes = if self.take(b':') { self.number(2)? } else { return None };
            if hours > 14 || minutes > 59 {
                return None;
            }
            let offset = (hours * 60 + minutes) as i16;
            at.offset = Some(if sign == b'-' { -offset } else { offset });
        }
        Some(())
    }
}
