//! The pass that finds elements FHIR does not have: it follows the paths of an expression as far as they can
//! be told from their text alone, and says nothing where they cannot.

use crate::env::Env;
use crate::error::CompileError;
use crate::parser::{Ast, AstKind};
use crate::types::{RESOURCES, Type};

/// The elements an expression may stand on, by their paths from the resource; `None` where that is not known.
pub(crate) type Paths = Option<Vec<Path>>;

#[derive(Clone)]
pub(crate) struct Path {
    /// Dotted JSON names; empty for the resource itself.
    text: String,
    /// Whether the last name is a choice spelled out: `valueQuantity` of `value`.
    choice: bool,
}

/// Whether a resource type has an element, by dotted JSON names.
pub(crate) type Exists = fn(&str, &str) -> bool;

/// Checks an expression and tells what it stands on.
pub(crate) fn check(ast: &Ast, env: &Env) -> Result<Paths, CompileError> {
    let (Some(exists), Some(resource)) = (env.exists, &env.resource) else { return Ok(None) };
    Walk { exists, resource }.paths(ast, &env.focus)
}

/// The resource as a whole.
pub(crate) fn root() -> Paths {
    Some(vec![Path { text: String::new(), choice: false }])
}

struct Walk<'e> {
    exists: Exists,
    resource: &'e str,
}

impl Walk<'_> {
    fn paths(&self, ast: &Ast, this: &Paths) -> Result<Paths, CompileError> {
        Ok(match &ast.kind {
            AstKind::This => this.clone(),
            AstKind::Member(None, name) if RESOURCES.contains(&name.as_str()) => {
                self.leading(ast.at, name, this)?
            }
            AstKind::Member(None, name) => self.step(ast.at, this.clone(), name)?,
            AstKind::Member(Some(input), name) => self.step(ast.at, self.paths(input, this)?, name)?,
            AstKind::At(input, index) => {
                self.paths(index, this)?;
                self.paths(input, this)?
            }
            AstKind::Negate(operand) | AstKind::Plus(operand) => {
                self.paths(operand, this)?;
                None
            }
            AstKind::Binary(_, left, right) => {
                self.paths(left, this)?;
                self.paths(right, this)?;
                None
            }
            AstKind::Union(parts) => self.either(parts.iter(), this)?,
            AstKind::Type(input, is, name) => {
                let input = self.paths(input, this)?;
                let name = name.last().map(String::as_str).unwrap_or_default();
                if *is { None } else { self.narrow(ast.at, input, name)? }
            }
            AstKind::Call(input, name, args) => {
                let input = input.as_ref().map_or(Ok(this.clone()), |input| self.paths(input, this))?;
                self.call(ast.at, input, name, args, this)?
            }
            AstKind::Empty | AstKind::Literal(_) | AstKind::Index | AstKind::Total | AstKind::Variable(_) => {
                None
            }
        })
    }

    fn call(
        &self,
        at: usize,
        input: Paths,
        name: &str,
        args: &[Ast],
        this: &Paths,
    ) -> Result<Paths, CompileError> {
        let each = |within: &Paths| args.iter().try_for_each(|arg| self.paths(arg, within).map(|_| ()));
        match (name, args) {
            ("as" | "ofType", [Ast { kind: AstKind::Member(_, of), .. }]) => {
                return self.narrow(at, input, of);
            }
            ("is" | "getReferenceKey", _) => {}
            ("select", [projection]) => return self.paths(projection, &input),
            ("where", _) => {
                each(&input)?;
                return Ok(input);
            }
            ("iif", [condition, branches @ ..]) => {
                self.paths(condition, &input)?;
                return self.either(branches.iter(), &input);
            }
            ("exists" | "all", _) => each(&input)?,
            // What later rounds stand on is not known.
            ("repeat" | "aggregate", _) => {}
            ("first" | "last" | "tail" | "skip" | "take" | "single" | "distinct" | "trace", _) => {
                each(this)?;
                return Ok(input);
            }
            _ => each(this)?,
        }
        Ok(None)
    }

    /// What one of several expressions stands on.
    fn either<'x>(&self, parts: impl Iterator<Item = &'x Ast>, this: &Paths) -> Result<Paths, CompileError> {
        let mut all = Some(Vec::new());
        for part in parts {
            let paths = self.paths(part, this)?;
            all = all.zip(paths).map(|(all, paths)| [all, paths].concat());
        }
        Ok(all.filter(|all| !all.is_empty()))
    }

    /// A type's name at the beginning.
    fn leading(&self, at: usize, name: &str, this: &Paths) -> Result<Paths, CompileError> {
        let at_root = this.as_ref().is_some_and(|paths| paths.iter().all(|path| path.text.is_empty()));
        match name {
            "Resource" | "DomainResource" => Ok(this.clone()),
            _ if name == self.resource => Ok(this.clone()),
            _ if at_root => error(at, format!("the resource is a {}, not a {name}", self.resource)),
            _ => Ok(None),
        }
    }

    fn step(&self, at: usize, input: Paths, name: &str) -> Result<Paths, CompileError> {
        let Some(input) = input else { return Ok(None) };
        // Every element has them, a primitive in its `_name`.
        if matches!(name, "id" | "extension") {
            return Ok(None);
        }
        let mut found = Vec::new();
        for path in &input {
            let text = if path.text.is_empty() { name.to_owned() } else { format!("{}.{name}", path.text) };
            if (self.exists)(self.resource, &text) {
                found.push(Path { text, choice: false });
                continue;
            }
            let choices = Type::choices().map(|of| format!("{text}{of}"));
            found.extend(
                choices
                    .filter(|text| (self.exists)(self.resource, text))
                    .map(|text| Path { text, choice: true }),
            );
        }
        if found.is_empty() {
            let of = input.first().map(|path| path.text.as_str()).filter(|text| !text.is_empty());
            let of = of.map_or(self.resource.to_owned(), |text| format!("{}.{text}", self.resource));
            return error(at, format!("{of} has no element {name}"));
        }
        Ok(Some(found))
    }

    fn narrow(&self, at: usize, input: Paths, of: &str) -> Result<Paths, CompileError> {
        let Some(input) = input else { return Ok(None) };
        let suffix = Type::capital(of);
        let keeps = |path: &Path| !path.choice || path.text.ends_with(&suffix);
        let kept: Vec<Path> = input.iter().filter(|path| keeps(path)).cloned().collect();
        if kept.is_empty() {
            return error(at, format!("the element of {} is never a {of}", self.resource));
        }
        Ok(Some(kept))
    }
}

fn error<T>(at: usize, message: String) -> Result<T, CompileError> {
    Err(CompileError { offset: at, message })
}
