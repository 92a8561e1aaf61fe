use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use figment::error::Kind;
use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use crate::config::{Config, without_password};

const PREFIX: &str = "FHIREHOSE__";
/// Values under these names are text even where they look like a number.
const TEXT: &[&str] =
    &["brokers", "group_prefix", "url", "username", "password", "instance", "tenant", "start_from", "level"];
const SECRET: &[&str] = &["password", "sasl.password", "sasl.oauthbearer.client.secret", "ssl.key.password"];

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that was named does not exist or cannot be read.
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: std::io::Error },
    /// Not TOML, a key nobody knows, a value of the wrong type.
    #[error("{0}")]
    Shape(String),
    /// Values that contradict each other.
    #[error("{}", .0.join("\n"))]
    Values(Vec<String>),
}

/// A configuration and where its values come from.
pub struct Loaded {
    pub config: Config,
    figment: Figment,
}

/// One value of the configuration.
#[derive(Debug, PartialEq, Eq)]
pub struct Setting {
    /// Such as `kafka.brokers`.
    pub key: String,
    /// As text; secrets masked.
    pub value: String,
    /// The file, `environment`, `command line` or `default`.
    pub origin: String,
}

impl Loaded {
    /// Reads, each over the one before: defaults, the TOML file, `FHIREHOSE__SECTION__KEY` of `env`, and `flags`
    /// (key such as `kafka.brokers`, value). Then reads the files that hold secrets.
    pub fn read(
        file: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
        flags: &[(String, String)],
    ) -> Result<Loaded, ConfigError> {
        let mut figment = Figment::from(Serialized::defaults(Config::default()));
        if let Some(path) = file {
            fs::metadata(path).map_err(|error| ConfigError::File { path: path.to_owned(), error })?;
            figment = figment.merge(Toml::file_exact(path));
        }
        let env = env.filter_map(|(name, value)| {
            Some((name.strip_prefix(PREFIX)?.to_ascii_lowercase().replace("__", "."), value))
        });
        figment = figment.merge(Pairs { origin: "environment", pairs: env.collect() });
        figment = figment.merge(Pairs { origin: "command line", pairs: flags.to_vec() });
        let mut config: Config = figment.extract().map_err(|error| ConfigError::Shape(told(error)))?;
        read_secrets(&mut config)?;
        Ok(Loaded { config, figment })
    }

    /// Refuses contradictions.
    pub fn checked(self) -> Result<Loaded, ConfigError> {
        match self.config.check() {
            wrong if wrong.is_empty() => Ok(self),
            wrong => Err(ConfigError::Values(wrong)),
        }
    }

    /// Every value in effect, by key.
    pub fn settings(&self) -> Vec<Setting> {
        let mut settings = Vec::new();
        for (key, value) in
            self.figment.data().into_iter().flat_map(|profiles| profiles.into_values()).flatten()
        {
            self.collect(key, &value, &mut settings);
        }
        settings
    }

    fn collect(&self, key: String, value: &Value, settings: &mut Vec<Setting>) {
        if let Value::Dict(_, dict) = value {
            for (name, value) in dict {
                self.collect(format!("{key}.{name}"), value, settings);
            }
            return;
        }
        let origin =
            self.figment.get_metadata(value.tag()).map_or_else(String::new, |metadata| {
                match metadata.source.as_ref().and_then(|source| source.file_path()) {
                    Some(path) => path.display().to_string(),
                    None => metadata.name.to_string(),
                }
            });
        let text = match value {
            Value::String(_, text) => text.clone(),
            Value::Bool(_, flag) => flag.to_string(),
            Value::Num(_, number) => number
                .to_i128()
                .map(|n| n.to_string())
                .or_else(|| number.to_u128().map(|n| n.to_string()))
                .or_else(|| number.to_f64().map(|n| n.to_string()))
                .unwrap_or_default(),
            Value::Char(_, c) => c.to_string(),
            Value::Empty(..) => String::new(),
            Value::Dict(..) | Value::Array(..) => format!("{value:?}"),
        };
        let origin = if origin.contains("Config") { "default".to_owned() } else { origin };
        settings.push(Setting { value: masked(&key, &text), key, origin });
    }
}

fn masked(key: &str, value: &str) -> String {
    let secret = SECRET.iter().any(|name| key == *name || key.ends_with(&format!(".{name}")));
    match value {
        "" => String::new(),
        _ if secret => "***".to_owned(),
        _ => without_password(value),
    }
}

/// Figment's errors name the key and the place; several come as one.
fn told(error: figment::Error) -> String {
    let lines = error.into_iter().map(|error| {
        let key = error.path.join(".");
        let origin = error.metadata.as_ref().map(|metadata| match &metadata.source {
            Some(source) => source.to_string(),
            None => metadata.name.to_string(),
        });
        let at = origin.map(|origin| format!(" ({origin})")).unwrap_or_default();
        let key = if key.is_empty() { String::new() } else { format!("{key}: ") };
        let what = match &error.kind {
            Kind::UnknownField(_, known) => {
                format!("there is no such key{at}; there are {}", known.join(", "))
            }
            kind => format!("{kind}{at}"),
        };
        format!("{key}{what}")
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn read_secrets(config: &mut Config) -> Result<(), ConfigError> {
    let read = |path: &Path| {
        fs::read_to_string(path)
            .map(|text| text.trim_end_matches(['\n', '\r']).to_owned())
            .map_err(|error| ConfigError::File { path: path.to_owned(), error })
    };
    let pairs = [
        (&config.registry.password_file, &mut config.registry.password),
        (&config.postgres.url_file, &mut config.postgres.url),
        (&config.timescale.url_file, &mut config.timescale.url),
        (&config.warehouse.url_file, &mut config.warehouse.url),
        (&config.search.password_file, &mut config.search.password),
        (&config.redis.url_file, &mut config.redis.url),
    ];
    for (path, secret) in pairs {
        if let Some(path) = path {
            *secret = Some(read(path)?);
        }
    }
    if let Some(path) = &config.kafka.properties_file {
        for line in read(path)?.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((key, value)) = line.split_once('=') else {
                return Err(ConfigError::Shape(format!("{}: a line is not key=value", path.display())));
            };
            config.kafka.properties.insert(key.trim().to_owned(), value.trim().to_owned());
        }
    }
    Ok(())
}

/// Dotted keys with text values, typed as the key needs.
struct Pairs {
    origin: &'static str,
    pairs: Vec<(String, String)>,
}

impl Provider for Pairs {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let mut root = Dict::new();
        for (key, text) in &self.pairs {
            let parts: Vec<_> = key.split('.').collect();
            let last = parts.last().copied().unwrap_or_default();
            let value = match text.parse::<Value>() {
                Ok(parsed) if !TEXT.contains(&last) && !last.ends_with("_file") => parsed,
                _ => Value::from(text.as_str()),
            };
            insert(&mut root, &parts, value);
        }
        Ok(BTreeMap::from([(Profile::Default, root)]))
    }
}

fn insert(dict: &mut Dict, parts: &[&str], value: Value) {
    match parts {
        [] => {}
        [last] => drop(dict.insert((*last).to_owned(), value)),
        // What follows `properties` is one key, dots and all.
        ["properties", rest @ ..] => {
            let entry = dict.entry("properties".into()).or_insert_with(|| Value::from(Dict::new()));
            if let Value::Dict(_, inner) = entry {
                inner.insert(rest.join("."), value);
            }
        }
        [first, rest @ ..] => {
            let entry = dict.entry((*first).to_owned()).or_insert_with(|| Value::from(Dict::new()));
            if let Value::Dict(_, inner) = entry {
                insert(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(toml: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fhirehose.toml");
        fs::write(&path, toml).unwrap();
        let owned = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        Loaded::read(Some(&path), owned(env).into_iter(), &owned(flags))
    }

    #[test]
    fn later_origins_win_and_are_told() {
        let toml = "[kafka]\nbrokers = 'file:1'\n[runtime]\nworkers = 2\n";
        let loaded = read(
            toml,
            &[("FHIREHOSE__KAFKA__BROKERS", "env:1"), ("FHIREHOSE__RUNTIME__LINGER_MS", "9"), ("OTHER", "x")],
            &[("runtime.start_from", "earliest")],
        )
        .unwrap();
        assert_eq!(loaded.config.kafka.brokers, "env:1");
        assert_eq!((loaded.config.runtime.workers, loaded.config.runtime.linger_ms), (2, 9));
        let origin = |key: &str| {
            let found = loaded.settings().into_iter().find(|setting| setting.key == key);
            found.map(|setting| setting.origin).unwrap()
        };
        assert_eq!(origin("kafka.brokers"), "environment");
        assert!(origin("runtime.workers").ends_with("fhirehose.toml"));
        assert_eq!(origin("runtime.start_from"), "command line");
        assert_eq!(origin("runtime.compression"), "default");
    }

    #[test]
    fn unknown_keys_are_refused_with_what_there_is() {
        for (toml, env) in [("[kafka]\nbroker = 'x'\n", None), ("", Some(("FHIREHOSE__KAFKA__BROKER", "x")))]
        {
            let error = read(toml, env.as_slice(), &[]).err().unwrap().to_string();
            assert!(error.contains("kafka.broker: there is no such key"), "{error}");
            assert!(error.contains("there are brokers, "), "{error}");
        }
    }

    #[test]
    fn secrets_come_from_files_and_are_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let (password, properties) = (dir.path().join("password"), dir.path().join("kafka.properties"));
        fs::write(&password, "007\n").unwrap();
        fs::write(&properties, "# more\nsasl.password = p=q\n").unwrap();
        let toml = format!(
            "[search]\npassword_file = '{}'\n[kafka]\nproperties_file = '{}'\n[kafka.properties]\n\"ssl.key.password\" = 'geheim'\n[postgres]\nurl = 'postgres://u:geheim@h/d'\n",
            password.display(),
            properties.display()
        );
        let loaded = read(&toml, &[("FHIREHOSE__REGISTRY__PASSWORD", "0042")], &[]).unwrap();
        assert_eq!(loaded.config.search.password.as_deref(), Some("007"));
        assert_eq!(loaded.config.registry.password.as_deref(), Some("0042"));
        assert_eq!(loaded.config.kafka.properties["sasl.password"], "p=q");
        let shown = format!("{:?}", loaded.settings());
        assert!(shown.contains("ssl.key.password") && !shown.contains("geheim") && !shown.contains("0042"));
    }

    #[test]
    fn the_example_file_shows_every_setting_with_its_default() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fhirehose.example.toml");
        let example = fs::read_to_string(path).unwrap();
        assert_eq!(read(&example, &[], &[]).unwrap().config.check(), Vec::<String>::new());
        // Its example values, without those that name files.
        let shown = example.lines().filter_map(|line| line.strip_prefix("#: "));
        let whole: Vec<_> = example.lines().map(|line| line.strip_prefix("#: ").unwrap_or(line)).collect();
        let whole: Vec<_> = whole.into_iter().filter(|line| !line.contains("_file = \"")).collect();
        let loaded = read(&whole.join("\n"), &[], &[]).unwrap();
        assert_eq!(loaded.config.check(), Vec::<String>::new());
        let defaults = serde_json::to_value(Config::default()).unwrap();
        let loaded = serde_json::to_value(loaded.config).unwrap();
        for (section, settings) in defaults.as_object().unwrap() {
            // A password is shown as the file it is in.
            for (key, default) in settings.as_object().unwrap().iter().filter(|(key, _)| *key != "password") {
                let line = |line: &str| {
                    line.starts_with(&format!("{key} =")) || line.contains(&format!("[{section}.{key}]"))
                };
                assert!(
                    whole.iter().any(|l| line(l)) || shown.clone().any(line),
                    "{section}.{key} is not in the example file"
                );
                let free = default.is_null() || ["brokers", "url", "properties"].contains(&key.as_str());
                assert!(
                    free || loaded[section][key] == *default,
                    "{section}.{key}: the example shows another default"
                );
            }
        }
    }

    #[test]
    fn kafka_properties_keep_their_dots() {
        let loaded = read(
            "[kafka.properties]\n\"ssl.ca.location\" = 'ca.pem'\n",
            &[("FHIREHOSE__KAFKA__PROPERTIES__SOCKET.TIMEOUT.MS", "5000")],
            &[],
        )
        .unwrap();
        let properties = &loaded.config.kafka.properties;
        assert_eq!((&*properties["ssl.ca.location"], &*properties["socket.timeout.ms"]), ("ca.pem", "5000"));
    }
}
