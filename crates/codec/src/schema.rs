use std::collections::HashMap;

use serde_json::Value as Json;

use crate::fhir::Slot;

/// A schema compiled to a flat plan that decoding and encoding walk.
pub struct AvroSchema {
    pub(crate) nodes: Vec<Node>,
    pub(crate) root: NodeId,
    /// Which fields of the root are those of the FHIR envelope.
    pub(crate) slots: Vec<Option<Slot>>,
}

pub(crate) type NodeId = usize;

pub(crate) enum Node {
    Null,
    Boolean,
    Int(Meaning),
    Long(Meaning),
    Float,
    Double,
    Bytes,
    String,
    Fixed(usize),
    /// Unscaled big-endian two's complement; `None` is of variable length.
    Decimal {
        scale: i32,
        fixed: Option<usize>,
    },
    /// Debezium's record of a scale and unscaled bytes.
    ScaledDecimal,
    Enum(Vec<Box<str>>),
    Array(NodeId),
    Map(NodeId),
    Union(Vec<NodeId>),
    Record(Vec<Field>),
}

pub(crate) struct Field {
    pub name: Box<str>,
    pub node: NodeId,
    pub default: Option<Json>,
}

/// What an integer counts. With `text` it is decoded to ISO text, as Debezium's and Connect's own temporal
/// types are: their name alone tells milliseconds from microseconds. Plain Avro logical types stay integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    Number,
    /// Days since 1970-01-01.
    Date {
        text: bool,
    },
    /// Units since midnight.
    Time {
        per_second: i64,
    },
    /// Units since 1970-01-01T00:00, in UTC or without a zone.
    Timestamp {
        per_second: i64,
        text: bool,
    },
}

/// Why a text is not a schema we can follow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a usable Avro schema: {what} at {path}")]
pub struct SchemaProblem {
    pub what: &'static str,
    /// Field names down to the place.
    pub path: String,
}

impl AvroSchema {
    /// Compiles the JSON text of a schema.
    pub fn parse(json: &str) -> Result<AvroSchema, SchemaProblem> {
        let problem = |what| SchemaProblem { what, path: "/".into() };
        let json: Json = serde_json::from_str(json).map_err(|_| problem("malformed JSON"))?;
        let mut compiler = Compiler { nodes: Vec::new(), names: HashMap::new(), path: Vec::new() };
        match compiler.compile(&json, "") {
            Ok(root) => {
                let mut schema = AvroSchema { nodes: compiler.nodes, root, slots: Vec::new() };
                schema.slots = Slot::of_fields(&schema);
                Ok(schema)
            }
            Err(what) => Err(SchemaProblem { what, path: format!("/{}", compiler.path.join("/")) }),
        }
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        // Ids are made by the compiler alone and point into `nodes`.
        &self.nodes[id]
    }

    /// Fields of the root, if it is a record.
    pub(crate) fn fields(&self) -> Option<&[Field]> {
        match self.node(self.root) {
            Node::Record(fields) => Some(fields),
            _ => None,
        }
    }
}

struct Compiler {
    nodes: Vec<Node>,
    names: HashMap<String, NodeId>,
    path: Vec<String>,
}

impl Compiler {
    fn compile(&mut self, schema: &Json, namespace: &str) -> Result<NodeId, &'static str> {
        match schema {
            Json::String(name) => self.named_or_primitive(name, schema, namespace),
            Json::Array(branches) => {
                let branches =
                    branches.iter().map(|b| self.compile(b, namespace)).collect::<Result<Vec<_>, _>>()?;
                if branches.iter().any(|&b| matches!(self.nodes[b], Node::Union(_))) {
                    return Err("a union in a union");
                }
                Ok(self.push(Node::Union(branches)))
            }
            Json::Object(object) => match object.get("type") {
                Some(Json::String(kind)) => match kind.as_str() {
                    "record" | "error" => self.record(schema, namespace),
                    "enum" => {
                        let symbols =
                            list(schema, "symbols")?.iter().map(|symbol| symbol.as_str().map(Box::from));
                        let symbols =
                            symbols.collect::<Option<Vec<_>>>().ok_or("an enum symbol that is not text")?;
                        let (id, _) = self.name(schema, namespace)?;
                        self.nodes[id] = Node::Enum(symbols);
                        Ok(id)
                    }
                    "fixed" => {
                        let size = schema.get("size").and_then(Json::as_u64).ok_or("a fixed without size")?;
                        let size = usize::try_from(size).map_err(|_| "a fixed of impossible size")?;
                        let node = match decimal_scale(schema) {
                            Some(scale) => Node::Decimal { scale, fixed: Some(size) },
                            None => Node::Fixed(size),
                        };
                        let (id, _) = self.name(schema, namespace)?;
                        self.nodes[id] = node;
                        Ok(id)
                    }
                    "array" => {
                        let items =
                            self.compile(schema.get("items").ok_or("an array without items")?, namespace)?;
                        Ok(self.push(Node::Array(items)))
                    }
                    "map" => {
                        let values =
                            self.compile(schema.get("values").ok_or("a map without values")?, namespace)?;
                        Ok(self.push(Node::Map(values)))
                    }
                    name => self.named_or_primitive(name, schema, namespace),
                },
                Some(inner) => self.compile(inner, namespace),
                None => Err("a schema without type"),
            },
            _ => Err("a schema that is neither text, list nor object"),
        }
    }

    fn named_or_primitive(
        &mut self,
        name: &str,
        schema: &Json,
        namespace: &str,
    ) -> Result<NodeId, &'static str> {
        let node = match name {
            "null" => Node::Null,
            "boolean" => Node::Boolean,
            "int" => Node::Int(meaning(schema)),
            "long" => Node::Long(meaning(schema)),
            "float" => Node::Float,
            "double" => Node::Double,
            "bytes" => match decimal_scale(schema) {
                Some(scale) => Node::Decimal { scale, fixed: None },
                None => Node::Bytes,
            },
            "string" => Node::String,
            _ => {
                let full = if name.contains('.') || namespace.is_empty() {
                    name.to_owned()
                } else {
                    format!("{namespace}.{name}")
                };
                let known = self.names.get(&full).or_else(|| self.names.get(name));
                return known.copied().ok_or("a name that is not defined before");
            }
        };
        Ok(self.push(node))
    }

    fn record(&mut self, schema: &Json, namespace: &str) -> Result<NodeId, &'static str> {
        // Named before its fields, which may refer to it.
        let (id, namespace) = self.name(schema, namespace)?;
        let mut fields: Vec<Field> = Vec::new();
        for field in list(schema, "fields")? {
            let name = field.get("name").and_then(Json::as_str).ok_or("a field without name")?;
            self.path.push(name.to_owned());
            if fields.iter().any(|f| &*f.name == name) {
                return Err("a field that occurs twice");
            }
            let node = self.compile(field.get("type").ok_or("a field without type")?, &namespace)?;
            fields.push(Field { name: name.into(), node, default: field.get("default").cloned() });
            self.path.pop();
        }
        let scaled = schema.get("connect.name").and_then(Json::as_str)
            == Some("io.debezium.data.VariableScaleDecimal")
            && matches!(fields.as_slice(), [scale, value]
                if matches!((&self.nodes[scale.node], &self.nodes[value.node]), (Node::Int(_), Node::Bytes)));
        self.nodes[id] = if scaled { Node::ScaledDecimal } else { Node::Record(fields) };
        Ok(id)
    }

    /// Reserves a node for a named type; returns it and the namespace inside the type.
    fn name(&mut self, schema: &Json, namespace: &str) -> Result<(NodeId, String), &'static str> {
        let name = schema.get("name").and_then(Json::as_str).ok_or("a named type without name")?;
        let own = schema.get("namespace").and_then(Json::as_str).unwrap_or(namespace);
        let full =
            if name.contains('.') || own.is_empty() { name.to_owned() } else { format!("{own}.{name}") };
        let inner = full.rsplit_once('.').map_or("", |(namespace, _)| namespace).to_owned();
        let id = self.push(Node::Null);
        if self.names.insert(full, id).is_some() {
            return Err("a name that is defined twice");
        }
        Ok((id, inner))
    }

    fn push(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        self.nodes.len() - 1
    }
}

fn list<'j>(schema: &'j Json, key: &str) -> Result<&'j [Json], &'static str> {
    schema.get(key).and_then(Json::as_array).map(Vec::as_slice).ok_or("a type without its fields or symbols")
}

fn decimal_scale(schema: &Json) -> Option<i32> {
    let named = |key, name| schema.get(key).and_then(Json::as_str) == Some(name);
    let connect = named("connect.name", "org.apache.kafka.connect.data.Decimal");
    (connect || named("logicalType", "decimal")).then(|| {
        let scale = schema.get("scale").and_then(Json::as_i64).unwrap_or(0);
        i32::try_from(scale).unwrap_or(0)
    })
}

fn meaning(schema: &Json) -> Meaning {
    const MILLI: i64 = 1_000;
    const MICRO: i64 = 1_000_000;
    const NANO: i64 = 1_000_000_000;
    match schema.get("connect.name").and_then(Json::as_str).unwrap_or_default() {
        "io.debezium.time.Date" | "org.apache.kafka.connect.data.Date" => {
            return Meaning::Date { text: true };
        }
        "io.debezium.time.Time" | "org.apache.kafka.connect.data.Time" => {
            return Meaning::Time { per_second: MILLI };
        }
        "io.debezium.time.MicroTime" => return Meaning::Time { per_second: MICRO },
        "io.debezium.time.NanoTime" => return Meaning::Time { per_second: NANO },
        "io.debezium.time.Timestamp" | "org.apache.kafka.connect.data.Timestamp" => {
            return Meaning::Timestamp { per_second: MILLI, text: true };
        }
        "io.debezium.time.MicroTimestamp" => return Meaning::Timestamp { per_second: MICRO, text: true },
        "io.debezium.time.NanoTimestamp" => return Meaning::Timestamp { per_second: NANO, text: true },
        _ => {}
    }
    match schema.get("logicalType").and_then(Json::as_str).unwrap_or_default() {
        "date" => Meaning::Date { text: false },
        "timestamp-millis" => Meaning::Timestamp { per_second: MILLI, text: false },
        "timestamp-micros" => Meaning::Timestamp { per_second: MICRO, text: false },
        _ => Meaning::Number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(json: &str) -> SchemaProblem {
        AvroSchema::parse(json).err().expect("a problem")
    }

    #[test]
    fn problems_name_the_field() {
        let json =
            r#"{"type":"record","name":"r","fields":[{"name":"a","type":{"type":"array","items":"x"}}]}"#;
        assert_eq!(
            problem(json).to_string(),
            "not a usable Avro schema: a name that is not defined before at /a"
        );
        assert_eq!(problem("[").what, "malformed JSON");
        assert_eq!(problem("7").path, "/");
        let twice =
            r#"{"type":"record","name":"r","fields":[{"name":"a","type":"int"},{"name":"a","type":"int"}]}"#;
        assert_eq!(problem(twice).what, "a field that occurs twice");
    }

    #[test]
    fn names_resolve_by_namespace_and_to_the_record_itself() {
        let json = r#"{"type":"record","name":"Envelope","namespace":"cdc.a","fields":[
            {"name":"before","type":["null",{"type":"record","name":"Value","fields":[
                {"name":"next","type":["null","Value"]}]}]},
            {"name":"after","type":["null","cdc.a.Value"]}]}"#;
        let schema = AvroSchema::parse(json).unwrap();
        assert_eq!(schema.fields().unwrap().len(), 2);
    }
}
