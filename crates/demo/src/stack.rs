//! Addresses of the stack and the two hospitals, as the environment gives them.

use anyhow::{Context, Result};

/// In which the hospitals' clocks and watches run; as in `crates/demo/demo.toml`.
pub const ZONE: &str = "Africa/Khartoum";

/// A hospital: its source name and tenant as in `crates/demo/demo.toml`, and its database server.
#[derive(Clone, Debug)]
pub struct Site {
    /// Name of its server among the stack's services.
    pub service: &'static str,
    pub source: &'static str,
    pub tenant: &'static str,
    pub url: String,
}

#[derive(Clone, Debug)]
pub struct Stack {
    pub brokers: String,
    pub registry: String,
    pub postgres: String,
    pub search: String,
    pub redis: String,
    pub sites: Vec<Site>,
}

impl Stack {
    pub fn from_env() -> Result<Self> {
        let var = |name: &str| {
            std::env::var(name).with_context(|| {
                format!("{name} is not set: run `cargo xtask demo`, or load the stack's env file first")
            })
        };
        Ok(Self {
            brokers: var("FHIREHOSE__KAFKA__BROKERS")?,
            registry: var("FHIREHOSE__REGISTRY__URL")?,
            postgres: var("FHIREHOSE__POSTGRES__URL")?,
            search: var("FHIREHOSE__SEARCH__URL")?,
            redis: var("FHIREHOSE__REDIS__URL")?,
            sites: vec![
                Site {
                    service: "hospital-a",
                    source: "hospital_a",
                    tenant: "khartoum-teaching",
                    url: var("STACK_HOSPITAL_A_URL")?,
                },
                Site {
                    service: "hospital-b",
                    source: "hospital_b",
                    tenant: "omdurman-general",
                    url: var("STACK_HOSPITAL_B_URL")?,
                },
            ],
        })
    }
}
