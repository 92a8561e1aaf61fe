//! Writes compiled templates as JSON, straight into the output. What turns out empty is rolled back: absent
//! members, empty lists and empty objects leave no trace. Values are never read as templates again.

use std::cell::{Cell, OnceCell};
use std::ops::Range;

use bumpalo::Bump;
use fhirehose_fhirpath::{Collection, Ctx, EvalError, Item, collect};
use fhirehose_stream::{Reason, Rejection};
use fhirehose_tape::{Kind, Tape, Value, write_string};
use uuid::Uuid;

use crate::checker::Checker;
use crate::explain::Tracer;
use crate::limits::{MAX_OUTPUT, MAX_STEPS};
use crate::output::single;
use crate::remembered::Remembered;
use crate::shared::{Repeated, Results};
use crate::template::{Assign, Entry, Hole, Object, Piece, Template};

/// Where what is made while a record's outputs are written lives.
#[derive(Default)]
pub(crate) struct Arena {
    /// What functions make, and results that are needed again.
    pub texts: Bump,
    /// Ids by their names: what is referred to is referred to again by other records.
    pub ids: Remembered<(), Uuid>,
    documents: Documents,
}

impl Arena {
    /// Forgets all for the next record; room for texts stays.
    pub fn reset(&mut self) {
        self.texts.reset();
        self.documents = Documents::default();
    }
}

/// Documents made while a template is written: variables whose value is itself a template.
#[derive(Default)]
struct Documents {
    tape: OnceCell<Tape>,
    next: OnceCell<Box<Documents>>,
}

impl Documents {
    fn keep(&self, tape: Tape) -> &Tape {
        let mut last = self;
        let mut tape = Some(tape);
        loop {
            let kept = last.tape.get_or_init(|| tape.take().unwrap_or_default());
            if tape.is_none() {
                return kept;
            }
            last = last.next.get_or_init(Box::default);
        }
    }
}

/// Writes the outputs of one record.
pub(crate) struct Renderer<'a> {
    arena: &'a Arena,
    trace: Option<Tracer<'a>>,
    /// Judges what is written, where that is asked.
    checker: Option<&'a Checker>,
    results: Results<'a>,
    /// Steps taken.
    steps: Cell<u64>,
    /// Bytes of the variables made.
    made: Cell<usize>,
}

/// Whether something was written. Nothing was if not.
type Written = Result<bool, Rejection>;

impl<'a> Renderer<'a> {
    pub fn new(arena: &'a Arena, repeated: &'a Repeated, trace: Option<Tracer<'a>>) -> Self {
        let (steps, made) = (Cell::new(0), Cell::new(0));
        Renderer { arena, trace, checker: None, results: Results::of(repeated, &arena.texts), steps, made }
    }

    /// The same, and what is written is judged part by part.
    pub fn checking(self, checker: &'a Checker) -> Self {
        Renderer { checker: Some(checker), ..self }
    }

    fn spend(&self, steps: u64) -> Result<(), Rejection> {
        self.steps.set(self.steps.get() + steps);
        if self.steps.get() > MAX_STEPS {
            return Err(Rejection::new(Reason::TooLarge, format!("more than {MAX_STEPS} steps")));
        }
        Ok(())
    }

    pub fn eval(&self, hole: &'a Hole, ctx: &Ctx<'a>) -> Result<Collection<'a>, Rejection> {
        let result = hole.expr.eval(ctx);
        self.spend(ctx.steps())?;
        if let Some(trace) = self.trace {
            trace.borrow_mut().hole(hole, &result, ctx);
        }
        result.map_err(|error| rejection(hole, &error))
    }

    /// A condition; empty is false.
    pub fn test(&self, hole: &'a Hole, ctx: &Ctx<'a>) -> Result<bool, Rejection> {
        let result = hole.expr.test(ctx);
        self.spend(ctx.steps())?;
        if let Some(trace) = self.trace {
            let items = result.as_ref().map(|value| match value {
                Some(value) => Collection::from_iter([Item::Boolean(*value)]),
                None => Collection::new(),
            });
            trace.borrow_mut().hole(hole, &items.map_err(Clone::clone), ctx);
        }
        result.map(|value| value == Some(true)).map_err(|error| rejection(hole, &error))
    }

    fn first(&self, hole: &'a Hole, ctx: &Ctx<'a>, out: &mut Vec<u8>) -> Written {
        if let Some(number) = self.shared(hole) {
            return self.results.write(number, out, |out| {
                self.eval(hole, ctx)?.iter().take(1).for_each(|item| item.write_json(out));
                Ok(())
            });
        }
        match self.eval(hole, ctx)?.first() {
            Some(item) => item.write_json(out),
            None if hole.nullable => out.extend_from_slice(b"null"),
            None => return Ok(false),
        }
        Ok(true)
    }

    /// The number under which the result is kept for the expression's other places; none while explaining, which
    /// tells every place.
    fn shared(&self, hole: &Hole) -> Option<usize> {
        hole.shared.filter(|number| self.trace.is_none() && self.results.holds(*number))
    }

    /// Writes a template where one value belongs.
    pub fn value(&self, template: &'a Template, ctx: &mut Ctx<'a>, out: &mut Vec<u8>) -> Written {
        self.spend(1)?;
        let written = self.write(template, ctx, out)?;
        fits(out)?;
        Ok(written)
    }

    fn write(&self, template: &'a Template, ctx: &mut Ctx<'a>, out: &mut Vec<u8>) -> Written {
        match template {
            Template::Literal(json) => {
                out.extend_from_slice(json);
                Ok(true)
            }
            Template::First(hole) => self.first(hole, ctx, out),
            Template::Text(pieces) => self.text(pieces, ctx, out),
            Template::Object(object) => self.object(object, ctx, out),
            Template::All(_) | Template::List(_) | Template::For { .. } | Template::Focus { .. } => {
                let start = out.len();
                out.push(b'[');
                self.elements(template, ctx, out)?;
                Ok(close(out, start, b']'))
            }
            Template::If { condition, then, otherwise } => {
                match self.branch(condition, then, otherwise, ctx)? {
                    Some(branch) => self.value(branch, ctx, out),
                    None => Ok(false),
                }
            }
            Template::Scope { assigns, body } => {
                self.assign(assigns, ctx)?;
                self.value(body, ctx, out)
            }
        }
    }

    fn branch(
        &self,
        condition: &'a Hole,
        then: &'a Template,
        otherwise: &'a Option<Box<Template>>,
        ctx: &Ctx<'a>,
    ) -> Result<Option<&'a Template>, Rejection> {
        Ok(if self.test(condition, ctx)? { Some(then) } else { otherwise.as_deref() })
    }

    /// Writes a template where elements of a list belong: lists in it become one with the list around them.
    fn elements(
        &self,
        template: &'a Template,
        ctx: &mut Ctx<'a>,
        out: &mut Vec<u8>,
    ) -> Result<(), Rejection> {
        self.spend(1)?;
        match template {
            Template::All(hole) => {
                for item in &self.eval(hole, ctx)? {
                    separate(out, b'[');
                    item.write_json(out);
                    fits(out)?;
                }
                Ok(())
            }
            Template::List(list) => list.iter().try_for_each(|element| self.elements(element, ctx, out)),
            Template::For { item, index, over, body } => {
                for (position, value) in (0..).zip(self.eval(over, ctx)?) {
                    ctx.set(*item, single(value));
                    if let Some(slot) = index {
                        ctx.set(*slot, single(Item::Integer(position)));
                    }
                    self.elements(body, ctx, out)?;
                }
                Ok(())
            }
            Template::Focus { over, body } => {
                for item in self.eval(over, ctx)? {
                    let outer = ctx.refocus(item);
                    let result = self.elements(body, ctx, out);
                    ctx.restore(outer);
                    result?;
                }
                Ok(())
            }
            Template::If { condition, then, otherwise } => {
                match self.branch(condition, then, otherwise, ctx)? {
                    Some(branch) => self.elements(branch, ctx, out),
                    None => Ok(()),
                }
            }
            Template::Scope { assigns, body } => {
                self.assign(assigns, ctx)?;
                self.elements(body, ctx, out)
            }
            Template::Literal(_) | Template::First(_) | Template::Text(_) | Template::Object(_) => {
                let start = out.len();
                separate(out, b'[');
                if !self.value(template, ctx, out)? {
                    out.truncate(start);
                }
                Ok(())
            }
        }
    }

    fn text(&self, pieces: &'a [Piece], ctx: &mut Ctx<'a>, out: &mut Vec<u8>) -> Written {
        let start = out.len();
        out.push(b'"');
        for piece in pieces {
            match piece {
                Piece::Static(json) => out.extend_from_slice(json.as_bytes()),
                Piece::Hole(hole) => {
                    let items = self.eval(hole, ctx)?;
                    let Some(item) = items.first() else {
                        out.truncate(start);
                        if hole.nullable {
                            out.extend_from_slice(b"null");
                        }
                        return Ok(hole.nullable);
                    };
                    let Some(text) = item.text() else {
                        let detail = format!("{}: an object cannot be part of a text", hole.path);
                        return Err(Rejection::new(Reason::WrongType, detail));
                    };
                    let quote = out.len();
                    write_string(&text, out);
                    // What stands between the quotes.
                    out.remove(quote);
                    out.pop();
                    fits(out)?;
                }
            }
        }
        out.push(b'"');
        Ok(true)
    }

    /// The text of a scalar template, not as JSON; `None` where it is empty.
    pub fn plain_text(&self, template: &'a Template, ctx: &mut Ctx<'a>) -> Result<Option<String>, Rejection> {
        let text = match template {
            Template::First(hole) => {
                self.eval(hole, ctx)?.first().and_then(Item::text).map(|text| text.into_owned())
            }
            template => {
                let made = self.made(template, ctx)?;
                Item::of(made).and_then(|item| item.text()).map(|text| text.into_owned())
            }
        };
        Ok(text.filter(|text| !text.is_empty()))
    }

    fn object(&self, object: &'a Object, ctx: &mut Ctx<'a>, out: &mut Vec<u8>) -> Written {
        let start = out.len();
        out.push(b'{');
        self.object_members(object, ctx, out)?;
        Ok(close(out, start, b'}'))
    }

    /// Writes the members of an object that is open in `out`, a comma first where one is needed.
    pub fn object_members(
        &self,
        object: &'a Object,
        ctx: &mut Ctx<'a>,
        out: &mut Vec<u8>,
    ) -> Result<(), Rejection> {
        if object.merges.is_empty() {
            return object.entries.iter().try_for_each(|entry| self.entry(entry, ctx, out).map(|_| ()));
        }
        self.merged(object, ctx, out, &mut Members::default())
    }

    fn entry(
        &self,
        entry: &'a Entry,
        ctx: &mut Ctx<'a>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Range<usize>>, Rejection> {
        let start = out.len();
        separate(out, b'{');
        let first = out.len();
        out.extend_from_slice(&entry.json);
        let value = out.len();
        let written = self.value(&entry.value, ctx, out)?;
        if let Some(checker) = self.checker {
            checker.entry(entry, written.then_some(&out[value..]));
        }
        if written {
            Ok(Some(first..out.len()))
        } else {
            out.truncate(start);
            Ok(None)
        }
    }

    fn merged(
        &self,
        object: &'a Object,
        ctx: &mut Ctx<'a>,
        out: &mut Vec<u8>,
        members: &mut Members,
    ) -> Result<(), Rejection> {
        for entry in &object.entries {
            if let Some(range) = self.entry(entry, ctx, out)? {
                members.add(&entry.key, range, out);
            }
        }
        object.merges.iter().try_for_each(|template| self.merge(template, ctx, out, members))
    }

    fn merge(
        &self,
        template: &'a Template,
        ctx: &mut Ctx<'a>,
        out: &mut Vec<u8>,
        members: &mut Members,
    ) -> Result<(), Rejection> {
        match template {
            Template::Object(object) => self.merged(object, ctx, out, members),
            Template::If { condition, then, otherwise } => {
                match self.branch(condition, then, otherwise, ctx)? {
                    Some(branch) => self.merge(branch, ctx, out, members),
                    None => Ok(()),
                }
            }
            Template::Scope { assigns, body } => {
                self.assign(assigns, ctx)?;
                self.merge(body, ctx, out, members)
            }
            Template::First(hole) => {
                let items = self.eval(hole, ctx)?;
                let Some(item) = items.first() else { return Ok(()) };
                let value = item.value().filter(|value| value.kind() == Kind::Object);
                let Some(value) = value else {
                    let detail = format!("{}: only an object can be merged", hole.path);
                    return Err(Rejection::new(Reason::WrongType, detail));
                };
                for (key, value) in value.entries() {
                    separate(out, b'{');
                    let first = out.len();
                    write_string(key, out);
                    out.push(b':');
                    value.write_json(out);
                    members.add(key, first..out.len(), out);
                }
                Ok(())
            }
            Template::Literal(json) if &**json == b"null" => Ok(()),
            // Lists and texts; where they come out empty or null there is nothing to merge.
            _ => {
                let start = out.len();
                let something = self.value(template, ctx, out)? && out.get(start..) != Some(b"null");
                out.truncate(start);
                match something {
                    true => Err(Rejection::new(Reason::WrongType, "only an object can be merged")),
                    false => Ok(()),
                }
            }
        }
    }

    /// Sets the variables of `{% assign %}`.
    pub fn assign(&self, assigns: &'a [Assign], ctx: &mut Ctx<'a>) -> Result<(), Rejection> {
        for assign in assigns {
            let value = match &assign.value {
                Template::First(hole) => {
                    let mut items = self.eval(hole, ctx)?;
                    items.truncate(1);
                    items
                }
                Template::All(hole) => self.eval(hole, ctx)?,
                template => collect(self.made(template, ctx)?),
            };
            ctx.set(assign.slot, value);
        }
        Ok(())
    }

    /// The document a template makes; null where it makes nothing.
    fn made(&self, template: &'a Template, ctx: &mut Ctx<'a>) -> Result<Value<'a>, Rejection> {
        let (mut json, mut tape) = (Vec::new(), Tape::new());
        if self.value(template, ctx, &mut json)? {
            self.made.set(self.made.get() + json.len());
            if self.made.get() > MAX_OUTPUT {
                let detail = format!("variables of more than {MAX_OUTPUT} bytes");
                return Err(Rejection::new(Reason::TooLarge, detail));
            }
            // Written by us, so it is JSON; too deep a nesting is all that can go wrong.
            tape.parse_json(&json).map_err(|error| Rejection::new(Reason::TooDeep, error.to_string()))?;
        }
        Ok(self.arena.documents.keep(tape).root())
    }
}

/// Members of the object being merged: a later one replaces an earlier one of the same name.
#[derive(Default)]
struct Members {
    written: Vec<(String, Range<usize>)>,
}

impl Members {
    fn add(&mut self, key: &str, range: Range<usize>, out: &mut Vec<u8>) {
        let mut range = range;
        if let Some(at) = self.written.iter().position(|(name, _)| name == key) {
            // The comma behind the earlier one goes with it: at least the new one follows.
            let (_, old) = self.written.remove(at);
            let removed = old.len() + 1;
            out.drain(old.start..old.end + 1);
            for (_, later) in self.written.iter_mut().filter(|(_, later)| later.start > old.start) {
                *later = later.start - removed..later.end - removed;
            }
            range = range.start - removed..range.end - removed;
        }
        self.written.push((key.to_owned(), range));
    }
}

/// Whether what a record becomes may be that long.
fn fits(out: &[u8]) -> Result<(), Rejection> {
    if out.len() > MAX_OUTPUT {
        return Err(Rejection::new(Reason::TooLarge, format!("an output of more than {MAX_OUTPUT} bytes")));
    }
    Ok(())
}

/// A comma, unless the container has just been opened.
fn separate(out: &mut Vec<u8>, open: u8) {
    if out.last().is_some_and(|last| *last != open) {
        out.push(b',');
    }
}

/// Closes a container, or takes it back where it is empty.
fn close(out: &mut Vec<u8>, start: usize, bracket: u8) -> bool {
    if out.len() == start + 1 {
        out.truncate(start);
        return false;
    }
    out.push(bracket);
    true
}

fn rejection(hole: &Hole, error: &EvalError) -> Rejection {
    let reason = error.reason.and_then(Reason::from_label).unwrap_or(Reason::WrongType);
    Rejection::new(reason, format!("{}: {error}", hole.path))
}
