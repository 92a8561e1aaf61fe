use std::io::Write;

use postgres::Client;

use crate::{ColumnType, Datum, StoreError, WrongType};

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const END: [u8; 2] = (-1i16).to_be_bytes();
/// Bytes sent at a time: enough to keep the socket full, little enough to stay in cache.
const PIECE: usize = 256 * 1024;

/// Rows in the format of binary COPY, in a buffer that is reused from batch to batch.
pub struct CopyRows {
    columns: String,
    types: Vec<ColumnType>,
    bytes: Vec<u8>,
    rows: usize,
}

/// An end of rows, made by [`CopyRows::mark`].
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    bytes: usize,
    rows: usize,
}

impl CopyRows {
    /// Rows of these columns; the names must be trusted SQL identifiers.
    pub fn new(columns: &[(String, ColumnType)]) -> CopyRows {
        let names: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
        CopyRows {
            columns: names.join(", "),
            types: columns.iter().map(|(_, kind)| *kind).collect(),
            bytes: Vec::new(),
            rows: 0,
        }
    }

    /// Appends a row with one value per column, in order. On `Err`, which says the column's position, the row
    /// leaves no trace.
    pub fn push<'a>(&mut self, values: impl Iterator<Item = Datum<'a>>) -> Result<(), (usize, WrongType)> {
        if self.bytes.is_empty() {
            self.bytes.extend_from_slice(SIGNATURE);
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&(self.types.len() as i16).to_be_bytes());
        let mut count = 0;
        for (kind, value) in self.types.iter().zip(values) {
            if let Err(wrong) = kind.write(value, &mut self.bytes) {
                self.bytes.truncate(start);
                return Err((count, wrong));
            }
            count += 1;
        }
        if count != self.types.len() {
            self.bytes.truncate(start);
            return Err((count, WrongType));
        }
        self.rows += 1;
        Ok(())
    }

    /// Bytes so far: where the next row will begin, or the last one ended.
    pub fn end(&self) -> usize {
        self.bytes.len()
    }

    /// Overwrites an `int8` value that was written earlier; `at` is where its eight bytes begin.
    pub fn patch_int8(&mut self, at: usize, value: i64) {
        if let Some(bytes) = self.bytes.get_mut(at..at + 8) {
            bytes.copy_from_slice(&value.to_be_bytes());
        }
    }

    /// Where the rows end now, for [`CopyRows::rewind`].
    pub fn mark(&self) -> Mark {
        Mark { bytes: self.bytes.len(), rows: self.rows }
    }

    /// Drops the rows pushed since that mark.
    pub fn rewind(&mut self, mark: Mark) {
        self.bytes.truncate(mark.bytes);
        self.rows = mark.rows;
    }

    pub fn len(&self) -> usize {
        self.rows
    }

    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.rows = 0;
    }

    /// Copies the rows, if there are any, into that table. They stay in the buffer.
    pub fn copy_into(&self, client: &mut Client, table: &str) -> Result<u64, StoreError> {
        if self.rows == 0 {
            return Ok(0);
        }
        let statement = format!("COPY {table} ({}) FROM STDIN (FORMAT binary)", self.columns);
        let mut writer = client.copy_in(&statement)?;
        for piece in self.bytes.chunks(PIECE) {
            writer.write_all(piece).map_err(lost)?;
        }
        writer.write_all(&END).map_err(lost)?;
        Ok(writer.finish()?)
    }
}

/// The driver wraps its own error in an I/O error while it copies.
fn lost(error: std::io::Error) -> StoreError {
    match error.downcast::<postgres::Error>() {
        Ok(error) => StoreError::Postgres(error),
        Err(error) => {
            StoreError::Fault(fhirehose_stream::Fault::transient(format!("copying rows: {}", error.kind())))
        }
    }
}
