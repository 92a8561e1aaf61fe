use std::io::{self, Write};

use clap::ValueEnum;
use fhirehose_tape::write_string;
use fhirehose_views::{Cell, RowError, View};

use super::parquet::{Columns, File, Physical};

/// What rows are written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A line of names, then a line per row; what is absent is empty
    Csv,
    /// A JSON object per line; what is absent is null
    Ndjson,
    /// Apache Parquet, Snappy; types by the columns' FHIR types and `ansi/type` tags
    Parquet,
}

/// How rows of a view are written.
pub enum Layout {
    Csv,
    /// What stands before each cell.
    Ndjson(Vec<Vec<u8>>),
    Parquet(Vec<Physical>),
}

impl Layout {
    /// Of a view in a format; an error where a column cannot be written as its tag says.
    pub fn of(view: &View, format: Format) -> Result<Self, String> {
        Ok(match format {
            Format::Csv => Layout::Csv,
            Format::Ndjson => Layout::Ndjson(
                view.columns()
                    .iter()
                    .enumerate()
                    .map(|(i, column)| {
                        let mut before = vec![if i == 0 { b'{' } else { b',' }];
                        write_string(&column.name, &mut before);
                        before.push(b':');
                        before
                    })
                    .collect(),
            ),
            Format::Parquet => {
                Layout::Parquet(view.columns().iter().map(Physical::of).collect::<Result<_, _>>()?)
            }
        })
    }

    /// No rows yet.
    pub fn rows(&self) -> Rows {
        let data = match self {
            Layout::Csv => Data::Csv(Box::new(csv::Writer::from_writer(Vec::new()))),
            Layout::Ndjson(_) => Data::Ndjson(Vec::new()),
            Layout::Parquet(types) => Data::Parquet(Columns::new(types)),
        };
        Rows { count: 0, data }
    }
}

/// Encoded rows.
pub struct Rows {
    pub count: u64,
    data: Data,
}

enum Data {
    Csv(Box<csv::Writer<Vec<u8>>>),
    Ndjson(Vec<u8>),
    Parquet(Columns),
}

impl Rows {
    /// Adds the rows of one resource: all, or after an error none. `give` hands them over one by one.
    pub fn add<'c>(
        &mut self,
        view: &View,
        layout: &Layout,
        give: impl FnOnce(&mut dyn FnMut(&[Cell<'c>])) -> Result<(), RowError>,
    ) -> Result<(), RowError> {
        let before = self.count;
        let mut failed = None;
        let given = give(&mut |row: &[Cell<'c>]| {
            if failed.is_none() {
                failed = self.row(view, layout, row).err();
                self.count += 1;
            }
        });
        let done = given.and_then(|()| failed.map_or(Ok(()), Err));
        if done.is_err() {
            self.count = before;
            if let Data::Parquet(columns) = &mut self.data {
                columns.truncate(before as usize);
            }
        }
        done
    }

    fn row(&mut self, view: &View, layout: &Layout, row: &[Cell<'_>]) -> Result<(), RowError> {
        match (&mut self.data, layout) {
            (Data::Csv(out), _) => csv_row(out, row)
                .map_err(|error| RowError { column: "rows".into(), message: error.to_string() }),
            (Data::Ndjson(out), Layout::Ndjson(names)) => {
                for (before, cell) in names.iter().zip(row) {
                    out.extend_from_slice(before);
                    json_cell(out, cell);
                }
                out.extend_from_slice(b"}\n");
                Ok(())
            }
            (Data::Parquet(columns), _) => columns.push(row).map_err(|(column, message)| RowError {
                column: view.columns()[column].name.clone(),
                message,
            }),
            (Data::Ndjson(_), _) => Ok(()),
        }
    }
}

fn csv_row(out: &mut csv::Writer<Vec<u8>>, row: &[Cell<'_>]) -> csv::Result<()> {
    for cell in row {
        match cell {
            Cell::Null => out.write_field(""),
            Cell::Bool(value) => out.write_field(if *value { "true" } else { "false" }),
            Cell::Integer(value) => out.write_field(value.to_string()),
            Cell::Decimal(text)
            | Cell::Text(text)
            | Cell::Date(text)
            | Cell::DateTime(text)
            | Cell::Time(text) => out.write_field(text.as_bytes()),
            Cell::Json(json) => out.write_field(json),
        }?;
    }
    out.write_record(None::<&[u8]>)
}

fn json_cell(out: &mut Vec<u8>, cell: &Cell<'_>) {
    match cell {
        Cell::Null => out.extend_from_slice(b"null"),
        Cell::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        Cell::Integer(value) => out.extend_from_slice(value.to_string().as_bytes()),
        Cell::Decimal(text) => out.extend_from_slice(text.as_bytes()),
        Cell::Text(text) | Cell::Date(text) | Cell::DateTime(text) | Cell::Time(text) => {
            write_string(text, out);
        }
        Cell::Json(json) => out.extend_from_slice(json),
    }
}

/// Where rows go, in the order they are given.
pub enum Sink {
    Text(Box<dyn Write + Send>),
    Parquet(Box<File>),
}

impl Sink {
    /// Begins the output.
    pub fn begin(view: &View, layout: &Layout, mut out: Box<dyn Write + Send>) -> io::Result<Self> {
        Ok(match layout {
            Layout::Csv => {
                let mut header = csv::Writer::from_writer(&mut out);
                header.write_record(view.columns().iter().map(|column| column.name.as_bytes()))?;
                header.flush()?;
                drop(header);
                Sink::Text(out)
            }
            Layout::Ndjson(_) => Sink::Text(out),
            Layout::Parquet(types) => Sink::Parquet(Box::new(File::begin(view, types, out)?)),
        })
    }

    pub fn write(&mut self, rows: Rows) -> io::Result<()> {
        match (self, rows.data) {
            (Sink::Text(out), Data::Csv(rows)) => {
                out.write_all(&rows.into_inner().map_err(|error| error.into_error())?)
            }
            (Sink::Text(out), Data::Ndjson(rows)) => out.write_all(&rows),
            (Sink::Parquet(file), Data::Parquet(columns)) => file.write(columns),
            (Sink::Text(_), Data::Parquet(_)) | (Sink::Parquet(_), _) => {
                Err(io::Error::other("rows of another format"))
            }
        }
    }

    /// Ends the output.
    pub fn finish(self) -> io::Result<()> {
        match self {
            Sink::Text(mut out) => out.flush(),
            Sink::Parquet(file) => file.finish(),
        }
    }
}
