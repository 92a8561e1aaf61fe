use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::{Compatibility, Problem};

/// The schema of a topic's values.
#[derive(Clone, Debug)]
pub struct Schema {
    /// Name in the schema registry, `<topic>-value`.
    pub subject: String,
    pub compatibility: Compatibility,
    /// The schema as its file has it, documentation and attributes included.
    pub json: String,
    /// Fields of the record, in order.
    pub fields: Vec<Field>,
    pub(crate) avro: apache_avro::Schema,
    pub(crate) file: PathBuf,
}

/// A field of a value's schema.
#[derive(Clone, Debug)]
pub struct Field {
    pub name: String,
    pub doc: String,
    /// Neither nullable nor defaulted: a record without it cannot be written.
    pub required: bool,
    /// Attributes of ours, such as `fhirpath`, `reference` and `snapshot`.
    pub attributes: BTreeMap<String, String>,
}

impl Schema {
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// Reads `<dir>/<topic>-value.avsc`: a record, with documentation on itself and on every field.
    pub(crate) fn read(
        topic: &str,
        compatibility: Compatibility,
        dir: &Path,
        problems: &mut Vec<Problem>,
    ) -> Option<Schema> {
        let subject = format!("{topic}-value");
        let file = dir.join(format!("{subject}.avsc"));
        let json = match fs::read_to_string(&file) {
            Ok(json) => json,
            Err(error) => {
                problems.push(Problem::new(
                    &file,
                    1,
                    format!("the schema of `{topic}` cannot be read: {error}"),
                ));
                return None;
            }
        };
        let avro = match apache_avro::Schema::parse_str(&json) {
            Ok(avro) => avro,
            Err(error) => {
                let line = match serde_json::from_str::<serde_json::Value>(&json) {
                    Ok(_) => 1,
                    Err(syntax) => syntax.line(),
                };
                problems.push(Problem::new(&file, line, format!("not an Avro schema: {error}")));
                return None;
            }
        };
        let apache_avro::Schema::Record(record) = &avro else {
            problems.push(Problem::new(&file, 1, "the value's schema must be a record"));
            return None;
        };
        if record.doc.as_ref().is_none_or(|doc| doc.trim().is_empty()) {
            problems.push(Problem::new(&file, 1, "the record has no `doc`"));
        }
        let fields = record.fields.iter().map(|field| read_field(field, &json, &file, problems)).collect();
        Some(Schema { subject, compatibility, fields, avro, file, json })
    }
}

fn read_field(
    field: &apache_avro::schema::RecordField,
    json: &str,
    file: &Path,
    problems: &mut Vec<Problem>,
) -> Field {
    let mut wrong = |message: String| {
        let name = format!("\"{}\"", field.name);
        let line = json.lines().position(|line| line.contains("\"name\"") && line.contains(&name));
        problems.push(Problem::new(file, line.map_or(1, |index| index + 1), message));
    };
    let doc = field.doc.clone().unwrap_or_default();
    if doc.trim().is_empty() {
        wrong(format!("the field `{}` has no `doc`", field.name));
    }
    let mut attributes = BTreeMap::new();
    for (name, value) in &field.custom_attributes {
        match value.as_str() {
            Some(text) => drop(attributes.insert(name.clone(), text.to_owned())),
            None => wrong(format!("attribute `{name}` of the field `{}` is not text", field.name)),
        }
    }
    let required = field.default.is_none() && !field.is_nullable();
    Field { name: field.name.clone(), doc, required, attributes }
}
