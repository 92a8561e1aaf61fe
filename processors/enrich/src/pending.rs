use std::convert::Infallible;
use std::sync::Arc;

use fhirehose_state::WaitingRoom;
use fhirehose_stream::{Outputs, Record, TopicPartition};

/// Changelog of records whose references were not all known when they were emitted.
pub const PENDING: &str = "enrich.pending";

const HEADER_TOPIC: &str = "enrich-topic";
const HEADER_OFFSET: &str = "enrich-offset";
const HEADER_SEQ: &str = "enrich-seq";
/// Names of the missing targets, a line each.
const HEADER_AWAITS: &str = "enrich-awaits";

/// A record to be emitted again when a target arrives.
pub struct Pending {
    /// Where its record was read, and at which offset.
    pub at: TopicPartition,
    pub offset: i64,
    /// Sequence of the last emission.
    pub seq: u8,
    /// Names of the missing targets.
    pub awaits: Vec<Box<str>>,
    /// The record's value.
    pub value: Box<[u8]>,
}

impl Pending {
    /// Adds it to the changelog, in the partition of its input.
    pub fn write(&self, topic: &Arc<str>, name: &str, out: &mut Outputs) {
        let written = out
            .to(topic, name.as_bytes())
            .partition(self.at.partition)
            .header(HEADER_TOPIC, self.at.topic.as_bytes())
            .header(HEADER_OFFSET, self.offset.to_string().as_bytes())
            .header(HEADER_SEQ, self.seq.to_string().as_bytes())
            .header(HEADER_AWAITS, self.awaits.join("\n").as_bytes())
            .value::<Infallible>(|bytes| {
                bytes.extend_from_slice(&self.value);
                Ok(())
            });
        let Ok(()) = written;
    }

    /// Reads it back; `None` for a tombstone, or a record that was not written here.
    pub fn read(record: &Record<'_>) -> Option<Pending> {
        let text = |name| record.header(name).and_then(|value| std::str::from_utf8(value).ok());
        Some(Pending {
            at: TopicPartition { topic: text(HEADER_TOPIC)?.into(), partition: record.partition() },
            offset: record.header_i64(HEADER_OFFSET)?,
            seq: text(HEADER_SEQ)?.parse().ok()?,
            awaits: text(HEADER_AWAITS)?.split('\n').map(Box::from).collect(),
            value: record.value()?.into(),
        })
    }
}

/// The record waits no longer: takes it out of the room and the changelog, if it is there.
pub fn settle(
    room: &mut WaitingRoom<Pending>,
    topic: &Arc<str>,
    name: &str,
    partition: i32,
    out: &mut Outputs,
) {
    if room.contains(name.as_bytes()) {
        room.remove(name.as_bytes());
        out.to(topic, name.as_bytes()).partition(partition).tombstone();
    }
}
