//! Kafka: brokers that are their own controllers (KRaft), one in most stacks, three where a leader must be able to
//! move. Each has one more listener, which tells clients the port of a proxy: where proxies listen there, what
//! speaks to the cluster through them stays with them.
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{LOG4J, Service};
use crate::shell;
use crate::stack::install::Artifact;
use crate::stack::java;
use crate::stack::layout::Stack;

pub struct Kafka {
    id: u8,
    name: &'static str,
    ports: [&'static str; 3],
    proxy: [&'static str; 1],
}

pub static NODES: [Kafka; 3] = [
    Kafka {
        id: 1,
        name: "kafka",
        ports: ["kafka", "kafka_controller", "kafka_proxied"],
        proxy: ["kafka_proxy"],
    },
    Kafka {
        id: 2,
        name: "kafka-2",
        ports: ["kafka-2", "kafka-2_controller", "kafka-2_proxied"],
        proxy: ["kafka-2_proxy"],
    },
    Kafka {
        id: 3,
        name: "kafka-3",
        ports: ["kafka-3", "kafka-3_controller", "kafka-3_proxied"],
        proxy: ["kafka-3_proxy"],
    },
];

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

/// Addresses of the stack's brokers, as clients take them.
pub fn brokers(stack: &Stack) -> Result<String> {
    listed(stack, |node| Ok(format!("127.0.0.1:{}", stack.port(node.ports[0])?)))
}

/// Something of each of the stack's nodes, separated by commas.
fn listed(stack: &Stack, of: impl Fn(&Kafka) -> Result<String>) -> Result<String> {
    let nodes = NODES.iter().filter(|node| node.belongs_to(stack));
    Ok(nodes.map(of).collect::<Result<Vec<_>>>()?.join(","))
}

/// The same for all nodes without one asking another: made from the stack's folder. 16 bytes in base 64.
fn cluster_id(stack: &Stack) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digit = |position: u8| {
        let mut hasher = DefaultHasher::new();
        (&stack.dir, position).hash(&mut hasher);
        char::from(DIGITS[(hasher.finish() % 64) as usize])
    };
    // The last digit holds two bits. A leading hyphen would be read as an option.
    std::iter::once('F').chain((1..21).map(digit)).chain(std::iter::once('A')).collect()
}

/// A `java` command over Kafka's jars: the broker, Connect and the tools are all in them.
pub fn java_command(stack: &Stack, heap: &str, log4j: &Path) -> Result<Command> {
    let mut command = Command::new(java::find(17, &stack.cache).context("no Java 17 or later")?);
    fs::write(log4j, LOG4J)?;
    command
        .args([&format!("-Xmx{heap}"), "-Xms256m"])
        .arg(format!("-Dlog4j2.configurationFile={}", log4j.display()))
        .arg("-cp")
        .arg(libs(&stack.cache).join("*"));
    Ok(command)
}

impl Kafka {
    fn properties(&self, stack: &Stack, logs: &Path) -> Result<String> {
        let [port, controller, proxied] = self.ports.map(|name| stack.port(name));
        let (port, controller) = (port?, controller?);
        let (proxied, proxy) = (proxied?, stack.port(self.proxy[0])?);
        let voters =
            listed(stack, |node| Ok(format!("{}@127.0.0.1:{}", node.id, stack.port(node.ports[1])?)))?;
        let copies = stack.brokers;
        let in_sync = if copies > 1 { 2 } else { 1 };
        // Topics are declared, never made by accident; internal topics are small, since one machine has them all.
        // A broker that dies is missed after six seconds rather than nine.
        Ok(format!(
            "process.roles=broker,controller\n\
             node.id={}\n\
             controller.quorum.voters={voters}\n\
             listeners=PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{proxied},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{proxy}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             controller.listener.names=CONTROLLER\n\
             log.dirs={}\n\
             auto.create.topics.enable=false\n\
             default.replication.factor={copies}\n\
             min.insync.replicas={in_sync}\n\
             offsets.topic.replication.factor={copies}\n\
             offsets.topic.num.partitions=8\n\
             transaction.state.log.replication.factor={copies}\n\
             transaction.state.log.min.isr={in_sync}\n\
             transaction.state.log.num.partitions=8\n\
             share.coordinator.state.topic.replication.factor={copies}\n\
             share.coordinator.state.topic.min.isr={in_sync}\n\
             broker.session.timeout.ms=6000\n\
             broker.heartbeat.interval.ms=1000\n\
             group.initial.rebalance.delay.ms=0\n",
            self.id,
            logs.display()
        ))
    }
}

impl Service for Kafka {
    fn name(&self) -> &'static str {
        self.name
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
        &NODES[usize::from(self.id) - 1].ports
    }
    fn set_aside(&self) -> &'static [&'static str] {
        &NODES[usize::from(self.id) - 1].proxy
    }
    fn belongs_to(&self, stack: &Stack) -> bool {
        self.id <= stack.brokers
    }

    fn command(&self, stack: &Stack) -> Result<Command> {
        let data = stack.data(self.name);
        fs::create_dir_all(&data)?;
        let properties = data.join("server.properties");
        let logs = data.join("logs");
        fs::write(&properties, self.properties(stack, &logs)?)?;
        let log4j = data.join("log4j2.properties");
        if !logs.join("meta.properties").is_file() {
            let mut tool = java_command(stack, "256m", &log4j)?;
            tool.args(["kafka.tools.StorageTool", "format", "-t", &cluster_id(stack), "-c"]).arg(&properties);
            shell::capture(&mut tool)?;
        }
        let mut command = java_command(stack, if stack.brokers > 1 { "512m" } else { "1g" }, &log4j)?;
        if stack.brokers > 1 {
            // Brokers of three are restarted all the time: this takes half the processor time off each start.
            command.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
        }
        command.arg("kafka.Kafka").arg(properties);
        Ok(command)
    }

    /// The port opens before the broker takes requests, so its own word counts.
    fn is_ready(&self, stack: &Stack) -> Result<bool> {
        Ok(fs::read_to_string(stack.log(self.name))?.contains("Kafka Server started"))
    }

    fn env(&self, stack: &Stack) -> Result<Vec<(&'static str, String)>> {
        if self.id > 1 {
            return Ok(Vec::new());
        }
        // By broker: the port it tells clients, where a proxy is to listen, and its own behind that.
        let pair =
            |node: &Kafka| Ok(format!("{}:{}", stack.port(node.proxy[0])?, stack.port(node.ports[2])?));
        Ok(vec![
            ("FHIREHOSE__KAFKA__BROKERS", brokers(stack)?),
            ("STACK_KAFKA_LIBS", libs(&stack.cache).display().to_string()),
            ("STACK_KAFKA_PROXIED", listed(stack, pair)?),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_nodes_are_told_of_each_other_and_of_their_proxies() {
        let dir = std::env::temp_dir().join(format!("xtask-nodes-{}", std::process::id()));
        let mut stack = Stack::open_at(dir.clone()).unwrap();
        stack.choose_brokers(3).unwrap();
        stack.allot_ports().unwrap();
        let text = NODES[1].properties(&stack, Path::new("logs")).unwrap();
        let (proxy, own) = (stack.port("kafka-2_proxy").unwrap(), stack.port("kafka-2_proxied").unwrap());
        assert!(text.contains(&format!(
            "advertised.listeners=PLAINTEXT://127.0.0.1:{},PROXIED://127.0.0.1:{proxy}\n",
            stack.port("kafka-2").unwrap()
        )));
        assert!(text.contains(&format!("3@127.0.0.1:{}\n", stack.port("kafka-3_controller").unwrap())));
        assert!(text.contains("offsets.topic.replication.factor=3\n"));
        let env = NODES[0].env(&stack).unwrap();
        assert!(env.iter().any(
            |(name, value)| *name == "STACK_KAFKA_PROXIED" && value.contains(&format!(",{proxy}:{own},"))
        ));
        assert_eq!((cluster_id(&stack).len(), cluster_id(&stack)), (22, cluster_id(&stack)));
        fs::remove_dir_all(dir).unwrap();
    }
}
