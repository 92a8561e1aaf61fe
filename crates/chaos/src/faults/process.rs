//! Processes of the product killed, frozen, doubled, and with wrong clocks.

use std::time::Duration;

use anyhow::Result;

use super::Field;
use crate::flow::Target;
use crate::product::Setting;

pub fn nothing(_: &mut Field<'_>) -> Result<()> {
    Ok(())
}

pub fn kill(field: &mut Field<'_>) -> Result<()> {
    let victim = field.victim()?;
    victim.kill()?;
    victim.restart()
}

pub fn kill_both(field: &mut Field<'_>) -> Result<()> {
    field.process(0)?.kill()?;
    field.process(1)?.kill()?;
    field.process(0)?.restart()?;
    field.process(1)?.restart()
}

pub fn kill_at(field: &mut Field<'_>) -> Result<()> {
    let point = field.plan.cell.variant;
    field.arm(point, "kill", hit(field))?;
    field.await_point(point).map(drop)
}

pub fn freeze(field: &mut Field<'_>) -> Result<()> {
    field.victim()?.freeze()?;
    field.last()?;
    field.victim()?.thaw()
}

pub fn freeze_at(field: &mut Field<'_>) -> Result<()> {
    let point = field.plan.cell.variant;
    field.arm(point, "stop", hit(field))?;
    if field.await_point(point)? {
        field.last()?;
        field.victim()?.thaw()?;
    }
    Ok(())
}

/// Its batches end after the others have agreed on a new assignment, so that it is asked to give partitions up in the
/// middle of one.
pub fn sluggish(field: &mut Field<'_>) -> Result<()> {
    let point = match field.flow.target() {
        Target::Kafka => "transact.processed",
        _ => "store.staged",
    };
    let drag = format!("drag:{}", field.plan.lasts_ms);
    field.arm(point, &drag, 1)?;
    field.alone(|field| field.await_point(point).map(drop))?;
    field.pause(Duration::from_millis(field.plan.lasts_ms * 4))?;
    let victim = field.victim_index();
    field.replace(victim, &Setting::default())
}

/// Points that are passed when the group changes are passed seldom.
fn hit(field: &Field<'_>) -> u64 {
    match field.plan.cell.variant.rsplit('.').next() {
        Some("revoking" | "restoring" | "claimed") => 1,
        Some("letters") => field.plan.hit.div_ceil(4),
        _ => field.plan.hit,
    }
}

pub fn twin(field: &mut Field<'_>) -> Result<()> {
    let victim = field.victim()?;
    let (processor, instance) = (victim.processor.clone(), victim.instance.clone());
    field.fleet.start(&processor, &instance, &Setting::default())?;
    let twin = field.fleet.processes.len() - 1;
    field.last()?;
    field.stop(twin)?;
    field.fleet.processes.remove(twin);
    Ok(())
}

pub fn clock(field: &mut Field<'_>) -> Result<()> {
    const HOUR: i64 = 3_600;
    let off = if field.plan.hit.is_multiple_of(2) { HOUR } else { -HOUR };
    let victim = field.victim_index();
    field.replace(victim, &Setting { clock_off_seconds: off, ..Setting::default() })?;
    field.await_ready()?;
    field.last()?;
    field.replace(victim, &Setting::default())
}
