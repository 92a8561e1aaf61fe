//! The minute: both hospitals change rows and their devices send readings, at a steady rate, while probes
//! look for the newest of it in every store.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use fhirehose_simulate::devices::{Fleet, Sent};
use fhirehose_simulate::hospital::{Changes, Hospital, Touched};
use fhirehose_simulate::{DevicesArgs, Pace};

use crate::probe::{Mark, Slot};
use crate::stack::{Site, ZONE};

/// Where the writers say what they just did, by store.
#[derive(Clone, Default)]
pub struct Slots {
    pub timescale: Slot,
    pub devices: Slot,
    pub warehouse: Slot,
    pub search: Slot,
    pub cache: Slot,
}

#[derive(Clone, Default)]
pub struct Counters {
    rows: Arc<AtomicU64>,
    transactions: Arc<AtomicU64>,
    messages: Arc<AtomicU64>,
}

impl Counters {
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    pub fn transactions(&self) -> u64 {
        self.transactions.load(Ordering::Relaxed)
    }

    pub fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }
}

#[derive(Clone, Copy)]
pub struct Load {
    pub seed: u64,
    /// Row changes per second in each hospital.
    pub rate: f64,
    pub seconds: u64,
    pub bad_share: f64,
}

/// Table and patient of rows inserted, which may have been deleted again.
pub type Inserted = BTreeSet<(&'static str, String)>;

/// Changes rows of one hospital and returns what it inserted. A server that restarts in between is waited for: what its tables hold in
/// the end is what counts.
pub fn change_rows(site: Site, load: Load, slots: Slots, counters: Counters) -> JoinHandle<Result<Inserted>> {
    thread::spawn(move || {
        let open = || -> Result<Changes> {
            Ok(Hospital::open(&site.url, ZONE)?.changes(load.seed, load.bad_share)?)
        };
        let mut changes = open()?;
        let mut pace = Pace::new(load.rate, load.seconds);
        let mut inserted = Inserted::new();
        while pace.wait() {
            match changes.step() {
                Ok(done) => {
                    pace.did(done.rows);
                    counters.rows.fetch_add(u64::from(done.rows), Ordering::Relaxed);
                    inserted.extend(done.inserted);
                    counters.transactions.fetch_add(1, Ordering::Relaxed);
                    for touched in &done.touched {
                        mark(&site, touched, done.committed, &slots);
                    }
                }
                Err(error) => changes = again(open, error.into())?,
            }
        }
        Ok(inserted)
    })
}

fn again<T>(open: impl Fn() -> Result<T>, mut error: anyhow::Error) -> Result<T> {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(60) {
        sleep(Duration::from_millis(500));
        match open() {
            Ok(opened) => return Ok(opened),
            Err(newer) => error = newer,
        }
    }
    Err(error)
}

fn mark(site: &Site, touched: &Touched, since: Instant, slots: &Slots) {
    let id = |table: &str, row: &str| crate::ids::row(site.tenant, site.source, table, row, None);
    let tenant = site.tenant;
    match touched {
        Touched::VitalSignsTyped(row) => {
            slots.timescale.put(Mark { key: format!("{tenant}/row:{row}"), since });
        }
        Touched::EncounterStarted(row) => {
            let key = format!("{tenant}/{}", id("clinical_data.encounters", row));
            slots.warehouse.put(Mark { key, since });
        }
        Touched::DiagnosisMade(row) => {
            let key = format!("{tenant}/{}", id("clinical_data.diagnoses", row));
            slots.search.put(Mark { key, since });
        }
        Touched::PatientMoved(row) => {
            slots.cache.put(Mark { key: format!("patient:{tenant}:{row}"), since });
        }
        Touched::PatientRegistered(_) => {}
    }
}

/// Sends device messages of one hospital and returns what they said.
pub fn send_readings(
    site: Site,
    args: DevicesArgs,
    slots: Slots,
    counters: Counters,
) -> JoinHandle<Result<Vec<Sent>>> {
    thread::spawn(move || {
        let mut fleet = Fleet::open(&args)?;
        let mut pace = Pace::new(args.rate, args.seconds);
        let mut all = Vec::new();
        while pace.wait() {
            let sent = fleet.step(pace.elapsed())?;
            pace.did(1);
            if let Some(Sent::Reading(reading)) = sent.first()
                && fleet.is_known(&reading.device)
            {
                let key = format!("{}/{}/{}", site.tenant, reading.device, reading.at_ms);
                slots.devices.put(Mark { key, since: Instant::now() });
            }
            counters.messages.fetch_add(u64::from(!sent.is_empty()), Ordering::Relaxed);
            all.extend(sent);
        }
        fleet.finish()?;
        Ok(all)
    })
}

pub fn join<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a writer of the demo failed"))?
}
