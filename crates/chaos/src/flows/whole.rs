//! The whole product: two hospitals through Debezium and their devices, every processor, every store. Judged by
//! the demo's own comparison of all stores with the hospitals' tables. Needs a stack that holds nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use fhirehose_demo::checks::{self, Cache};
use fhirehose_demo::stack::{Site, Stack, ZONE};
use fhirehose_demo::truth::Hospital;
use fhirehose_demo::workload::Inserted;
use fhirehose_simulate::devices::{Fleet, Sent};
use fhirehose_simulate::hospital::{Changes, Hospital as Simulated};
use fhirehose_simulate::{DevicesArgs, Pace};

use crate::flow::{Flow, Halt, Live, Run, Target};
use crate::ledger::topics::{At, Group, Isolation, Topics};
use crate::ledger::{Breaches, Invariant, Violation};
use crate::world::World;

const NAME: &str = "whole";
const PATIENTS: u32 = 60;
const DEVICES: u32 = 80;
/// A hospital's row changes and a device fleet's messages, for each of so many records of the run's rate.
const ROWS_OF: f64 = 100.0;
const MESSAGES_OF: f64 = 200.0;
const SNAPSHOT: Duration = Duration::from_secs(240);
/// Load of a run without end: it stops when it is told to.
const LONG: u64 = 3_600;

/// Runs of one call share the hospitals, which go on changing: what each device sent, and what the last run inserted.
static SO_FAR: Mutex<Option<Vec<Done>>> = Mutex::new(None);

#[derive(Clone, Default)]
struct Done {
    inserted: Inserted,
    sent: Vec<Sent>,
}

pub struct Whole;

impl Flow for Whole {
    fn name(&self) -> &'static str {
        NAME
    }

    fn target(&self) -> Target {
        Target::Kafka
    }

    /// Where every partition gets records all the time.
    fn inputs(&self) -> Vec<String> {
        ["hospital_a", "hospital_b"].map(|source| format!("cdc.{source}.clinical_data.vital_signs")).into()
    }

    fn open(&self, world: &World, run: &Run) -> Result<Box<dyn Live>> {
        let stack = Stack::from_env()?;
        let topics = Topics::connect(world)?;
        let mut so_far = SO_FAR.lock().unwrap_or_else(PoisonError::into_inner);
        if so_far.is_none() {
            let changes: Vec<_> =
                topics.names()?.into_iter().filter(|name| name.starts_with("cdc.hospital_")).collect();
            ensure!(
                topics.ends(&changes)?.values().all(|end| *end == 0),
                "the flow {NAME} needs a stack of its own without data: set FHIREHOSE_STACK_DIR to a new folder"
            );
            begin(&stack, &topics)?;
            *so_far = Some(vec![Done::default(); stack.sites.len()]);
        }
        Ok(Box::new(Running { world: world.clone(), run: run.clone(), stack, cache: Mutex::new(None) }))
    }
}

/// Both hospitals filled, their connectors registered, and every row in a topic.
fn begin(stack: &Stack, topics: &Topics) -> Result<()> {
    let mut rows = Vec::new();
    for (seed, site) in (1..).zip(&stack.sites) {
        let mut hospital = Simulated::open(&site.url, ZONE)?;
        hospital.drop()?;
        hospital.create()?;
        rows.push((format!("cdc.{}.", site.source), i64::try_from(hospital.load(PATIENTS, seed, 1)?)?));
    }
    let xtask = std::env::var_os("FHIREHOSE_XTASK").context("FHIREHOSE_XTASK is not set")?;
    let output = Command::new(xtask)
        .args(["stack", "connector"])
        .args(stack.sites.iter().map(|site| site.service))
        .output()
        .context("registering connectors")?;
    ensure!(output.status.success(), "connectors: {}", String::from_utf8_lossy(&output.stderr));
    let begun = Instant::now();
    loop {
        let names = topics.names()?;
        let short = rows.iter().find(|(prefix, rows)| {
            let ends = topics.ends(names.iter().filter(|name| name.starts_with(prefix.as_str())));
            ends.map_or(true, |ends| ends.values().sum::<i64>() < *rows)
        });
        match short {
            None => return Ok(()),
            Some((prefix, _)) if begun.elapsed() > SNAPSHOT => bail!("no snapshot of {prefix} by Debezium"),
            Some(_) => sleep(Duration::from_secs(1)),
        }
    }
}

struct Running {
    world: World,
    run: Run,
    stack: Stack,
    /// What was put into the cache before the load.
    cache: Mutex<Option<Cache>>,
}

impl Live for Running {
    /// First waits until what is there has gone through; then both hospitals change rows and their devices send.
    fn load(&self, stop: &Halt) -> Result<u64> {
        self.settle(stop)?;
        let before = self.stack.sites.iter().zip(so_far()?).map(|(site, done)| read(site, done));
        let cache = Cache::fill(&self.stack, &self.world.root, before.collect::<Result<_>>()?)?;
        *self.cache.lock().unwrap_or_else(PoisonError::into_inner) = Some(cache);
        let worked: Vec<Result<(u64, Done)>> = scope(|threads| {
            let work: Vec<_> = (self.run.seed * 10..)
                .zip(&self.stack.sites)
                .flat_map(|(seed, site)| {
                    [
                        threads.spawn(move || self.change_rows(site, seed, stop)),
                        threads.spawn(move || self.send_messages(site, seed, stop)),
                    ]
                })
                .collect();
            let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
                thread.join().unwrap_or_else(|_| Err(anyhow!("a writer panicked")))
            };
            work.into_iter().map(join).collect()
        });
        let mut records = 0;
        let mut so_far = SO_FAR.lock().unwrap_or_else(PoisonError::into_inner);
        for (number, worked) in worked.into_iter().enumerate() {
            let (count, done) = worked?;
            records += count;
            if let Some(all) = so_far.as_mut().and_then(|all| all.get_mut(number / 2)) {
                // What was inserted before was so before the cache was filled.
                if number % 2 == 0 {
                    all.inserted.clear();
                }
                all.inserted.extend(done.inserted);
                all.sent.extend(done.sent);
            }
        }
        Ok(records)
    }

    fn watch(&self) -> Vec<Violation> {
        Vec::new()
    }

    fn progress(&self) -> Result<BTreeMap<String, i64>> {
        let group = Group::connect(&self.world, "normalize-cdc")?;
        group.progress(&self.partitions(&Whole.inputs())?)
    }

    fn check(&self) -> Result<Vec<Violation>> {
        let hospitals: Vec<Hospital> = self
            .stack
            .sites
            .iter()
            .zip(so_far()?)
            .map(|(site, done)| read(site, done))
            .collect::<Result<_>>()?;
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let cache = cache.as_ref().context("nothing was loaded")?;
        let mut found = Breaches::default();
        for check in checks::all(&self.stack, &hospitals, cache)? {
            let differences = check.compare();
            for _ in 0..differences.total() {
                let what = format!("{} {} differs from the sources", check.store, check.what);
                found.add(Invariant::I6, &what, differences.examples.join(", "));
            }
        }
        self.versions(&mut found)?;
        Ok(found.into_vec())
    }
}

impl Running {
    fn partitions(&self, of: &[String]) -> Result<Vec<At>> {
        Ok(Topics::connect(&self.world)?.ends(of)?.into_keys().collect())
    }

    /// Until the cache's rules have gone through all there is: a late event would evict what is filled next.
    fn settle(&self, stop: &Halt) -> Result<()> {
        let topics = Topics::connect(&self.world)?;
        for (group, prefix) in [("invalidate-cache", "cdc.hospital_"), ("sink-redis", "cache.invalidation")] {
            let names = topics.names()?;
            let ends = topics.ends(names.iter().filter(|name| {
                name.starts_with(prefix) && !name.ends_with(".dlq") && !name.contains(".transaction")
            }))?;
            let group = Group::connect(&self.world, group)?;
            let behind = || -> Result<bool> {
                let committed = group.committed(ends.keys())?;
                Ok(ends.iter().any(|(at, end)| *end > 0 && committed.get(at).is_none_or(|done| done < end)))
            };
            while !stop.halted() && behind().unwrap_or(true) {
                sleep(Duration::from_millis(300));
            }
        }
        Ok(())
    }

    fn change_rows(&self, site: &Site, seed: u64, stop: &Halt) -> Result<(u64, Done)> {
        let open =
            || -> Result<Changes> { Ok(Simulated::open(&site.url, ZONE)?.changes(seed, self.run.poison)?) };
        let (mut changes, mut rows, mut done) = (open()?, 0, Done::default());
        let mut pace = Pace::new(self.run.rate / ROWS_OF, LONG);
        while !stop.halted() && pace.wait() {
            match changes.step() {
                Ok(step) => {
                    pace.did(step.rows);
                    rows += u64::from(step.rows);
                    done.inserted.extend(step.inserted);
                }
                // The server is being restarted: what its tables hold in the end is what counts.
                Err(_) => changes = again(open)?,
            }
        }
        Ok((rows, done))
    }

    fn send_messages(&self, site: &Site, seed: u64, stop: &Halt) -> Result<(u64, Done)> {
        const ANNOUNCED_WITHIN: u64 = 20;
        let mut fleet = Fleet::open(&DevicesArgs {
            brokers: self.world.brokers.clone(),
            registry: self.world.registry.clone(),
            shapes: self.world.root.clone(),
            url: site.url.clone(),
            source: site.source.into(),
            tenant: site.tenant.into(),
            devices: DEVICES,
            seed,
            rate: self.run.rate / MESSAGES_OF,
            seconds: ANNOUNCED_WITHIN,
            zone: ZONE.into(),
        })?;
        let mut pace = Pace::new(self.run.rate / MESSAGES_OF, LONG);
        let (mut messages, mut done) = (0, Done::default());
        while !stop.halted() && pace.wait() {
            let sent = fleet.step(pace.elapsed())?;
            pace.did(1);
            messages += u64::from(!sent.is_empty());
            done.sent.extend(sent);
        }
        fleet.finish()?;
        Ok((messages, done))
    }

    /// I2: no version of an enriched resource is given twice.
    fn versions(&self, found: &mut Breaches) -> Result<()> {
        let topics = Topics::connect(&self.world)?;
        let names = topics.names()?;
        let enriched = names.iter().filter(|name| name.starts_with("enriched.") && !name.ends_with(".dlq"));
        let mut seen = BTreeSet::new();
        topics.read(Isolation::Committed, &BTreeMap::new(), &topics.ends(enriched)?, |topic, record| {
            let version = record.header("fhirehose-version").unwrap_or_default().to_owned();
            let which = format!("{topic} {} {version}", record.key);
            if !seen.insert((Arc::<str>::from(topic), record.key, version)) {
                found.add(Invariant::I2, "a version given more than once", which);
            }
            Ok(())
        })
    }
}

fn so_far() -> Result<Vec<Done>> {
    SO_FAR.lock().unwrap_or_else(PoisonError::into_inner).clone().context("the flow was not opened")
}

fn read(site: &Site, done: Done) -> Result<Hospital> {
    Hospital::read(site, done.sent, done.inserted)
}

fn again(open: impl Fn() -> Result<Changes>) -> Result<Changes> {
    let begun = Instant::now();
    loop {
        match open() {
            Err(error) if begun.elapsed() > Duration::from_secs(60) => return Err(error),
            Err(_) => sleep(Duration::from_millis(500)),
            opened => return opened,
        }
    }
}
