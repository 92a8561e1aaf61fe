use std::collections::BTreeMap;

use fhirehose_codec::FhirEnvelope;
use fhirehose_fhirpath::{Collection, Ctx, Env, Expr, Item, NoFunctions};
use fhirehose_state::Target;
use fhirehose_stream::{Reason, Rejection};
use fhirehose_tape::{Tape, Value};
use fhirehose_topics::Schema;
use serde_json::Value as Json;

use crate::Snapshots;

/// The columns of one `enriched.<resource>` topic, compiled from its schema's attributes.
pub struct Columns {
    columns: Vec<(String, Origin)>,
    /// Paths to the references the columns copy from.
    references: Vec<Expr>,
}

enum Origin {
    Version,
    Envelope(&'static str),
    Path(Expr, Shape),
    Snapshot(usize, Copied),
}

/// How the items of a path become a column.
enum Shape {
    One,
    Many,
    /// A list of records: paths on each item.
    Records(Vec<(String, Expr)>),
}

enum Copied {
    Id,
    Type,
    Resolved,
    Active,
    /// Position of the value by type of target.
    Value(BTreeMap<String, usize>),
}

/// A reference of a resource, looked up.
#[derive(Default)]
pub struct Resolved<'a> {
    /// `Type` and `id` of a relative literal reference; none for the other styles, which name no record here.
    pub literal: Option<(&'a str, &'a str)>,
    pub target: Option<&'a Target>,
}

const ENVELOPE: &[&str] = &["tenant", "id", "version_id", "last_updated", "source", "flags", "resource"];

impl Columns {
    /// Compiles the schema of a resource type's records. Problems name its subject and field.
    pub fn compile(
        schema: &Schema,
        resource_type: &str,
        snapshots: &Snapshots,
    ) -> Result<Columns, Vec<String>> {
        let json: Json = serde_json::from_str(&schema.json).map_err(|error| vec![error.to_string()])?;
        let mut compiled = Columns { columns: Vec::new(), references: Vec::new() };
        let env = Env::fhir().definitions(fhirehose_fhir::element_type).of(resource_type);
        let mut problems = Vec::new();
        for field in json["fields"].as_array().into_iter().flatten() {
            let name = field["name"].as_str().unwrap_or_default();
            match compiled.origin(name, field, snapshots, &env) {
                Ok(origin) => compiled.columns.push((name.to_owned(), origin)),
                Err(message) => problems.push(format!("{}: field `{name}`: {message}", schema.subject)),
            }
        }
        if problems.is_empty() { Ok(compiled) } else { Err(problems) }
    }

    fn origin(
        &mut self,
        name: &str,
        field: &Json,
        snapshots: &Snapshots,
        env: &Env,
    ) -> Result<Origin, String> {
        let (path, reference, snapshot) =
            (field["fhirpath"].as_str(), field["reference"].as_str(), field["snapshot"].as_str());
        match (path, reference, snapshot) {
            (Some(path), None, None) => {
                let path = compile(path, env)?;
                let shape = shape(&field["type"], &path, env)?;
                Ok(Origin::Path(path, shape))
            }
            (None, Some(reference), Some(snapshot)) => {
                let known = self.references.iter().position(|expr| expr.source() == reference);
                let index = match known {
                    Some(index) => index,
                    None => {
                        self.references.push(compile(reference, env)?);
                        self.references.len() - 1
                    }
                };
                let copied = match snapshot {
                    "id" => Copied::Id,
                    "type" => Copied::Type,
                    "resolved" => Copied::Resolved,
                    "active" => Copied::Active,
                    other => Copied::Value(snapshots.positions(other)),
                };
                match &copied {
                    Copied::Value(by_type) if by_type.is_empty() => {
                        Err(format!("schemas/snapshots.yaml declares no `{snapshot}`"))
                    }
                    _ => Ok(Origin::Snapshot(index, copied)),
                }
            }
            (None, None, None) if name == "version" => Ok(Origin::Version),
            (None, None, None) => ENVELOPE
                .iter()
                .find(|known| **known == name)
                .map(|known| Origin::Envelope(known))
                .ok_or_else(|| "has neither `fhirpath` nor `reference` with `snapshot`".to_owned()),
            _ => Err("has `fhirpath` or `reference` with `snapshot`, not both".to_owned()),
        }
    }

    /// The references of a resource, in the order the columns count them; only the first item of each path.
    pub fn references<'a>(&'a self, ctx: &Ctx<'a>) -> Result<Vec<Resolved<'a>>, Rejection> {
        let literal = |expr: &'a Expr| {
            let items = eval(expr, ctx, expr.source())?;
            let text = items.first().and_then(|item| item.value()?.get("reference")?.as_str());
            Ok(Resolved { literal: text.and_then(relative), target: None })
        };
        self.references.iter().map(literal).collect()
    }

    /// Writes the record's columns as one object into `row`.
    pub fn write<'a>(
        &'a self,
        row: &mut Tape,
        ctx: &Ctx<'a>,
        envelope: &FhirEnvelope<'_>,
        version: i64,
        references: &[Resolved<'_>],
    ) -> Result<(), Rejection> {
        row.clear();
        row.begin_object();
        for (name, origin) in &self.columns {
            row.key(name);
            match origin {
                Origin::Version => row.integer(version),
                Origin::Envelope(part) => write_envelope(row, part, envelope),
                Origin::Path(expr, shape) => write_items(row, &eval(expr, ctx, name)?, shape, name)?,
                Origin::Snapshot(index, copied) => write_copied(row, &references[*index], copied),
            }
        }
        row.end();
        Ok(())
    }
}

fn compile(path: &str, env: &Env) -> Result<Expr, String> {
    Expr::compile(path, env).map_err(|error| error.to_string())
}

fn eval<'a>(expr: &'a Expr, ctx: &Ctx<'a>, name: &str) -> Result<Collection<'a>, Rejection> {
    expr.eval(ctx).map_err(|_| Rejection::new(Reason::InvalidFhir, name))
}

/// `Type/id`; every other style names nothing that the store knows by key.
fn relative(reference: &str) -> Option<(&str, &str)> {
    let (resource_type, id) = reference.split_once('/')?;
    let plain = resource_type.bytes().all(|b| b.is_ascii_alphabetic()) && !id.contains('/');
    (plain && !resource_type.is_empty() && !id.is_empty()).then_some((resource_type, id))
}

/// Reads from a field's type whether it is a list, and of what; members of records are paths within `path`.
fn shape(field_type: &Json, path: &Expr, env: &Env) -> Result<Shape, String> {
    match field_type {
        Json::Array(branches) => match branches.iter().find(|branch| *branch != "null") {
            Some(branch) => shape(branch, path, env),
            None => Ok(Shape::One),
        },
        Json::Object(complex) if complex["type"] == "array" => match &complex["items"] {
            Json::Object(record) if record["type"] == "record" => {
                let env = env.clone().within(path);
                let member = |field: &Json| {
                    let name = field["name"].as_str().unwrap_or_default().to_owned();
                    let path = field["fhirpath"].as_str();
                    let path = path.ok_or_else(|| format!("its member `{name}` has no `fhirpath`"))?;
                    Ok((name, compile(path, &env)?))
                };
                let fields = record["fields"].as_array();
                fields.into_iter().flatten().map(member).collect::<Result<_, String>>().map(Shape::Records)
            }
            _ => Ok(Shape::Many),
        },
        _ => Ok(Shape::One),
    }
}

fn write_envelope(row: &mut Tape, part: &str, envelope: &FhirEnvelope<'_>) {
    match part {
        "tenant" => row.string(envelope.tenant),
        "id" => row.string(envelope.id),
        "version_id" => row.string(envelope.version_id),
        "last_updated" => row.integer(envelope.last_updated),
        "source" => row.string(envelope.source),
        "flags" => {
            row.begin_array();
            envelope.flags.iter().for_each(|flag| row.string(flag));
            row.end();
        }
        // The JSON parser has accepted these bytes, so they are UTF-8.
        _ => row.string(std::str::from_utf8(envelope.resource).unwrap_or_default()),
    }
}

fn write_items(row: &mut Tape, items: &[Item<'_>], shape: &Shape, name: &str) -> Result<(), Rejection> {
    match shape {
        Shape::One => match items {
            [] => row.null(),
            [item] => write_item(row, item, name)?,
            _ => return Err(Rejection::new(Reason::InvalidFhir, name)),
        },
        Shape::Many => {
            row.begin_array();
            items.iter().try_for_each(|item| write_item(row, item, name))?;
            row.end();
        }
        Shape::Records(members) => {
            row.begin_array();
            for item in items {
                let Some(value) = item.value() else { continue };
                write_record(row, value, members)?;
            }
            row.end();
        }
    }
    Ok(())
}

fn write_record(row: &mut Tape, value: Value<'_>, members: &[(String, Expr)]) -> Result<(), Rejection> {
    let ctx = Ctx::new(value, &NoFunctions);
    row.begin_object();
    for (name, expr) in members {
        row.key(name);
        write_items(row, &eval(expr, &ctx, name)?, &Shape::One, name)?;
    }
    row.end();
    Ok(())
}

fn write_item(row: &mut Tape, item: &Item<'_>, name: &str) -> Result<(), Rejection> {
    match item {
        Item::Boolean(value) => row.bool(*value),
        Item::Integer(value) => row.integer(*value),
        Item::Decimal(value) => row.number_text(&value.to_string()),
        _ => match (item.value(), item.text()) {
            (Some(value), _) => row.value(value),
            (None, Some(text)) => row.string(&text),
            (None, None) => return Err(Rejection::new(Reason::InvalidFhir, name)),
        },
    }
    Ok(())
}

fn write_copied(row: &mut Tape, reference: &Resolved<'_>, copied: &Copied) {
    let text = match (copied, reference.literal, reference.target) {
        (Copied::Resolved, _, target) => return row.bool(target.is_some()),
        (Copied::Active, _, Some(target)) => return row.bool(target.active),
        (Copied::Id, Some((_, id)), _) => Some(id),
        (Copied::Type, Some((resource_type, _)), _) => Some(resource_type),
        (Copied::Value(by_type), Some((resource_type, _)), Some(target)) => {
            by_type.get(resource_type).and_then(|index| target.value(*index))
        }
        _ => None,
    };
    match text {
        Some(text) => row.string(text),
        None => row.null(),
    }
}

#[cfg(test)]
mod tests {
    use super::relative;

    #[test]
    fn only_relative_literal_references_name_a_target() {
        assert_eq!(relative("Patient/1"), Some(("Patient", "1")));
        for other in
            ["urn:uuid:1", "#p", "Patient?identifier=s|v", "https://h/fhir/Patient/1", "Patient/", "/1"]
        {
            assert_eq!(relative(other), None, "{other}");
        }
    }
}
