use fhirehose_tape::{Kind, Tape, Value};
use fhirehose_topics::Schema;
use hashbrown::HashMap;

use crate::schema::{Meaning, Node, NodeId};
use crate::{AvroSchema, SchemaProblem, text};

/// Writes documents as Avro in Confluent's wire format.
pub struct AvroEncoder {
    schema: AvroSchema,
    header: [u8; 5],
    /// By node.
    records: Vec<Record>,
}

/// What encoding a record needs beside its plan; empty for other nodes.
#[derive(Default)]
struct Record {
    /// Encoded defaults of the fields; `None` is a required field.
    defaults: Vec<Option<Vec<u8>>>,
    positions: HashMap<Box<str>, usize>,
}

/// Where a document does not fit its schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {path}")]
pub struct EncodeError {
    pub what: &'static str,
    /// Field names down to the place, such as `components.value`.
    pub path: String,
}

impl EncodeError {
    fn new(what: &'static str) -> Self {
        EncodeError { what, path: String::new() }
    }

    fn within(mut self, name: &str) -> Self {
        self.path = if self.path.is_empty() { name.to_owned() } else { format!("{name}.{}", self.path) };
        self
    }
}

impl AvroEncoder {
    /// For the schema of a topic of ours, registered under `id`.
    pub fn new(schema: &Schema, id: u32) -> Result<AvroEncoder, SchemaProblem> {
        AvroEncoder::of(AvroSchema::parse(&schema.json)?, id)
    }

    pub(crate) fn of(schema: AvroSchema, id: u32) -> Result<AvroEncoder, SchemaProblem> {
        let [a, b, c, d] = id.to_be_bytes();
        let records = schema.nodes.iter().map(|node| match node {
            Node::Record(fields) => {
                let positions =
                    fields.iter().enumerate().map(|(at, field)| (field.name.clone(), at)).collect();
                Record { defaults: vec![None; fields.len()], positions }
            }
            _ => Record::default(),
        });
        let mut encoder = AvroEncoder { records: records.collect(), header: [0, a, b, c, d], schema };
        // A default may need those of the records in it, which may be compiled after it: settle by repeating.
        let mut missing = usize::MAX;
        loop {
            let mut unfit = Vec::new();
            for node in 0..encoder.records.len() {
                let defaults = encoder.field_defaults(node, &mut unfit);
                encoder.records[node].defaults = defaults;
            }
            match unfit.first() {
                None => return Ok(encoder),
                Some(_) if unfit.len() < missing => missing = unfit.len(),
                Some(name) => {
                    let what = "a default that does not fit its type";
                    return Err(SchemaProblem { what, path: format!("/{name}") });
                }
            }
        }
    }

    /// Encoded defaults of a record's fields; names those that do not fit (yet) in `unfit`.
    fn field_defaults(&self, node: NodeId, unfit: &mut Vec<Box<str>>) -> Vec<Option<Vec<u8>>> {
        let Node::Record(fields) = self.schema.node(node) else { return Vec::new() };
        let mut tape = Tape::new();
        let encoded = fields.iter().map(|field| {
            match (&field.default, self.schema.node(field.node)) {
                (Some(json), _) => tape.parse_json(json.to_string().as_bytes()).ok()?,
                (None, Node::Union(branches)) if branches.iter().any(|b| self.is_null(*b)) => tape.clear(),
                (None, Node::Null) => tape.clear(),
                (None, _) => return None,
            }
            let mut out = Vec::new();
            match self.value(field.node, tape.root(), &mut out) {
                Ok(()) => Some(out),
                Err(_) => {
                    unfit.push(field.name.clone());
                    None
                }
            }
        });
        encoded.collect()
    }

    fn is_null(&self, node: NodeId) -> bool {
        matches!(self.schema.node(node), Node::Null)
    }

    /// Appends header and datum. On an error `out` is as it was.
    ///
    /// Numbers go to int, long, float, double, and to string digit for digit; ISO text goes to dates and (with
    /// an offset) to timestamps; text to bytes as UTF-8. A field that is absent or null takes its default, or
    /// null where it may be. A member no field has is an error: nothing is lost in silence.
    pub fn encode(&self, value: Value<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let start = out.len();
        out.extend_from_slice(&self.header);
        let done = self.value(self.schema.root, value, out);
        if done.is_err() {
            out.truncate(start);
        }
        done
    }

    fn value(&self, node: NodeId, value: Value<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self.schema.node(node) {
            Node::Null if value.is_null() => {}
            Node::Boolean => out.push(u8::from(value.as_bool().ok_or(EncodeError::new("not a boolean"))?)),
            Node::Int(meaning) => {
                let value = integer(*meaning, value)?;
                write_long(i32::try_from(value).map_err(|_| EncodeError::new("beyond an int"))?.into(), out);
            }
            Node::Long(meaning) => write_long(integer(*meaning, value)?, out),
            Node::Float => out.extend_from_slice(&number::<f32>(value, f32::is_finite)?.to_le_bytes()),
            Node::Double => out.extend_from_slice(&number::<f64>(value, f64::is_finite)?.to_le_bytes()),
            Node::String => {
                let text = value.as_str().or(value.as_number()).ok_or(EncodeError::new("not text"))?;
                write_bytes(text.as_bytes(), out);
            }
            Node::Bytes => {
                write_bytes(value.as_str().ok_or(EncodeError::new("not text for bytes"))?.as_bytes(), out);
            }
            Node::Enum(symbols) => {
                let text = value.as_str().ok_or(EncodeError::new("not a symbol"))?;
                let index = symbols.iter().position(|symbol| &**symbol == text);
                write_length(index.ok_or(EncodeError::new("not a symbol of the enum"))?, out);
            }
            Node::Array(items) if value.kind() == Kind::Array => {
                if !value.is_empty() {
                    write_length(value.len(), out);
                    value.elements().try_for_each(|element| self.value(*items, element, out))?;
                }
                write_long(0, out);
            }
            Node::Map(values) if value.kind() == Kind::Object => {
                // Counted here: of a key that occurred twice `len` counts both.
                let count = value.entries().count();
                if count > 0 {
                    write_length(count, out);
                    for (key, value) in value.entries() {
                        write_bytes(key.as_bytes(), out);
                        self.value(*values, value, out)?;
                    }
                }
                write_long(0, out);
            }
            Node::Union(branches) => return self.union(branches, value, out),
            Node::Record(_) if value.kind() == Kind::Object => return self.record(node, value, out),
            Node::Fixed(_) | Node::Decimal { .. } | Node::ScaledDecimal => {
                return Err(EncodeError::new("fixed and decimal types are not written by us"));
            }
            Node::Null | Node::Array(_) | Node::Map(_) | Node::Record(_) => {
                return Err(EncodeError::new("of another kind than the schema's"));
            }
        }
        Ok(())
    }

    fn union(&self, branches: &[NodeId], value: Value<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let start = out.len();
        let mut error = EncodeError::new("null where a value is needed");
        for (index, &branch) in branches.iter().enumerate() {
            if self.is_null(branch) != value.is_null() {
                continue;
            }
            write_length(index, out);
            match self.value(branch, value, out) {
                Ok(()) => return Ok(()),
                Err(of_branch) => error = of_branch,
            }
            out.truncate(start);
        }
        Err(error)
    }

    fn record(&self, node: NodeId, value: Value<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let Node::Record(fields) = self.schema.node(node) else { return Ok(()) };
        let Record { defaults, positions } = &self.records[node];
        let mut members = vec![None; fields.len()];
        for (name, member) in value.entries() {
            match positions.get(name).and_then(|at| members.get_mut(*at)) {
                Some(slot) => *slot = (!member.is_null()).then_some(member),
                None => return Err(EncodeError::new("no such field").within(name)),
            }
        }
        for ((field, member), default) in fields.iter().zip(members).zip(defaults) {
            match (member, default) {
                (Some(member), _) => {
                    self.value(field.node, member, out).map_err(|error| error.within(&field.name))?;
                }
                (None, Some(default)) => out.extend_from_slice(default),
                (None, None) => return Err(EncodeError::new("required and missing").within(&field.name)),
            }
        }
        Ok(())
    }
}

fn integer(meaning: Meaning, value: Value<'_>) -> Result<i64, EncodeError> {
    match value.as_str() {
        Some(text) => {
            text::to_integer(meaning, text).ok_or(EncodeError::new("text that is not such a date or time"))
        }
        None => value.as_i64().ok_or(EncodeError::new("not an integer")),
    }
}

fn number<T: std::str::FromStr + Copy>(value: Value<'_>, finite: fn(T) -> bool) -> Result<T, EncodeError> {
    let number = value.as_number().and_then(|text| text.parse().ok()).filter(|number| finite(*number));
    number.ok_or(EncodeError::new("not a number of that size"))
}

pub(crate) fn write_long(value: i64, out: &mut Vec<u8>) {
    let mut rest = (value << 1 ^ value >> 63) as u64;
    while rest > 0x7f {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

pub(crate) fn write_length(length: usize, out: &mut Vec<u8>) {
    // A buffer in memory is never longer than i64::MAX.
    write_long(length as i64, out);
}

pub(crate) fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    write_length(bytes.len(), out);
    out.extend_from_slice(bytes);
}
