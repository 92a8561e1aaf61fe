use std::collections::HashMap;
use std::sync::Arc;

use fhirehose_stream::{Fault, TopicPartition};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

/// Topic names, each allocated once per worker.
#[derive(Default)]
pub(crate) struct Names(HashMap<String, Arc<str>>);

impl Names {
    pub(crate) fn get(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return known.clone();
        }
        let new: Arc<str> = name.into();
        self.0.insert(name.to_owned(), new.clone());
        new
    }
}

/// The partitions of librdkafka's list.
pub(crate) fn partitions(list: &TopicPartitionList, names: &mut Names) -> Vec<TopicPartition> {
    let at =
        |e: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| (e.topic().to_owned(), e.partition());
    list.elements()
        .iter()
        .map(at)
        .map(|(topic, partition)| TopicPartition { topic: names.get(&topic), partition })
        .collect()
}

/// A list without offsets.
pub(crate) fn list<'a>(partitions: impl IntoIterator<Item = &'a TopicPartition>) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for at in partitions {
        list.add_partition(&at.topic, at.partition);
    }
    list
}

/// A list with offsets, and metadata where there is some.
pub(crate) fn list_with_offsets<'a>(
    offsets: impl IntoIterator<Item = (&'a TopicPartition, i64, Option<String>)>,
) -> Result<TopicPartitionList, Fault> {
    let mut list = TopicPartitionList::new();
    for (at, offset, metadata) in offsets {
        let mut element = list.add_partition(&at.topic, at.partition);
        element.set_offset(Offset::Offset(offset)).map_err(|_| {
            Fault::fatal(format!("offset {offset} of {} [{}] cannot be", at.topic, at.partition))
        })?;
        if let Some(metadata) = metadata {
            if metadata.len() > 4096 {
                return Err(Fault::fatal("offset metadata is longer than the 4096 bytes Kafka keeps"));
            }
            element.set_metadata(metadata);
        }
    }
    Ok(list)
}

/// A Kafka error that may pass.
pub(crate) fn transient(what: &str, error: &KafkaError) -> Fault {
    Fault::transient(format!("{what}: {}", error.to_string().to_lowercase()))
}
