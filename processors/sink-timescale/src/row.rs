use fhirehose_pgsink::{ColumnType, CopyRows, Datum, TableShape};
use fhirehose_stream::{Fault, Reason, Rejection};
use fhirehose_tape::{Kind, Value};
use fhirehose_topics::Schema;

/// Columns the sink adds to the fields of the record.
const ADDED: [&str; 2] = ["version", "source_ts"];

/// The fields of one topic's records as columns of one table.
pub(crate) struct Row {
    fields: Vec<Field>,
}

struct Field {
    name: String,
    column: String,
    required: bool,
}

impl Row {
    pub(crate) fn of(schema: &Schema) -> Row {
        let field = |field: &fhirehose_topics::Field| Field {
            column: if field.name == "tenant" { "tenant_id".to_owned() } else { field.name.clone() },
            name: field.name.clone(),
            required: field.required,
        };
        Row { fields: schema.fields.iter().map(field).collect() }
    }

    /// All columns that are written, in order.
    pub(crate) fn columns(&self) -> Vec<&str> {
        self.fields.iter().map(|field| field.column.as_str()).chain(ADDED).collect()
    }

    /// The columns with their types in the database; refuses a field without a column and a column without a
    /// field, all at once.
    pub(crate) fn bind(&self, shape: &TableShape) -> Result<Vec<(String, ColumnType)>, Fault> {
        let columns = self.columns();
        let mut wrong: Vec<String> = Vec::new();
        let mut bound = Vec::new();
        for column in &columns {
            match shape.writable(column) {
                Ok(kind) => bound.push(((*column).to_owned(), kind)),
                Err(message) => wrong.push(message),
            }
        }
        wrong.extend(
            shape.missing(&columns).iter().map(|name| format!("no field fills {}.{name}", shape.name)),
        );
        if wrong.is_empty() { Ok(bound) } else { Err(Fault::fatal(wrong.join("; "))) }
    }

    /// Appends the record as a row.
    pub(crate) fn push(
        &mut self,
        record: Value<'_>,
        version: i64,
        source_ts: i64,
        rows: &mut CopyRows,
    ) -> Result<(), Rejection> {
        let mut texts = Vec::new();
        let mut data: Vec<Cell<'_>> = Vec::with_capacity(self.fields.len());
        // The writer's fields nearly always stand in our order: then none is searched for.
        let mut entries = record.entries();
        for field in &self.fields {
            let value = match entries.next() {
                Some((name, value)) if name == field.name => Some(value),
                _ => record.get(&field.name),
            };
            let value = value.filter(|value| !value.is_null());
            if value.is_none() && field.required {
                return Err(Rejection::new(Reason::MissingElement, field.name.clone()));
            }
            data.push(cell(value, &mut texts));
        }
        let values = data.iter().map(|cell| match cell {
            Cell::One(datum) => *datum,
            Cell::Texts(from, to) => Datum::Texts(texts.get(*from..*to).unwrap_or_default()),
        });
        let added = [Datum::Int(version), Datum::Int(source_ts)];
        rows.push(values.chain(added)).map_err(|(at, _)| {
            Rejection::new(Reason::WrongType, self.columns().get(at).copied().unwrap_or_default())
        })
    }
}

enum Cell<'t> {
    One(Datum<'t>),
    /// A range of the texts collected beside.
    Texts(usize, usize),
}

fn cell<'t>(value: Option<Value<'t>>, texts: &mut Vec<&'t str>) -> Cell<'t> {
    let Some(value) = value else { return Cell::One(Datum::Null) };
    match value.kind() {
        Kind::Bool => Cell::One(value.as_bool().map_or(Datum::Null, Datum::Bool)),
        Kind::Array => {
            let from = texts.len();
            texts.extend(value.elements().filter_map(|element| element.as_str()));
            Cell::Texts(from, texts.len())
        }
        _ => Cell::One(match value.as_i64() {
            Some(number) => Datum::Int(number),
            None => value.as_number().or_else(|| value.as_str()).map_or(Datum::Null, Datum::Text),
        }),
    }
}
