use std::process::ExitCode;

use anyhow::bail;
use fhirehose_pgsink::migrate::{self, State, TIMESCALE, WAREHOUSE};

use super::say;
use crate::app::{App, problems};
use crate::cli::MigrateCommand;

/// Makes, or tells, what the stores lack.
pub fn run(app: &App, command: MigrateCommand) -> anyhow::Result<ExitCode> {
    let dir = app.shapes().join("schemas/sql");
    let databases =
        [("timescale", app.timescale_url(), TIMESCALE), ("warehouse", app.warehouse_url(), WAREHOUSE)];
    let mut stores = 0;
    for (name, url, components) in databases {
        let Some(url) = url else {
            say(format_args!("{name}: left out, neither postgres.url nor {name}.url is set"));
            continue;
        };
        stores += 1;
        let mut pending = 0;
        match command {
            MigrateCommand::Plan => {
                for step in migrate::plan(url, &dir, components)? {
                    if step.state == State::Pending {
                        pending += 1;
                        say(format_args!("{name}: {step}"));
                    }
                }
            }
            MigrateCommand::Apply => {
                migrate::apply(url, &dir, components, |step| {
                    pending += 1;
                    say(format_args!("{name}: applied {}", step.name));
                })?;
            }
        }
        if pending == 0 {
            say(format_args!("{name}: nothing pending"));
        }
    }
    match app.search()? {
        None => say("search: left out, search.url is not set"),
        Some(client) => {
            stores += 1;
            let topics = app.topics()?;
            let shapes = sink_search::Shapes::load(app.shapes(), &topics)
                .map_err(|found| problems("schemas/search", &found))?;
            search(&client, &shapes, command)?;
        }
    }
    if stores == 0 {
        bail!("no store is configured: set postgres.url and search.url");
    }
    Ok(ExitCode::SUCCESS)
}

fn search(
    client: &sink_search::Client,
    shapes: &sink_search::Shapes,
    command: MigrateCommand,
) -> anyhow::Result<()> {
    match command {
        MigrateCommand::Plan => match sink_search::check(client, shapes) {
            Ok(()) => say("search: nothing pending"),
            Err(fault) if fault.kind == fhirehose_stream::FaultKind::Fatal => {
                say(format_args!("search: {}", fault.what))
            }
            Err(fault) => return Err(fault.into()),
        },
        MigrateCommand::Apply => {
            let made = sink_search::ensure(client, shapes)?;
            made.iter().for_each(|line| say(format_args!("search: {line}")));
            if made.is_empty() {
                say("search: nothing pending");
            }
        }
    }
    Ok(())
}
