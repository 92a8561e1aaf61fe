use std::borrow::Cow;
use std::fmt::Write;

/// Why an expression cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} (at byte {offset})")]
pub struct CompileError {
    /// Byte of the source where the trouble is.
    pub offset: usize,
    pub message: String,
}

impl CompileError {
    /// The message, and the line of the source with a caret under the place.
    pub fn show(&self, source: &str) -> String {
        pointed(&self.message, source, self.offset)
    }
}

/// Why an expression has no value for this record. Never holds values of the record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EvalError {
    /// The label of the reject reason a host function gave, such as `unknown_code`; `None` for errors of
    /// FHIRPath itself.
    pub reason: Option<&'static str>,
    pub message: Cow<'static, str>,
    /// Byte of the source of what failed, where that is known.
    pub offset: Option<usize>,
}

impl EvalError {
    /// An error of FHIRPath itself, such as two items where one is needed.
    pub fn new(message: impl Into<Cow<'static, str>>) -> Self {
        EvalError { reason: None, message: message.into(), offset: None }
    }

    /// A host function refuses its input, for the reject reason of that label.
    pub fn refused(reason: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        EvalError { reason: Some(reason), message: message.into(), offset: None }
    }

    /// The message, and the line of the source with a caret under the place.
    pub fn show(&self, source: &str) -> String {
        match self.offset {
            Some(offset) => pointed(&self.message, source, offset),
            None => self.message.to_string(),
        }
    }

    /// With its place, where it has none yet: the innermost part that failed is the one to look at.
    pub(crate) fn within(mut self, offset: u32) -> Self {
        self.offset = self.offset.or(usize::try_from(offset).ok());
        self
    }
}

/// A message over the line of a source that holds a byte, and a caret under it.
fn pointed(message: &str, source: &str, offset: usize) -> String {
    let before = source.get(..offset).unwrap_or(source);
    let (line, column) =
        (before.matches('\n').count() + 1, before.chars().rev().take_while(|c| *c != '\n').count());
    let text = source.lines().nth(line - 1).unwrap_or_default();
    // Tabs are kept, so that the caret stands where the eye looks.
    let indent: String = text.chars().take(column).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
    let mut shown = message.to_owned();
    // Writing to a String cannot fail.
    let _ = match source.contains('\n') {
        true => write!(shown, " (line {line}, column {})", column + 1),
        false => write!(shown, " (column {})", column + 1),
    };
    shown + "\n  " + text + "\n  " + &indent + "^"
}
