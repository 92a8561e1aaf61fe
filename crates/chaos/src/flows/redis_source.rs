//! A source in memory whose rows change, and fillers that cache what they read of it as docs/cache.md says.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use redis::{Connection, Script};

use super::stores::{locked, now_ms};
use crate::flow::Halt;
use crate::ledger::redis::{Fill, connect};

/// Entries are to outlive a run.
const LIFE_MS: i64 = 3_600_000;
/// Keys looked at in one go.
const GO: usize = 100;
/// Keys of a run, and how many of them change most of the time: the others stay long enough to be cached.
const KEYS: usize = 6_000;
const HOT: usize = 300;

/// Row by row, how often it has changed: its value.
pub struct Source {
    pub keys: Vec<String>,
    values: Vec<AtomicI64>,
}

impl Source {
    pub fn new(tag: &str) -> Source {
        Source {
            keys: (0..KEYS).map(|at| format!("chaos:{tag}:{at}")).collect(),
            values: (0..KEYS).map(|_| AtomicI64::new(0)).collect(),
        }
    }

    /// Changes a row; answers which, and its new value.
    pub fn change(&self, random: &mut ChaCha8Rng) -> (usize, i64) {
        let among = if random.random_bool(0.7) { 0..HOT } else { 0..KEYS };
        let at = random.random_range(among);
        (at, self.values[at].fetch_add(1, Ordering::SeqCst) + 1)
    }

    fn read(&self, at: usize) -> i64 {
        self.values[at].load(Ordering::SeqCst)
    }
}

/// A value that was read and is not cached yet.
struct Read {
    at: usize,
    value: i64,
    read_at: i64,
    due: i64,
}

/// Looks entries up and fills those that are missing, some of them much later than they were read.
pub struct Filler<'s> {
    pub source: &'s Source,
    pub script: &'s str,
    pub url: &'s str,
    pub fills: &'s Mutex<HashMap<String, Vec<Fill>>>,
}

impl Filler<'_> {
    /// Until told to stop. A server that is away is waited for; what could not be cached is used once.
    pub fn run(&self, seed: u64, stop: &Halt) {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let script = Script::new(self.script);
        let mut connection = None;
        let mut slow = Vec::new();
        while !stop.halted() {
            if self.go(&mut connection, &script, &mut random, &mut slow).is_err() {
                connection = None;
                slow.clear();
                sleep(Duration::from_millis(200));
            }
            sleep(Duration::from_millis(10));
        }
    }

    fn go(
        &self,
        kept: &mut Option<Connection>,
        script: &Script,
        random: &mut ChaCha8Rng,
        slow: &mut Vec<Read>,
    ) -> Result<()> {
        let connection = match kept {
            Some(connection) => connection,
            None => {
                let mut made = connect(self.url)?;
                script.prepare_invoke().load(&mut made)?;
                kept.insert(made)
            }
        };
        let wanted: Vec<usize> = (0..GO).map(|_| random.random_range(0..KEYS)).collect();
        let mut pipeline = redis::pipe();
        for at in &wanted {
            pipeline.hexists(&self.source.keys[*at], "value");
        }
        let there: Vec<bool> = pipeline.query(connection)?;
        for (at, there) in wanted.into_iter().zip(there) {
            if !there {
                let read_at = now_ms();
                let takes = if random.random_bool(0.1) { random.random_range(100..3_000) } else { 0 };
                slow.push(Read { at, value: self.source.read(at), read_at, due: read_at + takes });
            }
        }
        let now = now_ms();
        let (due, later): (Vec<Read>, Vec<Read>) = slow.drain(..).partition(|read| read.due <= now);
        *slow = later;
        if due.is_empty() {
            return Ok(());
        }
        let mut pipeline = redis::pipe();
        for read in &due {
            let call = pipeline.cmd("EVALSHA").arg(script.get_hash()).arg(1).arg(&self.source.keys[read.at]);
            call.arg(read.value).arg(read.read_at).arg(LIFE_MS);
        }
        let took: Vec<bool> = pipeline.query(connection)?;
        let answered = now_ms();
        let mut fills = locked(self.fills);
        for (read, _) in due.iter().zip(took).filter(|(_, took)| *took) {
            let of_key = fills.entry(self.source.keys[read.at].clone()).or_default();
            of_key.push(Fill { read_at: read.read_at, answered });
        }
        Ok(())
    }
}
