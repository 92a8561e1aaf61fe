use std::collections::HashSet;

use fhirehose_stream::{Fault, Reason, Rejection};
use fhirehose_tape::{JsonError, MAX_DEPTH, Tape};

use crate::schema::{Meaning, Node, NodeId};
use crate::{AvroSchema, SchemaError, SchemaSource, text};

/// Why bytes could not be decoded; says where, never what stood there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error(transparent)]
    Json(#[from] JsonError),
    #[error("malformed Avro: {what} at byte {at}")]
    Avro { what: &'static str, at: usize },
    #[error("unknown schema id {0}")]
    UnknownSchema(u32),
    /// Not the record's fault; see [`SchemaError::Unavailable`].
    #[error("the schema registry is unavailable: {0}")]
    Unavailable(String),
}

impl DecodeError {
    /// The reason to reject the record for; `None` where the record is not at fault.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            DecodeError::Json(JsonError::TooDeep { .. }) => Some(Reason::TooDeep),
            DecodeError::Json(JsonError::TooLong) => Some(Reason::TooLarge),
            DecodeError::Json(_) => Some(Reason::MalformedJson),
            DecodeError::Avro { .. } => Some(Reason::MalformedAvro),
            DecodeError::UnknownSchema(_) => Some(Reason::UnknownSchema),
            DecodeError::Unavailable(_) => None,
        }
    }

    /// The rejection of the record, or the transient fault that holds the batch until the registry is back.
    pub fn rejection(self) -> Result<Rejection, Fault> {
        match self.reason() {
            Some(reason) => Ok(Rejection::new(reason, self.to_string())),
            None => Err(Fault::transient(self.to_string())),
        }
    }
}

/// Decodes a value into `tape`: Avro in Confluent's wire format where the first byte is 0, which no JSON text
/// starts with, else JSON. After an error the tape is empty.
///
/// Avro bytes become base64 text, decimals number text with their scale, Debezium's and Connect's temporal
/// integers ISO text; Avro's own `date` and `timestamp-*` stay integers.
pub fn decode(bytes: &[u8], schemas: &dyn SchemaSource, tape: &mut Tape) -> Result<(), DecodeError> {
    if bytes.first() != Some(&0) {
        return Ok(tape.parse_json(bytes)?);
    }
    tape.clear();
    let (schema, mut reader) = open(bytes, schemas)?;
    let decoded = reader.value(&schema, schema.root, tape, 0).and_then(|()| reader.end());
    if decoded.is_err() {
        tape.clear();
    }
    decoded
}

/// The writer's schema of a value in the wire format, and a reader at its datum.
pub(crate) fn open<'b>(
    bytes: &'b [u8],
    schemas: &dyn SchemaSource,
) -> Result<(std::sync::Arc<AvroSchema>, Reader<'b>), DecodeError> {
    let header = bytes.first_chunk::<5>().filter(|header| header[0] == 0);
    let [_, id @ ..] =
        header.ok_or(DecodeError::Avro { what: "no header of magic byte and schema id", at: 0 })?;
    let id = u32::from_be_bytes(*id);
    let schema = schemas.schema(id).map_err(|error| match error {
        SchemaError::Unknown => DecodeError::UnknownSchema(id),
        SchemaError::Unavailable(what) => DecodeError::Unavailable(what),
    })?;
    // Every byte of a datum can make one value and a few that need no byte (nulls, empty records); more means
    // a schema or a count made to blow up.
    Ok((schema, Reader { bytes, at: 5, budget: 65_536 + 16 * bytes.len() }))
}

/// Bounds-checked reader of one datum.
pub(crate) struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
    budget: usize,
}

impl<'b> Reader<'b> {
    fn wrong<T>(&self, what: &'static str) -> Result<T, DecodeError> {
        Err(DecodeError::Avro { what, at: self.at })
    }

    /// No byte may be left over.
    pub(crate) fn end(&self) -> Result<(), DecodeError> {
        if self.at == self.bytes.len() { Ok(()) } else { self.wrong("bytes after the datum") }
    }

    pub(crate) fn long(&mut self) -> Result<i64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let Some(&byte) = self.bytes.get(self.at) else {
                return self.wrong("the datum ends in a number");
            };
            if shift == 63 && byte > 1 {
                return self.wrong("a number of more than 64 bits");
            }
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        self.wrong("a number of more than 64 bits")
    }

    pub(crate) fn int(&mut self) -> Result<i32, DecodeError> {
        let value = self.long()?;
        i32::try_from(value).or_else(|_| self.wrong("an int of more than 32 bits"))
    }

    fn take(&mut self, length: usize) -> Result<&'b [u8], DecodeError> {
        match self.at.checked_add(length).and_then(|end| self.bytes.get(self.at..end)) {
            Some(taken) => {
                self.at += length;
                Ok(taken)
            }
            None => self.wrong("a length beyond the datum"),
        }
    }

    pub(crate) fn bytes(&mut self) -> Result<&'b [u8], DecodeError> {
        let length = self.long()?;
        match usize::try_from(length) {
            Ok(length) => self.take(length),
            Err(_) => self.wrong("a negative length"),
        }
    }

    pub(crate) fn string(&mut self) -> Result<&'b str, DecodeError> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).or_else(|_| self.wrong("text that is not UTF-8"))
    }

    /// Items of the next block of an array or map; 0 ends it.
    pub(crate) fn block(&mut self) -> Result<u64, DecodeError> {
        let count = self.long()?;
        if count < 0 {
            // The size in bytes follows; reading the items finds their end too.
            self.long()?;
        }
        Ok(count.unsigned_abs())
    }

    /// Index of a union branch or enum symbol.
    pub(crate) fn index(&mut self, of: usize) -> Result<usize, DecodeError> {
        let index = self.long()?;
        match usize::try_from(index) {
            Ok(index) if index < of => Ok(index),
            _ => self.wrong("an index outside its union or enum"),
        }
    }

    fn spend(&mut self) -> Result<(), DecodeError> {
        match self.budget.checked_sub(1) {
            Some(left) => {
                self.budget = left;
                Ok(())
            }
            None => self.wrong("more values than the datum can hold"),
        }
    }

    /// Decodes one value to the end of `tape`.
    pub(crate) fn value(
        &mut self,
        schema: &AvroSchema,
        node: NodeId,
        tape: &mut Tape,
        depth: usize,
    ) -> Result<(), DecodeError> {
        self.spend()?;
        if depth > MAX_DEPTH {
            return self.wrong("nesting beyond the limit");
        }
        match schema.node(node) {
            Node::Null => tape.null(),
            Node::Boolean => match self.take(1)? {
                [0] => tape.bool(false),
                [1] => tape.bool(true),
                _ => return self.wrong("a boolean that is neither 0 nor 1"),
            },
            Node::Int(meaning) => {
                let value = self.int()?;
                integer(*meaning, value.into(), tape);
            }
            Node::Long(meaning) => {
                let value = self.long()?;
                integer(*meaning, value, tape);
            }
            Node::Float => {
                let value = f32::from_le_bytes(self.array()?);
                self.finite(value.is_finite())?;
                tape.number_text(&value.to_string());
            }
            Node::Double => {
                let value = f64::from_le_bytes(self.array()?);
                self.finite(value.is_finite())?;
                tape.number_text(&value.to_string());
            }
            Node::Bytes => tape.string(&text::base64(self.bytes()?)),
            Node::Fixed(size) => tape.string(&text::base64(self.take(*size)?)),
            Node::String => tape.string(self.string()?),
            Node::Decimal { scale, fixed } => {
                let unscaled = match fixed {
                    Some(size) => self.take(*size)?,
                    None => self.bytes()?,
                };
                self.decimal(unscaled, *scale, tape)?;
            }
            Node::ScaledDecimal => {
                let scale = self.int()?;
                let unscaled = self.bytes()?;
                self.decimal(unscaled, scale, tape)?;
            }
            Node::Enum(symbols) => {
                let index = self.index(symbols.len())?;
                tape.string(&symbols[index]);
            }
            Node::Union(branches) => {
                let index = self.index(branches.len())?;
                self.value(schema, branches[index], tape, depth + 1)?;
            }
            Node::Record(fields) => {
                tape.begin_object();
                for field in fields {
                    tape.key(&field.name);
                    self.value(schema, field.node, tape, depth + 1)?;
                }
                tape.end();
            }
            Node::Array(items) => {
                tape.begin_array();
                loop {
                    let count = self.block()?;
                    for _ in 0..count {
                        self.value(schema, *items, tape, depth + 1)?;
                    }
                    if count == 0 {
                        break;
                    }
                }
                tape.end();
            }
            Node::Map(values) => {
                let mut keys = HashSet::new();
                tape.begin_object();
                loop {
                    let count = self.block()?;
                    for _ in 0..count {
                        let key = self.string()?;
                        if !keys.insert(key) {
                            return self.wrong("a map key that occurs twice");
                        }
                        tape.key(key);
                        self.value(schema, *values, tape, depth + 1)?;
                    }
                    if count == 0 {
                        break;
                    }
                }
                tape.end();
            }
        }
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let taken = self.take(N)?;
        taken.try_into().or_else(|_| self.wrong("a length beyond the datum"))
    }

    fn finite(&self, finite: bool) -> Result<(), DecodeError> {
        if finite { Ok(()) } else { self.wrong("a number that is not finite") }
    }

    fn decimal(&self, unscaled: &[u8], scale: i32, tape: &mut Tape) -> Result<(), DecodeError> {
        match text::decimal(unscaled, scale) {
            Some(digits) => {
                tape.number_text(&digits);
                Ok(())
            }
            None => self.wrong("a decimal of impossible size"),
        }
    }
}

fn integer(meaning: Meaning, value: i64, tape: &mut Tape) {
    match text::from_integer(meaning, value) {
        Some(text) => tape.string(&text),
        None => tape.integer(value),
    }
}
