//! SQL-on-FHIR v2 ViewDefinitions, compiled once to a plan that turns one resource into rows of cells. Reads
//! a definition's JSON and borrowed resources; promises the columns in definition order and typed cells as
//! exact text; never reads more than the one resource, never does I/O, never puts a value into an error.

mod cell;
mod compile;
mod rows;

pub use cell::{Cell, ColumnType};
pub use rows::RowError;

use fhirehose_fhirpath::{Env, Expr, Item, Slot};

/// A compiled ViewDefinition; `Send + Sync`.
pub struct View {
    resource: Box<str>,
    columns: Vec<Column>,
    constants: Vec<(Slot, Item<'static>)>,
    filters: Vec<Expr>,
    body: Select,
}

/// A column of a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: Box<str>,
    /// What its cells are.
    pub kind: ColumnType,
    /// Whether its cells are JSON arrays of all values, of which there may be any number.
    pub collection: bool,
    pub description: Option<Box<str>>,
}

/// Why a definition is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct ViewError {
    /// Where in the definition, such as `select[0].column[1].path`.
    pub path: String,
    pub message: String,
}

/// Columns and rows of one level: own columns, times every nested select, times the union.
struct Select {
    each: Option<Each>,
    columns: Vec<(usize, Expr)>,
    selects: Vec<Select>,
    union: Vec<Select>,
}

/// `forEach`, or `forEachOrNull`, which gives one row of nulls where there is nothing.
struct Each {
    path: Expr,
    or_null: bool,
}

impl View {
    /// Compiles a definition. Expressions are compiled against `env`, whose known columns (if it names any)
    /// are those of the resource itself. Unknown elements, expressions that do not compile, columns of one
    /// name and unions of different columns are refused.
    pub fn compile(json: &str, env: &Env) -> Result<View, ViewError> {
        compile::view(json, env)
    }

    /// The resource type it is about.
    pub fn resource(&self) -> &str {
        &self.resource
    }

    /// The columns, in the order of a row's cells.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }
}
