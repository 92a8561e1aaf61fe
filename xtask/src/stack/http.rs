//! The few HTTP calls to servers of the stack: JSON in, JSON out, short timeouts, never through a proxy.
use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Whether a GET answers 2xx.
pub fn answers(url: &str) -> bool {
    minreq::get(url).with_timeout(5).send().is_ok_and(|response| (200..300).contains(&response.status_code))
}

pub fn get(url: &str) -> Result<Value> {
    send(minreq::get(url), url)
}

pub fn put(url: &str, body: &Value) -> Result<Value> {
    send(minreq::put(url).with_header("Content-Type", "application/json").with_body(body.to_string()), url)
}

fn send(request: minreq::Request, url: &str) -> Result<Value> {
    let response = request.with_timeout(30).send().with_context(|| format!("no answer from {url}"))?;
    let body = String::from_utf8_lossy(response.as_bytes()).into_owned();
    if !(200..300).contains(&response.status_code) {
        bail!("{url} answered {}: {body}", response.status_code);
    }
    serde_json::from_str(&body).with_context(|| format!("{url} did not answer with JSON"))
}
