mod place;

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use fhirehose_fhir::{Version, findings};

use crate::cli::ValidateArgs;
use crate::resources::{Broken, Document, each};
use place::Lines;

/// Releases of FHIR by the names people type.
#[derive(Clone, Copy, ValueEnum)]
pub enum Release {
    R4,
    R5,
}

/// Checks every resource of the files.
pub fn run(args: &ValidateArgs) -> anyhow::Result<ExitCode> {
    let version = match args.version {
        Release::R4 => Version::R4,
        Release::R5 => Version::R5,
    };
    let mut told = Told::new(args.strict);
    let mut out = BufWriter::new(io::stdout().lock());
    for file in &args.input {
        match judge(file, version, &mut told, &mut out) {
            Ok(()) => {}
            // A reader that went away, as `head` does, is no error of ours.
            Err(error) if closed(&error) => return Ok(told.code()),
            Err(error) => {
                told.unread += 1;
                told.complain(format_args!("error: {error:#}"));
            }
        }
    }
    match out.flush() {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error.into()),
        _ => told.summary(),
    }
    Ok(told.code())
}

fn judge(file: &Path, version: Version, told: &mut Told, out: &mut impl Write) -> anyhow::Result<()> {
    each(file, |document| {
        told.progress();
        match document {
            Ok(document) => judge_one(&document, version, told, out),
            Err(Broken { place, why }) => {
                told.unread += 1;
                Ok(writeln!(out, "{place}: error: {why}")?)
            }
        }
    })
}

/// One resource; a Bundle is one with all it holds.
fn judge_one(
    document: &Document<'_>,
    version: Version,
    told: &mut Told,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    told.resources += 1;
    let found = findings(version, document.value);
    let errors = found.iter().filter(|invalid| told.strict || !invalid.rule.is_warning()).count();
    told.errors += errors as u64;
    told.warnings += (found.len() - errors) as u64;
    told.invalid += u64::from(errors > 0);
    let mut lines = document.lines.map(Lines::new);
    for invalid in found {
        let line = lines.as_mut().map(|lines| format!(":{}", lines.line(&invalid.path)));
        let kind = if invalid.rule.is_warning() && !told.strict { "warning" } else { "error" };
        let Document { place, .. } = document;
        writeln!(out, "{place}{}: {kind}: {invalid}", line.unwrap_or_default())?;
    }
    Ok(())
}

fn closed(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// What was seen so far, told on standard error.
struct Told {
    strict: bool,
    is_terminal: bool,
    shown: Instant,
    resources: u64,
    invalid: u64,
    errors: u64,
    warnings: u64,
    /// Files and documents that are no resources.
    unread: u64,
}

impl Told {
    fn new(strict: bool) -> Self {
        let is_terminal = io::stderr().is_terminal();
        let shown = Instant::now();
        Told { strict, is_terminal, shown, resources: 0, invalid: 0, errors: 0, warnings: 0, unread: 0 }
    }

    fn progress(&mut self) {
        if self.is_terminal && self.shown.elapsed() > Duration::from_millis(200) {
            self.shown = Instant::now();
            let line = format!("\r\x1b[Kresources: {}, invalid: {}", self.resources, self.invalid);
            drop(io::stderr().write_all(line.as_bytes()));
        }
    }

    fn complain(&self, what: impl std::fmt::Display) {
        // Standard error may be closed; there is nobody left to tell then.
        let clear = if self.is_terminal { "\r\x1b[K" } else { "" };
        drop(writeln!(io::stderr(), "{clear}{what}"));
    }

    fn summary(&self) {
        let Told { resources, invalid, errors, warnings, unread, .. } = self;
        let unread = if *unread > 0 { format!(", not read: {unread}") } else { String::new() };
        self.complain(format_args!(
            "resources: {resources}, invalid: {invalid}, errors: {errors}, warnings: {warnings}{unread}"
        ));
    }

    fn code(&self) -> ExitCode {
        if self.invalid + self.unread == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
