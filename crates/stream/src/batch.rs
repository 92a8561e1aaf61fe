use std::ops::Range;
use std::sync::Arc;

use crate::{Fault, Verdict, Verdicts};

/// One partition of one topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    pub topic: Arc<str>,
    pub partition: i32,
}

/// Records in the order they were polled; offsets rise within a partition. All payload bytes sit in one
/// buffer that is reused from batch to batch, so a record costs no allocation.
#[derive(Default)]
pub struct Batch {
    bytes: Vec<u8>,
    records: Vec<Meta>,
    headers: Vec<(Range<usize>, Option<Range<usize>>)>,
}

struct Meta {
    at: TopicPartition,
    offset: i64,
    timestamp_ms: i64,
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
    headers: Range<usize>,
}

impl Batch {
    /// Appends a record, copying its bytes.
    #[expect(clippy::too_many_arguments, reason = "a Kafka record has this many parts; called in one place")]
    pub fn push<'h>(
        &mut self,
        topic: &Arc<str>,
        partition: i32,
        offset: i64,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl Iterator<Item = (&'h str, Option<&'h [u8]>)>,
    ) {
        let first = self.headers.len();
        for (name, value) in headers {
            let name = copy(&mut self.bytes, name.as_bytes());
            let value = value.map(|v| copy(&mut self.bytes, v));
            self.headers.push((name, value));
        }
        let key = key.map(|k| copy(&mut self.bytes, k));
        let value = value.map(|v| copy(&mut self.bytes, v));
        self.records.push(Meta {
            at: TopicPartition { topic: topic.clone(), partition },
            offset,
            timestamp_ms,
            key,
            value,
            headers: first..self.headers.len(),
        });
    }

    /// Appends a copy of a record of another batch.
    pub fn push_record(&mut self, record: &Record<'_>) {
        let at = record.at();
        self.push(
            &at.topic,
            at.partition,
            record.offset(),
            record.timestamp_ms(),
            record.key(),
            record.value(),
            record.headers(),
        );
    }

    pub fn len(&self) -> usize {
        self.records.len()
    }

    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes of keys, values and headers held.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.records.clear();
        self.headers.clear();
    }

    pub fn get(&self, index: usize) -> Option<Record<'_>> {
        (index < self.records.len()).then_some(Record { batch: self, index })
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = Record<'_>> {
        (0..self.records.len()).map(|index| Record { batch: self, index })
    }

    /// Drops the records `keep` refuses, as on a revoked partition. Their bytes stay until `clear`.
    pub fn retain(&mut self, keep: impl Fn(&TopicPartition) -> bool) {
        self.records.retain(|meta| keep(&meta.at));
    }

    /// The only way to make [`Verdicts`]: one verdict for every record, in order.
    pub fn judge(
        &self,
        mut verdict: impl FnMut(Record<'_>) -> Result<Verdict, Fault>,
    ) -> Result<Verdicts, Fault> {
        self.iter().map(&mut verdict).collect::<Result<Vec<_>, _>>().map(Verdicts::new)
    }
}

fn copy(bytes: &mut Vec<u8>, part: &[u8]) -> Range<usize> {
    let start = bytes.len();
    bytes.extend_from_slice(part);
    start..bytes.len()
}

/// A record of a [`Batch`].
#[derive(Clone, Copy)]
pub struct Record<'b> {
    batch: &'b Batch,
    index: usize,
}

/// Headers of a record, in order; a name may occur more than once.
pub struct Headers<'b> {
    batch: &'b Batch,
    range: Range<usize>,
}

impl<'b> Record<'b> {
    fn meta(&self) -> &'b Meta {
        &self.batch.records[self.index]
    }

    /// Position in its batch.
    pub fn index(&self) -> usize {
        self.index
    }

    pub fn at(&self) -> &'b TopicPartition {
        &self.meta().at
    }

    pub fn topic(&self) -> &'b str {
        &self.meta().at.topic
    }

    pub fn partition(&self) -> i32 {
        self.meta().at.partition
    }

    pub fn offset(&self) -> i64 {
        self.meta().offset
    }

    /// Kafka's record timestamp, milliseconds since the epoch.
    pub fn timestamp_ms(&self) -> i64 {
        self.meta().timestamp_ms
    }

    pub fn key(&self) -> Option<&'b [u8]> {
        self.meta().key.clone().map(|range| &self.batch.bytes[range])
    }

    /// `None` is a tombstone.
    pub fn value(&self) -> Option<&'b [u8]> {
        self.meta().value.clone().map(|range| &self.batch.bytes[range])
    }

    pub fn headers(&self) -> Headers<'b> {
        Headers { batch: self.batch, range: self.meta().headers.clone() }
    }

    /// The last header of that name, as Kafka's own clients read it.
    pub fn header(&self, name: &str) -> Option<&'b [u8]> {
        self.headers().filter(|(n, _)| *n == name).last().and_then(|(_, value)| value)
    }

    /// A header that holds a decimal integer, as ours do.
    pub fn header_i64(&self, name: &str) -> Option<i64> {
        std::str::from_utf8(self.header(name)?).ok()?.parse().ok()
    }
}

impl<'b> Iterator for Headers<'b> {
    type Item = (&'b str, Option<&'b [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, value) = &self.batch.headers[self.range.next()?];
        // Names were `&str` when they were copied in.
        let name = std::str::from_utf8(&self.batch.bytes[name.clone()]).unwrap_or_default();
        Some((name, value.clone().map(|range| &self.batch.bytes[range])))
    }
}
