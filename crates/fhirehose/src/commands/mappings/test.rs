//! What mappings make of their examples, against what was accepted.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use fhirehose_mapping::{Explanation, Mappings, explain};
use similar::TextDiff;

use super::{example_source, example_vendor};
use crate::app::App;
use crate::cli::MappingsTestArgs;
use crate::commands::say;

/// What an example's accepted outcome is named after, in place of `.json`.
const EXPECTED: &str = "expected";

/// Runs the examples of mappings.
pub fn run(app: &App, args: &MappingsTestArgs) -> anyhow::Result<ExitCode> {
    let mappings = app.mappings(&*app.topics()?)?;
    let topics = topics(&app.shapes().join("examples"), &mappings, &args.names)?;
    let (mut examples, mut different, mut accepted, mut without) = (0, 0, 0, 0);
    for (topic, folder) in topics {
        let files = files(&folder)?;
        if files.is_empty() {
            say(format_args!("{topic}: no example in {}", folder.display()));
            without += 1;
        }
        for file in files {
            let Some(made) = outcome(&mappings, &topic, &file)? else { continue };
            examples += 1;
            let path = file.with_extension(EXPECTED);
            let before = match fs::read_to_string(&path) {
                Ok(before) => before,
                Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
                Err(error) => return Err(error).with_context(|| path.display().to_string()),
            };
            if before == made {
                continue;
            }
            if args.update {
                fs::write(&path, &made).with_context(|| path.display().to_string())?;
                accepted += 1;
                continue;
            }
            different += 1;
            show(&file, &path, &before, &made);
        }
    }
    let nothing = if without > 0 { format!(", {without} topics without any") } else { String::new() };
    if args.update {
        say(format_args!("{examples} examples, {accepted} accepted anew{nothing}"));
    } else {
        say(format_args!("{examples} examples, {different} not as accepted{nothing}"));
    }
    Ok(if different == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn show(example: &Path, path: &Path, before: &str, made: &str) {
    if before.is_empty() {
        say(format_args!("{}: nothing is accepted of it yet; it becomes", example.display()));
    }
    let diff = TextDiff::from_lines(before, made);
    let diff =
        diff.unified_diff().context_radius(4).header(&path.display().to_string(), "made now").to_string();
    // A reader that went away is no error of ours.
    drop(writeln!(io::stdout(), "{diff}"));
}

/// Topics that have a mapping, and the folders of their examples.
fn topics(examples: &Path, mappings: &Mappings, names: &[String]) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let mut topics: Vec<String> = mappings.tables().map(|mapping| format!("cdc.{}", mapping.table)).collect();
    topics.extend(mappings.messages().map(|mapping| mapping.topic.to_string()));
    topics.dedup();
    topics.retain(|topic| names.is_empty() || names.iter().any(|name| topic.contains(name.as_str())));
    if topics.is_empty() {
        bail!("no mapping is for a topic named so");
    }
    Ok(topics.into_iter().map(|topic| (topic.clone(), examples.join(topic))).collect())
}

/// The examples of a folder; none where there is no folder.
fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| folder.display().to_string()),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| folder.display().to_string())?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// What a mapping makes of an example, as text to compare and to read; nothing of a tombstone, which no mapping sees.
fn outcome(mappings: &Mappings, topic: &str, file: &Path) -> anyhow::Result<Option<String>> {
    let name = || file.display().to_string();
    let record = fs::read(file).with_context(name)?;
    let json: serde_json::Value = serde_json::from_slice(&record).with_context(name)?;
    if json.get("value").is_some_and(serde_json::Value::is_null) {
        return Ok(None);
    }
    let (source, vendor) = (example_source()?, example_vendor(topic)?);
    let made = match explain(mappings, topic, &record, &source, &vendor) {
        Ok(explanation) => text(&explanation).with_context(name)?,
        Err(error) => format!("{error}\n"),
    };
    Ok(Some(made))
}

fn text(explanation: &Explanation) -> anyhow::Result<String> {
    let mut text = format!("mapping {}\n", explanation.mapping);
    if let Some(rejection) = &explanation.rejection {
        text += &format!("\nrejected: {} at {}\n", rejection.reason.label(), rejection.detail);
    }
    for (topic, key, value) in &explanation.outputs {
        let value = match value {
            Some(json) => serde_json::to_string_pretty(&serde_json::from_str::<serde_json::Value>(json)?)?,
            None => "tombstone".into(),
        };
        text += &format!("\n{topic} {key}\n{value}\n");
    }
    Ok(text)
}
