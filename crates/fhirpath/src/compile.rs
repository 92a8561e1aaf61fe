use std::borrow::Cow;

use regex::Regex;

use crate::env::Env;
use crate::error::CompileError;
use crate::functions::{Run, find, known, pattern};
use crate::item::Item;
use crate::ops::distinct;
use crate::parser::{Ast, AstKind};
use crate::plan::{Namespace, Place, Plan, TypeTest};
use crate::temporal::Temporal;
use crate::types::{RESOURCES, SYSTEM, Type};

const CLOCK: &str = "reads the clock; a replay must give the same bytes. Use a time of the record";

/// Functions of FHIRPath that are refused where nothing stands in for them, and why.
const REFUSED: &[(&str, &str)] = &[
    ("today", CLOCK),
    ("now", CLOCK),
    ("timeOfDay", CLOCK),
    ("resolve", "reads other resources; an expression sees one"),
    ("memberOf", "asks a terminology server; use a concept map"),
];

pub(crate) fn compile(ast: &Ast, env: &Env) -> Result<Plan, CompileError> {
    Compiler { env }.plan(ast, true)
}

struct Compiler<'e> {
    env: &'e Env,
}

fn error<T>(at: usize, message: impl Into<String>) -> Result<T, CompileError> {
    Err(CompileError { offset: at, message: message.into() })
}

impl Compiler<'_> {
    /// `root`: whether `$this` is still the focus of the whole expression.
    fn plan(&self, ast: &Ast, root: bool) -> Result<Plan, CompileError> {
        let boxed = |ast: &Ast| self.plan(ast, root).map(Box::new);
        Ok(match &ast.kind {
            AstKind::Empty => Plan::Empty,
            AstKind::Literal(item) => Plan::Literal(item.clone()),
            AstKind::This => Plan::This,
            AstKind::Index => Plan::Index,
            AstKind::Total => Plan::Total,
            AstKind::Variable(name) => self.variable(ast.at, name)?,
            AstKind::Member(input, name) => self.member(ast.at, input.as_deref(), name, root)?,
            AstKind::At(input, index) => Plan::At(place(ast.at), boxed(input)?, boxed(index)?),
            AstKind::Negate(operand) => Plan::Negate(place(ast.at), boxed(operand)?),
            AstKind::Plus(operand) => Plan::Plus(place(ast.at), boxed(operand)?),
            AstKind::Binary(op, left, right) => Plan::Binary(place(ast.at), *op, boxed(left)?, boxed(right)?),
            AstKind::Union(parts) => match parts.iter().map(constant).collect::<Option<_>>() {
                Some(items) => Plan::Set(distinct(items).or_else(|cause| error(ast.at, cause.message))?),
                None => {
                    Plan::Union(parts.iter().map(|part| self.plan(part, root)).collect::<Result<_, _>>()?)
                }
            },
            AstKind::Type(input, is, name) => {
                let test = self.type_test(ast.at, name)?;
                if *is {
                    Plan::Is(place(ast.at), boxed(input)?, test)
                } else {
                    Plan::OfType(boxed(input)?, test)
                }
            }
            AstKind::Call(input, name, args) => self.call(ast.at, input.as_deref(), name, args, root)?,
        })
    }

    fn variable(&self, at: usize, name: &str) -> Result<Plan, CompileError> {
        // The last declared of that name hides the others.
        if let Some(slot) = self.env.variables.iter().rposition(|declared| **declared == *name) {
            return Ok(Plan::Variable(slot));
        }
        let constant = match name {
            "context" | "resource" | "rootResource" => return Ok(Plan::Root),
            "sct" => Cow::Borrowed("http://snomed.info/sct"),
            "loinc" => Cow::Borrowed("http://loinc.org"),
            "ucum" => Cow::Borrowed("http://unitsofmeasure.org"),
            _ => match (name.strip_prefix("vs-"), name.strip_prefix("ext-")) {
                (Some(set), _) => Cow::Owned(format!("http://hl7.org/fhir/ValueSet/{set}")),
                (_, Some(url)) => Cow::Owned(format!("http://hl7.org/fhir/StructureDefinition/{url}")),
                _ => return error(at, format!("unknown variable %{name}")),
            },
        };
        Ok(Plan::Literal(Item::String(constant)))
    }

    fn member(&self, at: usize, input: Option<&Ast>, name: &str, root: bool) -> Result<Plan, CompileError> {
        let of_root = root && input.is_none_or(|input| matches!(input.kind, AstKind::This));
        if of_root
            && let Some(columns) = &self.env.columns
            && !columns.iter().any(|column| **column == *name)
        {
            return error(at, format!("unknown column {name}"));
        }
        if input.is_none() && self.env.fhir && (RESOURCES.contains(&name) || Type::named(name).is_some()) {
            let leading = name.starts_with(|c: char| c.is_ascii_uppercase());
            if leading {
                return Ok(Plan::TypeRoot(self.type_test(at, &[name.to_owned()])?));
            }
        }
        let input = Box::new(input.map_or(Ok(Plan::This), |input| self.plan(input, root))?);
        let name = Box::from(name);
        Ok(if self.env.fhir { Plan::Element { input, name } } else { Plan::Member { input, name } })
    }

    fn call(
        &self,
        at: usize,
        input: Option<&Ast>,
        name: &str,
        args: &[Ast],
        root: bool,
    ) -> Result<Plan, CompileError> {
        let implicit = input.is_none();
        let input = Box::new(input.map_or(Ok(Plan::This), |input| self.plan(input, root))?);
        if let Some(function) = self.env.functions.iter().find(|function| function.name == name) {
            count(at, name, args.len(), *function.args.start(), *function.args.end())?;
            if let Some(check) = &function.check {
                let literals: Vec<Option<&str>> = args.iter().map(literal).collect();
                check(&literals).or_else(|message| error(at, format!("{name}(): {message}")))?;
            }
            let args = args.iter().map(|arg| self.plan(arg, root)).collect::<Result<_, _>>()?;
            return Ok(Plan::Host { at: place(at), input, name: function.name, args });
        }
        if let (true, [arg]) = (matches!(name, "is" | "as" | "ofType"), args) {
            let test = self.type_test(arg.at, &type_path(arg)?)?;
            return Ok(if name == "is" {
                Plan::Is(place(at), input, test)
            } else {
                Plan::OfType(input, test)
            });
        }
        if let Some(moment) = self.env.clock.and_then(|now| clock(name, now)) {
            count(at, name, args.len(), 0, 0)?;
            return Ok(Plan::Literal(moment));
        }
        if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
            return error(at, format!("{name}() is refused: it {why}"));
        }
        let Some(function) = find(name) else { return error(at, unknown(name)) };
        count(at, name, args.len(), *function.args.start(), *function.args.end())?;
        if let Some(pattern) = literal_pattern(function.name, args)? {
            return Ok(match args {
                [_, with] => Plan::ReplaceMatches {
                    at: place(at),
                    input,
                    pattern,
                    with: Box::new(self.plan(with, root)?),
                },
                _ => Plan::Match { at: place(at), input, pattern },
            });
        }
        if let ("getReferenceKey", [arg]) = (name, args) {
            // A type, not an expression.
            let of = type_path(arg)?.pop().unwrap_or_default();
            let args = [Plan::Literal(Item::String(Cow::Owned(of)))].into();
            return Ok(Plan::Call { at: place(at), input, name: function.name, run: function.run, args });
        }
        // In a lambda `$this` is each item, in other arguments what it is outside.
        let same_items = implicit && name != "repeat";
        let inner = root && (same_items || !matches!(function.run, Run::Lambda(_)));
        let args = args.iter().map(|arg| self.plan(arg, inner)).collect::<Result<_, _>>()?;
        Ok(Plan::Call { at: place(at), input, name: function.name, run: function.run, args })
    }

    fn type_test(&self, at: usize, path: &[String]) -> Result<TypeTest, CompileError> {
        let (namespace, name) = match path {
            [name] => (Namespace::Any, name),
            [namespace, name] if namespace == "System" => (Namespace::System, name),
            [namespace, name] if namespace == "FHIR" => (Namespace::Fhir, name),
            _ => return error(at, "a type is written Name, System.Name or FHIR.Name"),
        };
        let known = SYSTEM.contains(&name.as_str())
            || Type::named(name).is_some()
            || RESOURCES.contains(&name.as_str());
        if !known {
            return error(at, format!("unknown type {name}"));
        }
        Ok(TypeTest { namespace, name: name.as_str().into(), fhir: self.env.fhir })
    }
}

/// Sources are far shorter than 4 GiB; the place in a longer one is not told.
fn place(at: usize) -> Place {
    Place::try_from(at).unwrap_or_default()
}

fn count(at: usize, name: &str, found: usize, min: usize, max: usize) -> Result<(), CompileError> {
    if (min..=max).contains(&found) {
        return Ok(());
    }
    let wanted = if min == max { min.to_string() } else { format!("{min} to {max}") };
    error(at, format!("{name}() takes {wanted} argument(s), not {found}"))
}

/// What a function of the clock gives at a moment.
fn clock(name: &str, now: Temporal) -> Option<Item<'static>> {
    match name {
        "now" => Some(Item::DateTime(now)),
        "today" => Some(Item::Date(now.date_part())),
        "timeOfDay" => Some(Item::Time(now.time_part())),
        _ => None,
    }
}

fn constant(ast: &Ast) -> Option<Item<'static>> {
    match &ast.kind {
        AstKind::Literal(item) => Some(item.clone()),
        _ => None,
    }
}

/// The text of an argument that is a string literal.
fn literal(ast: &Ast) -> Option<&str> {
    match &ast.kind {
        AstKind::Literal(Item::String(text)) => Some(text),
        _ => None,
    }
}

/// The pattern of a call where it is a literal: it is compiled once, and a bad one is found here.
fn literal_pattern(name: &str, args: &[Ast]) -> Result<Option<Box<Regex>>, CompileError> {
    let Some((arg, text)) = args.first().and_then(|arg| Some((arg, literal(arg)?))) else {
        return Ok(None);
    };
    if !matches!(name, "matches" | "matchesFull" | "replaceMatches") {
        return Ok(None);
    }
    match pattern(text, name == "matchesFull") {
        Ok(pattern) => Ok(Some(Box::new(pattern))),
        Err(_) => error(arg.at, "not a regular expression"),
    }
}

/// The argument of `is()`, `as()`, `ofType()`: a type, not an expression.
fn type_path(ast: &Ast) -> Result<Vec<String>, CompileError> {
    match &ast.kind {
        AstKind::Member(None, name) => Ok(vec![name.clone()]),
        AstKind::Member(Some(input), name) => {
            let mut path = type_path(input)?;
            path.push(name.clone());
            Ok(path)
        }
        _ => error(ast.at, "the name of a type expected"),
    }
}

/// The message for an unknown function, with the known one that differs least.
fn unknown(name: &str) -> String {
    let same = |known: &&str| known.eq_ignore_ascii_case(name);
    match known().find(same) {
        Some(close) => format!("unknown function {name}(); did you mean {close}()?"),
        None => format!("unknown function {name}()"),
    }
}
