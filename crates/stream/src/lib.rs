//! The contract between the runtime and every processor: records in batches go in, one verdict per record
//! and the outputs come out. No I/O, no async runtime, no Kafka, no clock.

mod batch;
mod outputs;
mod processor;
mod reason;
mod verdict;

pub use batch::{Batch, Headers, Record, TopicPartition};
pub use outputs::{Output, OutputWriter, Outputs};
pub use processor::{Assigned, Fault, FaultKind, Interrupter, OffsetsIn, Processor, Sink};
pub use reason::Reason;
pub use verdict::{Rejection, Verdict, Verdicts};

/// Header of a record of ours: milliseconds since the epoch at which the source committed the change.
pub const HEADER_SOURCE_TS: &str = "fhirehose-source-ts";
/// Header of `enriched.*` records and tombstones: the resource's version as a decimal `i64`.
pub const HEADER_VERSION: &str = "fhirehose-version";
