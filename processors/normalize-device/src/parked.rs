//! Readings that wait for their device's assignment: in memory, and in the changelog within the same
//! transaction.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use fhirehose_faultpoint::planted;
use fhirehose_stream::{Fault, Outputs, Record, TopicPartition};

use crate::PARKED;

/// Header of a changelog record: the message's own headers, as a JSON object of texts.
const HEADER_HEADERS: &str = "fhirehose-headers";
/// Header of a changelog record: the reading's time in milliseconds since the epoch.
const HEADER_OBSERVED_AT: &str = "fhirehose-observed-at";

/// Which reading of which message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ItemKey {
    pub at: TopicPartition,
    pub offset: i64,
    /// Number of the reading in its message.
    pub item: usize,
}

/// A reading with all it takes to map it later. No `Debug`: it holds personal data.
#[derive(Clone)]
pub(crate) struct Item {
    /// The whole message.
    pub value: Arc<[u8]>,
    pub headers: Arc<str>,
    pub record_time: i64,
    pub observed_at: i64,
}

#[derive(Default)]
pub(crate) struct Parked {
    by_device: HashMap<String, BTreeMap<ItemKey, Item>>,
    owned: BTreeSet<TopicPartition>,
    /// Devices whose assignments changed, and the last of their readings looked at since.
    awake: BTreeMap<String, Option<ItemKey>>,
    undo: Vec<Undo>,
    /// A changelog partition holds readings of all input topics, also of those another instance owns.
    unsettled: bool,
}

/// What an aborted transaction takes back.
enum Undo {
    Parked(String, ItemKey),
    Removed(String, ItemKey, Item),
    Looked(String, Option<ItemKey>),
}

impl Parked {
    pub fn park(&mut self, device: String, key: ItemKey, item: Item, out: &mut Outputs) {
        let written: Result<(), std::convert::Infallible> = out
            .to(&PARKED.into(), key.text(&device).as_bytes())
            .partition(key.at.partition)
            .timestamp_ms(item.record_time)
            .header(HEADER_HEADERS, item.headers.as_bytes())
            .header(HEADER_OBSERVED_AT, item.observed_at.to_string().as_bytes())
            .value(|bytes| {
                bytes.extend_from_slice(&item.value);
                Ok(())
            });
        let Ok(()) = written;
        self.undo.push(Undo::Parked(device.clone(), key.clone()));
        self.by_device.entry(device).or_default().insert(key, item);
    }

    pub fn remove(&mut self, device: &str, key: &ItemKey, out: &mut Outputs) {
        if let Some(item) = self.take(device, key) {
            out.to(&PARKED.into(), key.text(device).as_bytes()).partition(key.at.partition).tombstone();
            self.undo.push(Undo::Removed(device.to_owned(), key.clone(), item));
        }
    }

    fn take(&mut self, device: &str, key: &ItemKey) -> Option<Item> {
        let items = self.by_device.get_mut(device)?;
        let item = items.remove(key);
        if items.is_empty() {
            self.by_device.remove(device);
        }
        item
    }

    /// The device's readings are to be looked at (again).
    pub fn awake(&mut self, device: &str) {
        if self.by_device.contains_key(device) {
            self.awake.insert(device.to_owned(), None);
        }
    }

    /// The next reading to be looked at.
    pub fn next_awake(&mut self) -> Option<(String, ItemKey, Item)> {
        loop {
            let (device, last) = self.awake.pop_first()?;
            self.undo.push(Undo::Looked(device.clone(), last.clone()));
            let seen = last.map_or(Bound::Unbounded, Bound::Excluded);
            let next = self.by_device.get(&device).and_then(|items| match planted("park-order-broken") {
                // Planted: the last to be parked flows first.
                true => items.range((Bound::Unbounded, seen)).next_back(),
                false => items.range((seen, Bound::Unbounded)).next(),
            });
            if let Some((key, item)) = next {
                self.awake.insert(device.clone(), Some(key.clone()));
                return Some((device, key.clone(), item.clone()));
            }
        }
    }

    pub fn commit(&mut self) {
        self.undo.clear();
    }

    pub fn abort(&mut self) {
        while let Some(undo) = self.undo.pop() {
            match undo {
                Undo::Parked(device, key) => {
                    self.take(&device, &key);
                }
                Undo::Removed(device, key, item) => {
                    self.by_device.entry(device).or_default().insert(key, item);
                }
                Undo::Looked(device, last) => {
                    self.awake.insert(device, last);
                }
            }
        }
    }

    pub fn own(&mut self, partitions: impl Iterator<Item = TopicPartition>) {
        self.owned.extend(partitions);
    }

    pub fn disown(&mut self, partitions: &[TopicPartition]) {
        self.owned.retain(|at| !partitions.contains(at));
        self.unsettled = true;
        self.settle();
    }

    /// Forgets readings of partitions that are not ours; called once restoring is over.
    pub fn settle(&mut self) {
        if std::mem::take(&mut self.unsettled) {
            let owned = &self.owned;
            self.by_device.retain(|_, items| {
                items.retain(|key, _| owned.contains(&key.at));
                !items.is_empty()
            });
        }
    }

    /// A record of the changelog. Every restored device is looked at: its assignment may have come meanwhile.
    pub fn restore(&mut self, record: Record<'_>) -> Result<(), Fault> {
        // Planted: what waits is forgotten with the instance that held it.
        if planted("parked-not-restored") {
            return Ok(());
        }
        self.unsettled = true;
        let key = record.key().and_then(|key| std::str::from_utf8(key).ok()).and_then(ItemKey::of_text);
        let (device, key) = key.ok_or_else(|| not_ours(&record, "key"))?;
        let Some(value) = record.value() else {
            self.take(&device, &key);
            return Ok(());
        };
        let headers = record.header(HEADER_HEADERS).and_then(|json| std::str::from_utf8(json).ok());
        let item = Item {
            value: value.into(),
            headers: headers.ok_or_else(|| not_ours(&record, HEADER_HEADERS))?.into(),
            record_time: record.timestamp_ms(),
            observed_at: record
                .header_i64(HEADER_OBSERVED_AT)
                .ok_or_else(|| not_ours(&record, HEADER_OBSERVED_AT))?,
        };
        self.by_device.entry(device.clone()).or_default().insert(key, item);
        self.awake(&device);
        Ok(())
    }
}

fn not_ours(record: &Record<'_>, what: &str) -> Fault {
    let (partition, offset) = (record.partition(), record.offset());
    Fault::fatal(format!("{PARKED} {partition} at {offset} is not a record of ours: {what}"))
}

impl ItemKey {
    /// `<device_id>/<topic>/<partition>/<offset>/<item>`; none of the parts has a slash.
    fn text(&self, device: &str) -> String {
        format!("{device}/{}/{}/{}/{}", self.at.topic, self.at.partition, self.offset, self.item)
    }

    fn of_text(text: &str) -> Option<(String, ItemKey)> {
        let mut parts = text.split('/');
        let (device, topic) = (parts.next()?.to_owned(), parts.next()?.into());
        let partition = parts.next()?.parse().ok()?;
        let (offset, item) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let at = TopicPartition { topic, partition };
        parts.next().is_none().then_some((device, ItemKey { at, offset, item }))
    }
}
