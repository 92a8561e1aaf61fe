use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::numeric;

/// Milliseconds from 1970-01-01 to PostgreSQL's epoch, 2000-01-01.
const POSTGRES_EPOCH_MS: i64 = 946_684_800_000;
/// Days from 1970-01-01 to 2000-01-01.
const POSTGRES_EPOCH_DAYS: i64 = 10_957;
/// First and last day a `timestamptz` of ours may hold; beyond them a clock or a unit is wrong.
const FIRST_MS: i64 = -62_135_596_800_000;
const LAST_MS: i64 = 253_402_300_799_999;

/// Longest text, in bytes, of a column that stands in a B-tree: an entry takes 2704 of all its columns. Longer ones
/// would be refused by the database, which does not say which row of a batch it was.
const INDEXED_TEXT_MAX: usize = 1_000;

/// A PostgreSQL type values can be written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    Bool,
    Int2,
    Int4,
    Int8,
    Float8,
    Numeric,
    Text,
    /// Text that stands in an index, and so has a greatest length.
    IndexedText,
    TextArray,
    Uuid,
    Date,
    Timestamptz,
    Jsonb,
}

/// One value on its way into a column. It has no `Debug`: it may be personal data.
#[derive(Clone, Copy)]
pub enum Datum<'a> {
    Null,
    Bool(bool),
    /// An integer; for `timestamptz` milliseconds since the epoch, for `date` days since the epoch.
    Int(i64),
    /// The text of a string, a number (kept digit for digit), a UUID, an ISO 8601 date or instant, or JSON.
    Text(&'a str),
    Texts(&'a [&'a str]),
}

impl Datum<'_> {
    /// The value as an instant, microseconds since the epoch: an integer in milliseconds, or ISO 8601 text;
    /// a date, also a partial one, is its first midnight in UTC.
    pub fn micros(self) -> Result<i64, WrongType> {
        let micros = match self {
            Datum::Int(ms) => ms.checked_mul(1000).ok_or(WrongType)?,
            Datum::Text(text) if text.len() <= 10 => {
                first_day(text)?.to_zoned(TimeZone::UTC).map_err(|_| WrongType)?.timestamp().as_microsecond()
            }
            Datum::Text(text) => text.parse::<jiff::Timestamp>().map_err(|_| WrongType)?.as_microsecond(),
            _ => return Err(WrongType),
        };
        if (FIRST_MS..=LAST_MS).contains(&micros.div_euclid(1000)) { Ok(micros) } else { Err(WrongType) }
    }
}

/// The value is not of the column's type, or out of its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a value of the column's type")]
pub struct WrongType;

impl ColumnType {
    /// The type `information_schema.columns.udt_name` names, where we can write it.
    pub fn of(udt_name: &str) -> Option<ColumnType> {
        Some(match udt_name {
            "bool" => ColumnType::Bool,
            "int2" => ColumnType::Int2,
            "int4" => ColumnType::Int4,
            "int8" => ColumnType::Int8,
            "float8" => ColumnType::Float8,
            "numeric" => ColumnType::Numeric,
            "text" | "varchar" | "bpchar" => ColumnType::Text,
            "_text" => ColumnType::TextArray,
            "uuid" => ColumnType::Uuid,
            "date" => ColumnType::Date,
            "timestamptz" => ColumnType::Timestamptz,
            "jsonb" => ColumnType::Jsonb,
            _ => return None,
        })
    }

    /// Appends the value as a field of binary COPY: its length, then its bytes.
    pub(crate) fn write(self, datum: Datum<'_>, out: &mut Vec<u8>) -> Result<(), WrongType> {
        if let Datum::Null = datum {
            out.extend_from_slice(&(-1i32).to_be_bytes());
            return Ok(());
        }
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        self.write_body(datum, out)?;
        let length = i32::try_from(out.len() - start - 4).map_err(|_| WrongType)?;
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
        Ok(())
    }

    fn write_body(self, datum: Datum<'_>, out: &mut Vec<u8>) -> Result<(), WrongType> {
        match (self, datum) {
            (ColumnType::Bool, Datum::Bool(value)) => out.push(u8::from(value)),
            (ColumnType::Bool, Datum::Text("true")) => out.push(1),
            (ColumnType::Bool, Datum::Text("false")) => out.push(0),
            (ColumnType::Int2, datum) => out.extend_from_slice(&int::<i16>(datum)?.to_be_bytes()),
            (ColumnType::Int4, datum) => out.extend_from_slice(&int::<i32>(datum)?.to_be_bytes()),
            (ColumnType::Int8, datum) => out.extend_from_slice(&int::<i64>(datum)?.to_be_bytes()),
            (ColumnType::Float8, Datum::Int(value)) => out.extend_from_slice(&(value as f64).to_be_bytes()),
            (ColumnType::Float8, Datum::Text(text)) => {
                let value = text.parse::<f64>().ok().filter(|value| value.is_finite()).ok_or(WrongType)?;
                out.extend_from_slice(&value.to_be_bytes());
            }
            (ColumnType::Numeric, Datum::Int(value)) => numeric::write(&value.to_string(), out)?,
            (ColumnType::Numeric, Datum::Text(text)) => numeric::write(text, out)?,
            (ColumnType::Text, Datum::Int(value)) => out.extend_from_slice(value.to_string().as_bytes()),
            (ColumnType::Text, Datum::Bool(value)) => out.extend_from_slice(value.to_string().as_bytes()),
            (ColumnType::Text, Datum::Text(value)) => out.extend_from_slice(storable(value)?.as_bytes()),
            (ColumnType::IndexedText, datum) => {
                let start = out.len();
                ColumnType::Text.write_body(datum, out)?;
                if out.len() - start > INDEXED_TEXT_MAX {
                    return Err(WrongType);
                }
            }
            (ColumnType::TextArray, Datum::Texts(values)) => text_array(values, out)?,
            (ColumnType::Uuid, Datum::Text(text)) => {
                out.extend_from_slice(uuid::Uuid::try_parse(text).map_err(|_| WrongType)?.as_bytes());
            }
            (ColumnType::Date, Datum::Int(days)) => out.extend_from_slice(&date(days)?.to_be_bytes()),
            (ColumnType::Date, Datum::Text(text)) => {
                // The day where it was, not the day in UTC.
                let micros = Datum::Text(text.get(..10).unwrap_or(text)).micros()?;
                out.extend_from_slice(&date(micros.div_euclid(86_400_000_000))?.to_be_bytes());
            }
            (ColumnType::Timestamptz, datum) => {
                let micros = datum.micros()? - POSTGRES_EPOCH_MS * 1000;
                out.extend_from_slice(&micros.to_be_bytes());
            }
            (ColumnType::Jsonb, Datum::Text(text)) => {
                // The version of jsonb's wire format. An escaped NUL is JSON, and not storable.
                out.push(1);
                out.extend_from_slice(storable(text)?.as_bytes());
            }
            _ => return Err(WrongType),
        }
        Ok(())
    }
}

fn int<T: TryFrom<i64>>(datum: Datum<'_>) -> Result<T, WrongType> {
    let value = match datum {
        Datum::Int(value) => value,
        Datum::Text(text) => whole(text)?,
        _ => return Err(WrongType),
    };
    T::try_from(value).map_err(|_| WrongType)
}

/// `72`, and `72.0` as a device or a decimal column writes a whole number; never `72.5`.
fn whole(text: &str) -> Result<i64, WrongType> {
    let (digits, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|digit| digit == b'0') {
        return Err(WrongType);
    }
    digits.parse().map_err(|_| WrongType)
}

/// PostgreSQL cannot hold NUL in text.
fn storable(text: &str) -> Result<&str, WrongType> {
    if text.as_bytes().contains(&0) { Err(WrongType) } else { Ok(text) }
}

/// One dimension, lower bound 1, elements of type text (oid 25).
fn text_array(values: &[&str], out: &mut Vec<u8>) -> Result<(), WrongType> {
    let count = i32::try_from(values.len()).map_err(|_| WrongType)?;
    let dimensions = i32::from(!values.is_empty());
    for word in [dimensions, 0, 25] {
        out.extend_from_slice(&word.to_be_bytes());
    }
    if dimensions == 1 {
        out.extend_from_slice(&count.to_be_bytes());
        out.extend_from_slice(&1i32.to_be_bytes());
    }
    for value in values {
        ColumnType::Text.write(Datum::Text(value), out)?;
    }
    Ok(())
}

fn date(days: i64) -> Result<i32, WrongType> {
    let ms = days.checked_mul(86_400_000).ok_or(WrongType)?;
    if !(FIRST_MS..=LAST_MS).contains(&ms) {
        return Err(WrongType);
    }
    i32::try_from(days - POSTGRES_EPOCH_DAYS).map_err(|_| WrongType)
}

/// A FHIR date: `2026-01-02`, or its first day where it says only `2026-01` or `2026`.
fn first_day(text: &str) -> Result<Date, WrongType> {
    let mut parts = [0i16, 1, 1];
    for (at, part) in text.split('-').enumerate() {
        let digits = if at == 0 { 4 } else { 2 };
        let slot = parts.get_mut(at).ok_or(WrongType)?;
        if part.len() != digits || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(WrongType);
        }
        *slot = part.parse().map_err(|_| WrongType)?;
    }
    let [year, month, day] = parts;
    let small = |part: i16| i8::try_from(part).map_err(|_| WrongType);
    Date::new(year, small(month)?, small(day)?).map_err(|_| WrongType)
}
