//! The demo program; everything it does is in the library, where the end-to-end tests use it too.

use std::process::ExitCode;

use clap::Parser;
use fhirehose_demo::{Args, live, steps};

fn main() -> ExitCode {
    let args = Args::parse();
    let mut screen = live::Screen::default();
    match steps::run(&args, &mut screen) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            // Nothing more can be said if even this cannot be written.
            let _ = screen.say(&format!("\nthe demo stopped: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
