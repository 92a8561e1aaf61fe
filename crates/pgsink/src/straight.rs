use postgres::Client;
use postgres::error::SqlState;

use crate::{CopyRows, StoreError};

/// After a row met one that is there already, batches are merged this many times before the straight way is
/// tried again: replays and corrections come in runs.
const MERGES: u32 = 64;

/// The straight way into a table whose rows are nearly always new: COPY into the table itself. Where a row is
/// there already the caller merges the batch through a temporary table instead.
#[derive(Default)]
pub struct Straight {
    merges_left: u32,
}

impl Straight {
    /// Copies the rows into the table; `false`, and nothing written, where they must be merged. `repeats`
    /// says that a key occurs twice among them.
    pub fn copy(
        &mut self,
        client: &mut Client,
        rows: &CopyRows,
        table: &str,
        repeats: bool,
    ) -> Result<bool, StoreError> {
        let waiting = self.merges_left > 0;
        self.merges_left = self.merges_left.saturating_sub(1);
        if waiting || repeats {
            return Ok(false);
        }
        client.batch_execute("SAVEPOINT straight")?;
        match rows.copy_into(client, table) {
            Ok(_) => {
                client.batch_execute("RELEASE SAVEPOINT straight")?;
                Ok(true)
            }
            Err(StoreError::Postgres(error)) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => {
                client.batch_execute("ROLLBACK TO SAVEPOINT straight; RELEASE SAVEPOINT straight")?;
                self.merges_left = MERGES;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}
