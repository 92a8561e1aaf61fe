use std::collections::HashMap;
use std::sync::Arc;

use crate::{AvroSchema, SchemaProblem};

/// Where schemas come from by the id in a record's header. Implementations cache: an id never changes its
/// meaning.
pub trait SchemaSource {
    fn schema(&self, id: u32) -> Result<Arc<AvroSchema>, SchemaError>;
}

/// Why there is no schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// The registry answered that it has none of this id, or has something that is no Avro schema.
    #[error("the schema registry knows no usable schema of this id")]
    Unknown,
    /// The registry did not answer; the record is not at fault. Holds what went wrong, safe to log.
    #[error("the schema registry is unavailable: {0}")]
    Unavailable(String),
}

/// Schemas known beforehand: for tools that work without a registry, and tests.
#[derive(Default)]
pub struct MemorySchemas {
    schemas: HashMap<u32, Arc<AvroSchema>>,
}

impl MemorySchemas {
    pub fn insert(&mut self, id: u32, json: &str) -> Result<(), SchemaProblem> {
        self.schemas.insert(id, Arc::new(AvroSchema::parse(json)?));
        Ok(())
    }
}

impl SchemaSource for MemorySchemas {
    fn schema(&self, id: u32) -> Result<Arc<AvroSchema>, SchemaError> {
        self.schemas.get(&id).cloned().ok_or(SchemaError::Unknown)
    }
}
