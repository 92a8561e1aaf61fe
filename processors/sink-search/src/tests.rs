//! How answers no test server can be brought to give are met: busy, too large, refused.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;

use fhirehose_stream::{Fault, FaultKind, Reason, Verdict};

use crate::bulk::{self, Item};
use crate::{Client, Connection};

/// Answers requests in turn, and tells the lines of each one's body.
fn server(answers: Vec<(u16, String)>) -> (Client, mpsc::Receiver<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (told, requests) = mpsc::channel();
    thread::spawn(move || {
        for ((status, answer), stream) in answers.into_iter().zip(listener.incoming()) {
            let mut stream = BufReader::new(stream.unwrap());
            let mut length = 0;
            let mut line = String::new();
            while stream.read_line(&mut line).unwrap() > 2 {
                if let Some((_, value)) =
                    line.split_once(':').filter(|(n, _)| n.eq_ignore_ascii_case("content-length"))
                {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            told.send(String::from_utf8(body).unwrap().lines().map(str::to_owned).collect()).unwrap();
            let head = format!(
                "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                answer.len()
            );
            stream.get_mut().write_all((head + &answer).as_bytes()).unwrap();
        }
    });
    (Client::new(&Connection { url, ..Connection::default() }).unwrap(), requests)
}

fn items(names: &[&str]) -> Vec<Item> {
    let line = |name: &&str| format!("{name}\n").into_bytes();
    names.iter().enumerate().map(|(record, name)| Item { record, lines: line(name) }).collect()
}

fn answer(statuses: &[u16]) -> (u16, String) {
    let items: Vec<_> = statuses
        .iter()
        .map(|status| match status {
            200 | 201 => format!(r#"{{"index":{{"status":{status}}}}}"#),
            _ => format!(r#"{{"index":{{"status":{status},"error":{{"type":"kind_{status}"}}}}}}"#),
        })
        .collect();
    (200, format!(r#"{{"items":[{}]}}"#, items.join(",")))
}

fn write(client: &Client, items: Vec<Item>) -> (Result<(), Fault>, Vec<Option<Verdict>>) {
    let mut verdicts = vec![None; items.len()];
    let done = bulk::write(client, items, |record, verdict| verdicts[record] = Some(verdict));
    (done, verdicts)
}

fn reason(verdict: &Option<Verdict>) -> Option<Reason> {
    match verdict {
        Some(Verdict::Reject(rejection)) => Some(rejection.reason),
        Some(Verdict::Drop(reason)) => Some(*reason),
        _ => None,
    }
}

#[test]
fn busy_items_alone_are_sent_again() {
    let (client, requests) =
        server(vec![answer(&[201, 429, 409, 503, 400]), answer(&[429, 200]), answer(&[201])]);
    let (done, verdicts) = write(&client, items(&["a", "b", "c", "d", "e"]));
    assert_eq!(done, Ok(()));
    assert_eq!(
        requests.iter().collect::<Vec<_>>(),
        [vec!["a", "b", "c", "d", "e"], vec!["b", "d"], vec!["b"]]
    );
    assert!(verdicts.iter().all(Option::is_some));
    let reasons: Vec<_> = verdicts.iter().map(reason).collect();
    assert_eq!(reasons, [None, None, Some(Reason::StaleVersion), None, Some(Reason::StoreRejected)]);
}

#[test]
fn a_server_that_stays_busy_is_transient() {
    let (client, requests) = server(vec![answer(&[201, 429]); 9]);
    let (done, _) = write(&client, items(&["a", "b"]));
    // The second answer is for one item and tells of two.
    assert_eq!(done.unwrap_err().kind, FaultKind::Transient);
    drop(client);
    assert_eq!(requests.try_iter().count(), 2);

    let mut answers = vec![answer(&[201, 429])];
    answers.resize(9, answer(&[429]));
    let (client, requests) = server(answers);
    let (done, verdicts) = write(&client, items(&["a", "b"]));
    assert_eq!(done.unwrap_err().kind, FaultKind::Transient);
    assert_eq!(requests.try_iter().count(), 5, "one time and four again");
    assert_eq!(verdicts, [Some(Verdict::Emit(1)), None]);
}

#[test]
fn requests_beyond_the_servers_limit_are_halved() {
    let too_large = || (413, String::new());
    let (client, requests) =
        server(vec![too_large(), answer(&[201]), too_large(), answer(&[201]), too_large()]);
    let (done, verdicts) = write(&client, items(&["a", "b", "c"]));
    assert_eq!(done, Ok(()));
    let sent = [vec!["a", "b", "c"], vec!["a"], vec!["b", "c"], vec!["b"], vec!["c"]];
    assert_eq!(requests.iter().collect::<Vec<_>>(), sent);
    assert_eq!(verdicts.iter().map(reason).collect::<Vec<_>>(), [None, None, Some(Reason::TooLarge)]);
}

#[test]
fn refusals_are_told_by_kind() {
    let quoting = r#"{"error":{"type":"security_exception","reason":"Qanarywala"}}"#.to_owned();
    for (given, kind, word) in [
        ((503, String::new()), FaultKind::Transient, "503"),
        ((429, quoting.clone()), FaultKind::Transient, "429"),
        ((401, quoting.clone()), FaultKind::Fatal, "credentials"),
        ((403, quoting.clone()), FaultKind::Fatal, "rights"),
        (
            (403, r#"{"error":{"type":"cluster_block_exception"}}"#.into()),
            FaultKind::Transient,
            "cluster_block",
        ),
        ((400, quoting), FaultKind::Fatal, "security_exception"),
        ((200, "{}".into()), FaultKind::Transient, "fewer"),
        (answer(&[404]), FaultKind::Fatal, "migrate apply"),
    ] {
        let (client, _requests) = server(vec![given]);
        let (done, _) = write(&client, items(&["a"]));
        let fault = done.unwrap_err();
        assert_eq!(fault.kind, kind, "{fault}");
        assert!(fault.what.contains(word) && !fault.what.contains("Qanarywala"), "{fault}");
    }
}
