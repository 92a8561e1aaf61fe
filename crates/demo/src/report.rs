//! The final table, for eyes and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::Args;
use crate::compare::{Check, Differences};
use crate::probe::Latency;
use crate::samples::Sample;
use crate::stack::Stack;
use crate::workload::Counters;

pub struct Report<'a> {
    pub args: &'a Args,
    pub stack: &'a Stack,
    pub checks: &'a [Check],
    pub latencies: &'a [Latency],
    pub counters: &'a Counters,
    pub samples: &'a [Sample],
    /// `/admin/status` at the end.
    pub status: &'a Value,
    /// Times fhirehose was killed and started again.
    pub restarts: u32,
    pub admin: &'a str,
}

impl Report<'_> {
    pub fn differences(&self) -> usize {
        self.checks.iter().map(|check| check.compare().total()).sum::<usize>() + self.violations() as usize
    }

    /// Guarantees that the product itself saw broken.
    fn violations(&self) -> u64 {
        let processors = self.status["processors"].as_array().into_iter().flatten();
        let counts = processors.filter_map(|processor| processor["violations"].as_object());
        counts.flat_map(|kinds| kinds.values()).filter_map(Value::as_u64).sum()
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\n{:<20} {:<38} {:>9} {:>9} {:>12}", "store", "", "expected", "found", "differences")?;
        let mut examples = Vec::new();
        for check in self.checks {
            let differences = check.compare();
            writeln!(
                out,
                "{:<20} {:<38} {:>9} {:>9} {:>12}",
                check.store,
                check.what,
                check.expected.len(),
                check.found.len(),
                differences.total()
            )?;
            examples.extend(differences.examples.into_iter().map(|text| format!("{}: {text}", check.what)));
        }
        writeln!(
            out,
            "{:<20} {:<38} {:>9} {:>9} {:>12}",
            "fhirehose",
            "broken guarantees",
            0,
            self.violations(),
            self.violations()
        )?;
        for example in examples.iter().take(30) {
            writeln!(out, "  {example}")?;
        }
        writeln!(
            out,
            "\n{} rows changed in {} transactions, {} device messages in {} s{}",
            self.counters.rows(),
            self.counters.transactions(),
            self.counters.messages(),
            self.args.seconds,
            match self.restarts {
                0 => String::new(),
                times => format!("; fhirehose was killed and started again {times} times"),
            }
        )?;
        writeln!(out, "\nfrom commit or sending until a reader of the store sees it:")?;
        writeln!(out, "{:<26} {:>8} {:>10} {:>10} {:>10}", "store", "changes", "p50 ms", "p99 ms", "max ms")?;
        for latency in self.latencies {
            let ms = |share: f64| latency.quantile_ms(share).map_or("-".into(), |ms| format!("{ms:.0}"));
            writeln!(
                out,
                "{:<26} {:>8} {:>10} {:>10} {:>10}{}",
                latency.store,
                latency.count(),
                ms(0.5),
                ms(0.99),
                ms(1.0),
                if latency.lost > 0 { format!("   {} not seen", latency.lost) } else { String::new() }
            )?;
        }
        for sample in self.samples {
            writeln!(out, "\n{}", sample.question)?;
            for line in sample.query.lines() {
                writeln!(out, "  > {line}")?;
            }
            match &sample.answer {
                Ok(lines) => lines.iter().try_for_each(|line| writeln!(out, "  {line}"))?,
                Err(error) => writeln!(out, "  failed: {error:#}")?,
            }
        }
        if self.args.keep {
            writeln!(out, "\nto look further:")?;
            writeln!(out, "  status page  {}/", self.admin)?;
            writeln!(out, "  metrics      {}/metrics", self.admin)?;
            writeln!(out, "  stores       psql {}", self.stack.postgres)?;
            writeln!(
                out,
                "  search       curl '{}/{}/_search?q=malaria&pretty'",
                self.stack.search,
                crate::checks::ALIAS
            )?;
            writeln!(out, "  cache        redis-cli -u {}", self.stack.redis)?;
            for site in &self.stack.sites {
                writeln!(out, "  {:<12} {}", site.service, site.url)?;
            }
        }
        if !self.args.keep {
            writeln!(out, "\nwith --keep everything goes on running, and its addresses are printed here")?;
        }
        let verdict = match self.differences() {
            0 => "every store is right: 0 differences".to_owned(),
            some => format!("{some} DIFFERENCES"),
        };
        write!(out, "\n{verdict}")
    }

    pub fn json(&self) -> Value {
        let checks = self.checks.iter().map(|check| {
            let Differences { missing, extra, different, examples } = check.compare();
            json!({
                "store": check.store, "what": check.what, "expected": check.expected.len(),
                "found": check.found.len(), "missing": missing, "extra": extra, "different": different,
                "examples": examples,
            })
        });
        let latencies = self.latencies.iter().map(|latency| {
            json!({
                "store": latency.store, "changes": latency.count(), "not_seen": latency.lost,
                "p50_ms": latency.quantile_ms(0.5), "p99_ms": latency.quantile_ms(0.99),
                "max_ms": latency.quantile_ms(1.0),
            })
        });
        json!({
            "differences": self.differences(),
            "violations": self.violations(),
            "checks": checks.collect::<Vec<_>>(),
            "latencies": latencies.collect::<Vec<_>>(),
            "rows_changed": self.counters.rows(),
            "transactions": self.counters.transactions(),
            "messages_sent": self.counters.messages(),
            "seconds": self.args.seconds,
            "seed": self.args.seed,
            "patients": self.args.patients,
            "restarts": self.restarts,
        })
    }
}
