use fhirehose_tape::Tape;
use fhirehose_topics::Schema;

use crate::decode::{Reader, open};
use crate::encode::{write_bytes, write_length, write_long};
use crate::schema::{Meaning, Node, NodeId};
use crate::{AvroSchema, DecodeError, SchemaProblem, SchemaSource};

/// A record of a `fhir.<resource>` topic: one version of a resource and where it comes from. No `Debug`: it
/// holds personal data.
#[derive(Clone, PartialEq, Eq)]
pub struct FhirEnvelope<'b> {
    pub tenant: &'b str,
    /// The resource's id.
    pub id: &'b str,
    pub version_id: &'b str,
    /// Milliseconds since the epoch.
    pub last_updated: i64,
    /// Name of the source in the configuration, or the device vendor.
    pub source: &'b str,
    /// Where in the source the change stands.
    pub source_position: &'b str,
    /// Mapping that made the resource, such as `cdc/clinical_data/patients`.
    pub mapping: &'b str,
    pub mapping_version: i32,
    /// Codes of data-quality flags.
    pub flags: Vec<&'b str>,
    /// The resource as JSON.
    pub resource: &'b [u8],
}

/// Writes envelopes with the registered schema of their topic.
pub struct FhirEncoder {
    header: [u8; 5],
    order: Vec<Slot>,
}

/// A field of the envelope.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    Tenant,
    Id,
    VersionId,
    LastUpdated,
    Source,
    SourcePosition,
    Mapping,
    MappingVersion,
    Flags,
    Resource,
}

impl Slot {
    const ALL: [(&'static str, Slot); 10] = [
        ("tenant", Slot::Tenant),
        ("id", Slot::Id),
        ("version_id", Slot::VersionId),
        ("last_updated", Slot::LastUpdated),
        ("source", Slot::Source),
        ("source_position", Slot::SourcePosition),
        ("mapping", Slot::Mapping),
        ("mapping_version", Slot::MappingVersion),
        ("flags", Slot::Flags),
        ("resource", Slot::Resource),
    ];

    /// Slots of a record's fields, in order.
    pub(crate) fn of_fields(schema: &AvroSchema) -> Vec<Option<Slot>> {
        let fields = schema.fields().unwrap_or_default();
        fields.iter().map(|field| Slot::of(schema, &field.name, field.node)).collect()
    }

    /// The slot of a field, if it has the type we read and write it as.
    fn of(schema: &AvroSchema, name: &str, node: NodeId) -> Option<Slot> {
        let slot = Slot::ALL.iter().find(|(known, _)| *known == name)?.1;
        let fits = match (slot, schema.node(node)) {
            (Slot::LastUpdated, Node::Long(Meaning::Timestamp { per_second: 1_000, .. })) => true,
            (Slot::MappingVersion, Node::Int(_)) | (Slot::Resource, Node::Bytes) => true,
            (Slot::Flags, Node::Array(items)) => matches!(schema.node(*items), Node::String),
            (Slot::LastUpdated | Slot::MappingVersion | Slot::Resource | Slot::Flags, _) => false,
            (_, node) => matches!(node, Node::String),
        };
        fits.then_some(slot)
    }
}

impl FhirEncoder {
    /// For the schema of a `fhir.<resource>` topic, registered under `id`. Its fields must be the envelope's.
    pub fn new(schema: &Schema, id: u32) -> Result<FhirEncoder, SchemaProblem> {
        FhirEncoder::of(&AvroSchema::parse(&schema.json)?, id)
    }

    pub(crate) fn of(schema: &AvroSchema, id: u32) -> Result<FhirEncoder, SchemaProblem> {
        let problem = |what, name: &str| SchemaProblem { what, path: format!("/{name}") };
        let fields = schema.fields().ok_or_else(|| problem("not a record", ""))?;
        let order = fields.iter().zip(&schema.slots).map(|(field, slot)| {
            slot.ok_or_else(|| problem("not a field of the FHIR envelope, or not of its type", &field.name))
        });
        let order = order.collect::<Result<Vec<_>, _>>()?;
        if let Some((name, _)) = Slot::ALL.iter().find(|(_, slot)| !order.contains(slot)) {
            return Err(problem("a field of the FHIR envelope is missing", name));
        }
        let [a, b, c, d] = id.to_be_bytes();
        Ok(FhirEncoder { header: [0, a, b, c, d], order })
    }

    /// Appends header and datum; cannot fail, since every field has its type.
    pub fn encode(&self, envelope: &FhirEnvelope<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.header);
        for slot in &self.order {
            match slot {
                Slot::Tenant => write_bytes(envelope.tenant.as_bytes(), out),
                Slot::Id => write_bytes(envelope.id.as_bytes(), out),
                Slot::VersionId => write_bytes(envelope.version_id.as_bytes(), out),
                Slot::LastUpdated => write_long(envelope.last_updated, out),
                Slot::Source => write_bytes(envelope.source.as_bytes(), out),
                Slot::SourcePosition => write_bytes(envelope.source_position.as_bytes(), out),
                Slot::Mapping => write_bytes(envelope.mapping.as_bytes(), out),
                Slot::MappingVersion => write_long(envelope.mapping_version.into(), out),
                Slot::Flags => {
                    if !envelope.flags.is_empty() {
                        write_length(envelope.flags.len(), out);
                        envelope.flags.iter().for_each(|flag| write_bytes(flag.as_bytes(), out));
                    }
                    write_long(0, out);
                }
                Slot::Resource => write_bytes(envelope.resource, out),
            }
        }
    }
}

impl<'b> FhirEnvelope<'b> {
    /// Reads an envelope by its writer's schema: fields may stand in any order, and newer writers may have
    /// more of them.
    pub fn decode(bytes: &'b [u8], schemas: &dyn SchemaSource) -> Result<FhirEnvelope<'b>, DecodeError> {
        let (schema, mut reader) = open(bytes, schemas)?;
        let not_ours = |what| DecodeError::Avro { what, at: 5 };
        let mut envelope = FhirEnvelope {
            tenant: "",
            id: "",
            version_id: "",
            last_updated: 0,
            source: "",
            source_position: "",
            mapping: "",
            mapping_version: 0,
            flags: Vec::new(),
            resource: &[],
        };
        let mut seen = 0;
        let fields = schema.fields().ok_or(not_ours("not a FHIR envelope"))?;
        for (field, slot) in fields.iter().zip(&schema.slots) {
            match slot {
                Some(slot) => {
                    envelope.fill(*slot, &mut reader)?;
                    seen += 1;
                }
                None => reader.value(&schema, field.node, &mut Tape::new(), 0)?,
            }
        }
        reader.end()?;
        if seen == Slot::ALL.len() { Ok(envelope) } else { Err(not_ours("not a whole FHIR envelope")) }
    }

    fn fill(&mut self, slot: Slot, reader: &mut Reader<'b>) -> Result<(), DecodeError> {
        match slot {
            Slot::Tenant => self.tenant = reader.string()?,
            Slot::Id => self.id = reader.string()?,
            Slot::VersionId => self.version_id = reader.string()?,
            Slot::LastUpdated => self.last_updated = reader.long()?,
            Slot::Source => self.source = reader.string()?,
            Slot::SourcePosition => self.source_position = reader.string()?,
            Slot::Mapping => self.mapping = reader.string()?,
            Slot::MappingVersion => self.mapping_version = reader.int()?,
            Slot::Flags => loop {
                let count = reader.block()?;
                for _ in 0..count {
                    self.flags.push(reader.string()?);
                }
                if count == 0 {
                    break;
                }
            },
            Slot::Resource => self.resource = reader.bytes()?,
        }
        Ok(())
    }
}

/// Key of `fhir.*` and `enriched.*` records.
pub fn fhir_key(tenant: &str, id: &str) -> String {
    format!("{tenant}/{id}")
}

/// Tenant and id of such a key. Ids have no slash.
pub fn split_fhir_key(key: &[u8]) -> Option<(&str, &str)> {
    let (tenant, id) = std::str::from_utf8(key).ok()?.rsplit_once('/')?;
    (!tenant.is_empty() && !id.is_empty()).then_some((tenant, id))
}
