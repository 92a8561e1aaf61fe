//! Reads codes, key parts and finished R4 resources; writes nothing. Promises the same id for the same row for ever,
//! and for every resource a verdict with path and rule, never a value. Never changes a resource, never does I/O.

mod definitions;
mod id;
mod invariants;
mod primitive;
mod reference;
mod tables;
pub mod terminology;
mod validate;
mod vital_signs;

pub use definitions::element_type;
pub use id::{NAMESPACE, id};
pub use validate::{Invalid, Rule, element_exists, resource_types, validate};
