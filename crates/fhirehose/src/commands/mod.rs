pub mod config;
pub mod devices;
pub mod fhirpath;
pub mod fpml;
pub mod list;
pub mod mappings;
pub mod migrate;
pub mod rebuild;
pub mod run;
pub mod simulate;
pub mod topics;
pub mod validate;
pub mod views;

use std::io::Write;

/// One line on standard output. A reader that went away, as `head` does, is no error of ours.
pub fn say(line: impl std::fmt::Display) {
    drop(writeln!(std::io::stdout(), "{line}"));
}
