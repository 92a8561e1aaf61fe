//! One Kafka broker that is its own controller (KRaft).
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{LOG4J, Service};
use crate::shell;
use crate::stack::install::Artifact;
use crate::stack::java;
use crate::stack::layout::Stack;

pub struct Kafka;

const JARS: Artifact = Artifact::Jars {
    name: "kafka-4.3.0",
    coordinates: &[
        "org.apache.kafka:kafka_2.13:4.3.0",
        "org.apache.kafka:kafka-tools:4.3.0",
        "org.apache.kafka:connect-runtime:4.3.0",
        "org.apache.kafka:connect-json:4.3.0",
        "org.apache.kafka:connect-file:4.3.0",
        "org.apache.kafka:connect-transforms:4.3.0",
        "org.apache.logging.log4j:log4j-api:2.25.3",
        "org.apache.logging.log4j:log4j-core:2.25.3",
        "org.apache.logging.log4j:log4j-slf4j-impl:2.25.3",
        "org.apache.logging.log4j:log4j-1.2-api:2.25.3",
    ],
    without: &[],
};

pub fn libs(cache: &Path) -> PathBuf {
    JARS.dir(cache).join("libs")
}

/// A `java` command over Kafka's jars: the broker, Connect and the tools are all in them.
pub fn java_command(stack: &Stack, heap: &str, log4j: &Path) -> Result<Command> {
    let mut command = Command::new(java::find(17, &stack.cache).context("no Java 17 or later")?);
    fs::write(log4j, LOG4J)?;
    command
        .args([&format!("-Xmx{heap}"), "-Xms256m", "-XX:+UseG1GC"])
        .arg(format!("-Dlog4j2.configurationFile={}", log4j.display()))
        .arg("-cp")
        .arg(libs(&stack.cache).join("*"));
    Ok(command)
}

impl Service for Kafka {
    fn name(&self) -> &'static str {
        "kafka"
    }
    fn about(&self) -> &'static str {
        "Kafka 4.3.0"
    }
    fn debian_packages(&self) -> &'static [&'static str] {
        &["maven"]
    }
    fn artifacts(&self) -> Vec<Artifact> {
        vec![JARS]
    }
    fn java(&self) -> Option<u32> {
        Some(17)
    }
    fn ports(&self) -> &'static [&'static str] {
        &["kafka", "kafka_controller"]
    }

    fn command(&self, stack: &Stack) -> Result<Command> {
        let data = stack.data("kafka");
        fs::create_dir_all(&data)?;
        let properties = data.join("server.properties");
        let (port, controller) = (stack.port("kafka")?, stack.port("kafka_controller")?);
        let logs = data.join("logs");
        // Topics are declared, never made by accident; internal topics are small, since one machine has them all.
        let text = format!(
            "process.roles=broker,controller\n\
             node.id=1\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
             controller.listener.names=CONTROLLER\n\
             log.dirs={}\n\
             auto.create.topics.enable=false\n\
             offsets.topic.replication.factor=1\n\
             offsets.topic.num.partitions=8\n\
             transaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\n\
             transaction.state.log.num.partitions=8\n\
             share.coordinator.state.topic.replication.factor=1\n\
             share.coordinator.state.topic.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\n",
            logs.display()
        );
        fs::write(&properties, text)?;
        let log4j = data.join("log4j2.properties");
        if !logs.join("meta.properties").is_file() {
            let tool = |arguments: &[&str]| {
                let mut command = java_command(stack, "256m", &log4j)?;
                shell::capture(command.arg("kafka.tools.StorageTool").args(arguments))
            };
            let id = tool(&["random-uuid"])?;
            let id = id.lines().last().context("Kafka's storage tool made no cluster id")?;
            tool(&["format", "-t", id, "-c", &properties.to_string_lossy()])?;
        }
        let mut command = java_command(stack, "1g", &log4j)?;
        command.arg("kafka.Kafka").arg(properties);
        Ok(command)
    }

    /// The port opens before the broker takes requests, so its own word counts.
    fn is_ready(&self, stack: &Stack) -> Result<bool> {
        Ok(fs::read_to_string(stack.log("kafka"))?.contains("Kafka Server started"))
    }

    fn env(&self, stack: &Stack) -> Result<Vec<(&'static str, String)>> {
        Ok(vec![
            ("FHIREHOSE__KAFKA__BROKERS", format!("127.0.0.1:{}", stack.port("kafka")?)),
            ("STACK_KAFKA_LIBS", libs(&stack.cache).display().to_string()),
        ])
    }
}
