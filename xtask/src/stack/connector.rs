//! Registers a hospital's Debezium connector: the templates of `deploy/connect`, filled with this stack's addresses.
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

use super::http;
use super::layout::Stack;
use super::services::{Hospital, connect_url, hospitals, kafka_brokers, registry_native_url};

/// Enough for a snapshot's start on a busy machine; a connector that failed says so long before.
const RUNNING_LIMIT: Duration = Duration::from_secs(90);

pub fn register(stack: &Stack, name: &str) -> Result<()> {
    let hospital = hospitals().into_iter().find(|hospital| hospital.name == name);
    let hospital = hospital.with_context(|| {
        let names: Vec<&str> = hospitals().iter().map(|hospital| hospital.name).collect();
        format!("no hospital '{name}'; there are: {}", names.join(" "))
    })?;
    let connector = format!("{}/connectors/{}", connect_url(stack)?, hospital.source());
    http::put(&format!("{connector}/config"), &config(stack, hospital)?)
        .with_context(|| format!("Connect refused the connector of {name} (does its database run?)"))?;
    await_running(&format!("{connector}/status"))
        .with_context(|| format!("the connector of {name}; `cargo xtask stack logs connect` has the rest"))?;
    println!(
        "  {name} … connector {} runs, topics cdc.{}.<database>.<table>",
        hospital.source(),
        hospital.source()
    );
    Ok(())
}

/// The first hospital's rows travel as Avro, the second's as JSON, so that both ways are always in use.
fn config(stack: &Stack, hospital: &Hospital) -> Result<Value> {
    let values = [
        ("SOURCE", hospital.source().to_owned()),
        ("DATABASE_HOST", "127.0.0.1".to_owned()),
        ("DATABASE_PORT", stack.port(hospital.source())?.to_string()),
        ("DATABASE_USER", "debezium".to_owned()),
        ("DATABASE_PASSWORD", "debezium".to_owned()),
        ("DATABASE_SERVER_ID", hospital.connector_server_id().to_string()),
        ("KAFKA_BROKERS", kafka_brokers(stack)?),
        ("REGISTRY_URL", registry_native_url(stack)?),
        ("REPLICATION_FACTOR", stack.brokers.to_string()),
    ];
    let mut config = Map::new();
    for file in ["hospital.json", hospital.converter] {
        let path = stack.root.join("deploy/connect").join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let filled =
            values.iter().fold(text, |text, (name, value)| text.replace(&format!("${{{name}}}"), value));
        let Value::Object(entries) =
            serde_json::from_str(&filled).with_context(|| path.display().to_string())?
        else {
            bail!("{} is no JSON object", path.display());
        };
        config.extend(entries);
    }
    if let Some((key, value)) =
        config.iter().find(|(_, value)| value.as_str().is_some_and(|v| v.contains("${")))
    {
        bail!("the connector template's {key} has an unknown placeholder: {value}");
    }
    Ok(Value::Object(config))
}

/// Connect answers before the task exists, and 404 until the worker has read its own config topic.
fn await_running(status_url: &str) -> Result<()> {
    let begin = Instant::now();
    loop {
        let status = http::get(status_url);
        if let Ok(status) = &status {
            let parts =
                std::iter::once(&status["connector"]).chain(status["tasks"].as_array().into_iter().flatten());
            let states: Vec<(&str, &Value)> =
                parts.map(|part| (part["state"].as_str().unwrap_or_default(), &part["trace"])).collect();
            if let Some((_, trace)) = states.iter().find(|(state, _)| *state == "FAILED") {
                bail!(
                    "failed: {}",
                    trace.as_str().unwrap_or_default().lines().next().unwrap_or("no reason given")
                );
            }
            if states.len() > 1 && states.iter().all(|(state, _)| *state == "RUNNING") {
                return Ok(());
            }
        }
        if begin.elapsed() > RUNNING_LIMIT {
            bail!(
                "does not run after {} s: {:?}",
                RUNNING_LIMIT.as_secs(),
                status.map(|status| status.to_string())
            );
        }
        sleep(Duration::from_millis(200));
    }
}
