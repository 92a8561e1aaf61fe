//! Bytes of Kafka records to documents and back: Confluent's Avro wire format, JSON, Debezium's change
//! envelope, our FHIR envelope. Promises: total on hostile bytes (an error, never a panic, a hang or a huge
//! allocation), numbers keep their digits, errors name places and never values. Never: does I/O; schemas come
//! through [`SchemaSource`].

mod decode;
mod encode;
mod envelope;
mod fhir;
mod schema;
mod source;
#[cfg(test)]
mod tests;
mod text;

pub use decode::{DecodeError, decode};
pub use encode::{AvroEncoder, EncodeError};
pub use envelope::{ChangeEvent, EnvelopeError, Op, Source};
pub use fhir::{FhirEncoder, FhirEnvelope, fhir_key, split_fhir_key};
pub use schema::{AvroSchema, SchemaProblem};
pub use source::{MemorySchemas, SchemaError, SchemaSource};
