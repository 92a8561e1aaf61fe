//! Runs processors: reads Kafka in batches, hands them over, and makes what comes out exactly once. The one
//! crate that polls, produces, commits, dead-letters, retries, counts and stops; it has two loops, Kafka to
//! Kafka in transactions (`transact`) and Kafka to a store with the store's own offsets (`store`), and no
//! third. Promises: every record gets one verdict, and its effects happen once whatever dies when. Never:
//! looks into a record's key or value, or logs them.

mod admin;
mod age;
mod assignment;
mod backfill;
mod clients;
mod cluster;
mod config;
mod config_source;
mod dead_letter;
mod engine;
mod flow;
mod instance;
mod logging;
mod page;
mod partitions;
mod producer;
mod reader;
mod registry;
mod replay;
mod spec;
mod status;
mod stop;
mod store;
mod tables;
mod topic_ids;
mod transact;
mod worker;

pub use backfill::{Backfilled, backfill, first_offsets};
pub use clients::{Clients, ManagedProperty};
pub use cluster::{Cluster, ClusterError};
pub use config::{
    Admin, Breaker, Config, Device, Kafka, Log, LogFormat, Postgres, Redis, RegistryConfig, Runtime, Search,
    Shapes, Source, StartFrom, StorePostgres, Timescale,
};
pub use config_source::{ConfigError, Loaded, Setting};
pub use engine::{Engine, StartError};
pub use instance::Instance;
pub use logging::init as init_logging;
pub use registry::{RegistryError, SchemaRegistry};
pub use spec::{Inputs, Spec, TopicOf};
pub use stop::Stop;
