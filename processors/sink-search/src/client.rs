use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fhirehose_stream::Fault;
use serde_json::Value as Json;
use ureq::Agent;
use ureq::http::{Method, Request};
use ureq::tls::{PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

/// How to reach the search servers.
#[derive(Clone, Default)]
pub struct Connection {
    /// `http://host:port` or `https://host:port`, with the path of a proxy if there is one.
    pub url: String,
    pub username: Option<String>,
    pub password: Option<String>,
    /// PEM certificates to trust, in place of the system's.
    pub ca_pem: Option<Vec<u8>>,
}

/// A client of OpenSearch or Elasticsearch 8.
#[derive(Clone)]
pub struct Client {
    agent: Agent,
    url: String,
    authorization: Option<String>,
}

/// An answer with a status below 500 other than 401, 403 and 429.
pub(crate) struct Answer {
    pub status: u16,
    pub body: Json,
}

impl Client {
    /// Checks the settings; connects when first needed.
    pub fn new(connection: &Connection) -> Result<Client, Fault> {
        let url = connection.url.trim_end_matches('/');
        if !(url.starts_with("http://") || url.starts_with("https://")) {
            return Err(Fault::fatal("the search URL is not of the form http://host:port"));
        }
        let roots = match &connection.ca_pem {
            None => RootCerts::PlatformVerifier,
            Some(pem) => {
                let certificates = parse_pem(pem).filter_map(|item| match item {
                    Ok(PemItem::Certificate(certificate)) => Some(certificate),
                    _ => None,
                });
                RootCerts::Specific(Arc::new(certificates.collect()))
            }
        };
        if matches!(&roots, RootCerts::Specific(certificates) if certificates.is_empty()) {
            return Err(Fault::fatal("the search CA file holds no PEM certificate"));
        }
        let tls = TlsConfig::builder().provider(TlsProvider::NativeTls).root_certs(roots).build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_global(Some(Duration::from_secs(60)))
            .build()
            .new_agent();
        let authorization = connection.username.as_ref().map(|user| {
            let password = connection.password.as_deref().unwrap_or_default();
            format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
        });
        Ok(Client { agent, url: url.to_owned(), authorization })
    }

    /// Sends a request. Servers that are down, slow or busy are a transient fault.
    pub(crate) fn send(&self, method: Method, path: &str, kind: &str, body: &[u8]) -> Result<Answer, Fault> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        if !body.is_empty() {
            request = request.header("content-type", kind);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let request = request.body(body).map_err(|_| Fault::fatal("the search URL is not a URL"))?;
        // What ureq says names hosts and causes, never what was sent.
        let mut response =
            self.agent.run(request).map_err(|error| Fault::transient(format!("search: {error}")))?;
        let status = response.status().as_u16();
        let body = response.body_mut().with_config().limit(64 << 20).read_to_vec();
        let body = body.map_err(|error| Fault::transient(format!("search: {error}")))?;
        let body = serde_json::from_slice(&body).unwrap_or(Json::Null);
        match status {
            401 => Err(Fault::fatal(
                "the search server refuses our credentials: check [search] username and password",
            )),
            403 if error_type(&body) != "cluster_block_exception" => {
                Err(Fault::fatal("the search user lacks rights on the clinical indices"))
            }
            403 | 429 | 500.. => {
                Err(Fault::transient(format!("search answered {status} {}", error_type(&body))))
            }
            _ => Ok(Answer { status, body }),
        }
    }

    pub(crate) fn json(&self, method: Method, path: &str, body: Option<&Json>) -> Result<Answer, Fault> {
        let body = body.map(Json::to_string).unwrap_or_default();
        self.send(method, path, "application/json", body.as_bytes())
    }
}

/// The kind of an error; its `reason` is never used, since it may quote documents.
pub(crate) fn error_type(body: &Json) -> &str {
    let error = body.get("error").unwrap_or(body);
    let cause = error.pointer("/caused_by/type").and_then(Json::as_str);
    cause.or(error.get("type").and_then(Json::as_str)).unwrap_or_default()
}
