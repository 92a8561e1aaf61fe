use std::fs;
use std::process::ExitCode;

use anyhow::{Context, bail};
use fhirehose_mapping::{Source, Vendor, Zone, check, explain};

use super::say;
use crate::app::App;
use crate::cli::{ExplainArgs, MappingsCommand};

/// Checks mappings, or explains what one makes of a record.
pub fn run(app: &App, command: &MappingsCommand) -> anyhow::Result<ExitCode> {
    match command {
        MappingsCommand::Check => {
            let problems = check(app.shapes());
            problems.iter().for_each(say);
            if problems.is_empty() {
                say("all mappings are sound");
                return Ok(ExitCode::SUCCESS);
            }
            say(format_args!("{} problems", problems.len()));
            Ok(ExitCode::FAILURE)
        }
        MappingsCommand::Explain(args) => explained(app, args),
    }
}

fn explained(app: &App, args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let record = fs::read(&args.record).with_context(|| args.record.display().to_string())?;
    let folder = args
        .record
        .canonicalize()
        .ok()
        .and_then(|path| Some(path.parent()?.file_name()?.to_str()?.to_owned()));
    let Some(topic) = args.topic.clone().or(folder) else {
        bail!("say --topic, such as cdc.clinical_data.patients")
    };
    let utc = || Zone::named("UTC");
    let source = match &args.source {
        Some(name) => app
            .sources()?
            .into_iter()
            .find(|source| *source.name == **name)
            .with_context(|| format!("no [sources.{name}] is configured"))?,
        None => Source {
            name: "example".into(),
            tenant: "example".into(),
            zone: utc()?,
            facility_tenants: Default::default(),
        },
    };
    let vendor_name = topic.strip_prefix("device.").unwrap_or("none");
    let configured = app.vendors()?.into_iter().find(|vendor| *vendor.name == *vendor_name);
    let vendor = match configured {
        Some(vendor) => vendor,
        None => Vendor { name: vendor_name.into(), zone: utc()? },
    };
    let topics = app.topics()?;
    let mappings = app.mappings(&topics)?;
    say(explain(&mappings, &topic, &record, &source, &vendor)?);
    Ok(ExitCode::SUCCESS)
}
