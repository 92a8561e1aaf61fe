use fhirehose_tape::Tape;

use crate::checker::Checker;
use crate::drafts::Drafts;
use crate::render::Arena;

/// Buffers and memory of a mapping's run, reused from record to record.
#[derive(Default)]
pub struct Scratch {
    /// The row, typed.
    pub(crate) row: Tape,
    /// A part of one: a key, a row before.
    pub(crate) part: Tape,
    pub(crate) checker: Checker,
    /// What the row before made.
    pub(crate) before: Drafts,
    pub(crate) arena: Arena,
}
