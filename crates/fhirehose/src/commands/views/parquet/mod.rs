mod columns;
mod physical;

use std::io::{self, Write};
use std::mem;
use std::sync::Arc;

use fhirehose_views::View;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::Type;

pub use columns::Columns;
pub use physical::Physical;

/// Rows of a row group; it ends with the batch that reaches it, or [`GROUP_BYTES`].
const GROUP_ROWS: usize = 1 << 17;
/// Bytes of a row group as they are in memory.
const GROUP_BYTES: usize = 1 << 26;

/// A Parquet file in the making.
pub struct File {
    writer: SerializedFileWriter<Box<dyn Write + Send>>,
    /// Of the row group to come.
    pending: Vec<Columns>,
}

impl File {
    pub fn begin(view: &View, types: &[Physical], out: Box<dyn Write + Send>) -> io::Result<Self> {
        let fields = view.columns().iter().zip(types);
        let fields: Result<_, ParquetError> =
            fields.map(|(column, of)| of.schema(&column.name).map(Arc::new)).collect();
        let schema = Type::group_type_builder(view.resource()).with_fields(fields?).build()?;
        let properties = WriterProperties::builder()
            .set_created_by(concat!("fhirehose version ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_compression(Compression::SNAPPY)
            .build();
        let writer = SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties))?;
        Ok(File { writer, pending: Vec::new() })
    }

    /// Adds rows, and writes a row group when there are enough.
    pub fn write(&mut self, columns: Columns) -> io::Result<()> {
        if columns.rows() == 0 {
            return Ok(());
        }
        self.pending.push(columns);
        let sum = |of: fn(&Columns) -> usize| self.pending.iter().map(of).sum::<usize>();
        if sum(Columns::rows) < GROUP_ROWS && sum(Columns::bytes) < GROUP_BYTES {
            return Ok(());
        }
        Ok(self.write_group()?)
    }

    fn write_group(&mut self) -> Result<(), ParquetError> {
        let mut batches: Vec<_> =
            mem::take(&mut self.pending).into_iter().map(|columns| columns.0.into_iter()).collect();
        let mut group = self.writer.next_row_group()?;
        while let Some(mut column) = group.next_column()? {
            for buffer in batches.iter_mut().filter_map(Iterator::next) {
                buffer.write(&mut column)?;
            }
            column.close()?;
        }
        group.close()?;
        Ok(())
    }

    pub fn finish(mut self) -> io::Result<()> {
        if !self.pending.is_empty() {
            self.write_group()?;
        }
        self.writer.finish()?;
        self.writer.inner_mut().flush()
    }
}
