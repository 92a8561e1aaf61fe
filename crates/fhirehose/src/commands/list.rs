use std::process::ExitCode;

use super::say;
use crate::processors::{PROCESSORS, Tables};

/// Lists the processors.
pub fn processors() -> anyhow::Result<ExitCode> {
    for entry in PROCESSORS {
        say(format_args!("{}", entry.name));
        say(format_args!("  {}", entry.what));
        say(format_args!("  reads   {}", entry.inputs.join(", ")));
        match entry.tables {
            Tables::Named([]) => {}
            Tables::Named(names) => say(format_args!("  tables  {}", names.join(", "))),
            Tables::ReferenceTargets => say("  tables  fhir.* of the types in schemas/snapshots.yaml"),
        }
        match entry.store {
            Some(store) => say(format_args!("  writes  {store}")),
            None => say(format_args!("  writes  {}", entry.outputs.join(", "))),
        }
        if let Some(changelog) = entry.changelog {
            say(format_args!("  keeps   {changelog}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}
