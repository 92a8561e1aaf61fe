use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fhirehose_stream::{Fault, Processor, TopicPartition};

use crate::clients::Clients;
use crate::replay::Replay;
use crate::stop::Stop;

/// Table records handed over between two batches at most, so that a busy table does not starve the stream.
const BETWEEN_BATCHES: usize = 2_000;

const CHECKPOINT: Duration = Duration::from_secs(60);

/// The table topics of one worker: read whole before anything is processed, and followed from then on.
pub(crate) struct Tables {
    topics: Vec<Arc<str>>,
    replay: Replay,
    next: HashMap<TopicPartition, i64>,
    saved: Instant,
}

impl Tables {
    /// Reads the topics to the end they have now, from where the processor's snapshot ends if it has one.
    pub(crate) fn load(
        clients: &Clients,
        group: &str,
        topics: &[Arc<str>],
        processor: &mut dyn Processor,
        stop: &Stop,
    ) -> Result<Option<Tables>, Fault> {
        if topics.is_empty() {
            return Ok(None);
        }
        let replay = Replay::new(clients, &format!("{group}.tables"))?;
        processor.identify(replay.topic_ids(topics)?);
        let next = processor.table_start().into_iter().collect();
        let mut tables = Tables { topics: topics.to_vec(), replay, next, saved: Instant::now() };
        tables.catch_up(processor, stop, &mut || Ok(()))?;
        Ok(Some(tables))
    }

    /// Reads on to the end the topics have now. Also before partitions are taken over: their last owner may have
    /// known more of the tables than this worker does, and what is copied from them must not go back in time.
    pub(crate) fn catch_up(
        &mut self,
        processor: &mut dyn Processor,
        stop: &Stop,
        idle: &mut dyn FnMut() -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        for topic in &self.topics {
            let partitions = self.replay.partitions_of(topic)?;
            let mut count = 0_u64;
            let ends =
                self.replay.read_to_end(topic, &partitions, &self.next, stop, idle, &mut |record| {
                    count += 1;
                    processor.table(record)
                })?;
            tracing::info!(topic = &**topic, records = count, "table read");
            self.next.extend(ends);
        }
        let offsets: Vec<_> = self.next.iter().map(|(at, offset)| (at.clone(), *offset)).collect();
        self.replay.follow(&offsets)
    }

    /// Hands over what has arrived since.
    pub(crate) fn follow(&mut self, processor: &mut dyn Processor) -> Result<(), Fault> {
        let next = &mut self.next;
        self.replay.arrived(BETWEEN_BATCHES, &mut |record| {
            next.insert(record.at().clone(), record.offset() + 1);
            processor.table(record)
        })?;
        if self.saved.elapsed() > CHECKPOINT {
            self.checkpoint(processor);
        }
        Ok(())
    }

    /// Lets the processor save what it knows of the tables.
    pub(crate) fn checkpoint(&mut self, processor: &mut dyn Processor) {
        self.saved = Instant::now();
        let offsets: Vec<_> = self.next.iter().map(|(at, offset)| (at.clone(), *offset)).collect();
        if let Err(fault) = processor.checkpoint(&offsets) {
            tracing::warn!(
                why = fault.what,
                "no snapshot of the tables was saved; they are read whole at the next start"
            );
        }
    }
}
