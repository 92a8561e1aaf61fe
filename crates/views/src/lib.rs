//! SQL-on-FHIR v2 ViewDefinitions, compiled once to a plan that turns one resource into rows of cells. Reads
//! a definition's JSON and borrowed resources; promises the columns in definition order and typed cells as
//! exact text; never reads more than the one resource, never does I/O, never puts a value into an error.

mod cell;
mod compile;
mod constant;
mod functions;
mod json;
mod limits;
mod rows;

pub use cell::{Cell, ColumnType};
pub use limits::{
    MAX_BYTES, MAX_CELLS, MAX_COLUMNS, MAX_DEFINITION, MAX_EXPRESSION, MAX_ITEMS, MAX_NESTING, MAX_REPEAT,
    MAX_STEPS,
};
pub use rows::{RowError, Scratch};

use fhirehose_fhirpath::{Env, Expr, Item, Slot};

/// A compiled ViewDefinition; `Send + Sync`.
pub struct View {
    resource: Box<str>,
    columns: Vec<Column>,
    constants: Vec<(Slot, Item<'static>)>,
    /// Where `%resource` and `%rootResource` are kept.
    whole: [Slot; 2],
    /// Where `%rowIndex` is kept.
    row_index: Slot,
    filters: Vec<Expr>,
    body: Select,
}

/// A column of a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: Box<str>,
    /// The expression that gives its cells, as the definition has it.
    pub path: Box<str>,
    /// What its cells are.
    pub kind: ColumnType,
    /// The FHIR type as it is declared, without the address in front: `positiveInt`, `Observation.component`.
    pub of: Option<Box<str>>,
    /// Whether its cells are JSON arrays of all values, of which there may be any number.
    pub collection: bool,
    pub description: Option<Box<str>>,
    /// What a definition says to those who make tables of it, such as `ansi/type`.
    pub tags: Vec<Tag>,
}

/// A name and a value that a column carries along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag {
    pub name: Box<str>,
    pub value: Box<str>,
}

impl Column {
    /// The value of its tag of that name.
    pub fn tag(&self, name: &str) -> Option<&str> {
        self.tags.iter().find(|tag| *tag.name == *name).map(|tag| &*tag.value)
    }
}

/// Why a definition is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}{}{message}", if path.is_empty() { "" } else { ": " })]
pub struct ViewError {
    /// Where in the definition, such as `select[0].column[1].path`; empty for the definition as a whole.
    pub path: String,
    pub message: String,
    /// The expression that does not compile, and the byte of it where the trouble is.
    pub expression: Option<(Box<str>, usize)>,
}

/// Columns and rows of one level: own columns, times every nested select, times the union.
struct Select {
    each: Option<Each>,
    columns: Vec<(usize, Expr)>,
    selects: Vec<Select>,
    union: Vec<Select>,
}

/// What a select is done for, item by item.
enum Each {
    /// `forEach`.
    Every(Expr),
    /// `forEachOrNull`: one row where there is nothing, of nulls but for the columns that are `%rowIndex`.
    OrNull(Expr, Vec<usize>),
    /// `repeat`: what the paths lead to, and from there again, parents before children.
    Repeat(Vec<Expr>),
}

impl View {
    /// Compiles a definition. Expressions are compiled against `env`, whose known columns (if it names any)
    /// are those of the resource itself, and whose known elements are R4's: they are not asked where the
    /// definition names other versions of FHIR only. What the standard does not know or does not allow is
    /// refused, and what is beyond the limits.
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
