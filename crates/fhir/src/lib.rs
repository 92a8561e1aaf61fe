//! Reads codes, key parts and finished R4 and R5 resources; writes nothing. Promises the same id for the same row for
//! ever, and for every resource a verdict with path and rule, never a value. Never changes a resource, never does I/O.

mod definitions;
mod html;
mod id;
mod invariants;
mod observation;
mod parts;
mod primitive;
mod reference;
mod tables;
pub mod terminology;
mod validate;
mod vital_signs;
mod walk;

pub use definitions::{
    element_exists, element_repeats, element_takes, element_type, element_type_r5, required_elements,
    resource_types,
};
pub use id::{IdName, NAMESPACE, id, id_name, id_of};
pub use parts::{ElementRules, Known, Left, left_to_judge, rules_hold};
pub use tables::Version;
pub use validate::{Invalid, Rule, findings, validate};
