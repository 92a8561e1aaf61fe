use std::sync::atomic::{AtomicU64, Ordering};

/// Eight buckets per doubling: quantiles are right to about nine per cent.
const PER_DOUBLING: u64 = 8;
const BUCKETS: usize = 8 * 32;

/// A histogram of ages in milliseconds that any thread may add to: since the start, and of about the last
/// minute.
pub(crate) struct Ages {
    all: Histogram,
    recent: [Histogram; 2],
    turn: AtomicU64,
}

/// A median and a tail, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Quantiles {
    pub p50_ms: u64,
    pub p99_ms: u64,
    pub count: u64,
}

struct Histogram([AtomicU64; BUCKETS]);

impl Default for Histogram {
    fn default() -> Self {
        Histogram([const { AtomicU64::new(0) }; BUCKETS])
    }
}

impl Default for Ages {
    fn default() -> Self {
        Ages { all: Histogram::default(), recent: Default::default(), turn: AtomicU64::new(0) }
    }
}

impl Ages {
    pub(crate) fn add(&self, ms: u64) {
        let bucket = bucket(ms);
        self.all.0[bucket].fetch_add(1, Ordering::Relaxed);
        self.recent[self.turn.load(Ordering::Relaxed) as usize % 2].0[bucket].fetch_add(1, Ordering::Relaxed);
    }

    /// Forgets the older half of the recent ages; called every half minute.
    pub(crate) fn turn(&self) {
        let next = self.turn.load(Ordering::Relaxed).wrapping_add(1);
        for count in &self.recent[next as usize % 2].0 {
            count.store(0, Ordering::Relaxed);
        }
        self.turn.store(next, Ordering::Relaxed);
    }

    pub(crate) fn all(&self) -> Quantiles {
        quantiles(&[&self.all])
    }

    pub(crate) fn recent(&self) -> Quantiles {
        quantiles(&[&self.recent[0], &self.recent[1]])
    }
}

fn quantiles(parts: &[&Histogram]) -> Quantiles {
    let counts: Vec<u64> = (0..BUCKETS)
        .map(|bucket| parts.iter().map(|part| part.0[bucket].load(Ordering::Relaxed)).sum())
        .collect();
    let count: u64 = counts.iter().sum();
    let at = |share: f64| {
        let rank = (count as f64 * share).ceil() as u64;
        let mut seen = 0;
        let found = counts.iter().position(|n| {
            seen += n;
            seen >= rank
        });
        found.map_or(0, upper)
    };
    if count == 0 {
        return Quantiles::default();
    }
    Quantiles { p50_ms: at(0.5), p99_ms: at(0.99), count }
}

fn bucket(ms: u64) -> usize {
    if ms < PER_DOUBLING {
        return ms as usize;
    }
    let doubling = u64::from(ms.ilog2()) - 3;
    let within = (ms >> doubling) - PER_DOUBLING;
    ((doubling + 1) * PER_DOUBLING + within).min(BUCKETS as u64 - 1) as usize
}

/// The largest age of a bucket.
fn upper(bucket: usize) -> u64 {
    let (doubling, within) = (bucket as u64 / PER_DOUBLING, bucket as u64 % PER_DOUBLING);
    match doubling {
        0 => within,
        _ => ((PER_DOUBLING + within + 1) << (doubling - 1)) - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_age_lies_in_its_bucket() {
        for ms in (0..5_000).chain([1 << 20, (1 << 30) + 12345]) {
            let bucket = bucket(ms);
            assert!(upper(bucket) >= ms && (bucket == 0 || upper(bucket - 1) < ms), "{ms}");
        }
    }

    #[test]
    fn quantiles_are_near_and_recent_ones_forget() {
        let ages = Ages::default();
        (1..=1000).for_each(|ms| ages.add(ms));
        let all = ages.all();
        assert!((500..=560).contains(&all.p50_ms) && (990..=1100).contains(&all.p99_ms), "{all:?}");
        assert_eq!(ages.recent(), all);
        ages.turn();
        ages.add(5);
        assert_eq!(ages.recent().count, 1001);
        ages.turn();
        assert_eq!((ages.recent().count, ages.all().count), (1, 1001));
    }
}
