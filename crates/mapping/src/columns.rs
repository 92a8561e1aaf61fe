use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;

use fhirehose_fhirpath::Shape;
use fhirehose_stream::{Reason, Rejection};
use fhirehose_tape::{Kind as Node, Tape, Value};
use smallvec::{SmallVec, smallvec};

use crate::time;

/// What a column holds, and so how its many encodings become one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    String,
    /// A whole number that fits 64 bits; its text is accepted.
    Integer,
    /// Digits are kept; the text of a number is accepted, as Debezium's `decimal.handling.mode=string` sends it.
    Decimal,
    /// `true`, `false`, 0 or 1.
    Boolean,
    /// `YYYY-MM-DD`, or days since 1970-01-01.
    Date,
    /// A time without zone: text (a `Z` behind it is ignored), or milliseconds or microseconds since the epoch of the same clock in UTC.
    DateTime,
    /// A moment: text with an offset, or milliseconds or microseconds since the epoch.
    Timestamp,
    /// JSON in a text; becomes the value it describes.
    Json,
}

impl ColumnType {
    pub(crate) const NAMES: &'static str =
        "string, integer, decimal, boolean, date, datetime, timestamp, json";

    pub(crate) fn named(name: &str) -> Option<ColumnType> {
        Some(match name {
            "string" => ColumnType::String,
            "integer" => ColumnType::Integer,
            "decimal" => ColumnType::Decimal,
            "boolean" => ColumnType::Boolean,
            "date" => ColumnType::Date,
            "datetime" => ColumnType::DateTime,
            "timestamp" => ColumnType::Timestamp,
            "json" => ColumnType::Json,
            _ => return None,
        })
    }
}

impl ColumnType {
    /// Its name in a mapping.
    pub(crate) fn name(self) -> &'static str {
        match self {
            ColumnType::String => "string",
            ColumnType::Integer => "integer",
            ColumnType::Decimal => "decimal",
            ColumnType::Boolean => "boolean",
            ColumnType::Date => "date",
            ColumnType::DateTime => "datetime",
            ColumnType::Timestamp => "timestamp",
            ColumnType::Json => "json",
        }
    }

    /// What its values are to an expression: times are text on the row.
    pub(crate) fn shape(self) -> Shape {
        match self {
            ColumnType::String => Shape::of(&["string"]),
            ColumnType::Integer | ColumnType::Decimal => Shape::of(&["decimal"]),
            ColumnType::Boolean => Shape::of(&["boolean"]),
            ColumnType::Date | ColumnType::DateTime | ColumnType::Timestamp => {
                Shape::of(&["string", "dateTime"])
            }
            ColumnType::Json => Shape::any(),
        }
    }
}

/// How personal a column is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PersonalData {
    /// Names a person: name, national id, phone, address.
    Direct,
    /// May name a person together with others: birth date, city.
    Quasi,
    /// About a person's health.
    Clinical,
    None,
}

impl PersonalData {
    pub(crate) const NAMES: &'static str = "direct, quasi, clinical, none";

    pub(crate) fn named(name: &str) -> Option<PersonalData> {
        Some(match name {
            "direct" => PersonalData::Direct,
            "quasi" => PersonalData::Quasi,
            "clinical" => PersonalData::Clinical,
            "none" => PersonalData::None,
            _ => return None,
        })
    }
}

/// A declared column of a table.
#[derive(Clone, Debug)]
pub struct Column {
    pub name: String,
    pub use_: ColumnUse,
}

/// What a mapping says about a column.
#[derive(Clone, Debug)]
pub enum ColumnUse {
    Read {
        kind: ColumnType,
        class: PersonalData,
        key: bool,
        optional: bool,
    },
    /// A row that has it is rejected: it should have been left out by the connector.
    Forbidden,
}

/// What Debezium sends for a large PostgreSQL value that did not change and is not in the log.
const UNAVAILABLE: &str = "__debezium_unavailable_value";

/// The columns of a table; types a row.
pub(crate) struct Columns {
    table: String,
    all: Vec<Column>,
    by_name: HashMap<String, usize>,
    /// Undeclared columns seen, each told once in the log.
    undeclared: Mutex<BTreeSet<String>>,
}

impl Columns {
    pub fn new(table: String, all: Vec<Column>) -> Self {
        let by_name = all.iter().enumerate().map(|(i, column)| (column.name.clone(), i)).collect();
        Columns { table, all, by_name, undeclared: Mutex::default() }
    }

    pub fn all(&self) -> &[Column] {
        &self.all
    }

    pub fn keys(&self) -> impl Iterator<Item = &str> {
        let key = |column: &&Column| matches!(column.use_, ColumnUse::Read { key: true, .. });
        self.all.iter().filter(key).map(|column| column.name.as_str())
    }

    /// The columns that are read, and what they hold.
    pub fn readable(&self) -> impl Iterator<Item = (&str, Shape)> {
        self.all.iter().filter_map(|column| match column.use_ {
            ColumnUse::Read { kind, .. } => Some((column.name.as_str(), kind.shape())),
            ColumnUse::Forbidden => None,
        })
    }

    pub fn has(&self, name: &str) -> bool {
        self.by_name.get(name).is_some_and(|at| matches!(self.all[*at].use_, ColumnUse::Read { .. }))
    }

    /// Reads a whole row: every declared column has its type, or the row is rejected.
    pub fn read(&self, row: Value<'_>, typed: &mut Tape) -> Result<(), Rejection> {
        self.read_columns(row, typed, false)
    }

    /// Reads what there is of a row, such as its key alone; what cannot be read is left out.
    pub fn read_part(&self, row: Value<'_>, typed: &mut Tape) -> Result<(), Rejection> {
        self.read_columns(row, typed, true)
    }

    fn read_columns(&self, row: Value<'_>, typed: &mut Tape, part: bool) -> Result<(), Rejection> {
        if row.kind() != Node::Object {
            return Err(Rejection::new(Reason::MalformedEnvelope, "row"));
        }
        typed.clear();
        typed.begin_object();
        let mut seen: SmallVec<[bool; 64]> = smallvec![false; self.all.len()];
        // Rows mostly have their columns in the declared order.
        let mut expected = 0;
        for (name, value) in row.entries() {
            let at = match self.all.get(expected) {
                Some(column) if column.name == name => Some(expected),
                _ => self.by_name.get(name).copied(),
            };
            let Some(at) = at else {
                self.tell_undeclared(name);
                continue;
            };
            (seen[at], expected) = (true, at + 1);
            match self.all[at].use_ {
                ColumnUse::Forbidden if part => {}
                ColumnUse::Forbidden => return Err(Rejection::new(Reason::ForbiddenColumn, name)),
                ColumnUse::Read { kind, .. } => {
                    typed.key(name);
                    match typed_value(kind, value, typed) {
                        Ok(()) => {}
                        Err(_) if part => typed.null(),
                        Err(reason) => return Err(Rejection::new(reason, name)),
                    }
                }
            }
        }
        typed.end();
        let missing =
            self.all.iter().zip(seen).find(|(column, seen)| {
                !seen && matches!(column.use_, ColumnUse::Read { optional: false, .. })
            });
        match missing {
            Some((column, _)) if !part => Err(Rejection::new(Reason::MissingColumn, column.name.as_str())),
            _ => Ok(()),
        }
    }

    fn tell_undeclared(&self, name: &str) {
        // A poisoned lock still holds a usable set.
        let mut told = self.undeclared.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if told.insert(name.to_owned()) {
            tracing::warn!(table = self.table, column = name, "column is not in the mapping and is not read");
        }
    }
}

fn typed_value(kind: ColumnType, value: Value<'_>, typed: &mut Tape) -> Result<(), Reason> {
    if value.is_null() {
        typed.null();
        return Ok(());
    }
    if value.as_str() == Some(UNAVAILABLE) {
        return Err(Reason::MissingColumn);
    }
    match kind {
        ColumnType::String => match value.as_str().ok_or(Reason::WrongType)? {
            // FHIR has no empty texts, and to these sources an empty one means nothing else than null.
            blank if blank.trim().is_empty() => typed.null(),
            text => typed.string(text),
        },
        ColumnType::Integer => typed.integer(integer(value).ok_or(Reason::WrongType)?),
        ColumnType::Decimal => typed.number_text(decimal(value).ok_or(Reason::WrongType)?),
        ColumnType::Boolean => typed.bool(boolean(value).ok_or(Reason::WrongType)?),
        ColumnType::Date => {
            let date = match value.as_str() {
                // The `Z` is how Debezium's `time.precision.mode=isostring` writes a date.
                Some(text) => time::date(text.strip_suffix('Z').unwrap_or(text)),
                None => time::date_of_days(value.as_i64().ok_or(Reason::WrongType)?),
            };
            typed.string(&date.and_then(time::day).map_err(|_| Reason::InvalidTime)?);
        }
        ColumnType::DateTime | ColumnType::Timestamp => {
            let zoneless = kind == ColumnType::DateTime;
            let time = match value.as_str() {
                Some(text) if zoneless => time::zoneless(text),
                Some(text) => time::timestamp(text),
                None => {
                    let number = value.as_i64().ok_or(Reason::WrongType)?;
                    if zoneless { time::zoneless_of_epoch(number) } else { time::utc_of_epoch(number) }
                }
            };
            typed.string(&time.map_err(|_| Reason::InvalidTime)?);
        }
        ColumnType::Json => match value.as_str() {
            Some(text) => typed.json(text.as_bytes()).map_err(|_| Reason::WrongType)?,
            None => typed.value(value),
        },
    }
    Ok(())
}

fn integer(value: Value<'_>) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

/// The text of a number.
fn decimal(value: Value<'_>) -> Option<&str> {
    value.as_number().or_else(|| value.as_str().filter(|text| is_number(text)))
}

pub(crate) use crate::yaml::is_json_number as is_number;

fn boolean(value: Value<'_>) -> Option<bool> {
    value.as_bool().or_else(|| match value.as_i64()? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> Columns {
        let read = |name: &str, kind, key, optional| Column {
            name: name.into(),
            use_: ColumnUse::Read { kind, class: PersonalData::None, key, optional },
        };
        Columns::new(
            "db.t".into(),
            vec![
                read("id", ColumnType::String, true, false),
                read("n", ColumnType::Integer, false, false),
                read("d", ColumnType::Decimal, false, true),
                read("b", ColumnType::Boolean, false, true),
                read("day", ColumnType::Date, false, true),
                read("local", ColumnType::DateTime, false, true),
                read("at", ColumnType::Timestamp, false, true),
                read("j", ColumnType::Json, false, true),
                Column { name: "password".into(), use_: ColumnUse::Forbidden },
            ],
        )
    }

    fn typed(json: &str) -> Result<String, (Reason, String)> {
        let (mut row, mut typed) = (Tape::new(), Tape::new());
        row.parse_json(json.as_bytes()).unwrap();
        columns().read(row.root(), &mut typed).map_err(|r| (r.reason, r.detail))?;
        let mut out = Vec::new();
        typed.root().write_json(&mut out);
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn every_encoding_becomes_one_value() {
        let one = r#"{"id":"a","n":"7","d":"36.50","b":1,"day":"2026-01-02Z","local":"2026-01-02T03:04:05Z","at":"2026-01-02T03:04:05Z","j":"{\"x\":[1]}"}"#;
        let other = r#"{"id":"a","n":7,"d":36.50,"b":true,"day":20455,"local":1767323045000,"at":1767323045000,"j":{"x":[1]}}"#;
        let expected = r#"{"id":"a","n":7,"d":36.50,"b":true,"day":"2026-01-02","local":"2026-01-02T03:04:05","at":"2026-01-02T03:04:05Z","j":{"x":[1]}}"#;
        assert_eq!(typed(one).as_deref(), Ok(expected));
        assert_eq!(typed(other).as_deref(), Ok(expected));
    }

    #[test]
    fn blank_text_is_null() {
        assert_eq!(typed(r#"{"id":" ","n":1}"#).as_deref(), Ok(r#"{"id":null,"n":1}"#));
    }

    #[test]
    fn rows_that_do_not_fit_are_refused_by_name() {
        for (json, reason, detail) in [
            (r#"{"n":1}"#, Reason::MissingColumn, "id"),
            (r#"{"id":"a"}"#, Reason::MissingColumn, "n"),
            (r#"{"id":1,"n":1}"#, Reason::WrongType, "id"),
            (r#"{"id":"a","n":1.5}"#, Reason::WrongType, "n"),
            (r#"{"id":"a","n":1,"d":"NaN"}"#, Reason::WrongType, "d"),
            (r#"{"id":"a","n":1,"d":""}"#, Reason::WrongType, "d"),
            (r#"{"id":"a","n":1,"b":2}"#, Reason::WrongType, "b"),
            (r#"{"id":"a","n":1,"day":"2522-07-13"}"#, Reason::InvalidTime, "day"),
            (r#"{"id":"a","n":1,"local":"2026-01-02T03:04:05+02:00"}"#, Reason::InvalidTime, "local"),
            (r#"{"id":"a","n":1,"j":"{"}"#, Reason::WrongType, "j"),
            (r#"{"id":"a","n":1,"password":null}"#, Reason::ForbiddenColumn, "password"),
            (r#"{"id":"__debezium_unavailable_value","n":1}"#, Reason::MissingColumn, "id"),
            (r#"[1]"#, Reason::MalformedEnvelope, "row"),
        ] {
            assert_eq!(typed(json), Err((reason, detail.to_owned())), "{json}");
        }
    }

    #[test]
    fn nulls_stay_and_undeclared_columns_go() {
        assert_eq!(typed(r#"{"new":1,"n":1,"id":null}"#).as_deref(), Ok(r#"{"n":1,"id":null}"#));
    }
}
