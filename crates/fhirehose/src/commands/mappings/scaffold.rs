//! A first mapping from a table in a database.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use fhirehose_mapping::{TableColumn, scaffold};
use mysql::prelude::Queryable;
use mysql::{Conn, Opts, OptsBuilder};

use crate::cli::ScaffoldArgs;
use crate::commands::say;

const COLUMNS: &str = "SELECT column_name, column_type, column_key, extra FROM information_schema.columns \
                       WHERE table_schema = ? AND table_name = ? ORDER BY ordinal_position";

/// Prints the scaffold of a table.
pub fn run(args: &ScaffoldArgs) -> anyhow::Result<ExitCode> {
    // The address may hold a password: it is not repeated.
    let opts =
        Opts::from_url(&args.from).ok().context("--from is like mysql://user:password@host:3306/database")?;
    let Some(db) = opts.get_db_name().map(str::to_owned) else {
        bail!("--from names no database: mysql://user:password@host:3306/database")
    };
    let server = format!("{}:{}", opts.get_ip_or_hostname(), opts.get_tcp_port());
    let mut opts = OptsBuilder::from_opts(opts).tcp_connect_timeout(Some(Duration::from_secs(10)));
    if args.password.is_some() {
        opts = opts.pass(args.password.as_deref());
    }
    let mut conn = Conn::new(opts).with_context(|| format!("connecting to {server}"))?;
    let rows: Vec<(String, String, String, String)> = conn
        .exec(COLUMNS, (&db, &args.table))
        .with_context(|| format!("the columns of {db}.{}", args.table))?;
    if rows.is_empty() {
        bail!("{server} shows no table {db}.{}: is the name right, and may this user see it?", args.table);
    }
    let columns: Vec<TableColumn> = rows
        .into_iter()
        .map(|(name, sql_type, key, extra)| TableColumn {
            name,
            sql_type,
            primary: key == "PRI",
            computed: extra.to_uppercase().contains("VIRTUAL"),
        })
        .collect();
    say(scaffold(&db, &args.table, &columns).trim_end());
    Ok(ExitCode::SUCCESS)
}
