//! Avro written by hand, in the order of the schema's fields: quick enough for thousands of records a second. What
//! is written is read back through the registry's schema before it is believed.

use std::collections::HashMap;

use anyhow::{Context, Result};
use apache_avro::types::Value;
use apache_avro::{Schema, from_avro_datum};
use serde_json::{Value as Json, json};

use crate::ledger::postgres::Cell;

/// Writers' schemas by their ids in the registry.
#[derive(Clone, Default)]
pub struct Schemas(HashMap<u32, Schema>);

impl Schemas {
    /// Adds the newest schema of a topic's values; answers its id and text.
    pub fn add(&mut self, registry: &str, topic: &str) -> Result<(u32, String)> {
        let url = format!("{}/subjects/{topic}-value/versions/latest", registry.trim_end_matches('/'));
        let answer: Json = ureq::get(url).call()?.body_mut().read_json()?;
        let text = answer["schema"].as_str().context("the registry's answer has no schema")?;
        Ok((self.know(&answer["id"], text)?, text.to_owned()))
    }

    /// Registers a schema of our own under this subject; answers its id.
    pub fn register(&mut self, registry: &str, subject: &str, text: &str) -> Result<u32> {
        let url = format!("{}/subjects/{subject}/versions", registry.trim_end_matches('/'));
        let answer: Json = ureq::post(url).send_json(json!({"schema": text}))?.body_mut().read_json()?;
        self.know(&answer["id"], text)
    }

    pub(super) fn know(&mut self, id: &Json, text: &str) -> Result<u32> {
        let id = u32::try_from(id.as_u64().context("the registry's answer has no id")?)?;
        self.0.insert(id, Schema::parse_str(text)?);
        Ok(id)
    }

    /// A record's fields; `None` where its bytes are not those of a known schema, all of them.
    pub fn read(&self, value: &[u8]) -> Option<Vec<(String, Cell)>> {
        let [0, a, b, c, d, body @ ..] = value else { return None };
        let schema = self.0.get(&u32::from_be_bytes([*a, *b, *c, *d]))?;
        let mut body = body;
        let Ok(Value::Record(fields)) = from_avro_datum(schema, &mut body, None) else { return None };
        // The library reads a text that is cut off before its length as a bare null.
        let whole = body.is_empty() && !fields.iter().any(|(_, value)| *value == Value::Null);
        whole.then(|| fields.into_iter().map(|(name, value)| (name, cell(value))).collect())
    }
}

/// A schema under another name, with one field that may be null: what a careless producer would register.
pub fn loosened(schema: &str, name: &str, field: &str) -> Result<String> {
    let mut json: Json = serde_json::from_str(schema)?;
    json["name"] = name.into();
    let mut fields = json["fields"].as_array_mut().into_iter().flatten();
    let found = fields.find(|found| found["name"] == field).with_context(|| format!("no field {field}"))?;
    found["type"] = json!(["null", found["type"]]);
    Ok(json.to_string())
}

/// A field by name.
pub fn named<'f>(fields: &'f [(String, Cell)], name: &str) -> Option<&'f Cell> {
    fields.iter().find(|(field, _)| field == name).map(|(_, cell)| cell)
}

fn cell(value: Value) -> Cell {
    match value {
        Value::Union(_, inner) => cell(*inner),
        Value::Boolean(value) => Cell::Bool(value),
        Value::Int(value) => Cell::Int(value.into()),
        Value::Long(value) | Value::TimestampMillis(value) => Cell::Int(value),
        Value::Double(value) => Cell::real(value),
        Value::String(text) => Cell::Text(text),
        Value::Array(values) => {
            let texts = values.into_iter().map(cell);
            Cell::Texts(
                texts
                    .filter_map(|cell| if let Cell::Text(text) = cell { Some(text) } else { None })
                    .collect(),
            )
        }
        _ => Cell::Null,
    }
}

/// What a field takes.
#[derive(Clone, Copy)]
pub enum Field<'v> {
    Text(&'v str),
    Long(i64),
    Bool(bool),
    Double(f64),
}

/// The fields of a schema in order, to write records whose values are named.
pub struct Shape {
    id: u32,
    /// With whether null is allowed.
    fields: Vec<(String, bool)>,
}

impl Shape {
    /// Of a schema's text; every field that is not named when writing must allow null, or be an array.
    pub fn of(id: u32, schema: &str) -> Result<Shape> {
        let json: Json = serde_json::from_str(schema)?;
        let fields = json["fields"].as_array().context("a schema without fields")?;
        let field =
            |field: &Json| (field["name"].as_str().unwrap_or_default().to_owned(), field["type"].is_array());
        Ok(Shape { id, fields: fields.iter().map(field).collect() })
    }

    pub fn write(&self, values: &[(&str, Field<'_>)]) -> Vec<u8> {
        let write = |datum: Datum, (name, optional): &(String, bool)| {
            let Some((_, value)) = values.iter().find(|(named, _)| named == name) else {
                return datum.empty(1);
            };
            let datum = if *optional { datum.long(1) } else { datum };
            match value {
                Field::Text(text) => datum.text(text),
                Field::Long(value) => datum.long(*value),
                Field::Bool(value) => datum.long(if *value { -1 } else { 0 }),
                Field::Double(value) => datum.double(*value),
            }
        };
        self.fields.iter().fold(Datum::of(self.id), write).end()
    }
}

/// A value in Confluent's wire format.
pub struct Datum(Vec<u8>);

impl Datum {
    /// Begins with the id of the writer's schema.
    pub fn of(schema: u32) -> Datum {
        let mut bytes = Vec::with_capacity(192);
        bytes.push(0);
        bytes.extend_from_slice(&schema.to_be_bytes());
        Datum(bytes)
    }

    pub fn long(mut self, value: i64) -> Datum {
        let mut rest = ((value << 1) ^ (value >> 63)) as u64;
        while rest > 0x7f {
            self.0.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        self.0.push(rest as u8);
        self
    }

    pub fn text(self, value: &str) -> Datum {
        let mut datum = self.long(value.len() as i64);
        datum.0.extend_from_slice(value.as_bytes());
        datum
    }

    /// Of a field that may be null.
    pub fn some_double(self, value: f64) -> Datum {
        self.long(1).double(value)
    }

    fn double(mut self, value: f64) -> Datum {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// So many fields that are null, or empty arrays: both are one zero.
    pub fn empty(mut self, fields: usize) -> Datum {
        self.0.resize(self.0.len() + fields, 0);
        self
    }

    pub fn end(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_avro_reader_reads_what_was_written() {
        let schema = r#"{"type": "record", "name": "r", "fields": [
            {"name": "a", "type": "string"}, {"name": "b", "type": "long"}, {"name": "c", "type": ["null", "string"]},
            {"name": "d", "type": ["null", "double"]}, {"name": "e", "type": ["null", "int"]},
            {"name": "f", "type": {"type": "array", "items": "string"}}]}"#;
        let mut schemas = Schemas::default();
        schemas.know(&json!(7), schema).unwrap();
        let mut bytes = Datum::of(7).text("é").long(-300).long(1).text("x").some_double(36.5).empty(2).end();
        let fields = schemas.read(&bytes).unwrap();
        let cells: Vec<Cell> = fields.clone().into_iter().map(|(_, cell)| cell).collect();
        let shape = Shape::of(7, schema).unwrap();
        let named =
            shape.write(&[("c", Field::Text("x")), ("b", Field::Long(-300)), ("a", Field::Text("é"))]);
        assert_eq!(schemas.read(&named).unwrap()[..3], fields[..3]);
        let real = Cell::real(36.5);
        assert_eq!(
            cells,
            [Cell::text("é"), Cell::Int(-300), Cell::text("x"), real, Cell::Null, Cell::Texts(vec![])]
        );
        assert!(schemas.read(&bytes[..bytes.len() - 1]).is_none(), "cut short");
        bytes.push(0);
        assert!(schemas.read(&bytes).is_none(), "bytes left over");
        assert!(schemas.read(&Datum::of(8).text("é").end()).is_none(), "an unknown schema");
    }
}
