//! What a definition by somebody else may ask for. A definition beyond is refused when it is compiled, a resource
//! that would become more has no rows but an error.

/// Bytes of a definition.
pub const MAX_DEFINITION: usize = 1 << 20;
/// Bytes of one expression.
pub const MAX_EXPRESSION: usize = 1 << 14;
/// Selects within selects.
pub const MAX_NESTING: usize = 32;
/// Columns; PostgreSQL takes no more either.
pub const MAX_COLUMNS: usize = 1600;
/// Cells of one resource: its rows times the columns.
pub const MAX_CELLS: usize = 1 << 22;
/// Bytes of text and JSON in the cells of one resource.
pub const MAX_BYTES: usize = 1 << 28;
/// Items of one resource that a `forEach`, `forEachOrNull` or `repeat` comes by, nested ones as often as they do.
pub const MAX_ITEMS: usize = 1 << 20;
/// Steps of FHIRPath that the rows of one resource take, all expressions together; some seconds. A clock would end
/// a replay elsewhere than the first run; steps do not.
pub const MAX_STEPS: u64 = 1 << 25;
/// Levels a `repeat` goes down: no document is deeper.
pub const MAX_REPEAT: usize = fhirehose_tape::MAX_DEPTH;
