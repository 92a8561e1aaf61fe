//! From YAML to a [`Template`], collecting problems.

use fhirehose_fhirpath::{Expr, Shape};
use fhirehose_tape::write_string;

use super::syntax::{Directive, directive, hole_length};
use super::{Assign, Entry, Hole, Object, Piece, Scope, Template, Watch};
use super::{cardinality, codes, written};
use crate::problem::Problems;
use crate::shared::Places;
use crate::terminology::Terminology;
use crate::yaml::{Data, Key, Node, Scalar};

/// Compiles the templates of one file, collecting problems.
pub(crate) struct Compiler<'c, 'f> {
    /// As other files name it.
    file: Box<str>,
    pub problems: &'c mut Problems<'f>,
    pub places: Places,
    terminology: &'c mut Terminology,
}

/// What a template makes, which decides what its keys may be.
#[derive(Clone, Copy)]
pub(crate) enum Makes<'m> {
    /// An element of that R4 type, or a resource as a whole; names and what is written are checked against its
    /// definition.
    Element(&'m str),
    /// Anything: a variable, a record.
    Anything,
}

impl<'c, 'f> Compiler<'c, 'f> {
    pub fn of(file: &str, problems: &'c mut Problems<'f>, terminology: &'c mut Terminology) -> Self {
        Compiler { file: file.into(), problems, places: Places::default(), terminology }
    }
}

impl Compiler<'_, '_> {
    pub fn hole(&mut self, node: &Node, scope: &Scope, path: &str) -> Option<Hole> {
        match node.text() {
            Some(text) => self.expression(text, node, 0, scope, path),
            None => {
                self.problems.add(node.at, format!("a FHIRPath expression is wanted, not {}", node.kind()));
                None
            }
        }
    }

    /// `offset`: where in the node's text the expression starts.
    fn expression(
        &mut self,
        source: &str,
        node: &Node,
        offset: usize,
        scope: &Scope,
        path: &str,
    ) -> Option<Hole> {
        match Expr::compile(source, &scope.env) {
            Ok(expr) => {
                Some(Hole { expr, shared: None, nullable: false, path: path.into(), at: node.inside(offset) })
            }
            Err(error) => {
                self.problems.add(node.inside(offset + error.offset), error.message);
                None
            }
        }
    }

    pub fn template(&mut self, node: &Node, scope: &Scope, makes: Makes<'_>, path: &str) -> Option<Template> {
        match &node.data {
            Data::Scalar { .. } => {
                let scalar = node.scalar()?;
                let kind = match scalar {
                    Scalar::Text(_) => Some("string"),
                    Scalar::Bool(_) => Some("boolean"),
                    Scalar::Number(_) => Some("decimal"),
                    Scalar::Null => None,
                };
                let template = match scalar {
                    Scalar::Text(text) => self.text(text, node, scope, path)?,
                    Scalar::Null => literal("null"),
                    Scalar::Bool(value) => literal(if value { "true" } else { "false" }),
                    Scalar::Number(text) => literal(text),
                };
                self.fits(&template, kind, node, makes, path)?;
                Some(template)
            }
            Data::List(list) => {
                // All elements are compiled, so that all of their problems are told.
                let elements: Vec<_> =
                    list.iter().map(|node| self.template(node, scope, makes, path)).collect();
                Some(Template::List(elements.into_iter().collect::<Option<_>>()?))
            }
            Data::Map(entries) => self.map(entries, scope, makes, path),
        }
    }

    /// Whether what a scalar writes can be the element it stands in; `kind` is what it is if it is no expression.
    fn fits(
        &mut self,
        template: &Template,
        kind: Option<&str>,
        node: &Node,
        makes: Makes<'_>,
        path: &str,
    ) -> Option<()> {
        let Makes::Element(of) = makes else { return Some(()) };
        let (at, fits) = match (template, kind) {
            (Template::First(hole) | Template::All(hole), _) => (hole.at, hole.expr.fits(of)),
            (_, Some(kind)) if same_json(kind, of) => return Some(()),
            (_, Some(kind)) => (node.at, Err(format!("a {kind}"))),
            (_, None) => return Some(()),
        };
        match fits {
            Ok(()) => Some(()),
            Err(found) => {
                self.problems.add(at, format!("`{path}` is of type {of}, and {found} is none"));
                None
            }
        }
    }

    /// A text, with or without holes.
    pub fn text(&mut self, text: &str, node: &Node, scope: &Scope, path: &str) -> Option<Template> {
        if let Some(expr) = text.strip_prefix("{[") {
            let Some(expr) = expr.trim_end().strip_suffix("]}") else {
                self.problems.add(node.at, "`{[ … ]}` stands alone: nothing may follow it");
                return None;
            };
            let start = 2 + leading_blanks(expr);
            return self.expression(expr.trim(), node, start, scope, path).map(Template::All);
        }
        let mut pieces = Vec::new();
        let (mut rest, mut offset) = (text, 0);
        while let Some(start) = rest.find("{{") {
            let Some(length) = hole_length(&rest[start + 2..]) else {
                self.problems.add(node.inside(offset + start), "`{{` without its `}}`");
                return None;
            };
            if start > 0 {
                pieces.push(Piece::Static(escaped(&rest[..start])));
            }
            let inner = &rest[start + 2..start + 2 + length];
            let nullable = inner.starts_with('+') && inner.ends_with('+') && inner.len() > 1;
            let trim = usize::from(nullable);
            let expr = &inner[trim..inner.len() - trim];
            let at = offset + start + 2 + trim + leading_blanks(expr);
            let mut hole = self.expression(expr.trim(), node, at, scope, path)?;
            hole.nullable = nullable;
            let end = start + 2 + length + 2;
            if start == 0 && offset == 0 && end == rest.len() {
                hole.shared = (!scope.inner && !nullable).then(|| self.places.add(expr.trim()));
                return Some(Template::First(hole));
            }
            pieces.push(Piece::Hole(hole));
            (rest, offset) = (&rest[end..], offset + end);
        }
        if rest.contains("{%") {
            self.problems.add(node.at, "`{% … %}` is written as a key, not in a value");
            return None;
        }
        if pieces.is_empty() {
            let mut json = Vec::new();
            write_string(text, &mut json);
            return Some(Template::Literal(json.into()));
        }
        if !rest.is_empty() {
            pieces.push(Piece::Static(escaped(rest)));
        }
        Some(Template::Text(pieces))
    }

    fn map(
        &mut self,
        entries: &[(Key, Node)],
        scope: &Scope,
        makes: Makes<'_>,
        path: &str,
    ) -> Option<Template> {
        if matches!(makes, Makes::Element(_)) {
            codes::check(entries, &self.file, self.terminology, self.problems);
        }
        let mut scope = scope.clone();
        let mut assigns = Vec::new();
        let mut rest: Vec<(&Key, &Node, Directive<'_>)> = Vec::new();
        let mut sound = true;
        for (key, node) in entries {
            match directive(&key.text) {
                Ok(Directive::Assign) => match self.assigns(node, &mut scope, path) {
                    Some(more) => assigns.extend(more),
                    None => sound = false,
                },
                Ok(directive) => rest.push((key, node, directive)),
                Err(message) => {
                    self.problems.add(key.at, message);
                    sound = false;
                }
            }
        }
        let body = self.body(&rest, &scope, makes, path)?;
        if !sound {
            return None;
        }
        Some(if assigns.is_empty() { body } else { Template::Scope { assigns, body: Box::new(body) } })
    }

    fn body(
        &mut self,
        entries: &[(&Key, &Node, Directive<'_>)],
        scope: &Scope,
        makes: Makes<'_>,
        path: &str,
    ) -> Option<Template> {
        let is_loop = |d: &Directive<'_>| matches!(d, Directive::For { .. } | Directive::Focus(_));
        if let Some((key, node, directive)) = entries.iter().find(|(_, _, d)| is_loop(d)) {
            if entries.len() > 1 {
                self.problems.add(key.at, "a loop is the only key of its object, beside `{% assign %}`");
                return None;
            }
            return self.repeated(key, node, directive, scope, makes, path);
        }
        if let (Makes::Element(of), Some((key, ..))) =
            (makes, entries.iter().find(|(_, _, d)| matches!(d, Directive::Name)))
            && is_primitive(of)
        {
            self.problems.add(key.at, format!("`{path}` is of type {of}, and an object is none"));
            return None;
        }
        let condition = self.condition(entries, scope, makes, path)?;
        let (mut merges, mut plain) = (Vec::new(), Vec::new());
        let mut sound = true;
        for (key, node, directive) in entries {
            match directive {
                Directive::Merge => match self.template(node, scope, makes, path) {
                    Some(Template::List(list)) => merges.extend(list),
                    Some(one) => merges.push(one),
                    None => sound = false,
                },
                Directive::Name => match self.entry(key, node, scope, makes, path) {
                    Some(entry) => plain.push(entry),
                    None => sound = false,
                },
                _ => {}
            }
        }
        match condition {
            Some(alone) if plain.is_empty() && merges.is_empty() && sound => return Some(alone),
            Some(_) if !merges.is_empty() => {
                self.problems
                    .add(entries[0].0.at, "`{% if %}` beside `{% merge %}`: put it inside the merge");
                return None;
            }
            Some(members) => merges.push(members),
            None => {}
        }
        sound.then_some(Template::Object(Object { entries: plain, merges }))
    }

    /// The `{% if %}` and `{% else %}` among the keys; `None` after a problem.
    fn condition(
        &mut self,
        entries: &[(&Key, &Node, Directive<'_>)],
        scope: &Scope,
        makes: Makes<'_>,
        path: &str,
    ) -> Option<Option<Template>> {
        let mut tests = entries.iter().filter_map(|(key, node, directive)| match directive {
            Directive::If(test) => Some((key, node, test)),
            _ => None,
        });
        let mut others = entries.iter().filter(|(_, _, directive)| matches!(directive, Directive::Else));
        let (test, other) = (tests.next(), others.next());
        if let Some((key, ..)) = tests.next() {
            self.problems
                .add(key.at, "a second `{% if %}` in one object: put it inside the other, or in a merge");
            return None;
        }
        let Some((key, node, test)) = test else {
            return match other {
                None => Some(None),
                Some((key, ..)) => {
                    self.problems.add(key.at, "`{% else %}` without `{% if %}`");
                    None
                }
            };
        };
        let condition = self.key_expression(key, test, scope, path);
        let then = self.template(node, scope, makes, path);
        let otherwise = other.map(|(_, node, _)| self.template(node, scope, makes, path));
        let otherwise = match otherwise {
            Some(template) => Some(Box::new(template?)),
            None => None,
        };
        Some(Some(Template::If { condition: condition?, then: Box::new(then?), otherwise }))
    }

    fn repeated(
        &mut self,
        key: &Key,
        node: &Node,
        directive: &Directive<'_>,
        scope: &Scope,
        makes: Makes<'_>,
        path: &str,
    ) -> Option<Template> {
        match directive {
            Directive::For { index, item, over } => {
                let over = self.key_expression(key, over, scope, path);
                let mut scope = scope.clone();
                let shape = over.as_ref().map_or_else(Shape::any, |over| over.expr.shape());
                let item = scope.declare_inner(item, shape);
                let index = index.map(|name| scope.declare_inner(name, Shape::of(&["integer"])));
                let body = Box::new(self.template(node, &scope, makes, path)?);
                Some(Template::For { item, index, over: over?, body })
            }
            Directive::Focus(over) => {
                let over = self.key_expression(key, over, scope, path);
                // What is in focus inside need not have the columns of the root.
                let body = Box::new(self.template(node, &scope.refocused(), makes, path)?);
                Some(Template::Focus { over: over?, body })
            }
            _ => None,
        }
    }

    fn key_expression(&mut self, key: &Key, source: &str, scope: &Scope, path: &str) -> Option<Hole> {
        match Expr::compile(source, &scope.env) {
            Ok(expr) => Some(Hole { expr, shared: None, nullable: false, path: path.into(), at: key.at }),
            Err(error) => {
                self.problems.add(key.at, error.message);
                None
            }
        }
    }

    fn entry(
        &mut self,
        key: &Key,
        node: &Node,
        scope: &Scope,
        makes: Makes<'_>,
        path: &str,
    ) -> Option<Entry> {
        let path = format!("{path}.{}", key.text);
        let inside = makes;
        let makes = match makes {
            Makes::Element(of) => match element(of, &key.text) {
                Some(makes) => makes,
                None => {
                    self.problems.add(key.at, format!("FHIR R4 has no element `{path}`"));
                    return None;
                }
            },
            Makes::Anything => Makes::Anything,
        };
        let value = self.template(node, scope, makes, &path)?;
        if let Makes::Element(of) = inside
            && let Some(message) = cardinality::of_element(of, &key.text, &path, &value)
        {
            self.problems.add(key.at, message);
            return None;
        }
        if let Makes::Element(of) = makes {
            let missing = cardinality::missing(of, &value);
            for required in &missing {
                self.problems.add(node.at, format!("`{path}` needs `{required}`"));
            }
            if !missing.is_empty() {
                return None;
            }
        }
        if let Makes::Element(of) = inside
            && let Err((place, rule)) = written::fits(of, &key.text, &value)
        {
            self.problems.add(node.at, format!("`{path}{place}`: {rule}"));
            return None;
        }
        let mut json = Vec::new();
        write_string(&key.text, &mut json);
        json.push(b':');
        let (watch, required) = (Watch::Nothing, false);
        Some(Entry { key: key.text.as_str().into(), json: json.into(), value, watch, required })
    }

    fn assigns(&mut self, node: &Node, scope: &mut Scope, path: &str) -> Option<Vec<Assign>> {
        let entries: Vec<&(Key, Node)> = match &node.data {
            Data::Map(entries) if entries.len() == 1 => entries.iter().collect(),
            Data::List(list) => {
                let single = |node: &'_ Node| matches!(&node.data, Data::Map(entries) if entries.len() == 1);
                if let Some(odd) = list.iter().find(|node| !single(node)) {
                    self.problems.add(odd.at, "one variable per list element of `{% assign %}`");
                    return None;
                }
                let maps = list.iter().filter_map(|node| match &node.data {
                    Data::Map(entries) => entries.first(),
                    _ => None,
                });
                maps.collect()
            }
            _ => {
                self.problems.add(node.at, "`{% assign %}` takes one variable, or a list of them");
                return None;
            }
        };
        let mut assigns = Vec::new();
        let mut sound = true;
        for (key, node) in entries {
            // Declared after its value is compiled: a variable may hide one of its name and be made of it.
            match self.template(node, scope, Makes::Anything, &format!("{path}.%{}", key.text)) {
                Some(value) => {
                    let shape = match &value {
                        Template::First(hole) | Template::All(hole) => hole.expr.shape(),
                        Template::Text(_) => Shape::of(&["string"]),
                        _ => Shape::any(),
                    };
                    assigns.push(Assign { slot: scope.declare_inner(&key.text, shape), value });
                }
                None => {
                    // Declared all the same, so that its uses are no further problems.
                    scope.declare_inner(&key.text, Shape::any());
                    sound = false;
                }
            }
        }
        sound.then_some(assigns)
    }
}

/// What the element of a name makes; none where there is none.
fn element(of: &str, name: &str) -> Option<Makes<'static>> {
    let sibling = name.strip_prefix('_');
    let defined = fhirehose_fhir::element_type(of, sibling.unwrap_or(name))?;
    Some(match sibling {
        // What a primitive carries beside its value.
        Some(_) if is_primitive(defined) => Makes::Element("Element"),
        Some(_) => return None,
        // A contained resource is of any type.
        None if defined == "Resource" => Makes::Anything,
        None => Makes::Element(defined),
    })
}

fn is_primitive(of: &str) -> bool {
    of.starts_with(|c: char| c.is_ascii_lowercase())
}

/// Whether a scalar of a kind is written as elements of a type are.
fn same_json(kind: &str, of: &str) -> bool {
    match of {
        "boolean" => kind == "boolean",
        "decimal" | "integer" | "integer64" | "positiveInt" | "unsignedInt" => kind == "decimal",
        _ => is_primitive(of) && kind == "string",
    }
}

fn literal(json: &str) -> Template {
    Template::Literal(json.as_bytes().into())
}

/// The text as it stands between the quotes of a JSON string.
fn escaped(text: &str) -> Box<str> {
    let mut json = Vec::new();
    write_string(text, &mut json);
    let inner = json.get(1..json.len() - 1).unwrap_or_default();
    String::from_utf8_lossy(inner).into()
}

fn leading_blanks(text: &str) -> usize {
    text.len() - text.trim_start().len()
}
