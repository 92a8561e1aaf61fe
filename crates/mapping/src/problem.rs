use std::fmt;
use std::path::{Path, PathBuf};

/// Something wrong in a file of `mappings/`, and where. All problems of all files are told together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub file: PathBuf,
    /// From 1; 1 also where the whole file is meant.
    pub line: usize,
    /// From 1; 1 also where the whole line is meant.
    pub column: usize,
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file.display(), self.line, self.column, self.message)
    }
}

impl std::error::Error for Problem {}

/// A place in a file, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub line: usize,
    pub column: usize,
}

impl Position {
    pub const START: Position = Position { line: 1, column: 1 };
}

/// Collects the problems of one file.
pub(crate) struct Problems<'f> {
    file: &'f Path,
    found: Vec<Problem>,
}

impl<'f> Problems<'f> {
    pub fn of(file: &'f Path) -> Self {
        Problems { file, found: Vec::new() }
    }

    pub fn add(&mut self, at: Position, message: impl Into<String>) {
        let Position { line, column } = at;
        self.found.push(Problem { file: self.file.to_owned(), line, column, message: message.into() });
    }

    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// In the order of the file.
    pub fn into_vec(mut self) -> Vec<Problem> {
        self.found.sort_by_key(|problem| (problem.line, problem.column));
        self.found
    }
}
