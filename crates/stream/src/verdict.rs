use crate::Reason;

/// What became of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Processed into outputs or written to the store; `Emit(n)` made `n` records or rows.
    Emit(u32),
    /// Counted and done with; nothing is written.
    Drop(Reason),
    /// Goes to the dead-letter topic.
    Reject(Rejection),
    /// Wholly or in part kept in the changelog until what it waits for arrives.
    Park(Reason),
}

/// Why a record is dead-lettered: the reason, and where in it, never what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub reason: Reason,
    /// A path or name such as `temperature` or `Observation.value`: field names only, never values.
    pub detail: String,
    /// `name@version` of the mapping or schema that judged it, if one did.
    pub shape: Option<String>,
}

impl Rejection {
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Rejection { reason, detail: detail.into(), shape: None }
    }

    pub fn of_shape(mut self, shape: impl Into<String>) -> Self {
        self.shape = Some(shape.into());
        self
    }
}

impl From<Rejection> for Verdict {
    fn from(rejection: Rejection) -> Self {
        Verdict::Reject(rejection)
    }
}

/// One verdict for every record of one batch, in order; made by [`crate::Batch::judge`] alone.
pub struct Verdicts(Vec<Verdict>);

impl Verdicts {
    pub(crate) fn new(verdicts: Vec<Verdict>) -> Self {
        Verdicts(verdicts)
    }

    pub fn as_slice(&self) -> &[Verdict] {
        &self.0
    }
}
