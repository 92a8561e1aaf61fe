//! State of the processors that keep some: a reference store fed by table topics, with a snapshot file, and
//! a waiting room for records that lack something. Reads and writes one snapshot file, nothing else; what a
//! transaction has not committed it never keeps.

mod reference;
mod snapshot;
mod waiting;

pub use reference::{ReferenceStore, Target, TargetKey};
pub use snapshot::{SnapshotError, load, save};
pub use waiting::WaitingRoom;
