//! The processors as the harness drives them: what each is fed, and what must come of it.

mod avro;
mod cache_rules;
mod cdc;
mod device;
mod enrich;
mod messages;
mod readings;
mod redis;
mod redis_source;
mod resources;
mod search;
mod search_inputs;
mod session;
mod stores;
mod timescale;
mod timescale_inputs;
mod vitals;
mod warehouse;
mod warehouse_inputs;
mod warehouse_rows;
mod whole;

use crate::flow::Flow;

/// Every flow there is.
pub fn all() -> Vec<&'static dyn Flow> {
    vec![
        &cdc::Cdc,
        &enrich::Enrich,
        &cache_rules::CacheRules,
        &device::Device,
        &timescale::Timescale,
        &warehouse::Warehouse,
        &search::SearchFlow,
        &redis::RedisFlow,
        &whole::Whole,
    ]
}
