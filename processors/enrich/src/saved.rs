//! The reference store on disk, so that a start need not read the table topics whole.

use std::path::PathBuf;

use fhirehose_state::ReferenceStore;
use fhirehose_stream::{Fault, TopicPartition};

/// A snapshot must be younger than the `delete.retention.ms` of the table topics, by default one day.
const MAX_SECONDS: i64 = 12 * 3600;

/// Where the reference store is saved, and the clock that says when.
pub struct Saved {
    pub path: PathBuf,
    /// Seconds since the epoch.
    pub now: fn() -> i64,
}

impl Saved {
    /// The store and the next offsets of its topics; none where nothing usable was saved, or of another declaration:
    /// then the topics are read whole, which is slower and the same.
    pub(crate) fn load(&self, declaration: &str) -> Option<(ReferenceStore, Vec<(TopicPartition, i64)>)> {
        fhirehose_state::load(&self.path, declaration, (self.now)(), MAX_SECONDS).ok()
    }

    pub(crate) fn save(
        &self,
        store: &ReferenceStore,
        next: &[(TopicPartition, i64)],
        declaration: &str,
    ) -> Result<(), Fault> {
        fhirehose_state::save(&self.path, store, next, declaration, (self.now)())
            .map_err(|error| Fault::transient(error.to_string()))
    }
}
