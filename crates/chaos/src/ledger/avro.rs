//! Avro in the registry's wire format, by the reference library: the product's own codec is what is under test.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use apache_avro::types::Value as Avro;
use apache_avro::{Schema, from_avro_datum, to_avro_datum};
use serde_json::Value;

/// Decodes by the schema whose id a record names.
pub struct Decoder {
    registry: String,
    /// None for ids that the registry does not know.
    schemas: BTreeMap<u32, Option<Schema>>,
}

/// Fields by name as text; null ones are left out, and so is what has no plain text.
pub type Fields = BTreeMap<String, String>;

/// A field, empty where there is none.
pub fn text<'f>(fields: &'f Fields, name: &str) -> &'f str {
    fields.get(name).map_or("", String::as_str)
}

impl Decoder {
    pub fn new(registry: &str) -> Decoder {
        Decoder { registry: registry.trim_end_matches('/').to_owned(), schemas: BTreeMap::new() }
    }

    pub fn fields(&mut self, bytes: &[u8]) -> Result<Fields> {
        let [0, a, b, c, d, body @ ..] = bytes else { bail!("not in the registry's wire format") };
        let id = u32::from_be_bytes([*a, *b, *c, *d]);
        let schema = match self.schemas.entry(id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let answer = get(&format!("{}/schemas/ids/{id}", self.registry))?;
                new.insert(answer.map(|answer| schema(&answer)).transpose()?)
            }
        };
        let schema = schema.as_ref().context("the registry knows no such schema")?;
        let Avro::Record(fields) = from_avro_datum(schema, &mut &*body, None)? else {
            bail!("not an Avro record");
        };
        Ok(fields.into_iter().filter_map(|(name, value)| Some((name, plain(value)?))).collect())
    }
}

/// Encodes records of one registered subject.
pub struct Encoder {
    id: u32,
    schema: Schema,
}

impl Encoder {
    /// By the latest schema of `<topic>-value`.
    pub fn of(registry: &str, topic: &str) -> Result<Encoder> {
        let url = format!("{}/subjects/{topic}-value/versions/latest", registry.trim_end_matches('/'));
        let answer = get(&url)?.with_context(|| format!("no schema is registered for {topic}"))?;
        let id = answer["id"].as_u64().context("the registry's answer has no id")?;
        Ok(Encoder { id: u32::try_from(id)?, schema: schema(&answer)? })
    }

    /// A record with these fields; the schema's defaults stand for those left out.
    pub fn encode(&self, fields: Vec<(&str, Avro)>) -> Result<Vec<u8>> {
        let mut record = apache_avro::types::Record::new(&self.schema).context("not a record")?;
        for (name, value) in fields {
            record.put(name, value);
        }
        let mut bytes = vec![0];
        bytes.extend(self.id.to_be_bytes());
        bytes.extend(to_avro_datum(&self.schema, record)?);
        Ok(bytes)
    }
}

/// `None` where there is no such thing. Tries again where there is no answer.
fn get(url: &str) -> Result<Option<Value>> {
    let begun = Instant::now();
    loop {
        match ureq::get(url).call() {
            Ok(mut answer) => return Ok(Some(answer.body_mut().read_json()?)),
            Err(ureq::Error::StatusCode(404)) => return Ok(None),
            Err(error) if begun.elapsed() > Duration::from_secs(30) => return Err(error.into()),
            Err(_) => sleep(Duration::from_millis(200)),
        }
    }
}

fn schema(answer: &Value) -> Result<Schema> {
    let text = answer["schema"].as_str().context("the registry's answer has no schema")?;
    Ok(Schema::parse_str(text)?)
}

fn plain(value: Avro) -> Option<String> {
    match value {
        Avro::Union(_, inner) => plain(*inner),
        Avro::String(text) => Some(text),
        Avro::Bytes(bytes) => String::from_utf8(bytes).ok(),
        Avro::Boolean(value) => Some(value.to_string()),
        Avro::Int(value) => Some(value.to_string()),
        Avro::Long(value) | Avro::TimestampMillis(value) => Some(value.to_string()),
        Avro::Float(value) => Some(value.to_string()),
        Avro::Double(value) => Some(value.to_string()),
        Avro::Array(items) => Some(items.into_iter().filter_map(plain).collect::<Vec<_>>().join(",")),
        _ => None,
    }
}
