use std::fmt;
use std::io::{self, Write};
use std::mem;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use fhirehose_views::{Cell, Column, ColumnType, View};
use jiff::civil;
use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Stored};
use parquet::data_type as stored;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::Type;
use rust_decimal::Decimal;

/// Rows of a row group; it ends with the batch that reaches it, or [`GROUP_BYTES`].
const GROUP_ROWS: usize = 1 << 17;
/// Bytes of a row group as they are in memory.
const GROUP_BYTES: usize = 1 << 26;

/// How a column is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Physical {
    Boolean,
    Int16,
    Int32,
    Int64,
    Float,
    Double,
    Decimal { precision: u8, scale: u8 },
    Text,
    Json,
    Binary,
    Date,
    Time,
    Timestamp { utc: bool },
}

impl fmt::Display for Physical {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Physical::Boolean => "BOOLEAN",
            Physical::Int16 => "SMALLINT",
            Physical::Int32 => "INTEGER",
            Physical::Int64 => "BIGINT",
            Physical::Float => "REAL",
            Physical::Double => "DOUBLE PRECISION",
            Physical::Decimal { precision, scale } => return write!(f, "DECIMAL({precision}, {scale})"),
            Physical::Text => "CHARACTER VARYING",
            Physical::Json => "JSON",
            Physical::Binary => "BINARY VARYING",
            Physical::Date => "DATE",
            Physical::Time => "TIME",
            Physical::Timestamp { utc: true } => "TIMESTAMP WITH TIME ZONE",
            Physical::Timestamp { utc: false } => "TIMESTAMP",
        })
    }
}

impl Physical {
    /// By the standard's mapping of FHIR types to SQL types, unless an `ansi/type` tag says another.
    pub fn of(column: &Column) -> Result<Self, String> {
        if column.collection || column.kind == ColumnType::Json {
            return Ok(Physical::Json);
        }
        if let Some(sql) = column.tag("ansi/type") {
            return Physical::of_sql(sql).ok_or_else(|| {
                format!(
                    "column {}: ansi/type {sql} is not known; docs/views.md has those that are",
                    column.name
                )
            });
        }
        Ok(match (column.kind, column.of.as_deref()) {
            (ColumnType::Boolean, _) => Physical::Boolean,
            (ColumnType::Integer, Some("integer64")) => Physical::Int64,
            (ColumnType::Integer, _) => Physical::Int32,
            (ColumnType::DateTime, Some("instant")) => Physical::Timestamp { utc: true },
            (ColumnType::Text, Some("base64Binary")) => Physical::Binary,
            _ => Physical::Text,
        })
    }

    /// Of a type of ISO/IEC 9075, in any case, with or without a length.
    fn of_sql(sql: &str) -> Option<Self> {
        let sql = sql.trim().to_ascii_uppercase();
        let (name, rest) = sql.split_once('(').unwrap_or((&sql, ""));
        let (arguments, after) = rest.split_once(')').unwrap_or(("", ""));
        let name = [name.trim(), after.trim()].join(" ");
        Some(match name.trim() {
            "BOOLEAN" => Physical::Boolean,
            "SMALLINT" => Physical::Int16,
            "INT" | "INTEGER" => Physical::Int32,
            "BIGINT" => Physical::Int64,
            "REAL" => Physical::Float,
            "FLOAT" | "DOUBLE PRECISION" => Physical::Double,
            "DECIMAL" | "DEC" | "NUMERIC" => {
                let (precision, scale) = arguments.split_once(',').unwrap_or((arguments, "0"));
                let digits = |text: &str| text.trim().parse::<u8>().ok();
                let (precision, scale) = (digits(precision)?, digits(scale)?);
                let sound = (1..=38).contains(&precision) && scale <= precision.min(28);
                sound.then_some(Physical::Decimal { precision, scale })?
            }
            "CHARACTER VARYING"
            | "CHAR VARYING"
            | "VARCHAR"
            | "CHARACTER"
            | "CHAR"
            | "CHARACTER LARGE OBJECT"
            | "CLOB" => Physical::Text,
            "BINARY" | "BINARY VARYING" | "VARBINARY" | "BINARY LARGE OBJECT" | "BLOB" => Physical::Binary,
            "DATE" => Physical::Date,
            "TIME" | "TIME WITHOUT TIME ZONE" => Physical::Time,
            "TIMESTAMP" | "TIMESTAMP WITHOUT TIME ZONE" => Physical::Timestamp { utc: false },
            "TIMESTAMP WITH TIME ZONE" => Physical::Timestamp { utc: true },
            "JSON" => Physical::Json,
            _ => return None,
        })
    }

    fn schema(self, name: &str) -> Result<Type, ParquetError> {
        let decimal = |precision: u8, scale: u8| LogicalType::decimal(scale.into(), precision.into());
        let (stored, logical) = match self {
            Physical::Boolean => (Stored::BOOLEAN, None),
            Physical::Int16 => (Stored::INT32, Some(LogicalType::integer(16, true))),
            Physical::Int32 => (Stored::INT32, None),
            Physical::Int64 => (Stored::INT64, None),
            Physical::Float => (Stored::FLOAT, None),
            Physical::Double => (Stored::DOUBLE, None),
            Physical::Decimal { precision, scale } if precision <= 18 => {
                (Stored::INT64, Some(decimal(precision, scale)))
            }
            Physical::Decimal { precision, scale } => {
                (Stored::FIXED_LEN_BYTE_ARRAY, Some(decimal(precision, scale)))
            }
            Physical::Text => (Stored::BYTE_ARRAY, Some(LogicalType::String)),
            Physical::Json => (Stored::BYTE_ARRAY, Some(LogicalType::Json)),
            Physical::Binary => (Stored::BYTE_ARRAY, None),
            Physical::Date => (Stored::INT32, Some(LogicalType::Date)),
            Physical::Time => (Stored::INT64, Some(LogicalType::time(false, TimeUnit::MICROS))),
            Physical::Timestamp { utc } => {
                (Stored::INT64, Some(LogicalType::timestamp(utc, TimeUnit::MICROS)))
            }
        };
        let mut builder = Type::primitive_type_builder(name, stored)
            .with_repetition(Repetition::OPTIONAL)
            .with_logical_type(logical);
        if let Physical::Decimal { precision, scale } = self {
            builder = builder.with_precision(precision.into()).with_scale(scale.into());
            if precision > 18 {
                builder = builder.with_length(16);
            }
        }
        builder.build()
    }

    fn values(self) -> Values {
        match self {
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
}

/// Rows, column by column.
pub struct Columns(Vec<Buffer>);

struct Buffer {
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
        let buffer = |of: &Physical| Buffer { of: *of, values: of.values(), present: Vec::new() };
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

    fn rows(&self) -> usize {
        self.0.first().map_or(0, |buffer| buffer.present.len())
    }

    fn bytes(&self) -> usize {
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

    fn write(self, out: &mut SerializedColumnWriter<'_>) -> Result<usize, ParquetError> {
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
fn text<'c>(cell: &'c Cell<'_>) -> std::borrow::Cow<'c, str> {
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

/// A Parquet file in the making.
pub struct File {
    writer: SerializedFileWriter<Box<dyn Write + Send>>,
    /// Of the row group to come.
    pending: Vec<Columns>,
}

impl File {
    pub fn begin(view: &View, types: &[Physical], out: Box<dyn Write + Send>) -> io::Result<Self> {
        let fields = view.columns().iter().zip(types);
        let fields: Result<_, ParquetError> =
            fields.map(|(column, of)| of.schema(&column.name).map(Arc::new)).collect();
        let schema = Type::group_type_builder(view.resource()).with_fields(fields?).build()?;
        let properties = WriterProperties::builder()
            .set_created_by(concat!("fhirehose version ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_compression(Compression::SNAPPY)
            .build();
        let writer = SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties))?;
        Ok(File { writer, pending: Vec::new() })
    }

    /// Adds rows, and writes a row group when there are enough.
    pub fn write(&mut self, columns: Columns) -> io::Result<()> {
        if columns.rows() == 0 {
            return Ok(());
        }
        self.pending.push(columns);
        let sum = |of: fn(&Columns) -> usize| self.pending.iter().map(of).sum::<usize>();
        if sum(Columns::rows) < GROUP_ROWS && sum(Columns::bytes) < GROUP_BYTES {
            return Ok(());
        }
        Ok(self.write_group()?)
    }

    fn write_group(&mut self) -> Result<(), ParquetError> {
        let mut batches: Vec<_> =
            mem::take(&mut self.pending).into_iter().map(|columns| columns.0.into_iter()).collect();
        let mut group = self.writer.next_row_group()?;
        while let Some(mut column) = group.next_column()? {
            for buffer in batches.iter_mut().filter_map(Iterator::next) {
                buffer.write(&mut column)?;
            }
            column.close()?;
        }
        group.close()?;
        Ok(())
    }

    pub fn finish(mut self) -> io::Result<()> {
        if !self.pending.is_empty() {
            self.write_group()?;
        }
        self.writer.finish()?;
        self.writer.inner_mut().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sql_types_by_their_names() {
        let of = |sql| Physical::of_sql(sql);
        assert_eq!(of("character varying(64)"), Some(Physical::Text));
        assert_eq!(of("DECIMAL(10, 2)"), Some(Physical::Decimal { precision: 10, scale: 2 }));
        assert_eq!(of("numeric(7)"), Some(Physical::Decimal { precision: 7, scale: 0 }));
        assert_eq!(of("TIMESTAMP(6) WITH TIME ZONE"), Some(Physical::Timestamp { utc: true }));
        assert_eq!(of("timestamp"), Some(Physical::Timestamp { utc: false }));
        for wrong in ["decimal", "decimal(39)", "decimal(5,6)", "money", ""] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }

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
