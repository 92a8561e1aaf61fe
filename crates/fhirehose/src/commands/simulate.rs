use std::io::stdout;
use std::process::ExitCode;

use fhirehose_simulate::{devices, hospital};

use crate::cli::SimulateCommand;

/// Plays a hospital, or its devices.
pub fn run(command: &SimulateCommand) -> anyhow::Result<ExitCode> {
    match command {
        SimulateCommand::Hospital(args) => hospital::run(args, &mut stdout().lock())?,
        SimulateCommand::Devices(args) => devices::run(args, &mut stdout().lock())?,
    }
    Ok(ExitCode::SUCCESS)
}
