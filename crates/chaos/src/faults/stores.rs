//! OpenSearch, Redis and the schema registry.

use anyhow::{Result, bail};

use super::Field;
use crate::flow::Target;
use crate::product::Setting;
use crate::proxy::{Leg, Toxic};

pub fn store_frozen(field: &mut Field<'_>) -> Result<()> {
    let service = match field.flow.target() {
        Target::Search => "opensearch",
        Target::Redis => "redis",
        Target::Postgres => "postgres",
        Target::Kafka => bail!("{} has no store", field.flow.name()),
    };
    field.servers.freeze(service)?;
    let lasted = field.last();
    field.servers.thaw(service)?;
    lasted
}

pub fn search_kill(field: &mut Field<'_>) -> Result<()> {
    field.servers.kill("opensearch")?;
    field.servers.up("opensearch")
}

pub fn search_429(field: &mut Field<'_>) -> Result<()> {
    refused(field, Toxic::TooManyRequests { share: field.plan.share })
}

pub fn search_partial(field: &mut Field<'_>) -> Result<()> {
    refused(field, Toxic::PartialBulk { share: field.plan.share })
}

pub fn search_unavailable(field: &mut Field<'_>) -> Result<()> {
    refused(field, Toxic::Unavailable)
}

fn refused(field: &mut Field<'_>, toxic: Toxic) -> Result<()> {
    let leg = field.proxies.leg(Leg::Search)?;
    let before = leg.counters().struck;
    leg.set(toxic);
    field.last()?;
    let leg = field.proxies.leg(Leg::Search)?;
    leg.heal();
    field.met = leg.counters().struck > before;
    Ok(())
}

pub fn redis_restart(field: &mut Field<'_>) -> Result<()> {
    field.servers.restart("redis")
}

pub fn redis_kill(field: &mut Field<'_>) -> Result<()> {
    field.servers.kill("redis")?;
    field.last()?;
    field.servers.up("redis")
}

/// What is known of schemas is kept, so an instance is started anew meanwhile.
pub fn registry_down(field: &mut Field<'_>) -> Result<()> {
    field.servers.kill("registry")?;
    let victim = field.victim_index();
    field.replace(victim, &Setting::default())?;
    field.last()?;
    field.servers.up("registry")
}

pub fn registry_slow(field: &mut Field<'_>) -> Result<()> {
    registry(field, Toxic::Latency { ms: 1_000, jitter_ms: 100 })
}

pub fn registry_wrong(field: &mut Field<'_>) -> Result<()> {
    registry(field, Toxic::NotFound)
}

fn registry(field: &mut Field<'_>, toxic: Toxic) -> Result<()> {
    field.proxies.leg(Leg::Registry)?.set(toxic);
    let victim = field.victim_index();
    field.replace(victim, &Setting::default())?;
    field.last()?;
    field.proxies.leg(Leg::Registry)?.heal();
    Ok(())
}
