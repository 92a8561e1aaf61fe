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
    /// By broker: the port that it tells the product's clients, where a proxy listens, and its own behind it.
    pub proxied: Vec<(u16, u16)>,
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
            proxied: proxied(&var("STACK_KAFKA_PROXIED")?)?,
            root,
        })
    }
}

/// `proxy:own` ports of each broker, separated by commas.
fn proxied(text: &str) -> Result<Vec<(u16, u16)>> {
    let pairs = text.split(',').filter(|pair| !pair.is_empty());
    let read = |pair: &str| -> Option<(u16, u16)> {
        let (proxy, own) = pair.split_once(':')?;
        Some((proxy.parse().ok()?, own.parse().ok()?))
    };
    pairs.map(|pair| read(pair).with_context(|| format!("STACK_KAFKA_PROXIED holds '{pair}'"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_proxied_brokers_are_pairs() {
        assert_eq!(proxied("1:2,3:4").unwrap(), [(1, 2), (3, 4)]);
        assert!(proxied("1").is_err() && proxied("1:x").is_err());
    }
}
