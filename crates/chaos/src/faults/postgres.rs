//! PostgreSQL under the sinks.

use std::time::Duration;

use anyhow::Result;

use super::Field;
use crate::proxy::{Leg, Toxic};
use crate::servers::postgres::{Postgres, Trip, When};

const SERVICE: &str = "postgres";

pub fn restart(field: &mut Field<'_>) -> Result<()> {
    field.servers.restart(SERVICE)
}

pub fn kill(field: &mut Field<'_>) -> Result<()> {
    field.servers.kill(SERVICE)?;
    field.last()?;
    field.servers.up(SERVICE)
}

/// First from outside, whatever they are at; then inside COMMIT itself.
pub fn terminated(field: &mut Field<'_>) -> Result<()> {
    const TIMES: u64 = 3;
    let postgres = Postgres::new(&field.world.postgres);
    for _ in 0..TIMES {
        postgres.terminate(field.flow.name())?;
        field.pause(Duration::from_millis(field.plan.lasts_ms / TIMES))?;
    }
    tripped(field, Trip::Terminate, When::Committing)
}

pub fn commit_answer_lost(field: &mut Field<'_>) -> Result<()> {
    let leg = field.proxies.leg(Leg::Postgres)?;
    let before = leg.counters().struck;
    leg.set(Toxic::LoseCommitAnswer { times: 1 + field.plan.hit as u32 % 3 });
    // As long as it takes, within reason: an answer can only be lost where one is given.
    for _ in 0..100 {
        if field.proxies.leg(Leg::Postgres)?.counters().struck > before {
            break;
        }
        field.pause(Duration::from_millis(100))?;
    }
    let leg = field.proxies.leg(Leg::Postgres)?;
    field.met = leg.counters().struck > before;
    leg.heal();
    Ok(())
}

pub fn read_only(field: &mut Field<'_>) -> Result<()> {
    let postgres = Postgres::new(&field.world.postgres);
    postgres.read_only(field.flow.name())?;
    let lasted = field.last();
    // Sessions begun meanwhile stay read-only: only another one can write.
    postgres.heal()?;
    lasted
}

pub fn lock_held(field: &mut Field<'_>) -> Result<()> {
    let table = match (field.plan.hit.is_multiple_of(2), field.flow.name()) {
        (true, _) => "fhirehose.sink_offsets",
        (_, "sink-timescale") => "vital_signs_timeseries",
        _ => "dim.patient_dimension",
    };
    let time = Duration::from_millis(field.plan.lasts_ms);
    Postgres::new(&field.world.postgres).hold_lock(table, time)
}

pub fn disk_full(field: &mut Field<'_>) -> Result<()> {
    tripped(field, Trip::DiskFull, When::Writing)
}

pub fn deadlock(field: &mut Field<'_>) -> Result<()> {
    tripped(field, Trip::Deadlock, When::Writing)
}

pub fn serialization(field: &mut Field<'_>) -> Result<()> {
    tripped(field, Trip::Serialization, When::Committing)
}

/// For the fault's time every transaction meets the error, or the first few, as the seed has it.
fn tripped(field: &mut Field<'_>, trip: Trip, when: When) -> Result<()> {
    let postgres = Postgres::new(&field.world.postgres);
    let times = if field.plan.hit.is_multiple_of(2) { 10_000 } else { field.plan.hit as u32 };
    postgres.trip(trip, when, times)?;
    let lasted = field.last();
    field.met = postgres.tripped()? > 0;
    postgres.heal()?;
    lasted
}
