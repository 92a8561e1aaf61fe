use postgres::Client;

use crate::{ColumnType, StoreError};

/// A column as the database has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// `udt_name` of `information_schema.columns`.
    pub udt_name: String,
    /// Whether a row may leave it out: it is nullable, has a default, or is generated.
    pub optional: bool,
    /// Computed by the database; cannot be written.
    pub generated: bool,
    /// Whether it stands in a B-tree.
    pub indexed: bool,
}

/// A table's columns, as the catalogs tell them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableShape {
    /// `schema.table`.
    pub name: String,
    pub columns: Vec<Column>,
}

impl TableShape {
    /// Reads `schema.table`; no columns where there is no such table.
    pub fn read(client: &mut Client, name: &str) -> Result<TableShape, StoreError> {
        let (schema, table) = name.split_once('.').unwrap_or(("public", name));
        let rows = client.query(
            "SELECT column_name::text, udt_name::text, is_nullable = 'YES' OR column_default IS NOT NULL \
             OR is_generated = 'ALWAYS' OR is_identity = 'YES', is_generated = 'ALWAYS', EXISTS ( \
                 SELECT FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid \
                 JOIN pg_am AS a ON a.oid = c.relam AND a.amname = 'btree' \
                 WHERE i.indrelid = format('%I.%I', table_schema, table_name)::regclass \
                 AND ordinal_position = ANY (i.indkey)) \
             FROM information_schema.columns WHERE table_schema = $1 AND table_name = $2 ORDER BY ordinal_position",
            &[&schema, &table],
        )?;
        let column = |row: &postgres::Row| -> Result<Column, postgres::Error> {
            Ok(Column {
                name: row.try_get(0)?,
                udt_name: row.try_get(1)?,
                optional: row.try_get(2)?,
                generated: row.try_get(3)?,
                indexed: row.try_get(4)?,
            })
        };
        let columns = rows.iter().map(column).collect::<Result<_, _>>()?;
        Ok(TableShape { name: name.to_owned(), columns })
    }

    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The writable type of a column, or what is wrong with it, in words that name it.
    pub fn writable(&self, name: &str) -> Result<ColumnType, String> {
        let Some(column) = self.column(name) else {
            return Err(format!("{} has no column {name}", self.name));
        };
        if column.generated {
            return Err(format!("{}.{name} is computed by the database", self.name));
        }
        match ColumnType::of(&column.udt_name) {
            Some(ColumnType::Text) if column.indexed => Ok(ColumnType::IndexedText),
            Some(kind) => Ok(kind),
            None => Err(format!("{}.{name}: type {} cannot be written", self.name, column.udt_name)),
        }
    }

    /// Columns a row needs that are not among `written`.
    pub fn missing<'a>(&'a self, written: &[&str]) -> Vec<&'a str> {
        let needed = self.columns.iter().filter(|column| !column.optional).map(|column| column.name.as_str());
        needed.filter(|name| !written.contains(name)).collect()
    }
}
