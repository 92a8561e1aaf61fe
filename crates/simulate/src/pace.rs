//! A steady rate: work is spread evenly over time, and a late step is not made up for in a burst.

use std::thread;
use std::time::{Duration, Instant};

pub struct Pace {
    started: Instant,
    length: Duration,
    rate: f64,
    /// Seconds of work done, in units of one per `rate`.
    done: f64,
}

impl Pace {
    /// `rate` units of work per second for `seconds`.
    pub fn new(rate: f64, seconds: u64) -> Self {
        Self {
            started: Instant::now(),
            length: Duration::from_secs(seconds),
            rate: rate.max(0.001),
            done: 0.0,
        }
    }

    /// Waits until the work counted so far is due. `false` when the time is over.
    pub fn wait(&mut self) -> bool {
        let due = self.done / self.rate;
        let elapsed = self.started.elapsed().as_secs_f64();
        if due > elapsed {
            let left = self.length.saturating_sub(self.started.elapsed());
            thread::sleep(Duration::from_secs_f64(due - elapsed).min(left));
        } else if elapsed - due > 1.0 {
            // More than a second behind: the server is slower than the rate. Forget the backlog.
            self.done = (elapsed - 1.0) * self.rate;
        }
        self.started.elapsed() < self.length
    }

    pub fn did(&mut self, units: u32) {
        self.done += f64::from(units);
    }

    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_rate_and_ends_in_time() {
        let mut pace = Pace::new(200.0, 1);
        let mut units = 0;
        while pace.wait() {
            pace.did(5);
            units += 5;
        }
        assert!((180..=206).contains(&units), "{units}");
        assert!(pace.elapsed() < Duration::from_millis(1300));
    }
}
