//! Members that come and go.

use std::time::{Duration, Instant};

use anyhow::Result;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::Field;
use crate::health::Growth;
use crate::product::Setting;

pub fn rolling_restart(field: &mut Field<'_>) -> Result<()> {
    for index in 0..2 {
        field.stop(index)?;
        field.process(index)?.restart()?;
        field.await_ready()?;
    }
    Ok(())
}

/// A member of the product's group that reads nothing: it takes partitions away and gives them back.
struct Visitor(BaseConsumer);

impl Visitor {
    fn join(field: &Field<'_>) -> Result<Visitor> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &field.world.brokers)
            .set("group.id", field.flow.name())
            .set("client.id", "chaos-visitor")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", "8000")
            .set("enable.auto.commit", "false")
            .create()?;
        let inputs = field.flow.inputs();
        consumer.subscribe(&inputs.iter().map(String::as_str).collect::<Vec<_>>())?;
        Ok(Visitor(consumer))
    }

    /// Takes part for a while; what it happens to read is nobody's loss, since it commits nothing.
    fn stay(&self, field: &mut Field<'_>, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            // An error is as good: it is here to disturb.
            drop(self.0.poll(Duration::from_millis(50)));
            field.pause(Duration::ZERO)?;
        }
        Ok(())
    }
}

/// One join and one leave, in so much time.
fn visit(field: &mut Field<'_>, time: Duration) -> Result<()> {
    let visitor = Visitor::join(field)?;
    visitor.stay(field, time / 2)?;
    drop(visitor);
    field.pause(time / 2)
}

pub fn storm(field: &mut Field<'_>) -> Result<()> {
    const VISITS: u32 = 50;
    let each = Duration::from_millis(field.plan.lasts_ms) / VISITS;
    for _ in 0..VISITS {
        let begun = Instant::now();
        visit(field, each * 3 / 4)?;
        field.pause(each.saturating_sub(begun.elapsed()))?;
    }
    Ok(())
}

/// Each instance waits for a batch to fill for longer than a rebalance takes, so that partitions are taken from it while
/// it holds records that it has polled and not begun to process. With shorter waits a batch is committed in the middle
/// of the rebalance, which holds that up until it is over.
pub fn lingering(field: &mut Field<'_>) -> Result<()> {
    const VISITS: u32 = 5;
    let lingers = [("LINGER_MS", "4000"), ("BATCH_MAX_RECORDS", "8000"), ("BATCH_MAX_BYTES", "67108864")];
    let env = lingers.map(|(name, value)| (format!("FHIREHOSE__RUNTIME__{name}"), value.to_owned()));
    let setting = Setting { env: env.into(), ..Setting::default() };
    replace_all(field, &setting)?;
    let each = Duration::from_millis(field.plan.lasts_ms) / VISITS;
    for _ in 0..VISITS {
        visit(field, each)?;
    }
    replace_all(field, &Setting::default())
}

fn replace_all(field: &mut Field<'_>, setting: &Setting) -> Result<()> {
    for index in 0..2 {
        field.replace(index, setting)?;
        field.await_ready()?;
    }
    Ok(())
}

/// A join and a leave are two rebalances at least.
pub fn rebalances(field: &mut Field<'_>) -> Result<()> {
    const VISITS: u32 = 100;
    const FIRST: u32 = 10;
    const EACH: Duration = Duration::from_millis(900);
    let mut growth = None;
    for visited in 0..VISITS {
        if visited == FIRST {
            growth = Some(Growth::since_now(field.fleet)?);
        }
        visit(field, EACH)?;
    }
    if let Some(growth) = growth {
        growth.judge(field.fleet, &mut field.breaches)?;
    }
    Ok(())
}
