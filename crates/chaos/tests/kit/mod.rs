//! Servers of a test's own behind the proxies, and the stack where a toxic speaks a real protocol.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use fhirehose_chaos::proxy::{Leg, Proxies, Toxic};
use fhirehose_chaos::world::World;

/// Sends back what it gets, and remembers it.
#[derive(Clone)]
pub struct Echo {
    pub port: u16,
    pub got: Arc<Mutex<Vec<u8>>>,
}

impl Echo {
    pub fn start() -> Echo {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let echo = Echo { port: listener.local_addr().unwrap().port(), got: Arc::default() };
        let got = echo.got.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let got = got.clone();
                thread::spawn(move || echo_back(stream, &got));
            }
        });
        echo
    }

    pub fn got(&self) -> Vec<u8> {
        self.got.lock().unwrap().clone()
    }
}

fn echo_back(mut stream: TcpStream, got: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 65_536];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        got.lock().unwrap().extend(&buffer[..count]);
        if stream.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

/// Answers every HTTP request with its body, remembers bodies, and says `{"items":[…]}` to bulk requests.
pub struct Web {
    pub port: u16,
    pub got: Arc<Mutex<Vec<String>>>,
}

impl Web {
    pub fn start() -> Web {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let web = Web { port: listener.local_addr().unwrap().port(), got: Arc::default() };
        let got = web.got.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let got = got.clone();
                thread::spawn(move || while answer(&stream, &got).is_some() {});
            }
        });
        web
    }

    pub fn got(&self) -> Vec<String> {
        self.got.lock().unwrap().clone()
    }
}

fn answer(mut stream: &TcpStream, got: &Mutex<Vec<String>>) -> Option<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.extend(byte);
    }
    let head = String::from_utf8(head).ok()?.to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
    let mut body = vec![0; length.trim().parse().ok()?];
    stream.read_exact(&mut body).ok()?;
    let body = String::from_utf8(body).ok()?;
    let answer = match head.contains("_bulk") {
        true => {
            let ids = body.lines().filter_map(|line| line.split_once("\"_id\":\""));
            let items =
                ids.map(|(_, rest)| format!("{{\"index\":{{\"_id\":\"{}\",\"status\":201}}}}", &rest[..1]));
            format!("{{\"errors\":false,\"items\":[{}]}}", items.collect::<Vec<_>>().join(","))
        }
        false => body.clone(),
    };
    got.lock().unwrap().push(body);
    // In chunks, as some servers answer.
    let said = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{answer}\r\n0\r\n\r\n",
        answer.len()
    );
    let plain = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    stream.write_all(if answer.is_empty() { plain.as_bytes() } else { said.as_bytes() }).ok()
}

/// Proxies before servers of the test's own: the one of Kafka's protocol, bytes for the others, HTTP for two.
pub struct Lab {
    pub proxies: Proxies,
    pub echo: Echo,
    pub web: Web,
    /// The proxy of the broker.
    pub broker: u16,
}

impl Lab {
    pub fn new() -> Lab {
        let (echo, web) = (Echo::start(), Web::start());
        let broker = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let world = World {
            brokers: format!("127.0.0.1:{}", echo.port),
            registry: format!("http://127.0.0.1:{}/apis/ccompat/v7", web.port),
            postgres: format!("postgres://u@127.0.0.1:{}/d", echo.port),
            search: format!("http://127.0.0.1:{}", web.port),
            redis: format!("redis://127.0.0.1:{}", echo.port),
            proxied: vec![(broker, echo.port)],
            root: PathBuf::from("."),
        };
        Lab { proxies: Proxies::start(&world).unwrap(), echo, web, broker }
    }

    pub fn set(&self, leg: Leg, toxic: Toxic) {
        self.proxies.leg(leg).unwrap().set(toxic);
    }

    /// The proxy's address of that variable.
    pub fn address(&self, name: &str) -> String {
        let env = self.proxies.product_env();
        env.into_iter().find(|(found, _)| found == name).unwrap().1
    }

    pub fn redis(&self) -> TcpStream {
        connect(self.address("FHIREHOSE__REDIS__URL").strip_prefix("redis://").unwrap())
    }

    pub fn to_broker(&self) -> TcpStream {
        connect(&format!("127.0.0.1:{}", self.broker))
    }
}

pub fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream
}

/// Sends and reads as much back.
pub fn echoed(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    stream.write_all(bytes)?;
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back)?;
    Ok(back)
}

/// The servers of the stack, or `None` when tests that need them may be left out. Fails where neither is said.
pub fn world() -> Option<World> {
    if std::env::var_os("FHIREHOSE__KAFKA__BROKERS").is_some() {
        return Some(World::from_env(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")).unwrap());
    }
    assert_eq!(
        std::env::var("FHIREHOSE_TEST_SKIP_STACK").as_deref(),
        Ok("1"),
        "these tests need the servers of .stack/env (`cargo xtask stack up`); FHIREHOSE_TEST_SKIP_STACK=1 leaves them out"
    );
    eprintln!("LEFT OUT: no stack, and FHIREHOSE_TEST_SKIP_STACK=1");
    None
}
