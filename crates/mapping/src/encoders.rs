use std::collections::BTreeMap;

use fhirehose_codec::{AvroEncoder, EncodeError, FhirEncoder, FhirEnvelope};
use fhirehose_stream::{Fault, HEADER_SOURCE_TS, Outputs, Reason, Rejection};
use fhirehose_tape::Tape;
use fhirehose_topics::Registry;

use crate::drafts::{Draft, DraftBody, Drafts};

/// Writes drafts as records of their topics: FHIR envelopes and Avro.
pub struct Encoders {
    by_topic: BTreeMap<String, Encoder>,
    record: Tape,
}

enum Encoder {
    Fhir(FhirEncoder),
    Record(AvroEncoder),
}

/// Where the drafts of one record come from.
#[derive(Clone, Copy)]
pub struct Provenance<'r> {
    /// Configured source, or device vendor.
    pub source: &'r str,
    /// Where in the source the change stands.
    pub source_position: &'r str,
    pub mapping: &'r str,
    pub mapping_version: i32,
    pub version_id: &'r str,
    /// When the source committed the change or the device measured, milliseconds since the epoch.
    pub source_ts: i64,
    /// `lastUpdated` of the resources, milliseconds since the epoch.
    pub last_updated: i64,
}

impl Encoders {
    /// Encoders of these topics; `schema_id` gives the registered id of a subject.
    pub fn new<'t>(
        topics: impl IntoIterator<Item = &'t str>,
        registry: &Registry,
        schema_id: &dyn Fn(&str) -> Result<u32, Fault>,
    ) -> Result<Encoders, Fault> {
        let mut by_topic = BTreeMap::new();
        for topic in topics {
            if by_topic.contains_key(topic) {
                continue;
            }
            let schema = registry.schema(topic);
            let schema = schema.ok_or_else(|| Fault::fatal(format!("no schema is declared for {topic}")))?;
            let id = schema_id(&schema.subject)?;
            let encoder = if topic.starts_with("fhir.") {
                FhirEncoder::new(schema, id).map(Encoder::Fhir)
            } else {
                AvroEncoder::new(schema, id).map(Encoder::Record)
            };
            let encoder =
                encoder.map_err(|problem| Fault::fatal(format!("{}: {problem}", schema.subject)))?;
            by_topic.insert(topic.to_owned(), encoder);
        }
        Ok(Encoders { by_topic, record: Tape::new() })
    }

    /// Writes all drafts, or none: after a rejection `out` is as it was.
    pub fn write(
        &mut self,
        drafts: &Drafts,
        provenance: &Provenance<'_>,
        out: &mut Outputs,
    ) -> Result<u32, Rejection> {
        let before = out.len();
        for draft in drafts.iter() {
            if let Err(rejection) = self.one(&draft, provenance, out) {
                out.truncate(before);
                let shape = format!("{}@{}", provenance.mapping, provenance.mapping_version);
                return Err(rejection.of_shape(shape));
            }
        }
        Ok(u32::try_from(drafts.len()).unwrap_or(u32::MAX))
    }

    fn one(
        &mut self,
        draft: &Draft<'_>,
        provenance: &Provenance<'_>,
        out: &mut Outputs,
    ) -> Result<(), Rejection> {
        let source_ts = provenance.source_ts.to_string();
        let writer = out.to(draft.topic, draft.key.as_bytes()).header(HEADER_SOURCE_TS, source_ts.as_bytes());
        match (draft.body, self.by_topic.get(&**draft.topic)) {
            (DraftBody::Tombstone, _) => {
                writer.tombstone();
                Ok(())
            }
            (DraftBody::Resource { id, json }, Some(Encoder::Fhir(encoder))) => {
                let envelope = FhirEnvelope {
                    tenant: draft.tenant,
                    id,
                    version_id: provenance.version_id,
                    last_updated: provenance.last_updated,
                    source: provenance.source,
                    source_position: provenance.source_position,
                    mapping: provenance.mapping,
                    mapping_version: provenance.mapping_version,
                    flags: draft.flags.iter().map(AsRef::as_ref).collect(),
                    resource: json,
                };
                writer.value(|bytes| {
                    encoder.encode(&envelope, bytes);
                    Ok(())
                })
            }
            (DraftBody::Record { json }, Some(Encoder::Record(encoder))) => {
                let record = &mut self.record;
                let parsed = record.parse_json(json);
                parsed.map_err(|error| {
                    Rejection::new(Reason::WrongType, format!("{}: {error}", draft.topic))
                })?;
                let refused = |error: EncodeError| {
                    Rejection::new(
                        Reason::WrongType,
                        format!("{}.{}: {}", draft.topic, error.path, error.what),
                    )
                };
                writer.value(|bytes| encoder.encode(record.root(), bytes)).map_err(refused)
            }
            _ => Err(Rejection::new(Reason::InvalidFhir, format!("{} has no encoder", draft.topic))),
        }
    }
}
