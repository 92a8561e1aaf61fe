use std::collections::HashMap;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use fhirehose_fhirpath::{Ctx, Env, Expr, Function, Slot, Temporal, collect};
use fhirehose_tape::{Tape, Value};

use crate::cli::FhirpathArgs;
use crate::references::{References, targets};
use crate::resources::{Broken, each};

/// As clap has it for what the command line says wrong.
pub const USAGE: u8 = 2;

/// The time for functions of the clock.
pub fn now() -> anyhow::Result<Temporal> {
    let now = jiff::Zoned::now().strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string();
    Temporal::date_time(&now).context("the clock tells no time of years 1 to 9999")
}

/// Evaluates an expression on every resource of the files.
pub fn run(args: &FhirpathArgs) -> anyhow::Result<ExitCode> {
    let env = Env::fhir().definitions(fhirehose_fhir::element_type).clock(now()?);
    let mut env = env.function(Function::new("resolve", 0..=0));
    if let Some(of) = &args.of {
        env = env.of(of);
    }
    let mut variables = Vec::new();
    for (name, value) in &args.var {
        variables.push((env.declare(name), variable(value)));
    }
    let expr = match Expr::compile(&args.expression, &env) {
        Ok(expr) => expr,
        Err(error) => {
            say_error(&error.show(&args.expression));
            return Ok(ExitCode::from(USAGE));
        }
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let mut failures = Failures::default();
    for file in &args.input {
        match evaluate(&expr, &variables, file, args, &mut out, &mut failures) {
            Ok(()) => {}
            // A reader that went away, as `head` does, is no error of ours.
            Err(error) if closed(&error) => return Ok(ExitCode::SUCCESS),
            Err(error) => return Err(error),
        }
    }
    match out.flush() {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(failures.end()),
    }
}

/// A variable's value: JSON, or else text.
fn variable(value: &str) -> Tape {
    let mut tape = Tape::new();
    if tape.parse_json(value.as_bytes()).is_err() {
        tape.string(value);
    }
    tape
}

/// Writes a line for each resource of a file that can be evaluated.
fn evaluate(
    expr: &Expr,
    variables: &[(Slot, Tape)],
    file: &Path,
    args: &FhirpathArgs,
    out: &mut impl Write,
    failures: &mut Failures,
) -> anyhow::Result<()> {
    let mut line = Vec::new();
    each(file, |document| {
        let document = match document {
            Ok(document) => document,
            Err(Broken { place, why }) => {
                failures.add(&place, &why);
                return Ok(());
            }
        };
        let bundle = targets(document.value);
        for (resource, place) in document.resources(args.whole) {
            let of = resource.get("resourceType").and_then(Value::as_str);
            if args.of.is_some() && args.of.as_deref() != of {
                continue;
            }
            match result(expr, variables, resource, &bundle, &mut line) {
                Ok(()) => out.write_all(&line)?,
                Err(why) => failures.add(&place, &why),
            }
        }
        Ok(())
    })
}

/// The items an expression gives for a resource, as a line of JSON.
fn result(
    expr: &Expr,
    variables: &[(Slot, Tape)],
    resource: Value<'_>,
    bundle: &HashMap<String, Value<'_>>,
    line: &mut Vec<u8>,
) -> Result<(), String> {
    let references = References::of(resource, bundle);
    let mut ctx = Ctx::new(resource, &references);
    for (slot, value) in variables {
        ctx.set(*slot, collect(value.root()));
    }
    let items = expr.eval(&ctx).map_err(|error| error.show(expr.source()))?;
    line.clear();
    line.push(b'[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            line.push(b',');
        }
        item.write_json(line);
    }
    line.extend_from_slice(b"]\n");
    Ok(())
}

fn closed(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// What could not be read or evaluated. The first is told in full, a few in a line each, the others counted.
#[derive(Default)]
struct Failures {
    count: u64,
}

impl Failures {
    const TOLD: u64 = 10;

    fn add(&mut self, place: &str, why: &str) {
        self.count += 1;
        let line = why.lines().next().unwrap_or_default();
        match self.count {
            1 => say_error(&format!("{place}: {why}")),
            2..=Self::TOLD => say_error(&format!("{place}: {line}")),
            _ => {}
        }
    }

    fn end(&self) -> ExitCode {
        if self.count > Self::TOLD {
            say_error(&format!(
                "{} resources or documents in all could not be read or evaluated",
                self.count
            ));
        }
        if self.count == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

/// Tells an error on standard error.
pub fn say_error(what: &str) {
    // Standard error may be closed; there is nobody left to tell then.
    drop(writeln!(io::stderr(), "error: {what}"));
}
