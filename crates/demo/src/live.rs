//! The live view: a table of processors that repaints itself in a terminal, a line every five seconds
//! elsewhere.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write, stdout};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::Value;

pub struct Screen {
    terminal: bool,
    /// Lines painted last and to be painted over.
    painted: usize,
    last_line: Option<Instant>,
}

/// What the writers have done so far.
pub struct Progress {
    pub seconds: u64,
    pub of: u64,
    pub rows: u64,
    pub messages: u64,
}

impl Default for Screen {
    fn default() -> Self {
        Self { terminal: stdout().is_terminal(), painted: 0, last_line: None }
    }
}

impl Screen {
    /// A line that stays.
    pub fn say(&mut self, line: &str) -> Result<()> {
        self.painted = 0;
        writeln!(stdout(), "{line}")?;
        Ok(())
    }

    /// Paints `lines` over those painted last; only in a terminal.
    fn paint(&mut self, lines: &str) -> Result<()> {
        let mut out = stdout().lock();
        if self.painted > 0 {
            write!(out, "\x1b[{}A\x1b[J", self.painted)?;
        }
        self.painted = lines.lines().count();
        write!(out, "{lines}")?;
        out.flush()?;
        Ok(())
    }

    /// Shows the processors' state as `/admin/status` tells it; `None` while it does not answer.
    pub fn show(&mut self, status: Option<&Value>, progress: &Progress) -> Result<()> {
        if self.terminal {
            return self.paint(&table(status, progress));
        }
        if self.last_line.is_some_and(|last| last.elapsed() < Duration::from_secs(5)) {
            return Ok(());
        }
        self.last_line = Some(Instant::now());
        let (mut rate, mut lag, mut p99) = (0.0, 0, 0);
        for processor in processors(status) {
            rate += processor["in_per_second"].as_f64().unwrap_or(0.0);
            lag += processor["lag_records"].as_i64().unwrap_or(0);
            p99 = p99.max(processor["age_recent"]["p99_ms"].as_u64().unwrap_or(0));
        }
        self.say(&format!(
            "  {:>3} of {} s  {} rows changed, {} messages sent; {rate:.0} records/s in, lag {lag}, worst p99 {p99} ms",
            progress.seconds, progress.of, progress.rows, progress.messages
        ))
    }
}

fn processors(status: Option<&Value>) -> impl Iterator<Item = &Value> {
    status.and_then(|status| status["processors"].as_array()).into_iter().flatten()
}

fn table(status: Option<&Value>, progress: &Progress) -> String {
    let mut text = format!(
        "\n  {:>3} of {} s   {} rows changed   {} device messages sent\n\n",
        progress.seconds, progress.of, progress.rows, progress.messages
    );
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "  {:<18}{:>10}{:>10}{:>8}  {:<8}{:>10}{:>10}",
        "processor", "in/s", "out/s", "lag", "", "age p50", "age p99"
    );
    for processor in processors(status) {
        let quantile = |name: &str| match processor["age_recent"]["count"].as_u64() {
            Some(1..) => format!("{} ms", processor["age_recent"][name]),
            _ => "-".to_owned(),
        };
        let _ = writeln!(
            text,
            "  {:<18}{:>10.1}{:>10.1}{:>8}  {:<8}{:>10}{:>10}",
            processor["processor"].as_str().unwrap_or("?"),
            processor["in_per_second"].as_f64().unwrap_or(0.0),
            processor["out_per_second"].as_f64().unwrap_or(0.0),
            processor["lag_records"].as_i64().unwrap_or(0),
            processor["lag"].as_str().unwrap_or("?"),
            quantile("p50_ms"),
            quantile("p99_ms"),
        );
    }
    text.push_str(if status.is_some() {
        "\n  Ages count from the source's commit, which MariaDB's log keeps in whole seconds.\n"
    } else {
        "\n  fhirehose does not answer just now\n"
    });
    text
}
