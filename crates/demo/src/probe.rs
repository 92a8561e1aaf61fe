//! Latency as a user would feel it: from the answered commit in the hospital's database, or the message
//! sent, until a reader of the store finds it. One change at a time per store, the newest first.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::Result;

/// Something to look for, and since when it is there to be found.
#[derive(Clone, Debug)]
pub struct Mark {
    pub key: String,
    pub since: Instant,
}

/// Where the writers leave the newest mark for a probe.
#[derive(Clone, Default)]
pub struct Slot(Arc<Mutex<Option<Mark>>>);

impl Slot {
    pub fn put(&self, mark: Mark) {
        *lock(&self.0) = Some(mark);
    }

    fn take(&self) -> Option<Mark> {
        lock(&self.0).take()
    }
}

/// What a probe saw.
#[derive(Clone)]
pub struct Latency {
    pub store: &'static str,
    samples: Vec<Duration>,
    /// Marks not found in time.
    pub lost: usize,
}

impl Latency {
    pub fn count(&self) -> usize {
        self.samples.len()
    }

    /// In milliseconds; `None` without samples.
    pub fn quantile_ms(&self, share: f64) -> Option<f64> {
        let mut sorted = self.samples.clone();
        sorted.sort_unstable();
        let last = sorted.len().checked_sub(1)?;
        let at = (share * last as f64).round() as usize;
        sorted.get(at.min(last)).map(|sample| sample.as_secs_f64() * 1000.0)
    }
}

pub struct Probe {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Latency>>,
    thread: JoinHandle<()>,
}

/// Answers whether the change with this key can be seen in the store.
pub type Look = Box<dyn FnMut(&str) -> Result<bool> + Send>;

/// A mark not found within this time is given up: its row may have been changed again.
const PATIENCE: Duration = Duration::from_secs(30);

impl Probe {
    /// `look` is made anew by `open` whenever it fails, as when a server restarts.
    pub fn start(store: &'static str, slot: Slot, open: impl Fn() -> Result<Look> + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Latency { store, samples: Vec::new(), lost: 0 }));
        let (stopped, latency) = (stop.clone(), seen.clone());
        let thread = thread::spawn(move || {
            let mut known = BTreeSet::new();
            let mut look: Option<Look> = None;
            while !stopped.load(Ordering::Relaxed) {
                match slot.take().filter(|mark| known.insert(mark.key.clone())) {
                    Some(mark) => match follow(&mark, &mut look, &open, &stopped) {
                        Followed::Seen(after) => lock(&latency).samples.push(after),
                        Followed::Lost => lock(&latency).lost += 1,
                        Followed::Stopped => {}
                    },
                    None => sleep(Duration::from_millis(2)),
                }
            }
        });
        Self { stop, seen, thread }
    }

    pub fn so_far(&self) -> Latency {
        lock(&self.seen).clone()
    }

    pub fn finish(self) -> Latency {
        self.stop.store(true, Ordering::Relaxed);
        // A probe that panicked has still what it saw before.
        drop(self.thread.join());
        lock(&self.seen).clone()
    }
}

fn follow(
    mark: &Mark,
    look: &mut Option<Look>,
    open: &impl Fn() -> Result<Look>,
    stopped: &AtomicBool,
) -> Followed {
    while mark.since.elapsed() < PATIENCE {
        match look.as_mut().map(|look| look(&mark.key)) {
            Some(Ok(true)) => return Followed::Seen(mark.since.elapsed()),
            Some(Ok(false)) if stopped.load(Ordering::Relaxed) => return Followed::Stopped,
            Some(Ok(false)) => sleep(Duration::from_millis(4)),
            None | Some(Err(_)) => {
                *look = open().ok();
                if look.is_none() {
                    sleep(Duration::from_millis(200));
                }
            }
        }
    }
    Followed::Lost
}

enum Followed {
    Seen(Duration),
    Lost,
    Stopped,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_a_hundred() {
        let samples = (1..=100).map(Duration::from_millis).collect();
        let latency = Latency { store: "s", samples, lost: 0 };
        assert_eq!(latency.quantile_ms(0.5), Some(51.0));
        assert_eq!(latency.quantile_ms(0.99), Some(99.0));
        assert_eq!(Latency { store: "s", samples: vec![], lost: 0 }.quantile_ms(0.5), None);
    }

    #[test]
    fn a_probe_follows_its_newest_mark() {
        let slot = Slot::default();
        let probe = Probe::start("s", slot.clone(), || {
            let mut asked = 0;
            Ok(Box::new(move |_: &str| {
                asked += 1;
                Ok(asked > 3)
            }))
        });
        slot.put(Mark { key: "a".into(), since: Instant::now() });
        sleep(Duration::from_millis(200));
        let latency = probe.finish();
        assert_eq!((latency.count(), latency.lost), (1, 0));
        assert!(latency.quantile_ms(0.5).unwrap() >= 8.0);
    }
}
