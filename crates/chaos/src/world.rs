//! The servers of a run: where the harness reaches them directly, and where the product does, through proxies.

use std::path::PathBuf;

use anyhow::{Context, Result};

/// Addresses of a stack with three brokers. Direct ones, as the harness uses them.
#[derive(Clone, Debug)]
pub struct World {
    pub brokers: String,
    pub registry: String,
    pub postgres: String,
    pub search: String,
    pub redis: String,
    /// The repository: shapes, configuration.
    pub root: PathBuf,
}

impl World {
    /// From the stack's env file, which `cargo xtask chaos` loads.
    pub fn from_env(root: PathBuf) -> Result<World> {
        let var = |name: &str| {
            std::env::var(name).with_context(|| format!("{name} is not set: run this by `cargo xtask chaos`"))
        };
        Ok(World {
            brokers: var("FHIREHOSE__KAFKA__BROKERS")?,
            registry: var("FHIREHOSE__REGISTRY__URL")?,
            postgres: var("FHIREHOSE__POSTGRES__URL")?,
            search: var("FHIREHOSE__SEARCH__URL")?,
            redis: var("FHIREHOSE__REDIS__URL")?,
            root,
        })
    }
}
