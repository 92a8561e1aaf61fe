use fhirehose_fhirpath::{Collection, Ctx, EvalError, Expr, Item};
use fhirehose_tape::Value;

use crate::functions::ViewFunctions;
use crate::limits::{MAX_BYTES, MAX_CELLS, MAX_ITEMS, MAX_REPEAT, MAX_STEPS};
use crate::{Cell, ColumnType, Each, Select, View};

/// Why a resource has no rows by a view. Never holds values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{column}: {message}")]
pub struct RowError {
    /// The column, or `where`, `forEach`, `repeat`; `rows` where there would be too many.
    pub column: Box<str>,
    pub message: String,
}

static FUNCTIONS: ViewFunctions = ViewFunctions;

/// Room for the rows of one resource, to be used again for the next.
#[derive(Default)]
pub struct Scratch {
    cells: Vec<Cell<'static>>,
    aside: Vec<Cell<'static>>,
    items: Vec<Item<'static>>,
}

impl View {
    /// The rows of one resource, as [`View::rows_in`] gives them.
    pub fn rows<'a>(
        &'a self,
        resource: Value<'a>,
        emit: &mut impl FnMut(&[Cell<'a>]),
    ) -> Result<(), RowError> {
        self.rows_in(&mut Scratch::default(), resource, emit)
    }

    /// Gives every row of a resource to `emit`, in the definition's order, or none where there is an error. A
    /// resource of another type than the view's has none; an object without a `resourceType` is taken as being
    /// of the view's. With a `scratch` that was used before it allocates nothing, cells of JSON and texts that
    /// an expression makes apart.
    pub fn rows_in<'a>(
        &'a self,
        scratch: &mut Scratch,
        resource: Value<'a>,
        emit: &mut impl FnMut(&[Cell<'a>]),
    ) -> Result<(), RowError> {
        let of = resource.get("resourceType").and_then(Value::as_str);
        if of.is_some_and(|of| of != &*self.resource) {
            return Ok(());
        }
        let mut ctx = Ctx::new(resource, &FUNCTIONS).sharing(MAX_STEPS);
        for (slot, item) in &self.constants {
            ctx.set(*slot, one(item.borrow()));
        }
        for slot in self.whole {
            ctx.set(slot, Item::of(resource).into_iter().collect());
        }
        ctx.set(self.row_index, one(Item::Integer(0)));
        for filter in &self.filters {
            let kept = filter.eval(&ctx).map_err(|error| failed("where", &error))?;
            match kept.as_slice() {
                [] => return Ok(()),
                [item] => match item.as_bool() {
                    Some(true) => {}
                    Some(false) => return Ok(()),
                    None => return Err(error("where", "not a boolean")),
                },
                _ => return Err(error("where", "more than one value")),
            }
        }
        let mut run = Run {
            view: self,
            ctx,
            index: 0,
            cells: emptied(std::mem::take(&mut scratch.cells)),
            aside: emptied(std::mem::take(&mut scratch.aside)),
            items: emptied(std::mem::take(&mut scratch.items)),
            bytes: 0,
            count: 0,
        };
        run.cells.resize(self.columns.len(), Cell::Null);
        let made = run.level(&self.body, 0);
        if made.is_ok() {
            run.cells.chunks_exact(self.columns.len()).for_each(emit);
        }
        let Run { cells, aside, items, .. } = run;
        *scratch = Scratch { cells: emptied(cells), aside: emptied(aside), items: emptied(items) };
        made
    }
}

/// A vector without its elements, and so of elements of another lifetime; the room stays, as both are of one
/// layout.
fn emptied<A, B>(mut all: Vec<A>) -> Vec<B> {
    all.clear();
    all.into_iter().filter_map(|_| None).collect()
}

/// The rows of one resource in the making, row after row; cells of parts of the definition that are still to come
/// are null in them.
struct Run<'a> {
    view: &'a View,
    ctx: Ctx<'a>,
    /// `%rowIndex`.
    index: usize,
    cells: Vec<Cell<'a>>,
    /// Rows that a select has still to make others of; of nested selects behind each other.
    aside: Vec<Cell<'a>>,
    /// Items that a select is still to be done for; of nested selects behind each other.
    items: Vec<Item<'a>>,
    /// Bytes in cells so far, with those of rows that are gone.
    bytes: usize,
    /// Items come by so far.
    count: usize,
}

impl<'a> Run<'a> {
    /// Makes of every row after the first `from` cells one for each row of a select.
    fn select(&mut self, select: &'a Select, from: usize) -> Result<(), RowError> {
        let Some(each) = &select.each else { return self.level(select, from) };
        let first = self.items.len();
        match each {
            Each::Every(path) | Each::OrNull(path, _) => {
                let found = &mut self.items;
                path.each(&self.ctx, &mut |item| found.push(item))
                    .map_err(|error| failed("forEach", &error))?;
            }
            Each::Repeat(paths) => self.descend(paths, 0)?,
        }
        let end = self.items.len();
        if first == end {
            match each {
                Each::OrNull(_, row_indexes) => {
                    for &column in row_indexes {
                        let cell = self.cell_of(column, &[Item::Integer(0)])?;
                        for row in self.cells[from..].chunks_exact_mut(self.view.columns.len()) {
                            row[column] = cell.clone();
                        }
                    }
                }
                Each::Every(_) | Each::Repeat(_) => self.cells.truncate(from),
            }
            return Ok(());
        }
        let outer = self.index;
        let rows = self.set_aside(from);
        for at in first..end {
            let start = self.again(rows, at + 1 == end)?;
            self.come_by("forEach")?;
            self.set_index(at - first);
            let focus = self.ctx.refocus(self.items[at].clone());
            let done = self.level(select, start);
            self.ctx.restore(focus);
            done?;
        }
        self.items.truncate(first);
        self.set_index(outer);
        Ok(())
    }

    fn level(&mut self, select: &'a Select, from: usize) -> Result<(), RowError> {
        let width = self.view.columns.len();
        for (column, path) in &select.columns {
            let cell = self.cell(*column, path)?;
            let count = (self.cells.len() - from) / width;
            self.add_bytes(cell.bytes().saturating_mul(count))?;
            // All but the last row take a copy.
            let mut rows = self.cells[from..].chunks_exact_mut(width).rev();
            if let Some(last) = rows.next() {
                rows.for_each(|row| row[*column] = cell.clone());
                last[*column] = cell;
            }
        }
        for inner in &select.selects {
            self.select(inner, from)?;
        }
        let Some((last, others)) = select.union.split_last() else { return Ok(()) };
        let rows = self.set_aside(from);
        for branch in others {
            let start = self.again(rows, false)?;
            self.select(branch, start)?;
        }
        let start = self.again(rows, true)?;
        self.select(last, start)
    }

    /// Puts the rows from `from` on aside; returns where they are found again.
    fn set_aside(&mut self, from: usize) -> usize {
        let rows = self.aside.len();
        self.aside.extend(self.cells.drain(from..));
        rows
    }

    /// Adds the rows that were put aside there once more, or the last time; returns where they start.
    fn again(&mut self, rows: usize, last: bool) -> Result<usize, RowError> {
        let start = self.cells.len();
        if start + self.aside.len() - rows > MAX_CELLS {
            return Err(error("rows", format!("more than {MAX_CELLS} cells of one resource")));
        }
        if last {
            self.cells.extend(self.aside.drain(rows..));
        } else {
            self.add_bytes(self.aside[rows..].iter().map(Cell::bytes).sum())?;
            self.cells.extend_from_slice(&self.aside[rows..]);
        }
        Ok(start)
    }

    fn add_bytes(&mut self, bytes: usize) -> Result<(), RowError> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > MAX_BYTES {
            return Err(error("rows", format!("more than {MAX_BYTES} bytes of one resource")));
        }
        Ok(())
    }

    /// Finds what paths lead to from what is in focus, and from there again.
    fn descend(&mut self, paths: &'a [Expr], depth: usize) -> Result<(), RowError> {
        for path in paths {
            for item in path.eval(&self.ctx).map_err(|error| failed("repeat", &error))? {
                if depth == MAX_REPEAT {
                    let why = format!("goes deeper than {MAX_REPEAT} levels; do its paths lead down?");
                    return Err(error("repeat", why));
                }
                self.come_by("repeat")?;
                self.items.push(item.clone());
                let focus = self.ctx.refocus(item);
                let done = self.descend(paths, depth + 1);
                self.ctx.restore(focus);
                done?;
            }
        }
        Ok(())
    }

    fn come_by(&mut self, what: &str) -> Result<(), RowError> {
        self.count += 1;
        if self.count > MAX_ITEMS {
            return Err(error(what, format!("comes by more than {MAX_ITEMS} items of one resource")));
        }
        Ok(())
    }

    fn set_index(&mut self, index: usize) {
        self.index = index;
        self.ctx.set(self.view.row_index, one(Item::Integer(index as i64)));
    }

    fn cell(&self, column: usize, path: &'a Expr) -> Result<Cell<'a>, RowError> {
        let named = &self.view.columns[column].name;
        self.cell_of(column, &path.eval(&self.ctx).map_err(|error| failed(named, &error))?)
    }

    fn cell_of(&self, column: usize, items: &[Item<'a>]) -> Result<Cell<'a>, RowError> {
        let column = &self.view.columns[column];
        let typed = |item: &Item<'a>| match column.kind.cell(item) {
            Some(cell) => Ok(cell),
            None if column.kind == ColumnType::Any => {
                Err(error(&column.name, "an object; the column's type must say which"))
            }
            None => Err(error(&column.name, "not of the column's type")),
        };
        if column.collection {
            items.iter().try_for_each(|item| typed(item).map(drop))?;
            return Ok(list(items));
        }
        match items {
            [] => Ok(Cell::Null),
            [item] => typed(item),
            _ => Err(error(&column.name, "more than one value; the column is no collection")),
        }
    }
}

fn one(item: Item<'_>) -> Collection<'_> {
    std::iter::once(item).collect()
}

/// All values as a JSON array.
fn list<'a>(items: &[Item<'_>]) -> Cell<'a> {
    let mut out = vec![b'['];
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        item.write_json(&mut out);
    }
    out.push(b']');
    Cell::Json(out)
}

fn error(column: &str, message: impl Into<String>) -> RowError {
    RowError { column: column.into(), message: message.into() }
}

fn failed(column: &str, cause: &EvalError) -> RowError {
    error(column, cause.to_string())
}
