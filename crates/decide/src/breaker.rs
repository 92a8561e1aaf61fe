use std::collections::BTreeMap;

use fhirehose_stream::{Reason, Verdict};

/// How many rejects are too many.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Rejects in a row; 0 turns it off.
    pub consecutive: u32,
    /// Share of rejects, 0 to 1, among the last `window` records; 0 turns it off.
    pub share: f64,
    /// Records the share is taken over.
    pub window: u32,
}

/// Stops a worker that rejects too much: a bad deploy must not drain a topic into its dead-letter topic.
#[derive(Clone, Debug, PartialEq)]
pub struct Breaker {
    limits: Limits,
    seen: Seen,
    /// What is seen once the batch checked last takes effect; a batch may be tried many times.
    checked: Option<Seen>,
    /// The next batch passes whatever it holds: an operator has looked at it.
    waved_through: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Seen {
    consecutive: u32,
    /// Whether each of the last `window` records was rejected, as a ring.
    ring: Vec<bool>,
    next: usize,
    rejected: u32,
}

impl Breaker {
    pub fn new(limits: Limits) -> Self {
        Breaker { limits, seen: Seen::default(), checked: None, waved_through: false }
    }

    /// Whether a batch may be committed; `Err` tells why not, in words. It counts when [`Breaker::done`] is
    /// called.
    pub fn check(&mut self, verdicts: &[Verdict]) -> Result<(), String> {
        let mut seen = self.seen.clone();
        let mut tripped = None;
        for verdict in verdicts {
            seen.add(matches!(verdict, Verdict::Reject(_)), self.limits.window as usize);
            tripped = tripped.or_else(|| seen.over(&self.limits));
        }
        match tripped {
            Some(why) if !self.waved_through => Err(format!("{why}: {}", reasons(verdicts))),
            _ => {
                self.checked = Some(if self.waved_through { Seen::default() } else { seen });
                Ok(())
            }
        }
    }

    /// The batch checked last has taken effect.
    pub fn done(&mut self) {
        if let Some(checked) = self.checked.take() {
            self.seen = checked;
            self.waved_through = false;
        }
    }

    /// Starts counting anew, and lets the batch that tripped it pass.
    pub fn resume(&mut self) {
        self.seen = Seen::default();
        self.waved_through = true;
    }
}

impl Seen {
    fn add(&mut self, rejected: bool, window: usize) {
        self.consecutive = if rejected { self.consecutive + 1 } else { 0 };
        if window == 0 {
            return;
        }
        if self.ring.len() < window {
            self.ring.push(rejected);
        } else {
            self.rejected -= u32::from(self.ring[self.next]);
            self.ring[self.next] = rejected;
            self.next = (self.next + 1) % window;
        }
        self.rejected += u32::from(rejected);
    }

    fn over(&self, limits: &Limits) -> Option<String> {
        if limits.consecutive > 0 && self.consecutive >= limits.consecutive {
            return Some(format!("{} records in a row were rejected", self.consecutive));
        }
        let full = self.ring.len() == limits.window as usize && limits.window > 0;
        let most = limits.share * f64::from(limits.window);
        (full && limits.share > 0.0 && f64::from(self.rejected) > most)
            .then(|| format!("{} of the last {} records were rejected", self.rejected, limits.window))
    }
}

/// `unknown_code 12, wrong_type 3`.
fn reasons(verdicts: &[Verdict]) -> String {
    let mut counts: BTreeMap<Reason, u32> = BTreeMap::new();
    for verdict in verdicts {
        if let Verdict::Reject(rejection) = verdict {
            *counts.entry(rejection.reason).or_default() += 1;
        }
    }
    let words: Vec<_> = counts.iter().map(|(reason, count)| format!("{} {count}", reason.label())).collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use fhirehose_stream::Rejection;

    use super::*;

    fn verdicts(pattern: &str) -> Vec<Verdict> {
        let verdict = |c| match c {
            'x' => Rejection::new(Reason::UnknownCode, "a.path").into(),
            _ => Verdict::Emit(1),
        };
        pattern.chars().map(verdict).collect()
    }

    fn breaker(consecutive: u32, share: f64, window: u32) -> Breaker {
        Breaker::new(Limits { consecutive, share, window })
    }

    /// Checks and takes effect.
    fn pass(breaker: &mut Breaker, pattern: &str) -> Result<(), String> {
        let checked = breaker.check(&verdicts(pattern));
        if checked.is_ok() {
            breaker.done();
        }
        checked
    }

    #[test]
    fn rejects_in_a_row_trip_it_across_batches() {
        let mut breaker = breaker(4, 0.0, 0);
        assert_eq!(pass(&mut breaker, "xxx.xxx"), Ok(()));
        let why = pass(&mut breaker, "x").unwrap_err();
        assert!(why.contains("4 records in a row") && why.contains("unknown_code 1"), "{why}");
        assert_eq!(pass(&mut breaker, "."), Ok(()), "the refused batch was not counted");
    }

    #[test]
    fn a_batch_that_is_tried_again_counts_once() {
        let mut breaker = breaker(4, 0.0, 0);
        for _ in 0..10 {
            assert_eq!(breaker.check(&verdicts("xxx")), Ok(()));
        }
        breaker.done();
        assert!(breaker.check(&verdicts("x")).is_err());
    }

    #[test]
    fn a_large_share_trips_it_once_the_window_is_full() {
        let mut breaker = breaker(0, 0.5, 10);
        assert_eq!(pass(&mut breaker, "xxxxxx..."), Ok(()));
        assert!(pass(&mut breaker, ".").is_err());
        assert!(pass(&mut breaker, "..x...").is_err(), "the window slides within a batch too");
        assert_eq!(pass(&mut breaker, ""), Ok(()));
    }

    #[test]
    fn resuming_lets_the_batch_pass_and_counts_anew() {
        let mut breaker = breaker(3, 0.5, 6);
        assert!(pass(&mut breaker, "xxxxx").is_err());
        breaker.resume();
        assert_eq!(breaker.check(&verdicts("xxxxx")), Ok(()), "tried, without effect");
        assert_eq!(pass(&mut breaker, "xxxxx"), Ok(()));
        assert_eq!(pass(&mut breaker, "xx."), Ok(()));
        assert!(pass(&mut breaker, "xxxxx").is_err());
    }
}
