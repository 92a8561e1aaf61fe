use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fhirehose_codec::{AvroSchema, SchemaError, SchemaSource};
use fhirehose_topics::ExistingSubject;
use serde_json::{Value, json};
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};

use crate::config::RegistryConfig;

/// An id nobody knows is asked for again after this time.
const UNKNOWN_FOR: Duration = Duration::from_secs(30);

/// Why the schema registry cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// It is down or refuses; may pass.
    #[error("the schema registry at {url} {what}; check registry.url and that it runs")]
    Unavailable { url: String, what: String },
    /// It answered what it should not.
    #[error("the schema registry refused {subject}: {what}")]
    Refused { subject: String, what: String },
    /// A schema of ours is not there, or another one is.
    #[error("{subject} is {what} in the schema registry: run `fhirehose topics apply`")]
    NotApplied { subject: String, what: &'static str },
    /// A certificate file.
    #[error("registry.ca_file cannot be used: {0}")]
    Certificate(String),
}

/// Client of a registry with Confluent's API. Schemas are cached for good: an id never changes its meaning.
pub struct SchemaRegistry {
    url: String,
    authorization: Option<String>,
    agent: ureq::Agent,
    schemas: Mutex<HashMap<u32, Arc<AvroSchema>>>,
    unknown: Mutex<HashMap<u32, Instant>>,
}

enum Answer {
    Found(Value),
    Missing,
}

impl SchemaRegistry {
    pub fn new(config: &RegistryConfig) -> Result<Self, RegistryError> {
        let mut tls = TlsConfig::builder().provider(TlsProvider::NativeTls);
        if let Some(path) = &config.ca_file {
            let wrong = |error: String| RegistryError::Certificate(format!("{}: {error}", path.display()));
            let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
            let certificate = Certificate::from_pem(&pem).map_err(|error| wrong(error.to_string()))?;
            tls = tls.root_certs(RootCerts::new_with_certs(&[certificate]));
        } else {
            tls = tls.root_certs(RootCerts::PlatformVerifier);
        }
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(10)))
            .timeout_connect(Some(Duration::from_secs(3)))
            .tls_config(tls.build())
            .build()
            .new_agent();
        let authorization = config.username.as_ref().map(|user| {
            let pair = format!("{user}:{}", config.password.as_deref().unwrap_or_default());
            format!("Basic {}", base64(pair.as_bytes()))
        });
        Ok(SchemaRegistry {
            url: config.url.trim_end_matches('/').to_owned(),
            authorization,
            agent,
            schemas: Mutex::default(),
            unknown: Mutex::default(),
        })
    }

    /// The id under which exactly this schema is registered.
    pub fn id_of(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        let not_applied = |what| RegistryError::NotApplied { subject: subject.to_owned(), what };
        let latest = match self.get(&format!("/subjects/{subject}/versions/latest"))? {
            Answer::Found(latest) => latest,
            Answer::Missing => return Err(not_applied("missing")),
        };
        let id = |answer: &Value| answer["id"].as_u64().and_then(|id| u32::try_from(id).ok());
        let same = |text: &Value| {
            let theirs = text.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
            theirs.is_some() && theirs == serde_json::from_str(schema).ok()
        };
        if same(&latest["schema"]) {
            return id(&latest).ok_or_else(|| not_applied("without an id"));
        }
        // A newer version may be registered already, by a newer program.
        match self.send("POST", &format!("/subjects/{subject}"), &json!({ "schema": schema }))? {
            Answer::Found(found) if same(&found["schema"]) => {
                id(&found).ok_or_else(|| not_applied("without an id"))
            }
            _ => Err(not_applied("different")),
        }
    }

    /// Every subject of `subjects` that exists.
    pub fn existing<'s>(
        &self,
        subjects: impl Iterator<Item = &'s str>,
    ) -> Result<Vec<(String, ExistingSubject)>, RegistryError> {
        let mut existing = Vec::new();
        for subject in subjects {
            let latest = match self.get(&format!("/subjects/{subject}/versions/latest"))? {
                Answer::Found(latest) => latest["schema"].as_str().map(str::to_owned),
                Answer::Missing => None,
            };
            let compatibility = match self.get(&format!("/config/{subject}"))? {
                Answer::Found(found) => found["compatibilityLevel"].as_str().map(str::to_owned),
                Answer::Missing => None,
            };
            if latest.is_some() || compatibility.is_some() {
                existing.push((subject.to_owned(), ExistingSubject { latest, compatibility }));
            }
        }
        Ok(existing)
    }

    pub fn set_compatibility(&self, subject: &str, level: &str) -> Result<(), RegistryError> {
        self.send("PUT", &format!("/config/{subject}"), &json!({ "compatibility": level })).map(|_| ())
    }

    pub fn register(&self, subject: &str, schema: &str) -> Result<(), RegistryError> {
        self.send("POST", &format!("/subjects/{subject}/versions"), &json!({ "schema": schema })).map(|_| ())
    }

    fn get(&self, path: &str) -> Result<Answer, RegistryError> {
        let mut request = self.agent.get(format!("{}{path}", self.url));
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        self.answer(path, request.call())
    }

    fn send(&self, method: &str, path: &str, body: &Value) -> Result<Answer, RegistryError> {
        let url = format!("{}{path}", self.url);
        let mut request = if method == "PUT" { self.agent.put(url) } else { self.agent.post(url) };
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let request = request.content_type("application/vnd.schemaregistry.v1+json");
        self.answer(path, request.send(body.to_string()))
    }

    fn answer(
        &self,
        path: &str,
        result: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Answer, RegistryError> {
        let unavailable = |what: String| RegistryError::Unavailable { url: self.url.clone(), what };
        let mut response = result.map_err(|error| {
            unavailable(format!("does not answer ({})", error.to_string().to_lowercase()))
        })?;
        let status = response.status().as_u16();
        let body: Result<Value, _> = response.body_mut().read_json();
        match (status, body) {
            (200..=299, Ok(body)) => Ok(Answer::Found(body)),
            (200..=299, Err(_)) => Err(unavailable("answers what is not JSON".into())),
            // 404 without one of the registry's own codes is a wrong address, not a missing schema.
            (404, Ok(body)) if (40_401..=40_408).contains(&body["error_code"].as_i64().unwrap_or(0)) => {
                Ok(Answer::Missing)
            }
            (409 | 422, body) => Err(RegistryError::Refused {
                subject: path.to_owned(),
                what: body
                    .ok()
                    .and_then(|body| body["message"].as_str().map(str::to_owned))
                    .unwrap_or_default(),
            }),
            (status, _) => Err(unavailable(format!("answers {path} with status {status}"))),
        }
    }
}

impl SchemaSource for SchemaRegistry {
    fn schema(&self, id: u32) -> Result<Arc<AvroSchema>, SchemaError> {
        if let Some(schema) = lock(&self.schemas).get(&id) {
            return Ok(schema.clone());
        }
        if lock(&self.unknown).get(&id).is_some_and(|since| since.elapsed() < UNKNOWN_FOR) {
            return Err(SchemaError::Unknown);
        }
        let answer = self
            .get(&format!("/schemas/ids/{id}"))
            .map_err(|error| SchemaError::Unavailable(error.to_string()))?;
        let schema = match &answer {
            Answer::Found(body) => body["schema"].as_str().and_then(|text| AvroSchema::parse(text).ok()),
            Answer::Missing => None,
        };
        let Some(schema) = schema else {
            lock(&self.unknown).insert(id, Instant::now());
            return Err(SchemaError::Unknown);
        };
        let schema = Arc::new(schema);
        lock(&self.schemas).insert(id, schema.clone());
        Ok(schema)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits =
            chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for index in 0..4 {
            let six = (bits >> (18 - 6 * index)) & 63;
            text.push(if index <= chunk.len() { char::from(ALPHABET[six as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_the_rfc_has_it() {
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }

    #[test]
    fn a_registry_that_is_down_is_unavailable_not_unknown() {
        let registry =
            SchemaRegistry::new(&RegistryConfig { url: "http://127.0.0.1:9".into(), ..Default::default() });
        let error = registry.unwrap().schema(1).err();
        assert!(matches!(error, Some(SchemaError::Unavailable(_))), "{error:?}");
    }
}
