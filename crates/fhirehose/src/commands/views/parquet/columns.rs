use std::borrow::Cow;
use std::mem;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fhirehose_views::Cell;
use jiff::civil;
use parquet::data_type as stored;
use parquet::errors::ParquetError;
use parquet::file::writer::SerializedColumnWriter;
use rust_decimal::Decimal;

use super::Physical;

/// Rows, column by column.
pub struct Columns(pub(super) Vec<Buffer>);

pub struct Buffer {
    of: Physical,
    values: Values,
    /// 1 where there is a value, 0 where it is null.
    present: Vec<i16>,
}

/// What is present.
enum Values {
    Bool(Vec<bool>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Fixed(Vec<i128>),
    Bytes { data: Vec<u8>, ends: Vec<usize> },
}

impl Columns {
    pub fn new(types: &[Physical]) -> Self {
        let buffer = |of: &Physical| Buffer { of: *of, values: Values::of(*of), present: Vec::new() };
        Columns(types.iter().map(buffer).collect())
    }

    /// Adds a row; the column that cannot take its cell, and why, if one cannot. The row is in part added then.
    pub fn push(&mut self, row: &[Cell<'_>]) -> Result<(), (usize, String)> {
        for (column, (buffer, cell)) in self.0.iter_mut().zip(row).enumerate() {
            buffer.push(cell).ok_or_else(|| (column, format!("not storable as {}", buffer.of)))?;
        }
        Ok(())
    }

    /// Drops all rows after the first `rows`.
    pub fn truncate(&mut self, rows: usize) {
        for buffer in &mut self.0 {
            buffer.present.truncate(rows);
            buffer.values.truncate(buffer.present.iter().filter(|present| **present == 1).count());
        }
    }

    pub fn rows(&self) -> usize {
        self.0.first().map_or(0, |buffer| buffer.present.len())
    }

    pub fn bytes(&self) -> usize {
        let bytes = |buffer: &Buffer| buffer.present.len() * 10 + buffer.values.text_bytes();
        self.0.iter().map(bytes).sum()
    }
}

impl Buffer {
    fn push(&mut self, cell: &Cell<'_>) -> Option<()> {
        if *cell == Cell::Null {
            self.present.push(0);
            return Some(());
        }
        let text = text(cell);
        let text = text.as_ref();
        match (&mut self.values, self.of) {
            (Values::Bool(values), _) => values.push(text.parse().ok()?),
            (Values::I32(values), Physical::Date) => values.push(date(text)?),
            (Values::I32(values), Physical::Int16) => values.push(text.parse::<i16>().ok()?.into()),
            (Values::I32(values), _) => values.push(text.parse().ok()?),
            (Values::I64(values), Physical::Time) => values.push(time(text.parse().ok()?)),
            (Values::I64(values), Physical::Timestamp { utc }) => values.push(timestamp(text, utc)?),
            (Values::I64(values), Physical::Decimal { precision, scale }) => {
                values.push(decimal(text, precision, scale)?.try_into().ok()?);
            }
            (Values::I64(values), _) => values.push(text.parse().ok()?),
            (Values::F32(values), _) => values.push(text.parse().ok()?),
            (Values::F64(values), _) => values.push(text.parse().ok()?),
            (Values::Fixed(values), Physical::Decimal { precision, scale }) => {
                values.push(decimal(text, precision, scale)?);
            }
            (Values::Fixed(_), _) => return None,
            (Values::Bytes { data, ends }, of) => {
                if of == Physical::Binary {
                    data.extend(STANDARD.decode(text).ok()?);
                } else {
                    data.extend_from_slice(text.as_bytes());
                }
                ends.push(data.len());
            }
        }
        self.present.push(1);
        Some(())
    }

    pub fn write(self, out: &mut SerializedColumnWriter<'_>) -> Result<usize, ParquetError> {
        let present = Some(self.present.as_slice());
        match self.values {
            Values::Bool(values) => out.typed::<stored::BoolType>().write_batch(&values, present, None),
            Values::I32(values) => out.typed::<stored::Int32Type>().write_batch(&values, present, None),
            Values::I64(values) => out.typed::<stored::Int64Type>().write_batch(&values, present, None),
            Values::F32(values) => out.typed::<stored::FloatType>().write_batch(&values, present, None),
            Values::F64(values) => out.typed::<stored::DoubleType>().write_batch(&values, present, None),
            Values::Fixed(values) => {
                let fixed = |value: i128| value.to_be_bytes().to_vec().into();
                let values: Vec<stored::FixedLenByteArray> = values.into_iter().map(fixed).collect();
                out.typed::<stored::FixedLenByteArrayType>().write_batch(&values, present, None)
            }
            Values::Bytes { data, ends } => {
                let data = Bytes::from(data);
                let mut start = 0;
                let slice = |end: usize| data.slice(mem::replace(&mut start, end)..end).into();
                let values: Vec<stored::ByteArray> = ends.into_iter().map(slice).collect();
                out.typed::<stored::ByteArrayType>().write_batch(&values, present, None)
            }
        }
    }
}

impl Values {
    /// None yet, of a type.
    fn of(of: Physical) -> Self {
        match of {
            Physical::Boolean => Values::Bool(Vec::new()),
            Physical::Int16 | Physical::Int32 | Physical::Date => Values::I32(Vec::new()),
            Physical::Int64 | Physical::Time | Physical::Timestamp { .. } => Values::I64(Vec::new()),
            Physical::Decimal { precision, .. } if precision <= 18 => Values::I64(Vec::new()),
            Physical::Decimal { .. } => Values::Fixed(Vec::new()),
            Physical::Float => Values::F32(Vec::new()),
            Physical::Double => Values::F64(Vec::new()),
            Physical::Text | Physical::Json | Physical::Binary => {
                Values::Bytes { data: Vec::new(), ends: Vec::new() }
            }
        }
    }

    fn truncate(&mut self, count: usize) {
        match self {
            Values::Bool(values) => values.truncate(count),
            Values::I32(values) => values.truncate(count),
            Values::I64(values) => values.truncate(count),
            Values::F32(values) => values.truncate(count),
            Values::F64(values) => values.truncate(count),
            Values::Fixed(values) => values.truncate(count),
            Values::Bytes { data, ends } => {
                ends.truncate(count);
                data.truncate(ends.last().copied().unwrap_or(0));
            }
        }
    }

    fn text_bytes(&self) -> usize {
        match self {
            Values::Bytes { data, .. } => data.len(),
            _ => 0,
        }
    }
}

/// A cell that is not null as it is in JSON, without quotes.
fn text<'c>(cell: &'c Cell<'_>) -> Cow<'c, str> {
    match cell {
        Cell::Null => "".into(),
        Cell::Bool(value) => if *value { "true" } else { "false" }.into(),
        Cell::Integer(value) => value.to_string().into(),
        Cell::Decimal(text)
        | Cell::Text(text)
        | Cell::Date(text)
        | Cell::DateTime(text)
        | Cell::Time(text) => text.as_ref().into(),
        Cell::Json(json) => String::from_utf8_lossy(json),
    }
}

/// Days since 1970, of a whole date.
fn date(text: &str) -> Option<i32> {
    let date: civil::Date = (text.len() == 10).then(|| text.parse().ok()).flatten()?;
    Some(date.duration_since(civil::date(1970, 1, 1)).as_hours().div_euclid(24) as i32)
}

/// Microseconds since midnight.
fn time(time: civil::Time) -> i64 {
    time.duration_since(civil::Time::midnight()).as_micros() as i64
}

/// Microseconds since 1970: of an instant, or of a date and time without offset.
fn timestamp(text: &str, utc: bool) -> Option<i64> {
    if utc {
        return text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_microsecond);
    }
    let no_offset = |fraction: &str| fraction.bytes().all(|byte| byte == b'.' || byte.is_ascii_digit());
    let local: civil::DateTime =
        text.get(19..).is_some_and(no_offset).then(|| text.parse().ok()).flatten()?;
    Some(local.duration_since(civil::DateTime::constant(1970, 1, 1, 0, 0, 0, 0)).as_micros() as i64)
}

/// A decimal in units of its scale, where none of its digits is lost.
fn decimal(text: &str, precision: u8, scale: u8) -> Option<i128> {
    let exact = Decimal::from_str_exact(text).or_else(|_| Decimal::from_scientific(text)).ok()?.normalize();
    let shift = u32::from(scale).checked_sub(exact.scale())?;
    let value = exact.mantissa().checked_mul(10_i128.checked_pow(shift)?)?;
    (value.unsigned_abs() < 10_u128.pow(precision.into())).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_whole_is_refused() {
        assert_eq!(date("1969-12-31"), Some(-1));
        assert_eq!(date("2000-03-01"), Some(11_017));
        assert_eq!(date("2000-03"), None);
        assert_eq!(timestamp("1970-01-01T03:00:00.000001+03:00", true), Some(1));
        assert_eq!(timestamp("1970-01-01T03:00:00", true), None);
        assert_eq!(timestamp("1970-01-01T03:00:00+03:00", false), None);
        assert_eq!(timestamp("1970-01-01", false), None);
        assert_eq!(timestamp("1969-12-31T23:59:59", false), Some(-1_000_000));
        assert_eq!(decimal("36.50", 4, 2), Some(3650));
        assert_eq!(decimal("36.5", 4, 2), Some(3650));
        assert_eq!(decimal("-1e2", 5, 2), Some(-10_000));
        assert_eq!(decimal("36.505", 8, 2), None);
        assert_eq!(decimal("100", 4, 2), None);
    }
}
