use std::borrow::Cow;

/// Why an expression cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} (at byte {offset})")]
pub struct CompileError {
    /// Byte of the source where the trouble is.
    pub offset: usize,
    pub message: String,
}

/// Why an expression has no value for this record. Never holds values of the record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EvalError {
    /// The label of the reject reason a host function gave, such as `unknown_code`; `None` for errors of
    /// FHIRPath itself.
    pub reason: Option<&'static str>,
    pub message: Cow<'static, str>,
}

impl EvalError {
    /// An error of FHIRPath itself, such as two items where one is needed.
    pub fn new(message: impl Into<Cow<'static, str>>) -> Self {
        EvalError { reason: None, message: message.into() }
    }

    /// A host function refuses its input, for the reject reason of that label.
    pub fn refused(reason: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        EvalError { reason: Some(reason), message: message.into() }
    }
}
