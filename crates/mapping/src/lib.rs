//! Reads `mappings/**`: FPML templates with a thin header, compiled at start to plans that write JSON bytes.
//! Reads rows and device messages, writes resources and records as drafts. Promises that one record gives the
//! same bytes on every run, all of its outputs or none, and that what a mapping cannot mean is a problem at
//! load with file, line and column. Never reads a clock, never does I/O after load.

mod assignments;
mod cdc;
mod checker;
mod columns;
mod concept_map;
mod device;
mod drafts;
mod encoders;
mod explain;
mod fpml;
mod functions;
mod header;
pub mod limits;
mod load;
mod output;
mod problem;
mod remembered;
mod render;
mod scaffold;
mod scratch;
mod shared;
mod source;
mod template;
mod terminology;
mod time;
mod yaml;

#[cfg(test)]
mod fpml_tests;

pub use assignments::{ASSIGNMENTS, Assignments};
pub use cdc::{CdcMapping, RowChange, RowOp};
pub use columns::{Column, ColumnType, ColumnUse, PersonalData};
pub use device::{Assignment, DeviceMapping, Message, Plane, Reading, device_id, read_headers};
pub use drafts::{Draft, DraftBody, Drafts};
pub use encoders::{Encoders, Provenance};
pub use explain::{ExplainError, Explanation, Step, explain};
pub use fpml::{Fpml, FpmlOptions, read_document};
pub use load::{Mappings, check};
pub use problem::Problem;
pub use scaffold::{TableColumn, scaffold};
pub use scratch::Scratch;
pub use source::{Source, UnknownZone, Vendor, Zone};
