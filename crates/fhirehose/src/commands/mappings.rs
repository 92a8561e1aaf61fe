mod scaffold;
mod test;

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, bail};
use fhirehose_mapping::{Source, Vendor, Zone, check, explain};

use super::say;
use crate::app::App;
use crate::cli::{ExplainArgs, MappingsCommand};

/// Checks, explains, tests or begins mappings.
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
        MappingsCommand::Test(args) => test::run(app, args),
        MappingsCommand::Scaffold(args) => scaffold::run(args),
    }
}

/// The source of records whose own is not said.
fn example_source() -> anyhow::Result<Source> {
    let zone = Zone::named("UTC")?;
    Ok(Source {
        name: "example".into(),
        tenant: "example".into(),
        zone,
        facility_tenants: Default::default(),
    })
}

/// The vendor of a device topic that is not configured.
fn example_vendor(topic: &str) -> anyhow::Result<Vendor> {
    let name = topic.strip_prefix("device.").unwrap_or("none");
    Ok(Vendor { name: name.into(), zone: Zone::named("UTC")? })
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
    let source = match &args.source {
        Some(name) => app
            .sources()?
            .into_iter()
            .find(|source| *source.name == **name)
            .with_context(|| format!("no [sources.{name}] is configured"))?,
        None => example_source()?,
    };
    let vendor_name = topic.strip_prefix("device.").unwrap_or("none");
    let configured = app.vendors()?.into_iter().find(|vendor| *vendor.name == *vendor_name);
    let vendor = match configured {
        Some(vendor) => vendor,
        None => example_vendor(&topic)?,
    };
    let topics = app.topics()?;
    let mappings = app.mappings(&topics)?;
    say(explain(&mappings, &topic, &record, &source, &vendor)?);
    Ok(ExitCode::SUCCESS)
}
