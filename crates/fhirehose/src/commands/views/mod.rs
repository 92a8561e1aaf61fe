//! `fhirehose views`: checks ViewDefinitions, and runs one over files. Needs no configuration.

mod brackets;
mod input;
mod parquet;
mod run;
mod split;
mod table;
mod told;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use fhirehose_fhirpath::Env;
use fhirehose_views::View;

use super::say;
use crate::cli::ViewsCommand;
pub use table::Format;

/// Where a definition is wrong.
const WRONG: u8 = 2;

/// Checks views, or runs one.
pub fn run(command: &ViewsCommand) -> anyhow::Result<ExitCode> {
    match command {
        ViewsCommand::Check(args) => {
            let mut wrong = false;
            for path in &args.views {
                match view(path) {
                    Ok(view) => {
                        let (count, of) = (view.columns().len(), view.resource());
                        let known = fhirehose_fhir::element_exists(of, "id");
                        let but = if known { "" } else { ", whose elements are not known here" };
                        say(format_args!("{}: sound, {count} columns of {of}{but}", path.display()));
                    }
                    Err(why) => {
                        wrong = true;
                        complain(why);
                    }
                }
            }
            Ok(if wrong { ExitCode::from(WRONG) } else { ExitCode::SUCCESS })
        }
        ViewsCommand::Run(args) => match view(&args.view) {
            Ok(view) => run::run(&view, args),
            Err(why) => {
                complain(why);
                Ok(ExitCode::from(WRONG))
            }
        },
    }
}

/// One line, or more, on standard error.
fn complain(line: impl std::fmt::Display) {
    drop(writeln!(std::io::stderr(), "{line}"));
}

/// The view of a file; or what is wrong with it, and where: file, place in it, and the expression with a mark below.
fn view(path: &Path) -> Result<View, String> {
    let json = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let env = Env::fhir().definitions(fhirehose_fhir::element_type);
    View::compile(&json, &env).map_err(|error| {
        let mut why = format!("{}: {error}", path.display());
        if let Some((expression, at)) = &error.expression {
            let line = expression.get(..*at).map_or(0, |before| before.matches('\n').count());
            let start = expression.get(..*at).and_then(|before| before.rfind('\n')).map_or(0, |end| end + 1);
            let column = expression.get(start..*at).map_or(0, |before| before.chars().count());
            let shown = expression.lines().nth(line).unwrap_or_default().replace('\t', " ");
            why.push_str(&format!("\n  {shown}\n  {:column$}^", ""));
        }
        why
    })
}
