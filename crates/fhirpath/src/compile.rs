use std::borrow::Cow;

use regex::Regex;

use crate::check;
use crate::env::Env;
use crate::error::CompileError;
use crate::functions::{Gives, Run, all, find, pattern};
use crate::item::{Collection, Item};
use crate::kinds::Kinds;
use crate::known::Known;
use crate::ops::distinct;
use crate::parser::{Ast, AstKind};
use crate::plan::{Namespace, Place, Plan, TypeTest};
use crate::temporal::Temporal;
use crate::types::{RESOURCES, SYSTEM, Type};

const CLOCK: &str = "reads the clock; a replay must give the same bytes. Use a time of the record";
const TERMINOLOGY: &str = "asks a terminology server; use a concept map";
const PROFILE: &str = "reads profiles; the validator checks what is written against those of R4";

/// Functions of FHIRPath that are refused where nothing stands in for them, and why.
pub(crate) const REFUSED: &[(&str, &str)] = &[
    ("today", CLOCK),
    ("now", CLOCK),
    ("timeOfDay", CLOCK),
    ("resolve", "reads other resources; an expression sees one"),
    ("memberOf", TERMINOLOGY),
    ("subsumes", TERMINOLOGY),
    ("subsumedBy", TERMINOLOGY),
    ("conformsTo", PROFILE),
    ("elementDefinition", PROFILE),
    ("slice", PROFILE),
    ("htmlChecks", "reads XHTML; the validator does that"),
    ("defineVariable", "is not of the normative specification; use an outer variable"),
];

pub(crate) fn compile(ast: &Ast, env: &Env) -> Result<(Plan, Known), CompileError> {
    Compiler { env }.plan(ast, Inside { root: true, this: &env.focus })
}

struct Compiler<'e> {
    env: &'e Env,
}

/// Where a part of an expression stands.
#[derive(Clone, Copy)]
struct Inside<'k> {
    /// Whether `$this` is still the focus of the whole expression.
    root: bool,
    /// What `$this` is.
    this: &'k Known,
}

fn error<T>(at: usize, message: impl Into<String>) -> Result<T, CompileError> {
    Err(CompileError { offset: at, message: message.into() })
}

/// A part compiled, and what is known of its items.
type Compiled = Result<(Plan, Known), CompileError>;

impl Compiler<'_> {
    fn plan(&self, ast: &Ast, inside: Inside<'_>) -> Compiled {
        let boxed = |ast: &Ast| self.plan(ast, inside).map(|(plan, known)| (Box::new(plan), known));
        let at = place(ast.at);
        Ok(match &ast.kind {
            AstKind::Empty => (Plan::Empty, Known::default()),
            AstKind::Literal(item) => (Plan::Literal(item.clone()), Known::of(Kinds::of_item(item))),
            AstKind::This => (Plan::This, inside.this.clone()),
            AstKind::Index => (Plan::Index, Known::of(Kinds::NUMBER)),
            AstKind::Total => (Plan::Total, Known::default()),
            AstKind::Variable(name) => self.variable(ast.at, name)?,
            AstKind::Member(input, name) => self.member(ast.at, input.as_deref(), name, inside)?,
            AstKind::At(input, index) => {
                let (input, known) = boxed(input)?;
                (Plan::At(at, input, boxed(index)?.0), known)
            }
            AstKind::Negate(operand) => {
                let (operand, known) = boxed(operand)?;
                (Plan::Negate(at, operand), known)
            }
            AstKind::Plus(operand) => {
                let (operand, known) = boxed(operand)?;
                (Plan::Plus(at, operand), known)
            }
            AstKind::Binary(op, left, right) => {
                let ((left, a), (right, b)) = (boxed(left)?, boxed(right)?);
                (Plan::Binary(at, *op, left, right), check::binary(self.env, ast.at, *op, &a, &b)?)
            }
            AstKind::Union(parts) => self.union(ast.at, parts, inside)?,
            AstKind::Type(input, is, name) => {
                let (input, known) = boxed(input)?;
                self.typed(ast.at, input, known, *is, name)?
            }
            AstKind::Call(input, name, args) => self.call(ast.at, input.as_deref(), name, args, inside)?,
        })
    }

    fn union(&self, at: usize, parts: &[Ast], inside: Inside<'_>) -> Compiled {
        if let Some(items) = parts.iter().map(constant).collect::<Option<Collection<'_>>>() {
            let kinds = items.iter().map(Kinds::of_item).reduce(Kinds::or).unwrap_or(Kinds::ANY);
            let set = distinct(items).or_else(|cause| error(at, cause.message))?;
            return Ok((Plan::Set(set), Known::of(kinds)));
        }
        let parts = parts.iter().map(|part| self.plan(part, inside)).collect::<Result<Vec<_>, _>>()?;
        let (plans, known): (Vec<Plan>, Vec<Known>) = parts.into_iter().unzip();
        Ok((Plan::Union(plans.into()), known.into_iter().reduce(Known::or).unwrap_or_default()))
    }

    /// `is` and `as`, written as operators or functions.
    fn typed(&self, at: usize, input: Box<Plan>, known: Known, is: bool, name: &[String]) -> Compiled {
        let test = self.type_test(at, name)?;
        if is {
            return Ok((Plan::Is(place(at), input, test), Known::of(Kinds::BOOLEAN)));
        }
        let of = name.last().map(String::as_str).unwrap_or_default();
        let known = match self.env.definitions {
            Some(definitions) => definitions.narrow(at, &known, of)?,
            None => Known::default(),
        };
        Ok((Plan::OfType(input, test), known))
    }

    fn variable(&self, at: usize, name: &str) -> Compiled {
        // The last declared of that name hides the others.
        if let Some(slot) = self.env.variables.iter().rposition(|(of, _)| **of == *name) {
            return Ok((Plan::Variable(slot), Known::shaped(&self.env.variables[slot].1)));
        }
        let constant = match name {
            "context" | "resource" | "rootResource" => return Ok((Plan::Root, Known::default())),
            "sct" => Cow::Borrowed("http://snomed.info/sct"),
            "loinc" => Cow::Borrowed("http://loinc.org"),
            "ucum" => Cow::Borrowed("http://unitsofmeasure.org"),
            _ => match (name.strip_prefix("vs-"), name.strip_prefix("ext-")) {
                (Some(set), _) => Cow::Owned(format!("http://hl7.org/fhir/ValueSet/{set}")),
                (_, Some(url)) => Cow::Owned(format!("http://hl7.org/fhir/StructureDefinition/{url}")),
                _ => return error(at, format!("unknown variable %{name}")),
            },
        };
        Ok((Plan::Literal(Item::String(constant)), Known::of(Kinds::TEXT)))
    }

    fn member(&self, at: usize, input: Option<&Ast>, name: &str, inside: Inside<'_>) -> Compiled {
        let of_root = inside.root && input.is_none_or(|input| matches!(input.kind, AstKind::This));
        let column = match &self.env.columns {
            Some(columns) if of_root => match columns.iter().find(|(column, _)| **column == *name) {
                Some((_, shape)) => Some(Known::shaped(shape)),
                None => return error(at, format!("unknown column {name}")),
            },
            _ => None,
        };
        let leading = input.is_none() && name.starts_with(|c: char| c.is_ascii_uppercase());
        if leading && self.env.fhir && (RESOURCES.contains(&name) || Type::named(name).is_some()) {
            let plan = Plan::TypeRoot(self.type_test(at, &[name.to_owned()])?);
            return Ok((plan, self.leading(at, name, inside.this)?));
        }
        let (input, known) = match input {
            Some(input) => self.plan(input, inside)?,
            None => (Plan::This, inside.this.clone()),
        };
        let (input, boxed) = (Box::new(input), Box::from(name));
        if !self.env.fhir {
            let known = column.map_or_else(|| known.member(at, name), Ok)?;
            return Ok((Plan::Member { input, name: boxed }, known));
        }
        let known = match self.env.definitions {
            Some(definitions) => definitions.step(at, &known, name)?,
            None => Known::default(),
        };
        Ok((Plan::Element { input, name: boxed, of: known.only_type() }, known))
    }

    /// A type's name at the beginning of a path: what is of another type is left out.
    fn leading(&self, at: usize, name: &str, this: &Known) -> Result<Known, CompileError> {
        if matches!(name, "Resource" | "DomainResource") {
            return Ok(this.clone());
        }
        let Some(definitions) = self.env.definitions else { return Ok(Known::default()) };
        if RESOURCES.contains(&name)
            && let Some(resource) = this.is_other_resource(name)
        {
            return error(at, format!("the resource is a {resource}, not a {name}"));
        }
        Ok(definitions.named(name))
    }

    fn call(&self, at: usize, input: Option<&Ast>, name: &str, args: &[Ast], inside: Inside<'_>) -> Compiled {
        let implicit = input.is_none();
        let (input, known) = match input {
            Some(input) => self.plan(input, inside)?,
            None => (Plan::This, inside.this.clone()),
        };
        let input = Box::new(input);
        if let Some(function) = self.env.functions.iter().find(|function| function.name == name) {
            count(at, name, args.len(), *function.args.start(), *function.args.end())?;
            if let Some(check) = &function.check {
                let literals: Vec<Option<&str>> = args.iter().map(literal).collect();
                check(&literals).or_else(|message| error(at, format!("{name}(): {message}")))?;
            }
            let gives = function.gives.as_ref().map(|gives| {
                let literals: Vec<Option<&str>> = args.iter().map(literal).collect();
                Known::shaped(&gives(&literals))
            });
            let (args, _) = self.args(args, inside)?;
            let plan = Plan::Host { at: place(at), input, name: function.name, args };
            return Ok((plan, gives.unwrap_or_default()));
        }
        if let (true, [arg]) = (matches!(name, "is" | "as" | "ofType"), args) {
            return self.typed(arg.at, input, known, name == "is", &type_path(arg)?);
        }
        if let Some(moment) = self.env.clock.and_then(|now| clock(name, now)) {
            count(at, name, args.len(), 0, 0)?;
            let kinds = Kinds::of_item(&moment);
            return Ok((Plan::Literal(moment), Known::of(kinds)));
        }
        if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
            return error(at, format!("{name}() is refused: it {why}"));
        }
        let Some(function) = find(name) else { return error(at, unknown(name)) };
        count(at, name, args.len(), *function.args.start(), *function.args.end())?;
        check::input(self.env, at, function, &known)?;
        if let Some(pattern) = literal_pattern(function.name, args)? {
            return Ok(match args {
                [_, with] => {
                    let with = Box::new(self.plan(with, inside)?.0);
                    let plan = Plan::ReplaceMatches { at: place(at), input, pattern, with };
                    (plan, Known::of(Kinds::TEXT))
                }
                _ => (Plan::Match { at: place(at), input, pattern }, Known::of(Kinds::BOOLEAN)),
            });
        }
        let plan = |args| match function.run {
            Run::Stream(run) => Plan::Stream { at: place(at), input, run, args },
            Run::Whole(run) => {
                Plan::Call { at: place(at), input, name: function.name, run, cost: function.cost, args }
            }
        };
        if let ("getReferenceKey", [arg]) = (name, args) {
            // A type, not an expression.
            let of = type_path(arg)?.pop().unwrap_or_default();
            return Ok((plan([Plan::Literal(Item::String(Cow::Owned(of)))].into()), Known::of(Kinds::TEXT)));
        }
        let unknown = Known::default();
        let this = match name {
            "where" | "select" | "exists" | "all" | "iif" => &known,
            // What later rounds stand on is not known.
            "repeat" | "repeatAll" | "aggregate" => &unknown,
            _ => inside.this,
        };
        // In a lambda `$this` is each item, in other arguments what it is outside.
        let same_items = implicit && !name.starts_with("repeat");
        let root = inside.root && (same_items || !function.run.is_lambda());
        let (args, of_args) = self.args(args, Inside { root, this })?;
        let gives = match (name, function.gives) {
            ("select", _) => of_args.into_iter().next().unwrap_or_default(),
            ("iif", _) => of_args.into_iter().skip(1).reduce(Known::or).unwrap_or_default(),
            ("coalesce", _) => of_args.into_iter().reduce(Known::or).unwrap_or_default(),
            ("union" | "combine", _) => of_args.into_iter().fold(known, Known::or),
            ("extension", _) => match self.env.definitions {
                Some(definitions) => definitions.named("Extension"),
                None => unknown,
            },
            (_, Gives::Input) => known,
            (_, Gives::Kinds(kinds)) => Known::of(kinds),
        };
        Ok((plan(args), gives))
    }

    fn args(&self, args: &[Ast], inside: Inside<'_>) -> Result<(Box<[Plan]>, Vec<Known>), CompileError> {
        let args = args.iter().map(|arg| self.plan(arg, inside)).collect::<Result<Vec<_>, _>>()?;
        let (plans, known): (Vec<Plan>, Vec<Known>) = args.into_iter().unzip();
        Ok((plans.into(), known))
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
    match all().map(|function| function.name).find(same) {
        Some(close) => format!("unknown function {name}(); did you mean {close}()?"),
        None => format!("unknown function {name}()"),
    }
}
