//! A server that has just started: it answers before it has read which indices it has.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::thread;

use fhirehose_stream::{Fault, FaultKind};
use fhirehose_topics::Registry;
use sink_search::{Client, Connection, Shapes, check};

/// Checks a server that knows no index and tells of these blocks, as OpenSearch words both.
fn against(blocks: &'static str) -> Fault {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(&mut stream).lines().map_while(Result::ok);
            let lines: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
            let (status, body) = match lines[0].contains("/_cluster/state/blocks") {
                true => ("200 OK", blocks),
                false => ("404 Not Found", r#"{"error":{"type":"index_not_found_exception"},"status":404}"#),
            };
            let head =
                format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        }
    });
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let shapes = Shapes::load(root, &Registry::load(root).unwrap()).unwrap();
    let client = Client::new(&Connection { url, ..Connection::default() }).unwrap();
    check(&client, &shapes).unwrap_err()
}

#[test]
fn an_index_is_missing_only_once_the_server_knows_its_own_state() {
    let starting = against(
        r#"{"cluster_name":"c","blocks":{"global":{"1":{"description":"state not recovered / initialized"}}}}"#,
    );
    assert_eq!(starting.kind, FaultKind::Transient, "{starting}");
    let started = against(r#"{"cluster_name":"c","blocks":{}}"#);
    assert_eq!(started.kind, FaultKind::Fatal);
    assert!(started.what.contains("migrate apply"), "{started}");
}
