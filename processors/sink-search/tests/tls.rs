//! A server with a certificate of its own authority, and with credentials.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;

use fhirehose_stream::FaultKind;
use fhirehose_topics::Registry;
use openssl::asn1::Asn1Time;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::ssl::{SslAcceptor, SslMethod};
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509NameBuilder};
use sink_search::{Client, Connection, Shapes, check};

fn certificate() -> (X509, PKey<Private>) {
    let key = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    let mut name = X509NameBuilder::new().unwrap();
    name.append_entry_by_text("CN", "search test").unwrap();
    let name = name.build();
    let mut x509 = X509::builder().unwrap();
    x509.set_version(2).unwrap();
    x509.set_subject_name(&name).unwrap();
    x509.set_issuer_name(&name).unwrap();
    x509.set_pubkey(&key).unwrap();
    x509.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    x509.set_not_after(&Asn1Time::days_from_now(1).unwrap()).unwrap();
    x509.append_extension(BasicConstraints::new().ca().build().unwrap()).unwrap();
    let names =
        SubjectAlternativeName::new().ip("127.0.0.1").build(&x509.x509v3_context(None, None)).unwrap();
    x509.append_extension(names).unwrap();
    x509.sign(&key, MessageDigest::sha256()).unwrap();
    (x509.build(), key)
}

/// Answers every request with 401 and tells its `authorization` header.
fn server(certificate: &X509, key: &PKey<Private>) -> (String, mpsc::Receiver<Option<String>>) {
    let mut acceptor = SslAcceptor::mozilla_intermediate(SslMethod::tls_server()).unwrap();
    acceptor.set_certificate(certificate).unwrap();
    acceptor.set_private_key(key).unwrap();
    let acceptor = acceptor.build();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let (told, headers) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            // A client that does not trust us ends the handshake.
            let Ok(mut stream) = acceptor.accept(stream.unwrap()) else { continue };
            let lines: Vec<_> = BufReader::new(&mut stream)
                .lines()
                .map_while(Result::ok)
                .take_while(|l| !l.is_empty())
                .collect();
            let header =
                lines.iter().find_map(|line| line.strip_prefix("authorization: ").map(str::to_owned));
            told.send(header).unwrap();
            stream.write_all(b"HTTP/1.1 401 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
        }
    });
    (url, headers)
}

#[test]
fn the_ca_file_is_trusted_alone_and_credentials_are_sent() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let shapes = Arc::new(Shapes::load(root, &Registry::load(root).unwrap()).unwrap());
    let (ours, key) = certificate();
    let (url, headers) = server(&ours, &key);
    let fault = |ca: Option<&X509>| {
        let connection = Connection {
            url: url.clone(),
            username: Some("fhirehose".into()),
            password: Some("s3cret".into()),
            ca_pem: ca.map(|ca| ca.to_pem().unwrap()),
        };
        check(&Client::new(&connection).unwrap(), &shapes).unwrap_err()
    };

    let trusted = fault(Some(&ours));
    assert_eq!(trusted.kind, FaultKind::Fatal);
    assert!(trusted.what.contains("credentials") && !trusted.what.contains("s3cret"), "{trusted}");
    assert_eq!(headers.recv().unwrap().as_deref(), Some("Basic ZmhpcmVob3NlOnMzY3JldA=="));

    for ca in [None, Some(&certificate().0)] {
        let untrusted = fault(ca);
        assert_eq!(untrusted.kind, FaultKind::Transient, "{untrusted}");
    }
    assert!(headers.try_recv().is_err(), "credentials go to no server we do not trust");
}
