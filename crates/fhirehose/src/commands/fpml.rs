use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use fhirehose_mapping::{Fpml, FpmlOptions, read_document};
use fhirehose_tape::{Tape, Value};

use super::fhirpath::{USAGE, now, say_error};
use crate::cli::FpmlArgs;
use crate::resources::STANDARD_INPUT;

/// Prints what a template makes of a document.
pub fn run(args: &FpmlArgs) -> anyhow::Result<ExitCode> {
    let files = [Some(&args.template), Some(&args.input), args.context.as_ref()];
    if files.iter().flatten().filter(|file| file.as_os_str() == STANDARD_INPUT).count() > 1 {
        bail!("standard input can be one of the files only");
    }
    let mut context = Tape::new();
    if let Some(file) = &args.context {
        document(file, &mut context)?;
    } else {
        context.begin_object();
        context.end();
    }
    let (names, values): (Vec<&str>, Vec<Value<'_>>) = context.root().entries().unzip();
    let options = FpmlOptions { strict: args.strict, now: Some(now()?), variables: &names };
    let template = match Fpml::compile(&args.template, &text(&args.template)?, &options) {
        Ok(template) => template,
        Err(problems) => {
            problems.iter().for_each(|problem| say_error(&problem.to_string()));
            return Ok(ExitCode::from(USAGE));
        }
    };
    let mut input = Tape::new();
    document(&args.input, &mut input)?;
    match template.resolve(input.root(), &values) {
        Ok(made) => {
            let mut json = made.unwrap_or_else(|| b"null".to_vec());
            json.push(b'\n');
            match io::stdout().lock().write_all(&json) {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
                _ => Ok(ExitCode::SUCCESS),
            }
        }
        Err(rejection) => {
            let file = args.template.display();
            say_error(&format!("{file}: {}: {}", rejection.reason.label(), rejection.detail));
            Ok(ExitCode::FAILURE)
        }
    }
}

fn text(file: &Path) -> anyhow::Result<String> {
    let name = || file.display().to_string();
    if file.as_os_str() == STANDARD_INPUT {
        let mut text = String::new();
        return io::stdin().read_to_string(&mut text).map(|_| text).with_context(name);
    }
    fs::read_to_string(file).with_context(name)
}

fn document(file: &Path, tape: &mut Tape) -> anyhow::Result<()> {
    let text = text(file)?;
    read_document(file, &text, tape).map_err(|problem| anyhow::anyhow!("{problem}"))
}
