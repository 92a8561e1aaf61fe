use std::process::ExitCode;

use anyhow::bail;
use fhirehose_runtime::Cluster;

use super::say;
use crate::app::App;
use crate::cli::TopicsCommand;

/// Lists the declared topics, or compares them with the cluster, or makes them so.
pub fn run(app: &App, command: TopicsCommand) -> anyhow::Result<ExitCode> {
    let topics = app.topics()?;
    if let TopicsCommand::List = command {
        for topic in topics.iter() {
            let name = if topic.per_source() { topic.physical("<source>") } else { topic.name.to_string() };
            let (from, to) = (topic.producers.join(", "), topic.consumers.join(", "));
            say(format_args!("{name}  {} partitions, {from} -> {to}", topic.partitions));
            say(format_args!("  {}", topic.description.trim()));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let (clients, registry, target) = (app.clients()?, app.registry()?, app.target());
    if target.sources.is_empty() {
        say("note: no [sources.<name>] is configured, so no change topics are looked at");
    }
    let mut cluster = Cluster::new(&clients, &registry)?;
    let plan = cluster.plan(&topics, &target)?;
    for refusal in &plan.refusals {
        say(format_args!("refused  {refusal}"));
    }
    if !plan.refusals.is_empty() {
        bail!("{} differences cannot be closed safely; nothing was changed", plan.refusals.len());
    }
    if plan.changes.is_empty() {
        say("topics and schemas are as declared");
        return Ok(ExitCode::SUCCESS);
    }
    for change in &plan.changes {
        if let TopicsCommand::Apply = command {
            cluster.apply(change)?;
        }
        say(change);
    }
    match command {
        TopicsCommand::Apply => say(format_args!("{} changes made", plan.changes.len())),
        _ => say(format_args!("{} changes to make: run `fhirehose topics apply`", plan.changes.len())),
    }
    Ok(ExitCode::SUCCESS)
}
