use std::process::ExitCode;
use std::sync::Arc;

use fhirehose_runtime::{Engine, init_logging};

use crate::app::App;
use crate::cli::RunArgs;
use crate::processors::{Parts, named};

/// Runs processors until asked to stop.
pub fn run(app: App, args: &RunArgs) -> anyhow::Result<ExitCode> {
    let app = app.checked()?;
    let entries = named(&args.processors)?;
    init_logging(&app.config().log).map_err(anyhow::Error::msg)?;
    app.clients()?;
    let topics = app.topics()?;
    let mappings = match entries.iter().any(|entry| entry.needs_mappings()) {
        true => Some(app.mappings(&topics)?),
        false => None,
    };
    let registry = app.registry()?;
    let written = entries.iter().flat_map(|entry| entry.output_topics(&topics));
    let ids = app.schema_ids(&registry, written)?;
    let parts = Parts { app: &app, topics: topics.clone(), mappings, schemas: registry, ids };
    let mut engine = Engine::new(Arc::new(app.config().clone()))?;
    for entry in entries {
        entry.add(&parts, &mut engine)?;
    }
    engine.run()?;
    Ok(ExitCode::SUCCESS)
}
