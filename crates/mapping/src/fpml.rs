//! A template alone, over any document: FPML as its reference implementation runs it.

use std::path::Path;

use fhirehose_fhirpath::{Ctx, Env, NoFunctions, Shape, Slot, Temporal, collect};
use fhirehose_stream::Rejection;
use fhirehose_tape::{Tape, Value};

use crate::problem::{Problem, Problems};
use crate::render::{Arena, Renderer};
use crate::shared::Repeated;
use crate::template::{Compiler, Makes, Scope, Template};
use crate::terminology::Terminology;
use crate::yaml;

/// A compiled template of its own, without a mapping around it.
pub struct Fpml {
    template: Template,
    repeated: Repeated,
    /// `%context`: the document.
    document: Slot,
    variables: Vec<Slot>,
}

/// How a template is compiled.
#[derive(Clone, Copy, Default)]
pub struct FpmlOptions<'o> {
    /// The document is seen through variables only, not by names of its members.
    pub strict: bool,
    /// What time it is for `now()`, `today()` and `timeOfDay()`; they are errors without it.
    pub now: Option<Temporal>,
    /// Names of the variables that [`Fpml::resolve`] gets values of.
    pub variables: &'o [&'o str],
}

impl Fpml {
    /// Compiles a template of YAML or JSON; `file` is named in problems.
    pub fn compile(file: &Path, text: &str, options: &FpmlOptions<'_>) -> Result<Fpml, Vec<Problem>> {
        let mut problems = Problems::of(file);
        let node = match yaml::read(text) {
            Ok(node) => node,
            Err((at, message)) => {
                problems.add(at, message);
                return Err(problems.into_vec());
            }
        };
        let env = options.now.map_or_else(Env::fhir, |now| Env::fhir().clock(now));
        let mut scope = if options.strict { Scope::of_row(env, []) } else { Scope::new(env) };
        let document = scope.declare("context", Shape::any());
        let variables = options.variables.iter().map(|name| scope.declare(name, Shape::any())).collect();
        let mut terminology = Terminology::default();
        let mut compiler = Compiler::of("template", &mut problems, &mut terminology);
        let template = compiler.template(&node, &scope, Makes::Anything, "template");
        let repeated = std::mem::take(&mut compiler.places).finish();
        match template.filter(|_| problems.is_empty()) {
            Some(template) => Ok(Fpml { template, repeated, document, variables }),
            None => Err(problems.into_vec()),
        }
    }

    /// What the template makes of a document, as JSON; `None` if that is nothing. `values`: those of the variables,
    /// in their order; of two for one name the last counts. The rejection names the place in the template.
    pub fn resolve(&self, document: Value<'_>, values: &[Value<'_>]) -> Result<Option<Vec<u8>>, Rejection> {
        let arena = Arena::default();
        let mut ctx = Ctx::new(document, &NoFunctions);
        ctx.set(self.document, collect(document));
        for (slot, value) in self.variables.iter().zip(values) {
            ctx.set(*slot, collect(*value));
        }
        let mut out = Vec::new();
        let written =
            Renderer::new(&arena, &self.repeated, None).value(&self.template, &mut ctx, &mut out)?;
        Ok(written.then_some(out))
    }
}

/// Reads a document of JSON or YAML into a tape; `file` is named in the problem. JSON may be of any size, YAML is
/// limited as templates are.
pub fn read_document(file: &Path, text: &str, tape: &mut Tape) -> Result<(), Problem> {
    let Err(error) = tape.parse_json(text.as_bytes()) else { return Ok(()) };
    let (at, message) = match yaml::read(text) {
        Ok(node) => {
            tape.clear();
            node.write(tape);
            return Ok(());
        }
        Err((at, message)) => (at, message),
    };
    let begins = text.trim_start().starts_with(['{', '[']);
    let message = if begins { format!("no JSON ({error}), and no YAML ({message})") } else { message };
    let mut problems = Problems::of(file);
    problems.add(at, message);
    problems.into_vec().pop().map_or(Ok(()), Err)
}
