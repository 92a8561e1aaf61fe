use std::fmt;

use fhirehose_views::{Column, ColumnType};
use parquet::basic::{LogicalType, Repetition, TimeUnit, Type as Stored};
use parquet::errors::ParquetError;
use parquet::schema::types::Type;

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

    pub fn schema(self, name: &str) -> Result<Type, ParquetError> {
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
}
