use std::path::Path;
use std::process::ExitCode;

use anyhow::bail;
use fhirehose_pgsink::migrate::{self, State, TIMESCALE};
use fhirehose_topics::Registry;
use sink_warehouse::Pending;

use super::say;
use crate::app::{App, problems};
use crate::cli::MigrateCommand;

/// Makes, or tells, what the stores lack.
pub fn run(app: &App, command: MigrateCommand) -> anyhow::Result<ExitCode> {
    let topics = app.topics()?;
    if let MigrateCommand::Tables = command {
        say(sink_warehouse::describe(app.shapes(), &topics)?.trim_end());
        return Ok(ExitCode::SUCCESS);
    }
    let mut stores = 0;
    let mut refused = Vec::new();
    let unset =
        |name: &str| say(format_args!("{name}: left out, neither postgres.url nor {name}.url is set"));
    match app.timescale_url() {
        None => unset("timescale"),
        Some(url) => {
            stores += 1;
            timescale(url, &app.shapes().join("schemas/sql"), command)?;
        }
    }
    match app.warehouse_url() {
        None => unset("warehouse"),
        Some(url) => {
            stores += 1;
            refused = warehouse(url, app, &topics, command)?;
        }
    }
    match app.search()? {
        None => say("search: left out, search.url is not set"),
        Some(client) => {
            stores += 1;
            let shapes = sink_search::Shapes::load(app.shapes(), &topics)
                .map_err(|found| problems("schemas/search", &found))?;
            search(&client, &shapes, command)?;
        }
    }
    if stores == 0 {
        bail!("no store is configured: set postgres.url and search.url");
    }
    Ok(if refused.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn timescale(url: &str, dir: &Path, command: MigrateCommand) -> anyhow::Result<()> {
    let mut pending = 0;
    if let MigrateCommand::Apply = command {
        migrate::apply(url, dir, TIMESCALE, |step| {
            pending += 1;
            say(format_args!("timescale: applied {}", step.name));
        })?;
    } else {
        for step in migrate::plan(url, dir, TIMESCALE)?.iter().filter(|step| step.state == State::Pending) {
            pending += 1;
            say(format_args!("timescale: {step}"));
        }
    }
    if pending == 0 {
        say("timescale: nothing pending");
    }
    Ok(())
}

/// Says what is refused too, and returns it.
fn warehouse(
    url: &str,
    app: &App,
    topics: &Registry,
    command: MigrateCommand,
) -> anyhow::Result<Vec<String>> {
    if let MigrateCommand::Apply = command {
        let mut applied = 0;
        sink_warehouse::apply(url, app.shapes(), topics, |what| {
            applied += 1;
            say(format_args!("warehouse: applied {what}"));
        })?;
        if applied == 0 {
            say("warehouse: nothing pending");
        }
        return Ok(Vec::new());
    }
    let plan = sink_warehouse::plan(url, app.shapes(), topics)?;
    for pending in &plan.pending {
        match pending {
            Pending::File(name) => say(format_args!("warehouse: {name} (pending)")),
            Pending::Table { table, sql, notes } => {
                say(format_args!("warehouse: {table} (pending)"));
                sql.iter().for_each(|statement| say(format_args!("{statement};")));
                notes.iter().for_each(|note| say(format_args!("-- {note}")));
            }
        }
    }
    plan.refused.iter().for_each(|what| say(format_args!("warehouse: refused  {what}")));
    if plan.pending.is_empty() && plan.refused.is_empty() {
        say("warehouse: nothing pending");
    }
    Ok(plan.refused)
}

fn search(
    client: &sink_search::Client,
    shapes: &sink_search::Shapes,
    command: MigrateCommand,
) -> anyhow::Result<()> {
    if let MigrateCommand::Apply = command {
        let made = sink_search::ensure(client, shapes)?;
        made.iter().for_each(|line| say(format_args!("search: {line}")));
        if made.is_empty() {
            say("search: nothing pending");
        }
        return Ok(());
    }
    match sink_search::check(client, shapes) {
        Ok(()) => say("search: nothing pending"),
        Err(fault) if fault.kind == fhirehose_stream::FaultKind::Fatal => {
            say(format_args!("search: {}", fault.what))
        }
        Err(fault) => return Err(fault.into()),
    }
    Ok(())
}
