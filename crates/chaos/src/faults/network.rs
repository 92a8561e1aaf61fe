//! The network between the product and one of its servers.

use std::time::Duration;

use anyhow::{Result, bail};

use super::Field;
use crate::proxy::{Leg, Toxic};

/// Of the brokers sometimes one, sometimes all.
fn legs(field: &Field<'_>) -> Result<Vec<Leg>> {
    Ok(match field.plan.cell.variant {
        "kafka" if field.plan.hit.is_multiple_of(2) => vec![Leg::Broker(field.plan.broker)],
        "kafka" => (0..3).map(Leg::Broker).collect(),
        "postgres" => vec![Leg::Postgres],
        "search" => vec![Leg::Search],
        "redis" => vec![Leg::Redis],
        other => bail!("no leg is called {other}"),
    })
}

fn poisoned(field: &mut Field<'_>, toxic: Toxic) -> Result<()> {
    let legs = legs(field)?;
    legs.iter().try_for_each(|leg| field.proxies.leg(*leg).map(|leg| leg.set(toxic)))?;
    field.last()?;
    legs.iter().try_for_each(|leg| field.proxies.leg(*leg).map(|leg| leg.heal()))
}

pub fn cut(field: &mut Field<'_>) -> Result<()> {
    poisoned(field, Toxic::Cut)
}

pub fn reset(field: &mut Field<'_>) -> Result<()> {
    const TIMES: u64 = 4;
    let legs = legs(field)?;
    for _ in 0..TIMES {
        legs.iter().try_for_each(|leg| field.proxies.leg(*leg).map(|leg| leg.set(Toxic::Reset)))?;
        field.pause(Duration::from_millis(field.plan.lasts_ms / TIMES))?;
    }
    Ok(())
}

pub fn half_open(field: &mut Field<'_>) -> Result<()> {
    poisoned(field, Toxic::HalfOpen)
}

pub fn answers_lost(field: &mut Field<'_>) -> Result<()> {
    poisoned(field, Toxic::SwallowAnswers)
}

pub fn latency(field: &mut Field<'_>) -> Result<()> {
    poisoned(field, Toxic::Latency { ms: 175, jitter_ms: 125 })
}

pub fn slow(field: &mut Field<'_>) -> Result<()> {
    poisoned(field, Toxic::Slow { bytes_per_second: 20_000 })
}
