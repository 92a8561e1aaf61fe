//! Brokers, coordinators, topics.

use std::time::Duration;

use anyhow::{Result, anyhow};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::Field;
use crate::flow::{Flow, Target};
use crate::ledger::{Invariant, postgres as store};
use crate::product::Fleet;
use crate::proxy::Toxic;
use crate::servers::kafka::Admin;
use crate::world::World;

/// In the order of the stack.
pub const NODES: [&str; 3] = ["kafka", "kafka-2", "kafka-3"];

pub fn broker_restart(field: &mut Field<'_>) -> Result<()> {
    field.servers.restart(NODES[field.plan.broker])
}

pub fn broker_frozen(field: &mut Field<'_>) -> Result<()> {
    let node = NODES[field.plan.broker];
    field.servers.freeze(node)?;
    let lasted = field.last();
    field.servers.thaw(node)?;
    lasted
}

pub fn broker_kill(field: &mut Field<'_>) -> Result<()> {
    killed(field, field.plan.broker)
}

fn killed(field: &mut Field<'_>, broker: usize) -> Result<()> {
    let node = NODES.get(broker).ok_or_else(|| anyhow!("no broker {broker}"))?;
    field.servers.kill(node)?;
    field.last()?;
    field.servers.up(node)
}

/// As the product names it: worker 0 of the victim.
fn transactional_id(field: &mut Field<'_>) -> Result<String> {
    let group = field.flow.name();
    Ok(format!("{group}-{}-0", field.victim()?.instance))
}

/// A transaction left open by a producer of the victim's name; once the victim has taken its name back, nothing
/// of it may count.
pub fn usurper(field: &mut Field<'_>) -> Result<()> {
    const TOPIC: &str = "chaos.usurper";
    const STEP: Duration = Duration::from_secs(20);
    let id = transactional_id(field)?;
    let admin = Admin::connect(&field.world.brokers)?;
    admin.ensure_topic(TOPIC, 1)?;
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &field.world.brokers)
        .set("transactional.id", &id)
        .set("transaction.timeout.ms", "30000")
        .create()?;
    producer.init_transactions(STEP)?;
    producer.begin_transaction()?;
    producer.send(BaseRecord::to(TOPIC).key("usurper").payload("")).map_err(|(error, _)| error)?;
    producer.flush(STEP)?;
    let ours = admin.producer_of(&id)?;
    field.met = false;
    // An instance without anything to do does not miss its name.
    for _ in 0..200 {
        field.pause(Duration::from_millis(100))?;
        field.met = admin.producer_of(&id)? != ours;
        if field.met {
            break;
        }
    }
    field.last()?;
    if producer.commit_transaction(STEP).is_ok() && field.met {
        field.breaches.add(Invariant::I9, "a fenced producer could commit", id);
    }
    Ok(())
}

pub fn end_txn_held(field: &mut Field<'_>) -> Result<()> {
    held(field, false)
}

pub fn end_txn_overtaken(field: &mut Field<'_>) -> Result<()> {
    held(field, true)
}

fn held(field: &mut Field<'_>, hang_up: bool) -> Result<()> {
    let struck = |field: &Field<'_>| field.proxies.brokers().map(|leg| leg.counters().struck).sum::<u64>();
    let before = struck(field);
    let held = Toxic::HoldEndTxn { ms: field.plan.lasts_ms, hang_up };
    field.proxies.brokers().for_each(|leg| leg.set(held));
    // Several are held one after another; the last is delivered after the toxic is gone.
    field.pause(Duration::from_millis(field.plan.lasts_ms * 3 / 2))?;
    field.proxies.brokers().for_each(|leg| leg.heal());
    field.met = struck(field) > before;
    field.last()
}

pub fn leaders_moved(field: &mut Field<'_>) -> Result<()> {
    let admin = Admin::connect(&field.world.brokers)?;
    for topic in field.flow.inputs() {
        admin.move_leaders(&topic)?;
    }
    Ok(())
}

pub fn group_coordinator(field: &mut Field<'_>) -> Result<()> {
    let broker = Admin::connect(&field.world.brokers)?.group_coordinator(field.flow.name())?;
    killed(field, broker)
}

pub fn transaction_coordinator(field: &mut Field<'_>) -> Result<()> {
    let id = transactional_id(field)?;
    let broker = Admin::connect(&field.world.brokers)?.transaction_coordinator(&id)?;
    killed(field, broker)
}

/// The group's dead-letter topics take no record for a while.
pub fn dead_letters_unavailable(field: &mut Field<'_>) -> Result<()> {
    let admin = Admin::connect(&field.world.brokers)?;
    let topics = admin.dead_letter_topics(field.flow.name())?;
    for topic in &topics {
        admin.refuse_records(topic, true)?;
    }
    let lasted = field.last();
    for topic in &topics {
        admin.refuse_records(topic, false)?;
    }
    lasted
}

/// What docs/RUNBOOK.md says of a topic made anew, between stopping the processors and starting them: the
/// group's offsets go with the topic, those in a store are deleted. No epoch is raised, for no two loads write the
/// same keys.
pub fn topics_recreated(world: &World, flow: &dyn Flow, fleet: &Fleet) -> Result<()> {
    partitions_as_declared(world, flow, fleet)?;
    if flow.target() == Target::Postgres {
        let mut client = store::connect(&world.postgres)?;
        client.execute("DELETE FROM fhirehose.sink_offsets WHERE topic = ANY($1)", &[&flow.inputs()])?;
    }
    Ok(())
}

pub fn partitions_raised(field: &mut Field<'_>) -> Result<()> {
    let admin = Admin::connect(&field.world.brokers)?;
    for topic in field.flow.inputs() {
        admin.add_partition(&topic)?;
    }
    Ok(())
}

/// Kafka takes no partition away, and `topics apply` refuses what is not as declared.
pub fn partitions_as_declared(world: &World, flow: &dyn Flow, fleet: &Fleet) -> Result<()> {
    let admin = Admin::connect(&world.brokers)?;
    flow.inputs().iter().try_for_each(|topic| admin.delete_topic(topic))?;
    fleet.say(&["topics", "apply"]).map(drop)
}
