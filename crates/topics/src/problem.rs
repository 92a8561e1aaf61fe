use std::fmt;
use std::path::{Path, PathBuf};

/// Something wrong in a declaration file, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub file: PathBuf,
    /// Line in the file, from 1; 1 also where the whole file is meant.
    pub line: usize,
    pub message: String,
}

impl Problem {
    pub(crate) fn new(file: &Path, line: usize, message: impl Into<String>) -> Self {
        Problem { file: file.to_owned(), line, message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.message)
    }
}

impl std::error::Error for Problem {}
