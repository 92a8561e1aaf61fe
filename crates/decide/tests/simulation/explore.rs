//! Runs histories: random ones that shrink, and all small ones.

use std::collections::HashSet;
use std::fmt::{self, Write};
use std::hash::{DefaultHasher, Hasher};

use fhirehose_stream::TopicPartition;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestError, TestRunner};

use crate::kafka::{Part, Record};
use crate::producer::Trouble;

/// What becomes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Emit,
    Reject,
    /// Its output is too large: a reject that is found by trying it alone.
    Large,
}

/// A way to drive the machines that is wrong, to see that the properties can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    SlowEndTrusted,
    DisturbedEndTrusted,
    UnknownIsCommitted,
    UnknownIsAborted,
    /// Records in hand of revoked partitions are kept.
    RevokedKept,
    /// Records polled and not in hand of revoked partitions are kept.
    PolledKept,
    /// Records polled of partitions that stay are dropped too.
    RetainedForgotten,
    /// The group's generation is not checked.
    Unfenced,
    /// A batch without effect is taken for done.
    AbortedDropped,
    OffsetsBeforeOutputs,
    OffsetsOutsideTransaction,
    /// A first offset is committed again after no answer came.
    StartTriedAgain,
    /// Kafka's offset is taken for the store's.
    ClaimIgnored,
    MarkIgnored,
    /// After letters of unknown fate, nobody asks for the marks.
    MarksNotAsked,
    /// A hint counts as answered once it is sent.
    HintTrusted,
    /// An offset commit without an answer is forgotten.
    UnansweredForgotten,
    /// The store takes an advance from whoever sends it.
    EpochIgnored,
    /// Letters go out after the store's commit.
    LettersLast,
    /// What is in hand is dropped when another partition is to be claimed.
    DroppedForClaim,
}

/// The input, and who works on it.
#[derive(Clone, Debug)]
pub struct Setup {
    pub kinds: Vec<Vec<Kind>>,
    pub workers: usize,
    pub mutant: Option<Mutant>,
    pub at: Vec<TopicPartition>,
}

impl Setup {
    pub fn new(kinds: Vec<Vec<Kind>>, workers: usize, mutant: Option<Mutant>) -> Self {
        let topic: std::sync::Arc<str> = "in".into();
        let at = |part| TopicPartition { topic: topic.clone(), partition: part as i32 };
        let at = (0..kinds.len()).map(at).collect();
        Setup { kinds, workers, mutant, at }
    }

    pub fn kind(&self, (part, offset): Record) -> Kind {
        self.kinds[part][offset as usize]
    }

    pub fn end(&self, part: Part) -> i64 {
        self.kinds[part].len() as i64
    }

    pub fn records(&self) -> impl Iterator<Item = Record> {
        let of = |(part, kinds): (Part, &Vec<Kind>)| (0..kinds.len() as i64).map(move |o| (part, o));
        self.kinds.iter().enumerate().flat_map(of)
    }
}

/// Something that happens. Numbers are those of workers but for `Deliver` and `Settle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A worker's next step, or the next request of the step it is in.
    Run(usize, Trouble),
    /// A worker polls one more record of each partition before it hands any out.
    Poll(usize),
    /// A worker's background thread asks the group.
    Heartbeat(usize),
    Kill(usize),
    /// As by SIGSTOP.
    Freeze(usize),
    Thaw(usize),
    /// The group puts a member out.
    Expire(usize),
    /// The coordinator ends a transaction that was open for too long.
    TimeOut(usize),
    /// A late request arrives.
    Deliver(usize),
    /// An operator says to go on.
    Resume(usize),
    /// A worker tells Kafka how far its store is.
    Hint(usize),
    /// It gives up waiting for the answer.
    Forget(usize),
    /// The database finds out that the owner of a transaction is gone.
    Settle(usize),
}

/// A model of the engine and its servers, at one moment.
pub trait System: Clone + fmt::Debug {
    fn new(setup: &Setup) -> Self;
    /// What can happen: first what does in a good world, then what does not.
    fn events(&self, setup: &Setup, good: &mut Vec<Event>, bad: &mut Vec<Event>);
    fn apply(&mut self, setup: &Setup, event: Event);
    /// Ends all trouble. Called again and again, while workers are run in turn, until [`System::done`].
    fn heal(&mut self, setup: &Setup);
    fn done(&self, setup: &Setup) -> bool;
    /// What is wrong once all is done.
    fn wrong(&self, setup: &Setup) -> Option<String>;
}

/// Rounds of all workers within which a healed system must be done.
const ROUNDS: usize = 400;

/// Heals and finishes; says what is wrong.
pub fn finish<S: System>(setup: &Setup, mut system: S) -> Result<(), String> {
    for round in 0..ROUNDS {
        system.heal(setup);
        if system.done(setup) {
            return system.wrong(setup).map_or(Ok(()), Err);
        }
        for worker in 0..setup.workers {
            // What dead workers left open is ended after a while.
            if round == ROUNDS / 4 {
                system.apply(setup, Event::TimeOut(worker));
            }
            system.apply(setup, Event::Heartbeat(worker));
            system.apply(setup, Event::Resume(worker));
            system.apply(setup, Event::Hint(worker));
            system.apply(setup, Event::Run(worker, Trouble::No));
        }
    }
    Err("it does not come to rest".into())
}

/// One history, chosen by `tape`: a quarter of the numbers choose trouble, where there is some to choose.
pub fn history<S: System>(setup: &Setup, tape: &[u8], told: &mut Vec<Event>) -> Result<(), String> {
    let mut system = S::new(setup);
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for number in tape {
        good.clear();
        bad.clear();
        system.events(setup, &mut good, &mut bad);
        let from = if number % 4 == 3 && !bad.is_empty() || good.is_empty() { &bad } else { &good };
        let Some(event) = from.get(usize::from(number / 4) % from.len().max(1)) else { break };
        told.push(*event);
        system.apply(setup, *event);
    }
    finish(setup, system)
}

fn kinds(numbers: &[Vec<u8>]) -> Vec<Vec<Kind>> {
    let kind = |number: &u8| match number % 8 {
        6 => Kind::Reject,
        7 => Kind::Large,
        _ => Kind::Emit,
    };
    numbers.iter().map(|of| of.iter().map(kind).collect()).collect()
}

/// Runs `count` random histories; returns the shrunk one that breaks a property, in words.
pub fn random<S: System>(count: u32, seed: u64, mutant: Option<Mutant>) -> Result<(), String> {
    let config = Config {
        cases: count,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..Config::default()
    };
    let inputs = prop::collection::vec(prop::collection::vec(any::<u8>(), 1..5), 1..4);
    let input = (inputs, 1..4_usize, prop::collection::vec(any::<u8>(), 0..160));
    let result = TestRunner::new(config).run(&input, |(numbers, workers, tape)| {
        let setup = Setup::new(kinds(&numbers), workers, mutant);
        history::<S>(&setup, &tape, &mut Vec::new()).map_err(TestCaseError::fail)
    });
    match result {
        Ok(()) => Ok(()),
        Err(TestError::Fail(why, (numbers, workers, tape))) => {
            let setup = Setup::new(kinds(&numbers), workers, mutant);
            let mut told = Vec::new();
            let _ = history::<S>(&setup, &tape, &mut told);
            Err(format!("seed {seed}: {why}\n{workers} workers, {:?}\n{told:?}", setup.kinds))
        }
        Err(TestError::Abort(why)) => Err(why.to_string()),
    }
}

/// Hashes what is written to it.
struct Fingerprint(DefaultHasher);

impl Write for Fingerprint {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

/// All histories of a setup with at most `trouble` bad events within `depth` events; returns how many different
/// moments there were.
pub fn exhaustive<S: System>(setup: &Setup, depth: usize, trouble: usize) -> Result<usize, String> {
    let mut seen = HashSet::new();
    let mut front = vec![(S::new(setup), trouble, Vec::new())];
    while let Some((system, left, told)) = front.pop() {
        let mut print = Fingerprint(DefaultHasher::new());
        let _ = write!(print, "{left} {} {system:?}", told.len());
        if !seen.insert(print.0.finish()) {
            continue;
        }
        finish(setup, system.clone()).map_err(|why| format!("{why}\n{told:?}"))?;
        if told.len() == depth {
            continue;
        }
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        system.events(setup, &mut good, &mut bad);
        bad.truncate(if left > 0 { bad.len() } else { 0 });
        let events = good.iter().map(|event| (*event, left));
        for (event, left) in events.chain(bad.iter().map(|event| (*event, left.saturating_sub(1)))) {
            let mut next = system.clone();
            next.apply(setup, event);
            let mut told = told.clone();
            told.push(event);
            front.push((next, left, told));
        }
    }
    Ok(seen.len())
}
