use std::ops::Range;
use std::sync::Arc;

/// Records to be produced, in one buffer reused from batch to batch.
#[derive(Default)]
pub struct Outputs {
    bytes: Vec<u8>,
    items: Vec<Item>,
    headers: Vec<(&'static str, Range<usize>)>,
}

struct Item {
    topic: Arc<str>,
    partition: Option<i32>,
    timestamp_ms: Option<i64>,
    key: Range<usize>,
    value: Option<Range<usize>>,
    headers: Range<usize>,
}

/// One record to be produced.
#[derive(Clone, Copy)]
pub struct Output<'o> {
    all: &'o Outputs,
    item: &'o Item,
}

impl Outputs {
    /// Starts a record; it is part of the outputs once [`OutputWriter::value`] or
    /// [`OutputWriter::tombstone`] was called, and leaves no trace otherwise.
    pub fn to(&mut self, topic: &Arc<str>, key: &[u8]) -> OutputWriter<'_> {
        let (start, first_header) = (self.bytes.len(), self.headers.len());
        self.bytes.extend_from_slice(key);
        let item = Item {
            topic: topic.clone(),
            partition: None,
            timestamp_ms: None,
            key: start..self.bytes.len(),
            value: None,
            headers: first_header..first_header,
        };
        OutputWriter { outputs: self, item: Some(item), start }
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.items.clear();
        self.headers.clear();
    }

    /// Drops every output after the first `len`: undoes what a record wrote before it was rejected.
    pub fn truncate(&mut self, len: usize) {
        if let Some(item) = self.items.get(len) {
            let (bytes, headers) = (item.key.start, item.headers.start);
            self.items.truncate(len);
            self.bytes.truncate(bytes);
            self.headers.truncate(headers);
        }
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = Output<'_>> {
        self.items.iter().map(|item| Output { all: self, item })
    }
}

/// Writes one output. Header values are copied; names are static.
pub struct OutputWriter<'o> {
    outputs: &'o mut Outputs,
    item: Option<Item>,
    start: usize,
}

impl OutputWriter<'_> {
    /// A fixed partition, as changelogs need; otherwise the producer hashes the key (murmur2).
    pub fn partition(mut self, partition: i32) -> Self {
        if let Some(item) = &mut self.item {
            item.partition = Some(partition);
        }
        self
    }

    /// Record timestamp in milliseconds; the producer's clock is used when none is set.
    pub fn timestamp_ms(mut self, timestamp_ms: i64) -> Self {
        if let Some(item) = &mut self.item {
            item.timestamp_ms = Some(timestamp_ms);
        }
        self
    }

    pub fn header(mut self, name: &'static str, value: &[u8]) -> Self {
        if let Some(item) = &mut self.item {
            let at = self.outputs.bytes.len();
            self.outputs.bytes.extend_from_slice(value);
            self.outputs.headers.push((name, at..self.outputs.bytes.len()));
            item.headers.end = self.outputs.headers.len();
        }
        self
    }

    /// Finishes with a value written straight into the outputs' buffer. On `Err` the record leaves no trace.
    pub fn value<E>(mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        let at = self.outputs.bytes.len();
        write(&mut self.outputs.bytes)?;
        if let Some(mut item) = self.item.take() {
            item.value = Some(at..self.outputs.bytes.len());
            self.outputs.items.push(item);
        }
        Ok(())
    }

    /// Finishes with a null value.
    pub fn tombstone(mut self) {
        if let Some(item) = self.item.take() {
            self.outputs.items.push(item);
        }
    }
}

impl Drop for OutputWriter<'_> {
    fn drop(&mut self) {
        if let Some(item) = &self.item {
            self.outputs.bytes.truncate(self.start);
            self.outputs.headers.truncate(item.headers.start);
        }
    }
}

impl<'o> Output<'o> {
    pub fn topic(&self) -> &'o Arc<str> {
        &self.item.topic
    }

    pub fn partition(&self) -> Option<i32> {
        self.item.partition
    }

    pub fn timestamp_ms(&self) -> Option<i64> {
        self.item.timestamp_ms
    }

    pub fn key(&self) -> &'o [u8] {
        &self.all.bytes[self.item.key.clone()]
    }

    pub fn value(&self) -> Option<&'o [u8]> {
        self.item.value.clone().map(|range| &self.all.bytes[range])
    }

    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &'o [u8])> + 'o {
        let all = self.all;
        all.headers[self.item.headers.clone()].iter().map(|(name, range)| (*name, &all.bytes[range.clone()]))
    }
}
