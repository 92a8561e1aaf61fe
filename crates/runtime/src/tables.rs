use std::sync::Arc;

use fhirehose_stream::{Fault, Processor};

use crate::clients::Clients;
use crate::replay::Replay;
use crate::stop::Stop;

/// Table records handed over between two batches at most, so that a busy table does not starve the stream.
const BETWEEN_BATCHES: usize = 2_000;

/// The table topics of one worker: read whole before anything is processed, and followed from then on.
pub(crate) struct Tables {
    replay: Replay,
}

impl Tables {
    /// Reads the topics to the end they have now.
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
        let mut replay = Replay::new(clients, &format!("{group}.tables"))?;
        let mut next = Vec::new();
        for topic in topics {
            let partitions = replay.partitions_of(topic)?;
            let mut count = 0_u64;
            let ends = replay.to_end(topic, &partitions, stop, &mut || Ok(()), &mut |record| {
                count += 1;
                processor.table(record)
            })?;
            tracing::info!(topic = &**topic, records = count, "table read");
            next.extend(ends);
        }
        replay.follow(&next)?;
        Ok(Some(Tables { replay }))
    }

    /// Hands over what has arrived since; returns whether anything has.
    pub(crate) fn follow(&mut self, processor: &mut dyn Processor) -> Result<bool, Fault> {
        let count = self.replay.arrived(BETWEEN_BATCHES, &mut |record| processor.table(record))?;
        Ok(count > 0)
    }
}
