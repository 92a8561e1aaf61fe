use std::collections::HashMap;
use std::fmt;

use crate::{Batch, Outputs, Record, TopicPartition, Verdicts};

/// A partition given to this worker, and the offset commit it continues from.
#[derive(Clone, Debug)]
pub struct Assigned {
    pub at: TopicPartition,
    /// Offset of the first record that will be read.
    pub next_offset: i64,
    /// Metadata of the offset commit: what [`Processor::offset_metadata`] returned at that commit.
    pub metadata: Option<String>,
}

/// A pure function from batches to outputs, run by the Kafka-to-Kafka loop inside transactions.
///
/// The runtime calls, on one thread and in this order: `assigned` (with `restore` for every changelog record
/// of the new partitions and `table` up to the topics' end first), then `process` / `wake`, each followed by
/// exactly one `committed` or `aborted`. After `aborted` the same records come again.
pub trait Processor: Send {
    /// Judges every record and writes the outputs. Must be deterministic in the records, the tables and the
    /// restored state. State changes become final at `committed` and must be undone at `aborted`.
    fn process(&mut self, batch: &Batch, out: &mut Outputs) -> Result<Verdicts, Fault>;

    /// The transaction of the last `process` or `wake` is committed.
    fn committed(&mut self) {}

    /// The transaction of the last `process` or `wake` had no effect.
    fn aborted(&mut self) {}

    /// Partitions were added.
    fn assigned(&mut self, partitions: &[Assigned]) -> Result<(), Fault> {
        let _ = partitions;
        Ok(())
    }

    /// Partitions were taken away, or lost; nothing of theirs is in flight.
    fn revoked(&mut self, partitions: &[TopicPartition]) {
        let _ = partitions;
    }

    /// Metadata (UTF-8, at most 4096 bytes) for the offset commit of a partition in the current transaction.
    fn offset_metadata(&self, at: &TopicPartition) -> Option<String> {
        let _ = at;
        None
    }

    /// A record of a table topic: topics read whole by every instance, independent of the group.
    fn table(&mut self, record: Record<'_>) -> Result<(), Fault> {
        let _ = record;
        Ok(())
    }

    /// Says before [`Processor::table_start`] which ids the table topics have, by name; of a topic that is not named it is
    /// not known. A snapshot is of topics, not of names: one that was made anew begins anew.
    fn identify(&mut self, topics: HashMap<String, String>) {
        let _ = topics;
    }

    /// Where to begin reading the table topics: the next offsets of a snapshot the processor has loaded, empty
    /// to read them whole. Called once, before any `table`.
    fn table_start(&mut self) -> Vec<(TopicPartition, i64)> {
        Vec::new()
    }

    /// Called about once a minute and at a graceful stop, with the next offsets of the table topics as they
    /// were given to `table`: the moment to save a snapshot. A fault is logged and does not stop the worker.
    fn checkpoint(&mut self, table_next: &[(TopicPartition, i64)]) -> Result<(), Fault> {
        let _ = table_next;
        Ok(())
    }

    /// A changelog record of an assigned partition, in order, while it is being restored.
    fn restore(&mut self, record: Record<'_>) -> Result<(), Fault> {
        let _ = record;
        Ok(())
    }

    /// Called between batches: outputs due because a table changed, such as parked records that can flow now.
    /// Writes at most about `Outputs` of one batch; returns whether more is due.
    fn wake(&mut self, out: &mut Outputs) -> Result<bool, Fault> {
        let _ = out;
        Ok(false)
    }
}

/// Where a sink's offsets live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetsIn {
    /// In the store, committed with the data; Kafka's committed offset is a lag hint.
    Store,
    /// In Kafka, committed after the data; the writes are guarded by version, so repeating them is harmless.
    Kafka,
}

/// A store, run by the Kafka-to-store loop.
///
/// The loop calls `claim` on assignment, then `stage` (retried on a transient fault, after `rollback`), then
/// dead-letters the rejects, then `commit`. After a failed `commit` it claims again and reads from there.
pub trait Sink: Send {
    fn offsets_in(&self) -> OffsetsIn;

    /// Says before a claim which ids its topics have now, by name; of a topic that is not named it is not known. A store
    /// that keeps offsets keeps the ids with them: of a topic made anew they say nothing.
    fn identify(&mut self, topics: HashMap<String, String>) {
        let _ = topics;
    }

    /// Takes the partitions over, shutting out their earlier owner. For each, in order, the next offset to
    /// read, or `None` where the store has none (always `None` with [`OffsetsIn::Kafka`]). A fatal fault where the
    /// store's offset is of another topic of that name.
    fn claim(&mut self, partitions: &[TopicPartition]) -> Result<Vec<Option<i64>>, Fault>;

    /// The first offset of partitions whose [`Sink::claim`] found none, chosen by `--start-from`.
    fn start(&mut self, partitions: &[(TopicPartition, i64)]) -> Result<(), Fault> {
        let _ = partitions;
        Ok(())
    }

    /// Writes the batch, with [`OffsetsIn::Store`] in an open transaction that also holds its offsets.
    fn stage(&mut self, batch: &Batch) -> Result<Verdicts, Fault>;

    /// Makes the staged batch durable. An error means the outcome is unknown.
    fn commit(&mut self) -> Result<(), Fault>;

    /// Gives up what is staged, if anything.
    fn rollback(&mut self);

    /// Partitions were taken away, or lost.
    fn revoked(&mut self, partitions: &[TopicPartition]) {
        let _ = partitions;
    }

    /// Called between batches at most once a minute, for housekeeping such as `drop_chunks`.
    fn maintain(&mut self) -> Result<(), Fault> {
        Ok(())
    }

    /// What ends the call that the store is at, from another thread: for a process that is to stop, and whose batch
    /// takes too long. The call then fails with a transient fault. `None` where calls are short, or cannot be ended.
    fn interrupter(&self) -> Option<Interrupter> {
        None
    }
}

/// See [`Sink::interrupter`]. Does nothing where the store is at no call; may block for as long as connecting takes.
pub type Interrupter = Box<dyn Fn() -> Result<(), Fault> + Send>;

/// Why a whole batch could not be processed; never the fault of one record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {what}")]
pub struct Fault {
    pub kind: FaultKind,
    /// Safe to log: no values of records.
    pub what: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Try again later: a server is down, a timeout, a deadlock.
    Transient,
    /// Another instance owns the partition now: drop the batch and claim again.
    Fenced,
    /// Stop the worker: configuration or code is wrong.
    Fatal,
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FaultKind::Transient => "transient",
            FaultKind::Fenced => "fenced",
            FaultKind::Fatal => "fatal",
        })
    }
}

impl Fault {
    pub fn transient(what: impl Into<String>) -> Self {
        Fault { kind: FaultKind::Transient, what: what.into() }
    }

    pub fn fenced(what: impl Into<String>) -> Self {
        Fault { kind: FaultKind::Fenced, what: what.into() }
    }

    pub fn fatal(what: impl Into<String>) -> Self {
        Fault { kind: FaultKind::Fatal, what: what.into() }
    }
}
