//! One run: processes up, load, the blow, healing, quiet, and the account.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::faults::{Field, READY, STOPS_WITHIN};
use crate::flow::{Begin, Flow, Halt, Live, Run};
use crate::health;
use crate::ledger::{Breaches, Invariant, Violation};
use crate::matrix::Moment;
use crate::points::{commit_point, share_of_rate};
use crate::product::{Fleet, Process, Setting};
use crate::proxy::Proxies;
use crate::report::Outcome;
use crate::schedule::Plan;
use crate::servers::Servers;
use crate::world::World;

/// The load goes on for so long after healing, at least; where it is a short one, for half its time.
const AFTER: Duration = Duration::from_secs(8);
/// After the load something must be done at least this often, until all is.
const QUIET: Duration = Duration::from_secs(60);
/// At rest is what stays so for this long.
const REST: Duration = Duration::from_millis(1_500);
/// Violations that a watcher repeats twice a second are kept up to this number.
const WATCHED: usize = 10;

const SERVICES: [&str; 7] = ["kafka", "kafka-2", "kafka-3", "registry", "postgres", "opensearch", "redis"];

/// What all runs of one call share.
pub struct Harness {
    pub world: World,
    pub proxies: Proxies,
    pub servers: Servers,
    pub flows: Vec<&'static dyn Flow>,
    pub canaries: Vec<String>,
    /// Where runs keep their logs.
    pub dir: PathBuf,
    /// Input records per second.
    pub rate: f64,
    /// The load goes on for so long, at least.
    pub seconds: u64,
    /// Partitions have so many times the fault's time to move again in, and processes so many times theirs to stop.
    pub patience: u32,
}

/// What a run found out by the way.
struct Found {
    records: u64,
    recovery: Option<Duration>,
    met: bool,
    violations: Vec<Violation>,
}

impl Found {
    /// And what an earlier load of the same run has shown.
    fn with(mut self, earlier: Found) -> Found {
        self.records += earlier.records;
        self.met &= earlier.met;
        self.violations.splice(..0, earlier.violations);
        self
    }
}

impl Harness {
    /// Where the logs of a run are.
    pub fn dir_of(&self, plan: &Plan, planted: Option<&str>) -> PathBuf {
        let fault = plan.cell.fault_name().replace([':', '.'], "-");
        let bug = planted.map(|bug| format!("-{bug}")).unwrap_or_default();
        self.dir.join(format!("{}-{}-{fault}{bug}", plan.seed, plan.cell.subject.flow))
    }

    /// Never fails: what went wrong beside the product is told in the outcome.
    pub fn run(&self, plan: &Plan, planted: Option<&str>) -> Outcome {
        let begun = Instant::now();
        let mut outcome = Outcome::of(plan, planted);
        match self.attempt(plan, planted) {
            Ok(found) => {
                outcome.records = found.records;
                outcome.struck = found.met;
                outcome.recovery_ms = found.recovery.map(|time| time.as_millis() as u64);
                outcome.violations = found.violations;
            }
            Err(error) => outcome.error = Some(format!("{error:#}")),
        }
        self.proxies.heal();
        outcome.seconds = begun.elapsed().as_secs_f64();
        outcome.at = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        outcome
    }

    fn attempt(&self, plan: &Plan, planted: Option<&str>) -> Result<Found> {
        let name = plan.cell.subject.flow;
        let flow = *self.flows.iter().find(|flow| flow.name() == name).context("no such flow")?;
        let dir = self.dir_of(plan, planted);
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        self.proxies.heal();
        for service in SERVICES {
            // A run that failed may have left one down.
            if !self.servers.runs(service) {
                self.servers.up(service)?;
            }
        }
        let mut run = Run {
            seed: plan.seed,
            tag: format!("{:x}", jiff::Timestamp::now().as_millisecond()),
            rate: self.rate * share_of_rate(plan.cell.subject),
            poison: plan.poison,
            dir: dir.clone(),
            begin: Begin::AtEnds,
        };
        let mut live = flow.open(&self.world, &run).context("opening the flow")?;
        let mut env = self.proxies.product_env();
        let state = dir.join("state");
        std::fs::create_dir_all(&state)?;
        env.push(("FHIREHOSE__RUNTIME__STATE_DIR".into(), state.display().to_string()));
        let stop = STOPS_WITHIN * self.patience;
        env.push(("FHIREHOSE__RUNTIME__STOP_TIMEOUT_MS".into(), stop.as_millis().to_string()));
        env.extend(planted.map(|bug| ("FHIREHOSE_PLANTED_BUG".to_owned(), bug.to_owned())));
        // The flow `whole` runs every processor in each of its processes, over all there is: its stack is its own.
        let mut processor = name;
        if name == "whole" {
            processor = "all";
            env.push(("FHIREHOSE__RUNTIME__START_FROM".into(), "earliest".into()));
        }
        let mut fleet = Fleet::new(&self.world.root, &dir, env)?;
        start_both(&mut fleet, processor, &Setting::default()).context("before the load")?;
        let mut first = None;
        if let Some(between) = plan.cell.fault.between {
            first = Some(self.under_load(plan, flow, &*live, &mut fleet).context("the first load")?);
            between(&self.world, flow, &fleet).context("between the loads")?;
            run = Run { tag: format!("{}n", run.tag), begin: Begin::WhereItIs, ..run };
            live = flow.open(&self.world, &run).context("opening the flow again")?;
            fleet.processes.clear();
            let once = vec![("FHIREHOSE__RUNTIME__START_FROM".into(), "earliest".into())];
            let setting = Setting { once, ..Setting::default() };
            start_both(&mut fleet, processor, &setting).context("before the second load")?;
        }
        let found = self.under_load(plan, flow, &*live, &mut fleet);
        let found = found.map(|found| first.into_iter().fold(found, Found::with));
        (plan.cell.fault.undo)(&self.world, flow, &fleet).context("undoing the fault")?;
        found
    }

    fn under_load(
        &self,
        plan: &Plan,
        flow: &'static dyn Flow,
        live: &dyn Live,
        fleet: &mut Fleet,
    ) -> Result<Found> {
        let (loading, watching) = (Halt::default(), Halt::default());
        let watched = Mutex::new(Breaches::default());
        let watch = || {
            let mut seen = 0;
            while !watching.halted() {
                for violation in live.watch() {
                    seen += 1;
                    if seen <= WATCHED
                        && let Ok(mut watched) = watched.lock()
                    {
                        watched.add(violation.invariant, &violation.what, "while it ran");
                    }
                }
                sleep(Duration::from_millis(500));
            }
        };
        let (records, struck) = thread::scope(|scope| {
            let watcher = scope.spawn(watch);
            let mut field = Field {
                plan,
                world: &self.world,
                flow,
                live,
                proxies: &self.proxies,
                servers: &self.servers,
                fleet,
                victim: None,
                breaches: Breaches::default(),
                patience: self.patience,
                met: true,
            };
            let loader = || scope.spawn(|| live.load(&loading));
            let mut running = None;
            let struck = (|| {
                if plan.moment == Moment::Idle {
                    strike(&mut field)?;
                    running = Some(loader());
                    after(&mut field, self, Instant::now())
                } else {
                    running = Some(loader());
                    let begun = Instant::now();
                    field.pause(Duration::from_millis(plan.after_ms))?;
                    strike(&mut field)?;
                    after(&mut field, self, begun)
                }
            })();
            // Whatever failed: the network must not stay broken for those that wait for it.
            self.proxies.heal();
            loading.halt();
            field.note("the load ends");
            let records = running.map(|thread| thread.join().map_err(|_| anyhow!("the load panicked")));
            let struck = struck.and_then(|recovery| {
                field.dismiss()?;
                quiet(&mut field)?;
                Ok((recovery, field.met, std::mem::take(&mut field.breaches)))
            });
            watching.halt();
            drop(watcher.join());
            (records, struck)
        });
        let (recovery, met, mut breaches) = struck?;
        let records = records.transpose()?.transpose().context("the load")?.unwrap_or(0);
        health::pages(fleet, &self.canaries, &mut breaches);
        stop(fleet, self.patience, &mut breaches);
        let dir = fleet.processes.first().and_then(|process| process.log.parent()).context("no log")?;
        health::logs(dir, &self.canaries, &mut breaches)?;
        let watched = watched.into_inner().map_err(|_| anyhow!("the watcher panicked"))?;
        let mut violations = breaches.into_vec();
        violations.extend(watched.into_vec());
        violations.extend(live.check().context("the account")?);
        let wrong_data = violations.iter().any(|violation| violation.invariant <= Invariant::I7);
        if plan.cell.fault.zombie && wrong_data {
            let what = "what else is told here came of a run with a zombie".to_owned();
            violations.push(Violation { invariant: Invariant::I9, what, count: 1 });
        }
        Ok(Found { records, recovery, met, violations })
    }
}

fn start_both(fleet: &mut Fleet, processor: &str, setting: &Setting) -> Result<()> {
    for instance in ["a", "b"] {
        fleet.start(processor, instance, setting)?;
    }
    fleet.await_ready(READY)
}

/// Brings the moment about, strikes, and heals.
fn strike(field: &mut Field<'_>) -> Result<()> {
    match field.plan.moment {
        Moment::Idle | Moment::Load => {}
        Moment::Rebalance => {
            field.invite()?;
            field.pause(Duration::from_millis(field.plan.into_ms))?;
        }
        Moment::Commit => {
            let point = commit_point(field.plan.cell.subject.target);
            field.arm(point, &format!("sleep:{}", field.plan.into_ms * 2 + 500), field.plan.hit)?;
            field.await_point(point)?;
            field.pause(Duration::from_millis(field.plan.into_ms / 3))?;
        }
    }
    let fault = field.plan.cell.fault;
    field.note(&format!("strikes: {:?}", field.plan));
    (fault.strike)(field).with_context(|| format!("striking with {}", fault.name))?;
    field.note("healed");
    Ok(())
}

/// Lets the load go on until every partition has moved, and for its time. Returns how long the moving took.
fn after(field: &mut Field<'_>, harness: &Harness, begun: Instant) -> Result<Option<Duration>> {
    let healed = Instant::now();
    let limit = Duration::from_secs(field.plan.cell.fault.moves_within_s) * harness.patience;
    let mut before: Option<BTreeMap<String, i64>> = None;
    let (mut recovery, mut waiting) = (None, usize::MAX);
    while recovery.is_none() && healed.elapsed() < limit * 2 {
        match (moving(field.live), &before) {
            (Ok(now), None) => {
                field.note(&format!("progress {now:?}"));
                before = Some(now);
            }
            (Ok(now), Some(before)) => {
                let still = behind(before, &now);
                if still.is_empty() {
                    recovery = Some(healed.elapsed());
                }
                if still.len() != waiting {
                    waiting = still.len();
                    field.note(&format!("not moved yet: {}", still.join(" ")));
                }
            }
            (Err(error), _) => field.note(&format!("no progress can be read: {error:#}")),
        }
        field.pause(Duration::from_millis(100))?;
    }
    match recovery {
        Some(time) if time > limit => {
            field.breaches.add(Invariant::I10, "every partition moved late", format!("{time:?}"));
        }
        Some(_) => {}
        None => {
            field.fleet.processes.iter().for_each(Process::stacks);
            let now = moving(field.live).unwrap_or_default();
            let still = before.map(|before| behind(&before, &now)).unwrap_or_default();
            field.breaches.add(Invariant::I10, "partitions do not move", still.join(" "));
        }
    }
    let load = Duration::from_secs(harness.seconds);
    let least = AFTER.min(load / 2).saturating_sub(healed.elapsed());
    field.pause(least.max(load.saturating_sub(begun.elapsed())))?;
    Ok(recovery)
}

/// The progress of partitions that the load moves all the time.
fn moving(live: &dyn Live) -> Result<BTreeMap<String, i64>> {
    let mut progress = live.progress()?;
    progress.retain(|at, _| at.rsplit_once('/').is_some_and(|(topic, _)| live.moves(topic)));
    Ok(progress)
}

/// Partitions that have not moved.
fn behind(before: &BTreeMap<String, i64>, now: &BTreeMap<String, i64>) -> Vec<String> {
    let still = before.iter().filter(|(at, then)| now.get(*at).is_none_or(|offset| offset <= then));
    still.map(|(at, _)| at.clone()).collect()
}

/// Waits until every partition is done to its end and nobody has anything left.
fn quiet(field: &mut Field<'_>) -> Result<()> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &field.world.brokers)
        .set("group.id", "chaos-ends")
        .create()?;
    let (mut moved, mut since) = (Instant::now(), Instant::now());
    let mut before = BTreeMap::new();
    while since.elapsed() < REST {
        if let Ok(now) = field.live.progress()
            && now != before
        {
            (before, moved) = (now, Instant::now());
        }
        let left = left(&consumer, field.live);
        let done = left.as_ref().is_ok_and(Vec::is_empty);
        if !done || field.fleet.lag() != Some(0) {
            since = Instant::now();
        }
        if moved.elapsed() > QUIET {
            let left = match left {
                Ok(left) if left.is_empty() => {
                    let lag = field.fleet.processes.iter().map(|p| format!("{} {:?}", p.instance, p.lag()));
                    format!("all is done, but the processes tell lag: {}", lag.collect::<Vec<_>>().join(", "))
                }
                Ok(left) => left.join(" "),
                Err(error) => format!("{error:#}"),
            };
            field.breaches.add(
                Invariant::I10,
                "after the load it stands still for a minute, and is not at rest",
                left,
            );
            return Ok(());
        }
        field.pause(Duration::from_millis(200))?;
    }
    Ok(())
}

/// Partitions that are not done to their ends.
fn left(consumer: &BaseConsumer, live: &dyn Live) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for (at, done) in live.progress()? {
        let (topic, partition) = at.rsplit_once('/').context("a partition is named topic/number")?;
        let (_, end) = consumer.fetch_watermarks(topic, partition.parse()?, Duration::from_secs(5))?;
        if done < end {
            left.push(format!("{at} at {done} of {end}"));
        }
    }
    Ok(left)
}

/// All processes stop cleanly in time.
fn stop(fleet: &mut Fleet, patience: u32, breaches: &mut Breaches) {
    match fleet.stop() {
        Ok(times) => {
            for (process, time) in fleet.processes.iter().zip(times) {
                if time > STOPS_WITHIN * patience {
                    let which = format!("{} {time:?}", process.instance);
                    breaches.add(Invariant::I10, "took too long to stop", which);
                }
            }
        }
        Err(error) => {
            breaches.add(Invariant::I10, "did not stop cleanly", format!("{error:#}"));
            // Nothing may be written while the account is made.
            for process in &mut fleet.processes {
                drop(Process::kill(process));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_that_stands_or_vanishes_is_behind() {
        let at = |offsets: &[(&str, i64)]| -> BTreeMap<String, i64> {
            offsets.iter().map(|(at, offset)| ((*at).to_owned(), *offset)).collect()
        };
        let before = at(&[("t/0", 5), ("t/1", 7), ("t/2", 0)]);
        assert_eq!(behind(&before, &at(&[("t/0", 6), ("t/1", 7)])), ["t/1", "t/2"]);
        assert!(behind(&before, &at(&[("t/0", 6), ("t/1", 8), ("t/2", 1)])).is_empty());
    }
}
