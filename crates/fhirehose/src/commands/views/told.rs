use std::io::{self, IsTerminal, Write};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::complain;
use super::input::Progress;
use super::run::Part;

/// Broken documents that are told one by one; the others are counted.
const TOLD: u64 = 100;

/// What is told on standard error while rows are written, and after.
pub struct Told<'p> {
    progress: &'p Progress,
    is_terminal: bool,
    began: Instant,
    shown: Instant,
    rows: u64,
    resources: u64,
    others: u64,
    broken: u64,
}

impl<'p> Told<'p> {
    pub fn new(progress: &'p Progress) -> Self {
        let now = Instant::now();
        let is_terminal = io::stderr().is_terminal();
        Told { progress, is_terminal, began: now, shown: now, rows: 0, resources: 0, others: 0, broken: 0 }
    }

    /// Adds a part, and tells what is broken in it.
    pub fn count(&mut self, part: &Part) {
        self.rows += part.rows.count;
        self.resources += part.resources;
        self.others += part.others;
        for broken in &part.broken {
            self.broken += 1;
            if self.broken <= TOLD {
                self.clear();
                complain(broken);
            }
        }
        if self.is_terminal && self.shown.elapsed() > Duration::from_millis(200) {
            self.shown = Instant::now();
            let read = self.progress.read.load(Ordering::Relaxed);
            let done = match self.progress.of {
                Some(of) if of > 0 => format!("{} %", (read * 100 / of).min(100)),
                _ => format!("{} MB", read / 1_000_000),
            };
            let line = format!("\r\x1b[K{done}, rows: {}, resources: {}", self.rows, self.resources);
            drop(io::stderr().write_all(line.as_bytes()));
        }
    }

    /// How many documents, resources and files were broken.
    pub fn broken(&self) -> u64 {
        self.broken
    }

    fn clear(&self) {
        if self.is_terminal {
            drop(io::stderr().write_all(b"\r\x1b[K"));
        }
    }

    /// All parts were counted.
    pub fn end(&self) {
        self.clear();
        if self.broken > TOLD {
            complain(format_args!("and {} more broken", self.broken - TOLD));
        }
    }

    /// The last line.
    pub fn summary(&self) {
        let Told { rows, resources, others, broken, .. } = self;
        let seconds = self.began.elapsed().as_secs_f64();
        complain(format_args!(
            "rows: {rows}, resources: {resources}, of other types: {others}, broken: {broken}, {seconds:.1} s"
        ));
    }
}
