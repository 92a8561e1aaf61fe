//! Rows of a PostgreSQL query as text, keyed by their first column.

use anyhow::{Context, Result};
use postgres::{Client, NoTls, SimpleQueryMessage};

use crate::compare::Rows;

pub fn connect(url: &str) -> Result<Client> {
    Client::connect(url, NoTls).context("connecting to PostgreSQL")
}

/// The first column is the key; NULL is empty text.
pub fn rows(client: &mut Client, sql: &str) -> Result<Rows> {
    let split = |row: Vec<String>| {
        let mut values = row.into_iter();
        Some((values.next()?, values.collect()))
    };
    Ok(lines(client, sql)?.into_iter().filter_map(split).collect())
}

/// Rows in the query's order.
pub fn lines(client: &mut Client, sql: &str) -> Result<Vec<Vec<String>>> {
    let mut lines = Vec::new();
    for message in client.simple_query(sql)? {
        if let SimpleQueryMessage::Row(row) = message {
            lines.push((0..row.len()).map(|column| row.get(column).unwrap_or_default().to_owned()).collect());
        }
    }
    Ok(lines)
}
