use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);

/// Waits that double up to ten seconds, each drawn from its upper half so that instances spread out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The wait before the next try; `draw` lies between 0 and 1.
    pub fn next(&mut self, draw: f64) -> Duration {
        let whole = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        whole.mul_f64(0.5 + draw.clamp(0.0, 1.0) / 2.0)
    }

    pub fn success(&mut self) {
        self.failures = 0;
    }

    /// Whether this failure is worth a line in the log: the first, and then ever rarer ones.
    pub fn worth_telling(&self) -> bool {
        self.failures.is_power_of_two()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_start_over_after_success() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..40).map(|n| backoff.next(f64::from(n % 2))).collect();
        assert_eq!((waits[0], waits[1]), (FIRST / 2, FIRST * 2));
        assert_eq!((waits[38], waits[39]), (LONGEST / 2, LONGEST));
        backoff.success();
        assert!(backoff.next(0.3) <= FIRST);
    }
}
