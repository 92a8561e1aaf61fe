//! The live view: a table of processors that repaints itself in a terminal, a line every five seconds
//! elsewhere.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write, stdout};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::Value;

use crate::probe::Latency;

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

    /// Shows the processors' state as `/admin/status` tells it, `None` while it does not answer, and how long
    /// changes took to the stores so far.
    pub fn show(&mut self, status: Option<&Value>, progress: &Progress, latencies: &[Latency]) -> Result<()> {
        if self.terminal {
            return self.paint(&table(status, progress, latencies));
        }
        if self.last_line.is_some_and(|last| last.elapsed() < Duration::from_secs(5)) {
            return Ok(());
        }
        self.last_line = Some(Instant::now());
        let (mut rate, mut lag) = (0.0, 0);
        for processor in processors(status) {
            rate += processor["in_per_second"].as_f64().unwrap_or(0.0);
            lag += processor["lag_records"].as_i64().unwrap_or(0);
        }
        self.say(&format!(
            "  {:>3} of {} s  {} rows changed, {} messages sent; {rate:.0} records/s in, lag {lag}; {}",
            progress.seconds,
            progress.of,
            progress.rows,
            progress.messages,
            latencies.iter().map(end_to_end).collect::<Vec<_>>().join(", ")
        ))
    }
}

fn processors(status: Option<&Value>) -> impl Iterator<Item = &Value> {
    status.and_then(|status| status["processors"].as_array()).into_iter().flatten()
}

/// As in `cache 41/180 ms`.
fn end_to_end(latency: &Latency) -> String {
    let ms = |share: f64| latency.quantile_ms(share).map_or("-".into(), |ms| format!("{ms:.0}"));
    format!("{} {}/{} ms", latency.store, ms(0.5), ms(0.99))
}

fn table(status: Option<&Value>, progress: &Progress, latencies: &[Latency]) -> String {
    let mut text = format!(
        "\n  {:>3} of {} s   {} rows changed   {} device messages sent\n\n",
        progress.seconds, progress.of, progress.rows, progress.messages
    );
    // Writing to a String cannot fail.
    let _ = writeln!(text, "  {:<18}{:>10}{:>10}{:>8}", "processor", "in/s", "out/s", "lag");
    for processor in processors(status) {
        let _ = writeln!(
            text,
            "  {:<18}{:>10.1}{:>10.1}{:>8}  {}",
            processor["processor"].as_str().unwrap_or("?"),
            processor["in_per_second"].as_f64().unwrap_or(0.0),
            processor["out_per_second"].as_f64().unwrap_or(0.0),
            processor["lag_records"].as_i64().unwrap_or(0),
            processor["lag"].as_str().unwrap_or("?"),
        );
    }
    if status.is_none() {
        text.push_str("  fhirehose does not answer just now\n");
    }
    text.push_str("\n  from commit to a reader of the store, median and 99th percentile\n");
    for latency in latencies {
        let _ = writeln!(text, "  {}", end_to_end(latency));
    }
    text
}
