//! Reads `topics/*.yaml` and `schemas/avro/*.avsc` into the one registry of logical topics, and computes what
//! a cluster lacks of it. Promises: everything is checked at load and all problems are told together, with
//! file and line. Never: talks to Kafka or to a schema registry, or knows a topic that no file declares.

mod declaration;
mod name;
mod plan;
mod problem;
mod registry;
mod schema;

pub use declaration::{Compatibility, Format, Topic};
pub use name::{CdcName, cdc_name, version};
pub use plan::{Change, Existing, ExistingSubject, ExistingTopic, Plan, Refusal, Target};
pub use problem::Problem;
pub use registry::Registry;
pub use schema::{Field, Schema};
