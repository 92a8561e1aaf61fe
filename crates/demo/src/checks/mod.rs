//! For every store: the rows expected of the sources beside the rows found, and how to look for one change.

mod cache;
mod fhir;
mod search;
mod timescale;
mod warehouse;

use anyhow::{Context, Result};
use postgres::types::ToSql;

use crate::compare::Check;
use crate::postgres_rows;
use crate::probe::{Look, Probe};
use crate::stack::Stack;
use crate::topics::Topics;
use crate::truth::Hospital;
use crate::workload::Slots;

pub use cache::Cache;
pub use search::ALIAS;

/// Looks into every store.
pub fn all(stack: &Stack, hospitals: &[Hospital], cache: &Cache) -> Result<Vec<Check>> {
    let mut topics = Topics::connect(&stack.brokers, &stack.registry)?;
    let mut checks = fhir::checks(&mut topics, hospitals).context("checking the topics")?;
    checks.extend(timescale::checks(&stack.postgres, hospitals).context("checking the time series")?);
    checks.extend(warehouse::checks(&stack.postgres, hospitals).context("checking the warehouse")?);
    checks.extend(search::checks(&stack.search, hospitals).context("checking the search index")?);
    checks.push(cache.checks(hospitals).context("checking the cache")?);
    Ok(checks)
}

/// Rows of the last stores in line that are still missing, by plain counts: quick enough to ask again and again.
pub fn missing(stack: &Stack, hospitals: &[Hospital]) -> Result<usize> {
    let mut client = postgres_rows::connect(&stack.postgres)?;
    let mut short = |table: &str, rows: fn(&Hospital) -> usize| -> Result<usize> {
        let found = postgres_rows::lines(&mut client, &format!("SELECT count(*) FROM {table}"))?;
        let found = found.first().and_then(|row| row.first()?.parse::<usize>().ok()).unwrap_or(0);
        Ok(hospitals.iter().map(rows).sum::<usize>().saturating_sub(found))
    };
    let in_postgres = short("vital_signs_timeseries", |h| h.vital_signs.len())?
        + short("fact.vital_signs_fact", |h| h.vital_signs.len())?
        + short("fact.encounter_fact", |h| h.encounters.len())?
        + short("fact.diagnosis_fact", |h| h.diagnoses.len())?;
    let documents: usize =
        hospitals.iter().map(|h| h.patients.len() + h.users.len() + h.diagnoses.len()).sum();
    Ok(in_postgres + documents.saturating_sub(search::count(&stack.search)?))
}

/// A probe for every store; a change is looked for as that store's readers would.
pub fn probes(stack: &Stack, slots: &Slots) -> Vec<Probe> {
    // A constant, so that only the newest chunks are planned for.
    let recent = format!("observed_at > '{}'", jiff::Timestamp::now() - jiff::SignedDuration::from_hours(3));
    let sample =
        format!("SELECT 1 FROM vital_signs_timeseries WHERE tenant_id || '/' || device_id = $1 AND {recent}");
    let reading = format!(
        "SELECT 1 FROM vital_signs_timeseries WHERE {recent}
         AND tenant_id || '/' || device_id || '/' || (extract(epoch FROM observed_at) * 1000)::bigint = $1"
    );
    let encounter = "SELECT 1 FROM fact.encounter_fact
                     WHERE tenant_id = split_part($1, '/', 1) AND encounter_id = split_part($1, '/', 2)::uuid";
    let (search_url, redis_url) = (stack.search.clone(), stack.redis.clone());
    vec![
        in_postgres("timescale, from rows", &slots.timescale, stack, sample),
        in_postgres("timescale, from devices", &slots.devices, stack, reading),
        in_postgres("warehouse", &slots.warehouse, stack, encounter.to_owned()),
        Probe::start("search", slots.search.clone(), move || {
            let url = search_url.clone();
            Ok(Box::new(move |key: &str| search::has_condition(&url, key)) as Look)
        }),
        Probe::start("cache", slots.cache.clone(), move || {
            let mut redis = cache::connect(&redis_url)?;
            Ok(Box::new(move |key: &str| Ok(!cache::holds(&mut redis, key)?)) as Look)
        }),
    ]
}

fn in_postgres(store: &'static str, slot: &crate::probe::Slot, stack: &Stack, sql: String) -> Probe {
    let url = stack.postgres.clone();
    Probe::start(store, slot.clone(), move || {
        let mut client = postgres_rows::connect(&url)?;
        let statement = client.prepare(&sql)?;
        Ok(Box::new(move |key: &str| {
            let key: &(dyn ToSql + Sync) = &key;
            Ok(client.query_opt(&statement, &[key])?.is_some())
        }) as Look)
    })
}
