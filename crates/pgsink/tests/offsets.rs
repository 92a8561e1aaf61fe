//! Exactly once against a real PostgreSQL: fencing, unknown commits, and rows the database refuses.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fhirehose_pgsink::postgres::Client;
use fhirehose_pgsink::{ColumnType, Connector, CopyRows, Datum, PgSink, StoreError, Tables, migrate};
use fhirehose_stream::{Batch, FaultKind, Reason, Sink, TopicPartition, Verdict};
use support::{TestDatabase, repository};

/// Writes each record's value as a number into `ledger`.
struct Ledger {
    rows: CopyRows,
}

impl Ledger {
    fn new() -> Self {
        let columns = [
            ("part".to_owned(), ColumnType::Int4),
            ("off".to_owned(), ColumnType::Int8),
            ("value".to_owned(), ColumnType::Numeric),
        ];
        Ledger { rows: CopyRows::new(&columns) }
    }
}

impl Tables for Ledger {
    fn connected(&mut self, _: &mut Client) -> Result<(), StoreError> {
        Ok(())
    }

    fn write(&mut self, client: &mut Client, batch: &Batch) -> Result<Vec<Verdict>, StoreError> {
        self.rows.clear();
        for record in batch.iter() {
            let value = std::str::from_utf8(record.value().unwrap()).unwrap();
            let row =
                [Datum::Int(record.partition().into()), Datum::Int(record.offset()), Datum::Text(value)];
            self.rows.push(row.into_iter()).unwrap();
        }
        self.rows.copy_into(client, "ledger")?;
        Ok(vec![Verdict::Emit(1); batch.len()])
    }

    fn again(&mut self, _: &mut Client) -> Result<(), StoreError> {
        Ok(())
    }
}

fn database(name: &str) -> TestDatabase {
    let database = TestDatabase::create(name);
    migrate::apply(&database.url, &repository().join("schemas/sql"), &["offsets"], |_| {}).unwrap();
    database
        .connect()
        .batch_execute("CREATE TABLE ledger (part int, off bigint, value numeric CHECK (value < 1000), UNIQUE (part, off))")
        .unwrap();
    database
}

fn sink(database: &TestDatabase) -> PgSink<Ledger> {
    PgSink::new(Connector::new(&database.url, "test").unwrap(), "ledger", Ledger::new())
}

fn at(partition: i32) -> TopicPartition {
    TopicPartition { topic: "t".into(), partition }
}

fn batch(records: &[(i32, i64, &str)]) -> Batch {
    let topic: Arc<str> = "t".into();
    let mut batch = Batch::default();
    for (partition, offset, value) in records {
        batch.push(&topic, *partition, *offset, 0, None, Some(value.as_bytes()), std::iter::empty());
    }
    batch
}

fn claim(sink: &mut PgSink<Ledger>, partitions: &[i32]) -> Vec<Option<i64>> {
    let partitions: Vec<_> = partitions.iter().copied().map(at).collect();
    let offsets = sink.claim(&partitions).unwrap();
    let first: Vec<_> = partitions
        .into_iter()
        .zip(&offsets)
        .filter(|(_, next)| next.is_none())
        .map(|(at, _)| (at, 0))
        .collect();
    if !first.is_empty() {
        sink.start(&first).unwrap();
    }
    offsets
}

fn rows(database: &TestDatabase) -> i64 {
    database.connect().query_one("SELECT count(*) FROM ledger", &[]).unwrap().get(0)
}

#[test]
fn a_claim_continues_where_the_last_commit_ended() {
    let database = database("continue");
    let mut first = sink(&database);
    assert_eq!(claim(&mut first, &[0, 1]), [None, None]);
    first.stage(&batch(&[(0, 0, "1"), (1, 0, "2"), (0, 7, "3")])).unwrap();
    assert_eq!(rows(&database), 0, "nothing is visible before the commit");
    first.commit().unwrap();
    assert_eq!(rows(&database), 3);

    let mut second = sink(&database);
    assert_eq!(
        claim(&mut second, &[1, 0]),
        [Some(1), Some(8)],
        "a gap such as a transaction marker is skipped"
    );
}

#[test]
fn the_offset_of_a_topic_that_was_made_anew_is_refused() {
    let database = database("anew");
    let ids = |id: &str| HashMap::from([("t".to_owned(), id.to_owned())]);
    let mut old = sink(&database);
    // A store of an earlier version, or brokers without ids: taken for the topic that is there at the next claim.
    claim(&mut old, &[0]);
    old.stage(&batch(&[(0, 0, "1")])).unwrap();
    old.commit().unwrap();
    old.identify(ids("one"));
    assert_eq!(claim(&mut old, &[0, 1]), [Some(1), None]);

    let mut new = sink(&database);
    new.identify(ids("another"));
    let fault = new.claim(&[at(0)]).expect_err("made anew");
    assert_eq!(fault.kind, FaultKind::Fatal);
    assert!(fault.what.contains("t [0]") && fault.what.contains("id one, now another"), "{fault}");
    database.connect().execute("DELETE FROM fhirehose.sink_offsets WHERE topic = 't'", &[]).unwrap();
    assert_eq!(claim(&mut new, &[0, 1]), [None, None]);
    new.stage(&batch(&[(0, 0, "2")])).unwrap_or_else(|fault| panic!("{fault}"));
    new.rollback();
    old.identify(ids("one"));
    assert_eq!(old.claim(&[at(0)]).expect_err("the old one is gone").kind, FaultKind::Fatal);
}

#[test]
fn a_zombie_cannot_commit() {
    let database = database("zombie");
    let mut zombie = sink(&database);
    claim(&mut zombie, &[0, 1]);
    let mut owner = sink(&database);
    claim(&mut owner, &[1]);

    let fault = zombie.stage(&batch(&[(0, 0, "1"), (1, 0, "2")])).map(|_| ()).expect_err("fenced");
    assert_eq!(fault.kind, FaultKind::Fenced, "{fault}");
    assert_eq!(
        rows(&database),
        0,
        "nothing of the fenced batch stays, not even of the partition still owned"
    );

    owner.stage(&batch(&[(1, 0, "2")])).unwrap();
    owner.commit().unwrap();
    assert_eq!(claim(&mut zombie, &[0]), [Some(0)], "claimed again it goes on with what it owns");
    zombie.stage(&batch(&[(0, 0, "1")])).unwrap();
    zombie.commit().unwrap();
    assert_eq!(rows(&database), 2);
}

#[test]
fn a_claim_waits_for_an_open_transaction_of_the_earlier_owner() {
    let database = database("waits");
    let mut old = sink(&database);
    claim(&mut old, &[0]);
    old.stage(&batch(&[(0, 0, "1")])).unwrap();
    let mut new = sink(&database);
    let claimed = std::thread::spawn(move || new.claim(&[at(0)]).unwrap());
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(!claimed.is_finished(), "the outcome of the open transaction is not known yet");
    old.commit().unwrap();
    assert_eq!(claimed.join().unwrap(), [Some(1)]);
}

#[test]
fn a_record_before_the_stored_offset_is_refused() {
    let database = database("twice");
    let mut sink = sink(&database);
    claim(&mut sink, &[0]);
    sink.stage(&batch(&[(0, 0, "1")])).unwrap();
    sink.commit().unwrap();
    assert_eq!(sink.stage(&batch(&[(0, 0, "1")])).err().map(|fault| fault.kind), Some(FaultKind::Fenced));
    assert_eq!(rows(&database), 1);
}

#[test]
fn a_batch_that_waits_is_interrupted_from_another_thread_and_can_be_tried_again() {
    let database = database("interrupted");
    let mut sink = sink(&database);
    claim(&mut sink, &[0]);
    let interrupt = sink.interrupter().unwrap();
    interrupt().unwrap();
    let mut other = database.connect();
    other.batch_execute("BEGIN; LOCK TABLE ledger").unwrap();
    let staging = std::thread::spawn(move || {
        let staged = sink.stage(&batch(&[(0, 0, "1")])).map(drop);
        (sink, staged)
    });
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(!staging.is_finished(), "somebody holds the table");
    interrupt().unwrap();
    let (mut sink, staged) = staging.join().unwrap();
    let fault = staged.expect_err("interrupted");
    assert_eq!((fault.kind, fault.what.contains("57014")), (FaultKind::Transient, true), "{fault}");
    other.batch_execute("ROLLBACK").unwrap();
    sink.stage(&batch(&[(0, 0, "1")])).unwrap();
    sink.commit().unwrap();
    assert_eq!(rows(&database), 1);
}

/// As after a fail-over: the server has become a standby, and a session with it would stay read-only.
#[test]
fn a_session_that_takes_no_writes_is_left_for_another() {
    let database = database("standby");
    let mut sink = sink(&database);
    claim(&mut sink, &[0]);
    sink.stage(&batch(&[(0, 0, "1")])).unwrap();
    sink.commit().unwrap();
    let (user, rest) = database.url.rsplit_once('@').unwrap();
    let writable = format!("{user}@127.0.0.1:1,{rest}?target_session_attrs=read-write");
    let writable = Connector::new(&writable, "test").unwrap();
    writable.connect().expect("of several hosts the one that takes writes is found");

    let mut admin = database.connect();
    let name: String = admin.query_one("SELECT current_database()", &[]).unwrap().get(0);
    admin.batch_execute(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).unwrap();
    let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                  WHERE datname = current_database() AND pid <> pg_backend_pid()";
    assert!(admin.execute(others, &[]).unwrap() > 0);
    for _ in 0..2 {
        // The first finds its connection closed, the second a server that takes no writes.
        assert_eq!(sink.claim(&[at(0)]).unwrap_err().kind, FaultKind::Transient);
    }
    assert!(writable.connect().is_err());

    admin.batch_execute(&format!("ALTER DATABASE {name} RESET default_transaction_read_only")).unwrap();
    assert_eq!(claim(&mut sink, &[0]), [Some(1)]);
}

/// The server ends the connection between COMMIT's being needed and its answer: the worker cannot know, and
/// the claim tells it.
#[test]
fn an_unknown_commit_is_resolved_by_the_claim() {
    let database = database("unknown");
    let mut sink = sink(&database);
    claim(&mut sink, &[0]);
    sink.stage(&batch(&[(0, 0, "1")])).unwrap();
    database
        .connect()
        .execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND state = 'idle in transaction'",
            &[],
        )
        .unwrap();
    let fault = sink.commit().map(|_| ()).expect_err("the connection is gone");
    assert_eq!(fault.kind, FaultKind::Transient, "{fault}");
    assert_eq!(claim(&mut sink, &[0]), [Some(0)], "it had no effect");
    sink.stage(&batch(&[(0, 0, "1")])).unwrap();
    sink.commit().unwrap();
    assert_eq!(rows(&database), 1);
}

/// A way to the database that, once armed, lets a COMMIT through and loses its answer with the connection.
struct Lossy {
    url: String,
    armed: Arc<AtomicBool>,
}

impl Lossy {
    fn to(url: &str) -> Lossy {
        let (scheme, rest) = url.split_once("://").unwrap();
        let (authority, path) = rest.split_once('/').unwrap();
        let (user, server) = authority.rsplit_once('@').unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("{scheme}://{user}@{}/{path}", listener.local_addr().unwrap());
        let (armed, server) = (Arc::new(AtomicBool::new(false)), server.to_owned());
        let arm = armed.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), TcpStream::connect(&server).unwrap());
                let lose = Arc::new(AtomicBool::new(false));
                let (from, to, armed, losing) =
                    (client.try_clone().unwrap(), server.try_clone().unwrap(), arm.clone(), lose.clone());
                std::thread::spawn(move || {
                    forward(from, to, |bytes| {
                        if bytes.windows(6).any(|word| word == b"COMMIT")
                            && armed.swap(false, Ordering::SeqCst)
                        {
                            losing.store(true, Ordering::SeqCst);
                        }
                        true
                    });
                });
                std::thread::spawn(move || forward(server, client, |_| !lose.load(Ordering::SeqCst)));
            }
        });
        Lossy { url, armed }
    }
}

/// Copies until one side ends or `pass` refuses, then ends both.
fn forward(mut from: TcpStream, mut to: TcpStream, mut pass: impl FnMut(&[u8]) -> bool) {
    let mut buffer = [0; 65536];
    while let Ok(length) = from.read(&mut buffer) {
        if length == 0 || !pass(&buffer[..length]) || to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

#[test]
fn a_commit_that_took_effect_and_whose_answer_was_lost_is_not_repeated() {
    let database = database("answer");
    let lossy = Lossy::to(&database.url);
    let mut sink = PgSink::new(Connector::new(&lossy.url, "test").unwrap(), "ledger", Ledger::new());
    claim(&mut sink, &[0]);
    sink.stage(&batch(&[(0, 0, "1"), (0, 1, "2")])).unwrap();
    lossy.armed.store(true, Ordering::SeqCst);
    let fault = sink.commit().expect_err("the answer is lost");
    assert_eq!(fault.kind, FaultKind::Transient, "{fault}");
    assert_eq!(claim(&mut sink, &[0]), [Some(2)], "it took effect");
    assert_eq!(rows(&database), 2);
}

#[test]
fn a_lost_connection_is_transient_and_made_again() {
    let database = database("lost");
    let mut sink = sink(&database);
    claim(&mut sink, &[0]);
    database
        .connect()
        .execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
            &[],
        )
        .unwrap();
    let batch = batch(&[(0, 0, "1")]);
    let staged = sink.stage(&batch).map(|_| ()).or_else(|fault| {
        assert_eq!(fault.kind, FaultKind::Transient, "{fault}");
        sink.rollback();
        sink.stage(&batch).map(|_| ())
    });
    staged.unwrap();
    sink.commit().unwrap();
    assert_eq!(rows(&database), 1);
}

#[test]
fn the_record_the_database_refuses_is_found_and_named_without_its_value() {
    let database = database("culprit");
    let mut sink = sink(&database);
    claim(&mut sink, &[0]);
    let mut records: Vec<(i32, i64, String)> =
        (0..50).map(|offset| (0, offset, offset.to_string())).collect();
    records[17].2 = "4711".into();
    records[49].2 = "4712".into();
    let records: Vec<(i32, i64, &str)> = records.iter().map(|(p, o, v)| (*p, *o, v.as_str())).collect();
    let verdicts = sink.stage(&batch(&records)).unwrap();
    sink.commit().unwrap();
    assert_eq!(rows(&database), 48);
    for (index, verdict) in verdicts.as_slice().iter().enumerate() {
        match verdict {
            Verdict::Reject(rejection) if index == 17 || index == 49 => {
                assert_eq!(rejection.reason, Reason::StoreRejected);
                assert_eq!(rejection.detail, "SQLSTATE 23514, table ledger, constraint ledger_value_check");
            }
            verdict => assert_eq!(*verdict, Verdict::Emit(1), "record {index}"),
        }
    }
}
