//! What the cache holds against what the source was when: entries, fills and what the channel told. Numbers of
//! changes stand for values: the n-th change of a key makes its value n.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use anyhow::{Context, Result};
use redis::{Client, Connection};

use super::{Breaches, Invariant};

/// How much later than its stamp a change may become visible, as sink-redis counts by default.
pub const SETTLE_MS: i64 = 5_000;
/// A message may reach a listener so much later than the answer of a fill reaches the filler.
const HEARD_MS: i64 = 2_000;
const TIMEOUT: Duration = Duration::from_secs(5);

pub fn connect(url: &str) -> Result<Connection> {
    let connection =
        Client::open(url)?.get_connection_with_timeout(TIMEOUT).context("connecting to Redis")?;
    connection.set_read_timeout(Some(TIMEOUT))?;
    connection.set_write_timeout(Some(TIMEOUT))?;
    Ok(connection)
}

/// Another one after every start of the server.
pub fn run_id(connection: &mut Connection) -> Result<String> {
    let info: String = redis::cmd("INFO").arg("server").query(connection)?;
    let line = info.lines().find_map(|line| line.strip_prefix("run_id:"));
    Ok(line.context("INFO without a run id")?.to_owned())
}

/// The values of the entries that are there.
pub fn entries(connection: &mut Connection, keys: &[String]) -> Result<HashMap<String, i64>> {
    let mut found = HashMap::new();
    for keys in keys.chunks(1_000) {
        let mut pipeline = redis::pipe();
        for key in keys {
            pipeline.hget(key, "value");
        }
        let values: Vec<Option<i64>> = pipeline.query(connection)?;
        let there = keys.iter().zip(values).filter_map(|(key, value)| Some((key.clone(), value?)));
        found.extend(there);
    }
    Ok(found)
}

/// I8: an entry is at least as new as the last change of its key whose event was done.
pub fn stale(entries: &HashMap<String, i64>, done: impl Fn(&str) -> Option<i64>, found: &mut Breaches) {
    for (key, value) in entries {
        if done(key).is_some_and(|done| *value < done) {
            found.add(Invariant::I8, "an entry older than a change that was done", key);
        }
    }
}

/// When everything is done: every entry is what the source says.
pub fn unlike(entries: &HashMap<String, i64>, source: impl Fn(&str) -> Option<i64>, found: &mut Breaches) {
    for (key, value) in entries {
        match source(key) {
            Some(now) if *value < now => found.add(Invariant::I8, "an entry older than the source", key),
            Some(now) if *value > now => found.add(Invariant::I6, "an entry the source never had", key),
            _ => {}
        }
    }
}

/// A fill that the cache took.
#[derive(Clone, Copy, Debug)]
pub struct Fill {
    pub read_at: i64,
    /// When its answer came.
    pub answered: i64,
}

/// A message of the channel.
#[derive(Clone, Debug)]
pub struct Told {
    pub key: String,
    pub source_ts: i64,
    pub heard: i64,
}

/// What happened to the keys over a run, in which neither server nor listener was away.
#[derive(Default)]
pub struct History {
    /// Stamp of the newest change by key, of the events in the topic.
    pub newest: BTreeMap<String, i64>,
    pub fills: HashMap<String, Vec<Fill>>,
    pub told: Vec<Told>,
}

impl History {
    /// An entry read after every change of its key is still there; an eviction is told at least once, and none
    /// of an entry that was read after the change.
    pub fn check(&self, entries: &HashMap<String, i64>, found: &mut Breaches) {
        let none = Vec::new();
        let fills = |key: &str| self.fills.get(key).unwrap_or(&none);
        let mut told: HashMap<&str, i64> = HashMap::new();
        for message in &self.told {
            let newest = told.entry(&message.key).or_insert(message.source_ts);
            *newest = message.source_ts.max(*newest);
            let newer = |fill: &Fill| {
                fill.read_at >= message.source_ts + SETTLE_MS && fill.answered + HEARD_MS < message.heard
            };
            if fills(&message.key).iter().any(newer) {
                found.add(Invariant::I8, "an entry read after the change was evicted", &message.key);
            }
        }
        for (key, source_ts) in &self.newest {
            let fresh = fills(key).iter().any(|fill| fill.read_at >= source_ts + SETTLE_MS);
            if fresh && !entries.contains_key(key) {
                found.add(Invariant::I8, "an entry read after every change is gone", key);
            }
            if !fresh && told.get(key.as_str()).is_none_or(|told| told < source_ts) {
                found.add(Invariant::I1, "an eviction was not told", key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(value: i64) -> HashMap<String, i64> {
        HashMap::from([("k".to_owned(), value)])
    }

    fn told(check: impl FnOnce(&mut Breaches)) -> Vec<String> {
        let mut found = Breaches::default();
        check(&mut found);
        found.into_vec().into_iter().map(|breach| breach.what).collect()
    }

    #[test]
    fn a_stale_entry_is_found() {
        let done = |_: &str| Some(3);
        assert_eq!(told(|found| stale(&entry(3), done, found)), Vec::<String>::new());
        assert_eq!(told(|found| stale(&entry(4), done, found)), Vec::<String>::new());
        assert_eq!(
            told(|found| stale(&entry(2), done, found)),
            ["an entry older than a change that was done: k"]
        );
        assert_eq!(told(|found| unlike(&entry(3), done, found)), Vec::<String>::new());
        assert_eq!(told(|found| unlike(&entry(2), done, found)), ["an entry older than the source: k"]);
        assert_eq!(told(|found| unlike(&entry(4), done, found)), ["an entry the source never had: k"]);
    }

    /// A change at 10 s, told at 11 s, and an entry read at 20 s.
    fn history() -> History {
        History {
            newest: BTreeMap::from([("k".to_owned(), 10_000)]),
            fills: HashMap::from([("k".to_owned(), vec![Fill { read_at: 20_000, answered: 20_001 }])]),
            told: vec![Told { key: "k".to_owned(), source_ts: 10_000, heard: 11_000 }],
        }
    }

    #[test]
    fn evictions_of_newer_entries_and_silent_ones_are_found() {
        assert_eq!(told(|found| history().check(&entry(1), found)), Vec::<String>::new());
        let gone = told(|found| history().check(&HashMap::new(), found));
        assert_eq!(gone, ["an entry read after every change is gone: k"]);
        let mut late = history();
        late.told.push(Told { heard: 30_000, ..late.told[0].clone() });
        assert_eq!(
            told(|found| late.check(&entry(1), found)),
            ["an entry read after the change was evicted: k"]
        );
        let mut silent = history();
        silent.told.clear();
        assert_eq!(told(|found| silent.check(&entry(1), found)), Vec::<String>::new(), "nothing was evicted");
        silent.fills.clear();
        assert_eq!(told(|found| silent.check(&HashMap::new(), found)), ["an eviction was not told: k"]);
    }
}
