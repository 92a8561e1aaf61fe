//! Rows of a PostgreSQL query as text, keyed by their first column.

use anyhow::{Context, Result};
use postgres::{Client, NoTls, SimpleQueryMessage};

use crate::compare::Rows;

pub fn connect(url: &str) -> Result<Client> {
    Client::connect(url, NoTls).context("connecting to PostgreSQL")
}

/// The first column is the key; NULL is empty text.
pub fn rows(client: &mut Client, sql: &str) -> Result<Rows> {
    let mut rows = Rows::new();
    for message in client.simple_query(sql)? {
        if let SimpleQueryMessage::Row(row) = message {
            let values = (0..row.len()).map(|column| row.get(column).unwrap_or_default().to_owned());
            let mut values = values.collect::<Vec<_>>().into_iter();
            let key = values.next().unwrap_or_default();
            rows.insert(key, values.collect());
        }
    }
    Ok(rows)
}
