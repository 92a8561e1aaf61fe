//! What the blows of the matrix do. Each strikes and heals before it returns.

pub mod debezium;
pub mod group;
pub mod kafka;
pub mod network;
pub mod postgres;
pub mod process;
pub mod stores;

use std::fs::File;
use std::io::Write;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::flow::{Flow, Live};
use crate::ledger::{Breaches, Invariant};
use crate::product::{Fleet, Process, Setting, Tended};
use crate::proxy::Proxies;
use crate::schedule::Plan;
use crate::servers::Servers;
use crate::world::World;

/// How long an armed fault point may take to be passed.
const PASSED_WITHIN: Duration = Duration::from_secs(40);
const PUSHED_AFTER: Duration = Duration::from_secs(5);
/// How often processes are looked after.
const TEND: Duration = Duration::from_millis(50);
/// A clean stop ends within this time, times the harness's patience.
pub const STOPS_WITHIN: Duration = Duration::from_secs(10);
/// How long a process may take until it is ready.
pub const READY: Duration = Duration::from_secs(60);

/// Where a blow falls, and what is seen while it does.
pub struct Field<'a> {
    pub plan: &'a Plan,
    pub world: &'a World,
    pub flow: &'static dyn Flow,
    pub live: &'a dyn Live,
    pub proxies: &'a Proxies,
    pub servers: &'a Servers,
    pub fleet: &'a mut Fleet,
    pub victim: Option<usize>,
    pub breaches: Breaches,
    /// Things may take so many times as long.
    pub patience: u32,
    /// Whether an armed fault point was passed; true where none is.
    pub met: bool,
}

impl Field<'_> {
    /// Into the run's own log, beside those of the processes.
    pub fn note(&self, what: &str) {
        let log = self.fleet.processes.first().and_then(|process| process.log.parent());
        let file = log.map(|dir| File::options().create(true).append(true).open(dir.join("harness.log")));
        if let Some(Ok(mut file)) = file {
            // For eyes alone: a run does not fail for it.
            drop(writeln!(file, "{} {what}", jiff::Timestamp::now()));
        }
    }

    /// Lets time pass. Processes that a signal has ended are started again; those that end by themselves, too,
    /// and are a breach.
    pub fn pause(&mut self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        loop {
            self.tend()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            sleep(left.min(TEND));
        }
    }

    /// For as long as the fault lasts.
    pub fn last(&mut self) -> Result<()> {
        self.pause(Duration::from_millis(self.plan.lasts_ms))
    }

    fn tend(&mut self) -> Result<()> {
        for (index, tended) in self.fleet.tend()? {
            if let Tended::Ended(status) = tended {
                let process = &mut self.fleet.processes[index];
                let which = format!("{} ({status})", process.instance);
                process.restart()?;
                self.breaches.add(Invariant::I10, "a process ended by itself", which);
            }
        }
        Ok(())
    }

    /// The instance that is struck: chosen when it is first asked for, the same from then on.
    pub fn victim(&mut self) -> Result<&mut Process> {
        let index = self.victim_index();
        self.process(index)
    }

    pub fn victim_index(&mut self) -> usize {
        *self.victim.get_or_insert_with(|| {
            let read = |index: usize| {
                let status = self.fleet.processes.get(index).and_then(Process::status).unwrap_or_default();
                status.iter().filter_map(|processor| processor["records_in"].as_u64()).sum::<u64>()
            };
            usize::from((read(1) > read(0)) != self.plan.idler)
        })
    }

    pub fn process(&mut self, index: usize) -> Result<&mut Process> {
        self.fleet.processes.get_mut(index).context("no such instance runs")
    }

    /// Until all are ready again, after processes were started.
    pub fn await_ready(&mut self) -> Result<()> {
        let begun = Instant::now();
        while !self.fleet.processes.iter().all(Process::ready) {
            if begun.elapsed() > READY {
                let late = self.fleet.processes.iter().filter(|process| !process.ready());
                let late: Vec<_> = late.map(|process| process.instance.clone()).collect();
                self.breaches.add(Invariant::I10, "not ready within a minute", late.join(" and "));
                return Ok(());
            }
            self.pause(Duration::from_millis(200))?;
        }
        Ok(())
    }

    /// Stops an instance cleanly; a stop that is not clean or takes too long is a breach.
    pub fn stop(&mut self, index: usize) -> Result<()> {
        let process = self.process(index)?;
        let stopped = process.stop();
        let which = process.instance.clone();
        match stopped {
            Ok(time) if time <= STOPS_WITHIN * self.patience => {}
            Ok(time) => {
                self.breaches.add(Invariant::I10, "took too long to stop", format!("{which} {time:?}"));
            }
            Err(error) => {
                self.breaches.add(Invariant::I10, "did not stop cleanly", format!("{which}: {error:#}"));
                // Whatever became of it, nobody of that name runs on.
                self.process(index)?.kill()?;
            }
        }
        Ok(())
    }

    /// Stops an instance cleanly and starts it with other settings, in its place and under its name.
    pub fn replace(&mut self, index: usize, setting: &Setting) -> Result<()> {
        self.stop(index)?;
        let old = self.fleet.processes.remove(index);
        let (processor, instance) = (old.processor.clone(), old.instance.clone());
        drop(old);
        self.fleet.start(&processor, &instance, setting)?;
        if let Some(new) = self.fleet.processes.pop() {
            self.fleet.processes.insert(index, new);
        }
        Ok(())
    }

    /// Starts the victim anew with an armed fault point. Every start after that is without.
    pub fn arm(&mut self, point: &str, action: &str, hit: u64) -> Result<()> {
        let armed = format!("{point}={action}@{hit}");
        let once = vec![("FHIREHOSE_FAULTPOINTS".to_owned(), armed)];
        let victim = self.victim_index();
        self.replace(victim, &Setting { once, ..Setting::default() })
    }

    /// Waits until the victim has passed its fault point. After a while it gets all there is to do, for the other leaves
    /// until it has; a point that is passed when the group changes is met by the other's leaving and coming again.
    pub fn await_point(&mut self, point: &str) -> Result<bool> {
        let until = Instant::now() + PASSED_WITHIN;
        let of_group = matches!(point.rsplit('.').next(), Some("revoking" | "restoring" | "claimed"));
        let by_itself = if point.ends_with(".revoking") { Duration::ZERO } else { PUSHED_AFTER };
        let mut passed = self.passes(point, Instant::now() + by_itself)?;
        while !passed && !self.victim()?.ready() && Instant::now() < until {
            self.pause(TEND)?;
        }
        if !passed {
            passed = match self.fleet.processes.len() > 1 {
                true if of_group => {
                    let other = 1 - self.victim_index();
                    self.replace(other, &Setting::default())?;
                    self.passes(point, until)?
                }
                true => self.alone(|field| field.passes(point, until))?,
                false => self.passes(point, until)?,
            };
        }
        self.note(&format!("{point} {}", if passed { "passed" } else { "was not passed" }));
        self.met = passed;
        if !passed {
            // What is armed would strike later, when nobody looks.
            let victim = self.victim()?;
            victim.kill()?;
            victim.restart()?;
        }
        Ok(passed)
    }

    /// Whether the victim passes its fault point until then.
    fn passes(&mut self, point: &str, until: Instant) -> Result<bool> {
        let told = format!("faultpoint {point} ");
        loop {
            if !self.victim()?.lines_with(&told)?.is_empty() {
                return Ok(true);
            }
            if Instant::now() > until {
                return Ok(false);
            }
            self.pause(TEND)?;
        }
    }

    /// The other instance leaves for as long as `meanwhile` takes, so that the victim has all there is to do; then it
    /// joins again, and the victim must give up half of it.
    pub fn alone<R>(&mut self, meanwhile: impl FnOnce(&mut Self) -> Result<R>) -> Result<R> {
        let victim = self.victim_index();
        let other = 1 - victim;
        self.stop(other)?;
        let mut away = self.fleet.processes.remove(other);
        self.victim = Some(0);
        let done = meanwhile(self);
        away.restart()?;
        self.fleet.processes.insert(other, away);
        self.victim = Some(victim);
        done
    }

    /// A third instance joins.
    pub fn invite(&mut self) -> Result<()> {
        let processor = self.process(0)?.processor.clone();
        self.fleet.start(&processor, GUEST, &Setting::default()).map(drop)
    }

    /// The third instance leaves, if there is one.
    pub fn dismiss(&mut self) -> Result<()> {
        let found = self.fleet.processes.iter().position(|process| process.instance == GUEST);
        if let Some(index) = found {
            self.stop(index)?;
            self.fleet.processes.remove(index);
        }
        Ok(())
    }
}

const GUEST: &str = "guest";
