//! Proxies between the product and its servers, one per leg, in this process. The harness breaks the network
//! here: what it needs most (a held `EndTxn`, a `COMMIT` whose answer is lost, a bulk request that fails in part)
//! is a matter of the protocol inside the connection, which ready-made proxies such as toxiproxy do not see.

use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

mod control;
mod http;
mod kafka;
mod listener;
mod postgres;
mod pump;

pub use control::{Counters, Toxic};

use crate::world::World;
use control::Control;
use listener::Protocol;

/// A way from the product to one of its servers. Brokers count from 0, in the order of the stack's nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Leg {
    Broker(usize),
    Registry,
    Postgres,
    Search,
    Redis,
}

/// All legs of a stack. The proxies end when this is dropped.
pub struct Proxies {
    legs: Vec<(Leg, Arc<Control>)>,
    env: Vec<(String, String)>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxies {
    /// Listens on every leg. Brokers are reached at the ports the stack has set aside for proxies, since brokers
    /// tell clients where to go; the others at any free port.
    pub fn start(world: &World) -> Result<Proxies> {
        let runtime = Runtime::new().context("the proxies' threads")?;
        let mut legs = Vec::new();
        let mut listen = |leg: Leg, at: u16, server: String, protocol: Protocol| -> Result<u16> {
            let control = Arc::new(Control::default());
            let port = listener::start(&runtime, at, server, protocol, control.clone())
                .with_context(|| format!("the proxy of {leg:?} cannot listen at port {at}"))?;
            legs.push((leg, control));
            Ok(port)
        };
        let mut brokers = Vec::new();
        for (index, (at, server)) in world.proxied.iter().enumerate() {
            listen(Leg::Broker(index), *at, format!("127.0.0.1:{server}"), Protocol::Kafka)?;
            brokers.push(format!("127.0.0.1:{at}"));
        }
        let mut env = vec![("FHIREHOSE__KAFKA__BROKERS".to_owned(), brokers.join(","))];
        for (leg, name, url, protocol) in [
            (Leg::Registry, "FHIREHOSE__REGISTRY__URL", &world.registry, Protocol::Http),
            (Leg::Postgres, "FHIREHOSE__POSTGRES__URL", &world.postgres, Protocol::Postgres),
            (Leg::Search, "FHIREHOSE__SEARCH__URL", &world.search, Protocol::Http),
            (Leg::Redis, "FHIREHOSE__REDIS__URL", &world.redis, Protocol::Bytes),
        ] {
            let server = authority(url).with_context(|| format!("{name} names no host and port"))?;
            let port = listen(leg, 0, server.to_owned(), protocol)?;
            env.push((name.to_owned(), url.replacen(server, &format!("127.0.0.1:{port}"), 1)));
        }
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            // Either way it is over.
            drop(runtime.block_on(stopped));
            runtime.shutdown_background();
        });
        Ok(Proxies { legs, env, stop: Some(stop), thread: Some(thread) })
    }

    /// The product's environment: addresses of the proxies.
    pub fn product_env(&self) -> Vec<(String, String)> {
        self.env.clone()
    }

    pub fn leg(&self, leg: Leg) -> Result<&Control> {
        let found = self.legs.iter().find(|(other, _)| *other == leg);
        found.map(|(_, control)| &**control).with_context(|| format!("no proxy for {leg:?}"))
    }

    pub fn brokers(&self) -> impl Iterator<Item = &Control> {
        self.legs.iter().filter(|(leg, _)| matches!(leg, Leg::Broker(_))).map(|(_, control)| &**control)
    }

    /// Everything behaves again.
    pub fn heal(&self) {
        self.legs.iter().for_each(|(_, control)| control.heal());
    }
}

impl Drop for Proxies {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // The thread may be gone.
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// `host:port` of a URL.
fn authority(url: &str) -> Option<&str> {
    let rest = url.split_once("://")?.1;
    let authority = rest.split(['/', '?']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    host.contains(':').then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_found_in_every_kind_of_url() {
        assert_eq!(authority("postgres://u:p@127.0.0.1:5432/d?sslmode=disable"), Some("127.0.0.1:5432"));
        assert_eq!(authority("http://h:1/apis/ccompat/v7"), Some("h:1"));
        assert_eq!(authority("redis://h:1"), Some("h:1"));
        assert_eq!(authority("redis://h"), None);
    }
}
