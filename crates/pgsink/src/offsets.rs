//! `fhirehose.sink_offsets`: where each pipeline continues, and which claim of a partition is the last.

use std::collections::HashMap;

use fhirehose_faultpoint::planted;
use fhirehose_stream::{Batch, Fault, TopicPartition};
use postgres::{Client, Statement};

use crate::StoreError;

/// A claim: bumps the epoch, which shuts out the partition's earlier owner, and waits for a transaction of
/// theirs that is still open. Keys are sorted so that two claims cannot wait for each other.
const CLAIM: &str = "
    INSERT INTO fhirehose.sink_offsets AS o (pipeline, topic, part, epoch, topic_id)
    SELECT $1, p.topic, p.part, 1, p.topic_id
    FROM unnest($2::text[], $3::int4[], $4::text[]) AS p (topic, part, topic_id) ORDER BY p.topic, p.part
    ON CONFLICT (pipeline, topic, part) DO UPDATE SET
        epoch = o.epoch + 1,
        updated_at = now(),
        topic_id = CASE WHEN o.next_off IS NULL THEN excluded.topic_id ELSE coalesce(o.topic_id, excluded.topic_id) END
    RETURNING topic, part, epoch, next_off, topic_id";

const START: &str = "
    UPDATE fhirehose.sink_offsets AS o SET next_off = p.next_off, updated_at = now()
    FROM unnest($2::text[], $3::int4[], $4::int8[], $5::int8[]) AS p (topic, part, epoch, next_off)
    WHERE o.pipeline = $1 AND o.topic = p.topic AND o.part = p.part AND o.epoch = p.epoch AND o.next_off IS NULL";

/// Moves the offsets on, only where the epoch and the offset are still those of this worker.
const ADVANCE: &str = "
    UPDATE fhirehose.sink_offsets AS o SET next_off = p.next_off, updated_at = now()
    FROM unnest($2::text[], $3::int4[], $4::int8[], $5::int8[], $6::int8[]) AS p (topic, part, epoch, prev, next_off)
    WHERE o.pipeline = $1 AND o.topic = p.topic AND o.part = p.part AND o.epoch = p.epoch AND o.next_off = p.prev";

/// The partitions this worker owns.
#[derive(Default)]
pub(crate) struct Offsets {
    owned: HashMap<TopicPartition, Owned>,
}

#[derive(Clone, Copy)]
struct Owned {
    epoch: i64,
    next: Option<i64>,
}

/// Offsets a batch moves on, by partition: column by column, as the statement takes them.
#[derive(Default)]
pub(crate) struct Advance {
    at: Vec<TopicPartition>,
    epoch: Vec<i64>,
    prev: Vec<i64>,
    next: Vec<i64>,
}

impl Offsets {
    pub(crate) fn claim(
        &mut self,
        client: &mut Client,
        pipeline: &str,
        partitions: &[TopicPartition],
        ids: &HashMap<String, String>,
    ) -> Result<Vec<Option<i64>>, StoreError> {
        let (topics, parts) = columns(partitions.iter());
        let now: Vec<Option<&str>> = topics.iter().map(|topic| ids.get(*topic).map(String::as_str)).collect();
        for row in client.query(CLAIM, &[&pipeline, &topics, &parts, &now])? {
            let topic: String = row.try_get(0)?;
            let partition = row.try_get(1)?;
            let (kept, now): (Option<String>, _) = (row.try_get(4)?, ids.get(&topic));
            if let (Some(kept), Some(now)) = (kept, now)
                && kept != *now
            {
                return Err(Fault::fatal(format!(
                    "the store's offset of {topic} [{partition}] is of a topic that is gone (id {kept}, now {now}): it was \
                     deleted and made anew, or this is another cluster. Nothing of it was read; what to do is in the \
                     runbook under `A topic made anew`"
                ))
                .into());
            }
            let owned = Owned { epoch: row.try_get(2)?, next: row.try_get(3)? };
            self.owned.insert(TopicPartition { topic: topic.into(), partition }, owned);
        }
        Ok(partitions.iter().map(|at| self.owned.get(at).and_then(|owned| owned.next)).collect())
    }

    pub(crate) fn start(
        &mut self,
        client: &mut Client,
        pipeline: &str,
        partitions: &[(TopicPartition, i64)],
    ) -> Result<(), StoreError> {
        let (topics, parts) = columns(partitions.iter().map(|(at, _)| at));
        let epochs = partitions.iter().map(|(at, _)| self.owned(at).map(|owned| owned.epoch));
        let epochs: Vec<i64> = epochs.collect::<Result<_, _>>()?;
        let next: Vec<i64> = partitions.iter().map(|(_, next)| *next).collect();
        let changed = client.execute(START, &[&pipeline, &topics, &parts, &epochs, &next])?;
        if changed != partitions.len() as u64 {
            return Err(Fault::fenced(
                "another worker claimed a partition before its first offset was stored",
            )
            .into());
        }
        for (at, next) in partitions {
            if let Some(owned) = self.owned.get_mut(at) {
                owned.next = Some(*next);
            }
        }
        Ok(())
    }

    pub(crate) fn forget(&mut self, partitions: &[TopicPartition]) {
        for at in partitions {
            self.owned.remove(at);
        }
    }

    fn owned(&self, at: &TopicPartition) -> Result<Owned, Fault> {
        let owned = self.owned.get(at).copied();
        owned.ok_or_else(|| Fault::fenced(format!("{}/{} is not claimed", at.topic, at.partition)))
    }

    /// What the batch moves on. Records before the stored offset would take effect twice: they are refused.
    pub(crate) fn advance(&self, batch: &Batch) -> Result<Advance, Fault> {
        let mut advance = Advance::default();
        let mut slots: HashMap<&TopicPartition, usize> = HashMap::new();
        for record in batch.iter() {
            let at = record.at();
            let slot = match slots.get(at) {
                Some(slot) => *slot,
                None => {
                    let owned = self.owned(at)?;
                    let prev = owned.next.ok_or_else(|| {
                        Fault::fenced(format!("{}/{} has no first offset", at.topic, at.partition))
                    })?;
                    advance.at.push(at.clone());
                    advance.epoch.push(owned.epoch);
                    advance.prev.push(prev);
                    advance.next.push(prev);
                    slots.insert(at, advance.at.len() - 1);
                    advance.at.len() - 1
                }
            };
            if record.offset() < advance.next[slot] {
                return Err(Fault::fenced(format!(
                    "{}/{}: offset {} was read, {} is the next",
                    at.topic,
                    at.partition,
                    record.offset(),
                    advance.next[slot]
                )));
            }
            advance.next[slot] = record.offset() + 1;
        }
        Ok(advance)
    }

    /// The advance is committed.
    pub(crate) fn committed(&mut self, advance: &Advance) {
        for (at, next) in advance.at.iter().zip(&advance.next) {
            if let Some(owned) = self.owned.get_mut(at) {
                owned.next = Some(*next);
            }
        }
    }
}

impl Advance {
    pub(crate) fn prepare(client: &mut Client) -> Result<Statement, postgres::Error> {
        // Planted: offsets move on whoever owns them, or from wherever they are.
        let dropped = if planted("no-epoch-predicate") {
            " AND o.epoch = p.epoch AND o.next_off = p.prev"
        } else if planted("failed-commit-taken-for-done") {
            " AND o.next_off = p.prev"
        } else {
            ""
        };
        client.prepare(ADVANCE.strip_suffix(dropped).unwrap_or(ADVANCE))
    }

    /// Writes the offsets into the open transaction; exactly one row per partition must change.
    pub(crate) fn write(
        &self,
        client: &mut Client,
        statement: &Statement,
        pipeline: &str,
    ) -> Result<(), StoreError> {
        let (topics, parts) = columns(self.at.iter());
        let changed =
            client.execute(statement, &[&pipeline, &topics, &parts, &self.epoch, &self.prev, &self.next])?;
        if changed != self.at.len() as u64 {
            let lost = format!(
                "{} of {} partitions were claimed by another worker",
                self.at.len() as u64 - changed,
                self.at.len()
            );
            return Err(Fault::fenced(lost).into());
        }
        Ok(())
    }
}

fn columns<'a>(partitions: impl Iterator<Item = &'a TopicPartition>) -> (Vec<&'a str>, Vec<i32>) {
    partitions.map(|at| (&*at.topic, at.partition)).unzip()
}
