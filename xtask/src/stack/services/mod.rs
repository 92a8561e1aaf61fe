//! The servers of the stack: one file per kind, one table of them all.
use std::ops::Range;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::install::Artifact;
use super::layout::Stack;

mod connect;
mod kafka;
mod mariadb;
mod opensearch;
mod postgres;
mod redis;
mod registry;

pub use connect::url as connect_url;
pub use kafka::brokers as kafka_brokers;
pub use mariadb::Hospital;
pub use registry::native_url as registry_native_url;

/// One server. The stack installs its parts, allots its ports, starts its command and waits until it is ready.
pub trait Service: Sync {
    fn name(&self) -> &'static str;
    /// What it is and in which version, for people.
    fn about(&self) -> &'static str;

    fn debian_packages(&self) -> &'static [&'static str] {
        &[]
    }
    fn artifacts(&self) -> Vec<Artifact> {
        Vec::new()
    }
    /// The Java version it needs at least.
    fn java(&self) -> Option<u32> {
        None
    }
    /// What neither Debian nor Maven has ready.
    fn install(&self, _stack: &Stack) -> Result<()> {
        Ok(())
    }

    /// Names of its ports; the first is the one clients use.
    fn ports(&self) -> &'static [&'static str];
    /// Names of ports that it tells clients and where somebody else listens, who may be doing so at the moment:
    /// allotted once and kept.
    fn set_aside(&self) -> &'static [&'static str] {
        &[]
    }
    /// Below the range that Linux gives to outgoing connections.
    fn port_range(&self) -> Range<u16> {
        20_000..30_000
    }
    /// Whether this stack has it.
    fn belongs_to(&self, _stack: &Stack) -> bool {
        true
    }
    /// Services that must be ready before it, and whose ports it was told, where the stack has them.
    fn needs(&self) -> &'static [&'static str] {
        &[]
    }

    /// Writes the configuration, makes the data folder at the first start, and says how to start the server.
    fn command(&self, stack: &Stack) -> Result<Command>;
    fn is_ready(&self, stack: &Stack) -> Result<bool>;
    /// What must hold once it runs; done at every start, so it must not mind being done already.
    fn after_start(&self, _stack: &Stack) -> Result<()> {
        Ok(())
    }
    /// The signal that means "finish and leave".
    fn stop_signal(&self) -> &'static str {
        "TERM"
    }
    fn stop_grace(&self) -> Duration {
        Duration::from_secs(15)
    }
    /// Its lines of the env file.
    fn env(&self, stack: &Stack) -> Result<Vec<(&'static str, String)>>;
}

/// In the order of the env file and of `status`.
static ALL: [&dyn Service; 10] = [
    &kafka::NODES[0],
    &kafka::NODES[1],
    &kafka::NODES[2],
    &registry::Registry,
    &postgres::Postgres,
    &opensearch::OpenSearch,
    &redis::Redis,
    &connect::Connect,
    &mariadb::HOSPITAL_A,
    &mariadb::HOSPITAL_B,
];

/// Of every stack there can be; [`Stack::services`] are those of one.
pub fn all() -> &'static [&'static dyn Service] {
    &ALL
}

pub fn hospitals() -> [&'static Hospital; 2] {
    [&mariadb::HOSPITAL_A, &mariadb::HOSPITAL_B]
}

/// The Java servers log to standard output, and so into the service's log file.
const LOG4J: &str = "\
status=error
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d{ISO8601} %-5p %c{1} %m%n
rootLogger.level=INFO
rootLogger.appenderRef.out.ref=out
";
