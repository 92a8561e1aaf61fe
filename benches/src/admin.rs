//! What a running process tells of itself on its admin port.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value as Json;

/// What a process says of its one processor.
pub fn status(port: u16) -> Result<Json> {
    let answer = get(port, "/admin/status")?;
    let body = answer.split_once("\r\n\r\n").context("an answer without a body")?.1;
    let mut status: Json = serde_json::from_str(body)?;
    Ok(status["processors"][0].take())
}

/// Whether every worker of the process runs.
pub fn is_ready(port: u16) -> bool {
    get(port, "/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

fn get(port: u16, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
