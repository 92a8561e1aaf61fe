use fhirehose_stream::{Assigned, Fault, TopicPartition};
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use crate::config::StartFrom;
use crate::partitions::{list_with_offsets, transient};
use crate::reader::{ASK, NotCommitted, Reader};
use crate::spec::Inputs;
use crate::stop::Stop;
use crate::worker::{named, patiently};

/// Where reading of newly assigned partitions goes on: at the group's committed offsets. Where there is none,
/// the operator's word decides; without one, partitions that a group with a past has never read begin at the
/// beginning, for nothing of them can have been read, and a group without a past refuses. What is decided here
/// is committed at once; such a commit without an answer is not tried again, for it may come late and move the
/// offsets back.
pub(crate) fn continue_at(
    reader: &Reader,
    inputs: &Inputs,
    partitions: &[TopicPartition],
    start_from: Option<StartFrom>,
    stop: &Stop,
) -> Result<Vec<Assigned>, NotCommitted> {
    let refused = |fault| NotCommitted { fault, answered: true };
    let mut assigned = Vec::with_capacity(partitions.len());
    let mut fresh = Vec::new();
    for (at, committed) in patiently(stop, || reader.committed(partitions)).map_err(refused)? {
        match committed {
            Some(committed) => {
                assigned.push(Assigned { at, next_offset: committed.offset, metadata: committed.metadata });
            }
            None => fresh.push(at),
        }
    }
    let find = || starts(reader, &fresh, start_from, || has_past(reader, inputs));
    let starts = patiently(stop, find).map_err(refused)?;
    if !starts.is_empty() {
        let list = list_with_offsets(starts.iter().map(|(at, offset)| (at, *offset, None)));
        reader.commit(&list.map_err(refused)?)?;
    }
    assigned.extend(starts.into_iter().map(|(at, next_offset)| Assigned { at, next_offset, metadata: None }));
    Ok(assigned)
}

/// First offsets of partitions nobody has read, as [`continue_at`] says.
pub(crate) fn starts(
    reader: &Reader,
    fresh: &[TopicPartition],
    start_from: Option<StartFrom>,
    has_past: impl FnOnce() -> Result<bool, Fault>,
) -> Result<Vec<(TopicPartition, i64)>, Fault> {
    let Some(first) = fresh.first() else { return Ok(Vec::new()) };
    let from = match start_from {
        Some(from) => from,
        None if has_past()? => StartFrom::Earliest,
        None => {
            return Err(Fault::fatal(format!(
                "no offset is committed for {} [{}] and the group has read nothing else: say where to begin \
                 with --start-from earliest, latest or an instant",
                first.topic, first.partition
            )));
        }
    };
    tracing::info!(partitions = %named(fresh), %from, "partitions that the group has never read");
    let mut starts = Vec::with_capacity(fresh.len());
    for at in fresh {
        let offset = offset_at(reader, at, from)?;
        tracing::debug!(topic = &*at.topic, partition = at.partition, offset, %from, "starts a partition that the group has never read");
        starts.push((at.clone(), offset));
    }
    Ok(starts)
}

/// Whether the group has an offset of any partition of its inputs.
pub(crate) fn has_past(reader: &Reader, inputs: &Inputs) -> Result<bool, Fault> {
    let metadata = reader
        .consumer()
        .fetch_metadata(None, ASK)
        .map_err(|error| transient("topics could not be looked up", &error))?;
    let topics = metadata.topics().iter().filter(|topic| inputs.may_cover(topic.name()));
    let partitions: Vec<_> = topics
        .flat_map(|topic| topic.partitions().iter().map(|p| (topic.name(), p.id())))
        .map(|(topic, partition)| TopicPartition { topic: topic.into(), partition })
        .collect();
    Ok(reader.committed(&partitions)?.iter().any(|(_, committed)| committed.is_some()))
}

/// First and last stable offset of a partition.
pub(crate) fn ends(reader: &Reader, at: &TopicPartition) -> Result<(i64, i64), Fault> {
    reader.consumer().fetch_watermarks(&at.topic, at.partition, ASK).map_err(|error| unread(at, &error))
}

fn unread(at: &TopicPartition, error: &KafkaError) -> Fault {
    transient(&format!("the offsets of {} [{}] could not be read", at.topic, at.partition), error)
}

fn offset_at(reader: &Reader, at: &TopicPartition, from: StartFrom) -> Result<i64, Fault> {
    let (low, high) = ends(reader, at)?;
    match from {
        StartFrom::Earliest => Ok(low),
        StartFrom::Latest => Ok(high),
        StartFrom::Timestamp(ms) => {
            let failed = |error: KafkaError| unread(at, &error);
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(&at.topic, at.partition, Offset::Offset(ms)).map_err(failed)?;
            let found = reader.consumer().offsets_for_times(list, ASK).map_err(failed)?;
            match found.find_partition(&at.topic, at.partition).map(|element| element.offset()) {
                Some(Offset::Offset(offset)) => Ok(offset),
                // No record at or after the instant.
                _ => Ok(high),
            }
        }
    }
}
