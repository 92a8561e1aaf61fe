use std::process::ExitCode;

use fhirehose_mapping::check;

use super::say;
use crate::app::App;
use crate::cli::ConfigCommand;

/// Checks the configuration, or shows it.
pub fn run(app: &App, command: &ConfigCommand) -> anyhow::Result<ExitCode> {
    match command {
        ConfigCommand::Check => {
            let mut wrong = app.config().check();
            wrong.extend(check(app.shapes()).iter().map(ToString::to_string));
            wrong.iter().for_each(say);
            if wrong.is_empty() {
                say("configuration and shape files are sound");
                return Ok(ExitCode::SUCCESS);
            }
            Ok(ExitCode::FAILURE)
        }
        ConfigCommand::Show { origin } => {
            for setting in app.loaded.settings() {
                match origin {
                    true => say(format_args!("{} = {}  ({})", setting.key, setting.value, setting.origin)),
                    false => say(format_args!("{} = {}", setting.key, setting.value)),
                }
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}
