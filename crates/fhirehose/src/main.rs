//! The `fhirehose` command: reads the configuration and the shape files, builds processors from the one table
//! of them and gives them to the engine; applies topics, schemas and migrations; explains mappings. Promises:
//! whatever is missing or wrong is said before anything runs. Never: processes a record itself.

mod app;
mod cli;
mod commands;
mod processors;
mod references;
mod resources;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::app::App;
use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            // Standard error may be closed; there is nobody left to tell then.
            drop(writeln!(std::io::stderr(), "error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let app = |flags: Vec<(String, String)>| App::load(&cli.global, flags);
    match cli.command {
        Command::Run(args) => commands::run::run(app(args.flags())?, &args),
        Command::Processors => commands::list::processors(),
        Command::Topics(command) => commands::topics::run(&app(Vec::new())?, command),
        Command::Migrate(command) => commands::migrate::run(&app(Vec::new())?, command),
        Command::Rebuild(args) => commands::rebuild::run(app(Vec::new())?, &args),
        Command::Mappings(command) => commands::mappings::run(&app(Vec::new())?, &command),
        Command::Config(command) => commands::config::run(&app(Vec::new())?, &command),
        Command::Devices(command) => commands::devices::run(&app(Vec::new())?, &command),
        Command::Fhirpath(args) => commands::fhirpath::run(&args),
        Command::Validate(args) => commands::validate::run(&args),
        Command::Fpml(args) => commands::fpml::run(&args),
        Command::Views(command) => commands::views::run(&command),
        Command::Simulate(command) => commands::simulate::run(&command),
    }
}
