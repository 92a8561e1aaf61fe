use fhirehose_fhirpath::{Ctx, EvalError, Expr, Item, NoFunctions};
use fhirehose_tape::Value;

use crate::{Cell, Each, Select, View};

/// Why a resource has no rows by a view. Never holds values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{column}: {message}")]
pub struct RowError {
    /// The column, or `where` or `forEach`.
    pub column: Box<str>,
    pub message: String,
}

static NO_FUNCTIONS: NoFunctions = NoFunctions;

/// Cells by column; those of other parts of the definition are null in it.
type Row<'a> = Vec<Cell<'a>>;

impl View {
    /// Gives every row of a resource to `emit`, in the definition's order. A resource of another type than
    /// the view's has none; an object without a `resourceType` is taken as being of the view's.
    pub fn rows<'a>(
        &'a self,
        resource: Value<'a>,
        emit: &mut impl FnMut(&[Cell<'a>]),
    ) -> Result<(), RowError> {
        let of = resource.get("resourceType").and_then(Value::as_str);
        if of.is_some_and(|of| of != &*self.resource) {
            return Ok(());
        }
        let mut ctx = Ctx::new(resource, &NO_FUNCTIONS);
        for (slot, item) in &self.constants {
            ctx.set(*slot, std::iter::once(item.clone()).collect());
        }
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
        let rows = self.select(&self.body, &mut ctx, vec![vec![Cell::Null; self.columns.len()]])?;
        rows.iter().for_each(|row| emit(row));
        Ok(())
    }

    /// Every row so far, times the rows of a select.
    fn select<'a>(
        &'a self,
        select: &'a Select,
        ctx: &mut Ctx<'a>,
        rows: Vec<Row<'a>>,
    ) -> Result<Vec<Row<'a>>, RowError> {
        let Some(Each { path, or_null }) = &select.each else { return self.level(select, ctx, rows) };
        let items = path.eval(ctx).map_err(|error| failed("forEach", &error))?;
        if items.is_empty() {
            return Ok(if *or_null { rows } else { Vec::new() });
        }
        let mut all = Vec::new();
        for item in items {
            let outer = ctx.refocus(item);
            let inner = self.level(select, ctx, rows.clone());
            ctx.restore(outer);
            all.extend(inner?);
        }
        Ok(all)
    }

    fn level<'a>(
        &'a self,
        select: &'a Select,
        ctx: &mut Ctx<'a>,
        mut rows: Vec<Row<'a>>,
    ) -> Result<Vec<Row<'a>>, RowError> {
        for (column, path) in &select.columns {
            let cell = self.cell(*column, path, ctx)?;
            // All but the last row take a copy.
            if let Some((last, others)) = rows.split_last_mut() {
                others.iter_mut().for_each(|row| row[*column] = cell.clone());
                last[*column] = cell;
            }
        }
        for inner in &select.selects {
            rows = self.select(inner, ctx, rows)?;
        }
        if select.union.is_empty() {
            return Ok(rows);
        }
        let mut all = Vec::new();
        for branch in &select.union {
            all.extend(self.select(branch, ctx, rows.clone())?);
        }
        Ok(all)
    }

    fn cell<'a>(&'a self, column: usize, path: &'a Expr, ctx: &Ctx<'a>) -> Result<Cell<'a>, RowError> {
        let column = &self.columns[column];
        let items = path.eval(ctx).map_err(|error| failed(&column.name, &error))?;
        if column.collection {
            return Ok(list(&items));
        }
        match items.as_slice() {
            [] => Ok(Cell::Null),
            [item] => column.kind.cell(item).ok_or_else(|| error(&column.name, "not of the column's type")),
            _ => Err(error(&column.name, "more than one value; the column is no collection")),
        }
    }
}

/// All values as a JSON array; null where there is none.
fn list<'a>(items: &[Item<'_>]) -> Cell<'a> {
    if items.is_empty() {
        return Cell::Null;
    }
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
