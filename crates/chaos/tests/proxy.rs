//! Every toxic against real sockets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

mod kit;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use fhirehose_chaos::proxy::{Leg, Toxic};
use kit::{Lab, echoed};

fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(5), "{what}");
        sleep(Duration::from_millis(5));
    }
}

/// Nothing comes for a while, and the connection is still there.
fn is_silent(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let read = stream.read(&mut [0; 8]);
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

fn is_reset(stream: &mut TcpStream) -> bool {
    stream.read(&mut [0; 8]).is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

#[test]
fn without_a_toxic_everything_passes_and_is_counted() {
    let lab = Lab::new();
    let mut stream = lab.redis();
    let big: Vec<u8> = (0..3_000_000_u32).map(|n| n as u8).collect();
    let mut writer = stream.try_clone().unwrap();
    let sent = big.clone();
    let thread = std::thread::spawn(move || writer.write_all(&sent).unwrap());
    let mut back = vec![0; big.len()];
    stream.read_exact(&mut back).unwrap();
    thread.join().unwrap();
    assert!(back == big);
    let counters = || lab.proxies.leg(Leg::Redis).unwrap().counters();
    eventually("both ways are counted", || counters().bytes_to_client == big.len() as u64);
    assert_eq!(
        (counters().bytes_to_server, counters().connections, counters().open),
        (big.len() as u64, 1, 1)
    );
    drop(stream);
    eventually("the connection ends", || counters().open == 0);
}

#[test]
fn the_end_of_what_a_client_sends_arrives_after_it() {
    let lab = Lab::new();
    lab.set(Leg::Redis, Toxic::Latency { ms: 100, jitter_ms: 0 });
    let mut stream = lab.redis();
    stream.write_all(b"last words").unwrap();
    drop(stream);
    eventually("they arrive", || lab.echo.got() == b"last words");
}

#[test]
fn a_cut_closes_and_refuses_until_it_is_healed() {
    let lab = Lab::new();
    let mut old = lab.redis();
    echoed(&mut old, b"a").unwrap();
    let address = old.peer_addr().unwrap();
    for _ in 0..3 {
        lab.set(Leg::Redis, Toxic::Cut);
        assert!(matches!(old.read(&mut [0; 8]), Ok(0) | Err(_)));
        eventually("connections are refused", || {
            TcpStream::connect(address).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        });
        lab.proxies.heal();
        eventually("connections are taken", || TcpStream::connect(address).is_ok());
        old = lab.redis();
        assert_eq!(echoed(&mut old, b"b").unwrap(), b"b");
    }
    assert_eq!(
        echoed(&mut lab.to_broker(), &request(0, b"")).unwrap(),
        request(0, b""),
        "other legs are not meant"
    );
}

#[test]
fn a_reset_strikes_once() {
    let lab = Lab::new();
    for _ in 0..2 {
        let mut stream = lab.redis();
        echoed(&mut stream, b"a").unwrap();
        lab.set(Leg::Redis, Toxic::Reset);
        assert!(is_reset(&mut stream));
        assert_eq!(echoed(&mut lab.redis(), b"b").unwrap(), b"b");
    }
}

#[test]
fn a_half_open_connection_is_silent_and_reset_at_the_end() {
    let lab = Lab::new();
    let (mut used, mut idle) = (lab.redis(), lab.redis());
    echoed(&mut used, b"a").unwrap();
    echoed(&mut idle, b"b").unwrap();
    lab.set(Leg::Redis, Toxic::HalfOpen);
    let mut new = lab.redis();
    for stream in [&mut used, &mut new] {
        stream.write_all(b"lost").unwrap();
        assert!(is_silent(stream));
    }
    lab.proxies.heal();
    assert!(is_reset(&mut used) && is_reset(&mut new));
    assert_eq!(echoed(&mut idle, b"c").unwrap(), b"c", "nothing of it was lost");
    assert!(!lab.echo.got().windows(4).any(|bytes| bytes == b"lost"));
}

#[test]
fn swallowed_answers_are_to_requests_that_arrived() {
    let lab = Lab::new();
    let mut stream = lab.redis();
    lab.set(Leg::Redis, Toxic::SwallowAnswers);
    stream.write_all(b"applied").unwrap();
    assert!(is_silent(&mut stream));
    assert_eq!(lab.echo.got(), b"applied");
    lab.proxies.heal();
    assert!(is_reset(&mut stream));
}

#[test]
fn latency_delays_each_way_and_keeps_the_order() {
    let lab = Lab::new();
    let mut stream = lab.redis();
    lab.set(Leg::Redis, Toxic::Latency { ms: 100, jitter_ms: 50 });
    let begun = Instant::now();
    for byte in b"0123456789" {
        stream.write_all(&[*byte]).unwrap();
        sleep(Duration::from_millis(2));
    }
    let mut back = [0; 10];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"0123456789");
    let took = begun.elapsed();
    assert!(
        took > Duration::from_millis(100) && took < Duration::from_millis(900),
        "one after another: {took:?}"
    );
    lab.set(Leg::Redis, Toxic::Latency { ms: 60_000, jitter_ms: 0 });
    for byte in b"xyz" {
        stream.write_all(&[*byte]).unwrap();
        sleep(Duration::from_millis(50));
    }
    lab.proxies.heal();
    stream.write_all(b".").unwrap();
    stream.read_exact(&mut back[..4]).unwrap();
    assert_eq!(&back[..4], b"xyz.", "healing sets free what waited");
}

#[test]
fn a_slow_leg_is_as_slow_as_asked() {
    let lab = Lab::new();
    let mut stream = lab.redis();
    lab.set(Leg::Redis, Toxic::Slow { bytes_per_second: 20_000 });
    let begun = Instant::now();
    echoed(&mut stream, &[7; 10_000]).unwrap();
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(400) && took < Duration::from_secs(2), "{took:?}");
}

/// A request of Kafka's protocol as far as the proxy reads it.
fn request(api: u16, body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32 + 2).to_be_bytes()[..], &api.to_be_bytes(), body].concat()
}

#[test]
fn a_held_end_of_a_transaction_is_overtaken_and_delivered_although_its_client_left() {
    let lab = Lab::new();
    lab.set(Leg::Broker(0), Toxic::HoldEndTxn { ms: 600, hang_up: false });
    let (mut first, mut second) = (lab.to_broker(), lab.to_broker());
    let before = request(0, b"produce");
    assert_eq!(echoed(&mut first, &before).unwrap(), before);
    let begun = Instant::now();
    first.write_all(&request(26, b"late")).unwrap();
    first.write_all(&request(3, b"behind")).unwrap();
    eventually("it is held", || lab.proxies.leg(Leg::Broker(0)).unwrap().counters().struck == 1);
    drop(first);
    let retried = request(26, b"again");
    assert_eq!(echoed(&mut second, &retried).unwrap(), retried, "the client's other try passes");
    assert!(begun.elapsed() < Duration::from_millis(500));
    let late = [before, retried, request(26, b"late"), request(3, b"behind")].concat();
    eventually("what was held arrives", || lab.echo.got() == late);
    assert!(begun.elapsed() >= Duration::from_millis(600));
}

#[test]
fn a_client_that_is_hung_up_on_can_send_again_before_what_it_sent_arrives() {
    let lab = Lab::new();
    lab.set(Leg::Broker(0), Toxic::HoldEndTxn { ms: 600, hang_up: true });
    let mut first = lab.to_broker();
    let end = request(26, b"end");
    first.write_all(&end).unwrap();
    let begun = Instant::now();
    assert_eq!(first.read(&mut [0; 8]).unwrap(), 0, "its connection ends without an answer");
    assert!(begun.elapsed() < Duration::from_millis(500));
    drop(first);
    assert_eq!(echoed(&mut lab.to_broker(), &end).unwrap(), end);
    assert!(begun.elapsed() < Duration::from_millis(500));
    eventually("what was held arrives too", || lab.echo.got() == [end.clone(), end.clone()].concat());
}

#[test]
fn a_share_of_requests_is_refused_and_never_arrives() {
    let lab = Lab::new();
    let url = lab.address("FHIREHOSE__SEARCH__URL");
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let post = |path: &str, body: &str| {
        let mut answer = agent.post(format!("{url}{path}")).send(body).unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    };
    assert_eq!(post("/x", "plain"), (200, "plain".to_owned()));
    lab.set(Leg::Search, Toxic::TooManyRequests { share: 0.5 });
    let statuses: Vec<u16> = (0..4).map(|n| post("/x", &n.to_string()).0).collect();
    assert_eq!(statuses, [200, 429, 200, 429]);
    lab.set(Leg::Search, Toxic::Unavailable);
    assert_eq!(post("/x", "down").0, 503);
    assert_eq!(lab.web.got(), ["plain", "0", "2"]);

    lab.set(Leg::Search, Toxic::PartialBulk { share: 0.5 });
    let bulk = |ids: &str| {
        ids.chars()
            .map(|id| format!("{{\"index\":{{\"_id\":\"{id}\"}}}}\n{{\"doc\":1}}\n"))
            .collect::<String>()
    };
    let (status, answer) = post("/_bulk?filter_path=items.*.status", &bulk("abcd"));
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let each: Vec<i64> = answer["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["index"]["status"].as_i64().unwrap())
        .collect();
    assert_eq!((status, each, &answer["errors"]), (200, vec![201, 429, 201, 429], &true.into()));
    assert_eq!(lab.web.got().last().unwrap(), &bulk("ac"), "the others are applied");

    lab.proxies.heal();
    assert_eq!(post("/x", "well").0, 200);
}

#[test]
fn schemas_are_not_found_and_subjects_are() {
    let lab = Lab::new();
    let url = lab.address("FHIREHOSE__REGISTRY__URL");
    assert!(url.ends_with("/apis/ccompat/v7"));
    lab.set(Leg::Registry, Toxic::NotFound);
    let missing = ureq::get(format!("{url}/schemas/ids/7")).call();
    assert!(matches!(missing, Err(ureq::Error::StatusCode(404))));
    assert!(ureq::get(format!("{url}/subjects")).call().is_ok());
}

#[test]
fn a_server_that_is_down_is_seen_through_the_proxy() {
    let lab = Lab::new();
    let mut world = fhirehose_chaos::world::World {
        brokers: String::new(),
        registry: "http://127.0.0.1:1".into(),
        postgres: "postgres://u@127.0.0.1:1/d".into(),
        search: "http://127.0.0.1:1".into(),
        redis: "redis://127.0.0.1:1".into(),
        proxied: Vec::new(),
        root: ".".into(),
    };
    let proxies = fhirehose_chaos::proxy::Proxies::start(&world).unwrap();
    let env = proxies.product_env();
    let redis = env[4].1.strip_prefix("redis://").unwrap();
    assert!(matches!(kit::connect(redis).read(&mut [0; 8]), Ok(0) | Err(_)));
    assert!(ureq::get(&env[3].1).call().is_err());
    // A port that another proxy has is told at once.
    world.proxied = vec![(lab.broker, 1)];
    assert!(fhirehose_chaos::proxy::Proxies::start(&world).is_err());
}
