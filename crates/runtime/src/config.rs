use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

/// Everything that can be configured. Where each value comes from: see [`crate::Loaded`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub shapes: Shapes,
    pub kafka: Kafka,
    pub registry: RegistryConfig,
    pub postgres: Postgres,
    pub timescale: Timescale,
    pub warehouse: StorePostgres,
    pub search: Search,
    pub redis: Redis,
    pub admin: Admin,
    pub runtime: Runtime,
    pub breaker: Breaker,
    pub log: Log,
    /// By name: the `<source>` of `cdc.<source>.<db>.<table>`.
    pub sources: BTreeMap<String, Source>,
    /// By vendor: the `<vendor>` of `device.<vendor>`.
    pub devices: BTreeMap<String, Device>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Shapes {
    /// Folder that holds `topics/ schemas/ mappings/ views/`.
    pub dir: PathBuf,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kafka {
    /// `host:port`, comma-separated.
    pub brokers: String,
    /// Put before every consumer group, such as `staging-`.
    pub group_prefix: String,
    /// Any librdkafka property, such as `security.protocol` or `ssl.ca.location`, but for those the engine
    /// answers for itself.
    #[serde(deserialize_with = "texts")]
    pub properties: BTreeMap<String, String>,
    /// A file of `key=value` lines with more of them, for secrets such as `sasl.password`.
    pub properties_file: Option<PathBuf>,
    /// Of topics that `topics apply` makes; without it the broker's default.
    pub replication_factor: Option<i32>,
}

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegistryConfig {
    /// Base of the Confluent API.
    pub url: String,
    pub username: Option<String>,
    pub password: Option<String>,
    pub password_file: Option<PathBuf>,
    /// Certificate authority, PEM.
    pub ca_file: Option<PathBuf>,
}

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Postgres {
    /// `postgres://user:password@host:port/database?sslmode=verify-full&sslrootcert=…` for both PostgreSQL
    /// sinks; `[timescale]` and `[warehouse]` may name their own. Several hosts, for fail-over:
    /// `postgres://user@host1:port,host2:port/database?target_session_attrs=read-write`.
    pub url: Option<String>,
    pub url_file: Option<PathBuf>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timescale {
    pub url: Option<String>,
    pub url_file: Option<PathBuf>,
    /// Days of raw samples kept; older readings are dropped as `past_retention`.
    pub retention_days: u32,
}

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StorePostgres {
    pub url: Option<String>,
    pub url_file: Option<PathBuf>,
}

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Search {
    pub url: Option<String>,
    pub username: Option<String>,
    pub password: Option<String>,
    pub password_file: Option<PathBuf>,
    /// Certificate authority, PEM.
    pub ca_file: Option<PathBuf>,
}

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Redis {
    pub url: Option<String>,
    pub url_file: Option<PathBuf>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Address of the status page, health, metrics.
    pub listen: SocketAddr,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Runtime {
    /// Name of this process among those of its groups; stable over restarts, never used twice at once.
    /// Empty: the host's name and the first number free on it.
    pub instance: String,
    /// Worker threads per processor, each with its share of the partitions.
    pub workers: usize,
    pub batch_max_records: usize,
    pub batch_max_bytes: usize,
    /// How long a batch waits for more records after its first, at least; as long as the last commit took, up to
    /// 50 ms.
    pub linger_ms: u64,
    /// Records fetched ahead, per worker.
    pub prefetch_bytes: usize,
    /// Larger records, and records that would become larger, are rejected as `too_large`.
    pub record_max_bytes: usize,
    /// `earliest`, `latest` or an instant: where a group that has never read begins. Without it such a group
    /// refuses to start.
    pub start_from: Option<StartFrom>,
    /// How long a worker may be silent before its partitions go to others.
    pub session_timeout_ms: u64,
    /// How long a transaction may stay open; must be less than the session timeout.
    pub transaction_timeout_ms: u64,
    /// How long a commit may go without an answer; it is then looked up before anything else is done.
    pub commit_timeout_ms: u64,
    /// How long workers may take to stop, of which a store's batch has three fifths; then the process ends all the same.
    pub stop_timeout_ms: u64,
    /// Folder for snapshots that make starts faster; nothing in it is needed.
    pub state_dir: Option<PathBuf>,
    /// Compression of what is produced: `lz4`, `zstd`, `gzip`, `snappy` or `none`.
    pub compression: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Breaker {
    /// Rejects in a row after which a worker stops reading; 0 turns it off.
    pub consecutive: u32,
    /// Share of rejects, 0 to 1, among the last `window` records after which it stops; 0 turns it off.
    pub share: f64,
    /// Records the share is taken over.
    pub window: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// As in `info` or `info,fhirehose_runtime=debug`.
    pub level: String,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    Json,
    Text,
}

/// A hospital's database server.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Tenant of every row of it, unless its facility says otherwise.
    pub tenant: String,
    /// Time zone of its zone-less times, such as `Africa/Khartoum`.
    pub zone: String,
    /// Facility to tenant. When given, a row of a facility that is not in it is rejected.
    #[serde(default)]
    pub facility_tenants: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Time zone of the vendor's zone-less times.
    pub zone: String,
}

/// Where a group that has never read a topic begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartFrom {
    Earliest,
    Latest,
    /// The first record at or after this instant, in milliseconds since the epoch.
    Timestamp(i64),
}

impl Default for Shapes {
    fn default() -> Self {
        Shapes { dir: PathBuf::from(".") }
    }
}

impl Default for Timescale {
    fn default() -> Self {
        Timescale { url: None, url_file: None, retention_days: 1095 }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Admin { listen: SocketAddr::from(([127, 0, 0, 1], 9464)) }
    }
}

impl Default for Runtime {
    fn default() -> Self {
        Runtime {
            instance: String::new(),
            workers: 1,
            batch_max_records: 5_000,
            batch_max_bytes: 8 << 20,
            linger_ms: 5,
            prefetch_bytes: 16 << 20,
            record_max_bytes: 1_000_000,
            start_from: None,
            session_timeout_ms: 15_000,
            transaction_timeout_ms: 12_000,
            commit_timeout_ms: 10_000,
            stop_timeout_ms: 10_000,
            state_dir: None,
            compression: "lz4".into(),
        }
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Breaker { consecutive: 500, share: 0.5, window: 5_000 }
    }
}

impl Default for Log {
    fn default() -> Self {
        Log { level: "info".into(), format: LogFormat::Json }
    }
}

impl Breaker {
    pub(crate) fn limits(&self) -> fhirehose_decide::Limits {
        fhirehose_decide::Limits { consecutive: self.consecutive, share: self.share, window: self.window }
    }
}

impl Runtime {
    pub(crate) fn linger(&self) -> Duration {
        Duration::from_millis(self.linger_ms)
    }
}

impl Config {
    /// Checks what types alone cannot say. One message per fault, each naming its key.
    pub fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let runtime = &self.runtime;
        if self.kafka.brokers.trim().is_empty() {
            wrong.push("kafka.brokers is empty: name the brokers as host:port, comma-separated".into());
        }
        for (key, value) in [
            ("runtime.workers", runtime.workers),
            ("runtime.batch_max_records", runtime.batch_max_records),
            ("runtime.batch_max_bytes", runtime.batch_max_bytes),
            ("runtime.record_max_bytes", runtime.record_max_bytes),
        ] {
            if value == 0 {
                wrong.push(format!("{key} must be at least 1"));
            }
        }
        if runtime.transaction_timeout_ms >= runtime.session_timeout_ms {
            wrong.push(
                "runtime.transaction_timeout_ms must be less than runtime.session_timeout_ms: else a worker \
                 taken for dead could still commit"
                    .into(),
            );
        }
        if runtime.commit_timeout_ms == 0 || runtime.commit_timeout_ms > runtime.transaction_timeout_ms {
            wrong.push("runtime.commit_timeout_ms must be 1 to runtime.transaction_timeout_ms".into());
        }
        if runtime.stop_timeout_ms == 0 {
            wrong.push("runtime.stop_timeout_ms must be at least 1".into());
        }
        if !(0.0..=1.0).contains(&self.breaker.share) {
            wrong.push("breaker.share must be 0 to 1".into());
        }
        if !matches!(runtime.compression.as_str(), "lz4" | "zstd" | "gzip" | "snappy" | "none") {
            wrong.push("runtime.compression must be lz4, zstd, gzip, snappy or none".into());
        }
        let zones = self.sources.iter().map(|(name, source)| (format!("sources.{name}.zone"), &source.zone));
        let devices =
            self.devices.iter().map(|(name, device)| (format!("devices.{name}.zone"), &device.zone));
        for (key, zone) in zones.chain(devices) {
            if jiff::tz::TimeZone::get(zone).is_err() {
                wrong.push(format!("{key} is `{zone}`, which is no time zone, as `Africa/Khartoum` is"));
            }
        }
        for (name, source) in &self.sources {
            // A tenant is the first part of keys, before a slash.
            for tenant in std::iter::once(&source.tenant).chain(source.facility_tenants.values()) {
                if tenant.is_empty() || tenant.contains('/') {
                    wrong.push(format!("sources.{name}: tenant `{tenant}` is empty or holds a slash"));
                }
            }
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
                wrong.push(format!("sources.{name}: a source's name has letters, digits, `_` and `-` alone"));
            }
        }
        wrong.extend(crate::clients::managed_properties(&self.kafka.properties));
        wrong
    }
}

impl FromStr for StartFrom {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "earliest" => Ok(StartFrom::Earliest),
            "latest" => Ok(StartFrom::Latest),
            _ => text
                .parse::<jiff::Timestamp>()
                .map(|instant| StartFrom::Timestamp(instant.as_millisecond()))
                .map_err(|_| {
                    format!("`{text}` is not `earliest`, `latest` or an instant such as 2026-01-31T00:00:00Z")
                }),
        }
    }
}

impl fmt::Display for StartFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartFrom::Earliest => f.write_str("earliest"),
            StartFrom::Latest => f.write_str("latest"),
            StartFrom::Timestamp(ms) => match jiff::Timestamp::from_millisecond(*ms) {
                Ok(instant) => write!(f, "{instant}"),
                Err(_) => write!(f, "{ms} ms"),
            },
        }
    }
}

impl<'de> Deserialize<'de> for StartFrom {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for StartFrom {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Properties are text to librdkafka; TOML's numbers and booleans are taken as their text.
fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Scalar {
        Text(String),
        Bool(bool),
        Integer(i64),
        Float(f64),
    }
    let properties = BTreeMap::<String, Scalar>::deserialize(deserializer)?;
    let text = |scalar| match scalar {
        Scalar::Text(text) => text,
        Scalar::Bool(value) => value.to_string(),
        Scalar::Integer(value) => value.to_string(),
        Scalar::Float(value) => value.to_string(),
    };
    Ok(properties.into_iter().map(|(key, value)| (key, text(value))).collect())
}

/// URLs may hold a password: shown without it.
pub(crate) fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => {
            let user = rest[..at].split(':').next().unwrap_or_default();
            format!("{scheme}://{user}{}{}", if rest[..at].contains(':') { ":***" } else { "" }, &rest[at..])
        }
        None => url.to_owned(),
    }
}

macro_rules! debug_without_secrets {
    ($type:ident { $($shown:ident),* } hides { $($hidden:ident),* }) => {
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($type))
                    $(.field(stringify!($shown), &self.$shown))*
                    $(.field(stringify!($hidden), &self.$hidden.as_ref().map(|_| "***")))*
                    .finish()
            }
        }
    };
}

debug_without_secrets!(RegistryConfig { url, username, password_file, ca_file } hides { password });
debug_without_secrets!(Postgres { url_file } hides { url });
debug_without_secrets!(Timescale { url_file, retention_days } hides { url });
debug_without_secrets!(StorePostgres { url_file } hides { url });
debug_without_secrets!(Search { url, username, password_file, ca_file } hides { password });
debug_without_secrets!(Redis { url_file } hides { url });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_addresses_are_hidden() {
        assert_eq!(without_password("postgres://u:p@h:1/d?x=a@b"), "postgres://u:***@h:1/d?x=a@b");
        assert_eq!(without_password("redis://h:1"), "redis://h:1");
        assert_eq!(without_password("redis://:p@h"), "redis://:***@h");
        let postgres = Postgres { url: Some("postgres://u:geheim@h".into()), ..Postgres::default() };
        assert!(!format!("{postgres:?}").contains("geheim"));
    }

    #[test]
    fn the_default_lacks_nothing_but_the_brokers() {
        let wrong = Config::default().check();
        assert!(wrong.len() == 1 && wrong[0].starts_with("kafka.brokers"), "{wrong:?}");
    }

    #[test]
    fn every_contradiction_is_told() {
        let mut config = Config::default();
        config.kafka.brokers = "localhost:9092".into();
        config.runtime.transaction_timeout_ms = config.runtime.session_timeout_ms;
        config.breaker.share = 2.0;
        let facility_tenants = BTreeMap::from([("f".into(), "a/b".into())]);
        let source = Source { tenant: String::new(), zone: "Mars".into(), facility_tenants };
        config.sources.insert("a b".into(), source);
        config.kafka.properties.insert("enable.auto.commit".into(), "true".into());
        let wrong = config.check();
        for key in [
            "transaction_timeout_ms",
            "breaker.share",
            "zone",
            "tenant ``",
            "tenant `a/b`",
            "a source's name",
            "enable.auto.commit",
        ] {
            assert!(wrong.iter().any(|line| line.contains(key)), "{key} is not in {wrong:?}");
        }
        assert_eq!(wrong.len(), 7);
    }

    #[test]
    fn start_from_is_a_word_or_an_instant() {
        assert_eq!("earliest".parse(), Ok(StartFrom::Earliest));
        assert_eq!("1970-01-01T00:00:01Z".parse(), Ok(StartFrom::Timestamp(1000)));
        assert!("yesterday".parse::<StartFrom>().is_err());
    }
}
