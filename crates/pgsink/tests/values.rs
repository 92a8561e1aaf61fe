//! What is written by binary COPY is what PostgreSQL reads from the same text.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use fhirehose_pgsink::{ColumnType, CopyRows, Datum};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use support::TestDatabase;

#[test]
fn decimals_arrive_digit_for_digit() {
    let database = TestDatabase::create("numeric");
    let client = std::cell::RefCell::new(database.connect());
    client.borrow_mut().batch_execute("CREATE TABLE n (written text, value numeric)").unwrap();
    let number = "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,30})?([eE]-?[0-9]{1,2})?";
    let mut runner = TestRunner::new(Config { cases: 40, failure_persistence: None, ..Config::default() });
    let edges: Vec<String> =
        ["0", "-0", "0.0", "36.50", "0.00010000", "10000", "99999999", "1e4", "1E-9", "12e0"]
            .map(String::from)
            .into();
    runner
        .run(&proptest::collection::vec(number, 50), |mut numbers| {
            numbers.extend_from_slice(&edges);
            let mut client = client.borrow_mut();
            client.batch_execute("TRUNCATE n").unwrap();
            let columns =
                [("written".to_owned(), ColumnType::Text), ("value".to_owned(), ColumnType::Numeric)];
            let mut rows = CopyRows::new(&columns);
            for number in &numbers {
                rows.push([Datum::Text(number), Datum::Text(number)].into_iter()).unwrap();
            }
            rows.copy_into(&mut client, "n").unwrap();
            let wrong = client
                .query("SELECT written, value::text FROM n WHERE written::numeric::text <> value::text", &[])
                .unwrap();
            let wrong: Vec<(String, String)> = wrong.iter().map(|row| (row.get(0), row.get(1))).collect();
            prop_assert!(wrong.is_empty(), "{wrong:?}");
            Ok(())
        })
        .unwrap();
}

#[test]
fn every_type_arrives() {
    let database = TestDatabase::create("types");
    let mut client = database.connect();
    client
        .batch_execute(
            "CREATE TABLE v (a bool, b int2, c int4, d int8, e float8, f text, g text[], h uuid, i date, j timestamptz, k jsonb)",
        )
        .unwrap();
    let kinds =
        ["bool", "int2", "int4", "int8", "float8", "text", "_text", "uuid", "date", "timestamptz", "jsonb"];
    let columns: Vec<_> = "abcdefghijk"
        .chars()
        .zip(kinds)
        .map(|(name, kind)| (name.to_string(), ColumnType::of(kind).expect("a known type")))
        .collect();
    let mut rows = CopyRows::new(&columns);
    let row = [
        Datum::Bool(true),
        Datum::Int(-2),
        Datum::Text("72.0"),
        Datum::Int(i64::MIN),
        Datum::Text("36.6"),
        Datum::Text("سلام"),
        Datum::Texts(&["a", "b c"]),
        Datum::Text("2ed6657d-e927-568b-95e1-2665a8aea6a2"),
        Datum::Text("1979-12"),
        Datum::Text("2026-01-02T03:04:05.123456+02:00"),
        Datum::Text("{\"a\": 1.50}"),
    ];
    rows.push(row.into_iter()).unwrap();
    rows.push([Datum::Null; 11].into_iter()).unwrap();
    let mut second = [Datum::Null; 11];
    second[6] = Datum::Texts(&[]);
    second[8] = Datum::Int(-1);
    second[9] = Datum::Int(-1);
    rows.push(second.into_iter()).unwrap();
    assert_eq!(rows.copy_into(&mut client, "v").unwrap(), 3);
    let found = client.query("SELECT v::text FROM v", &[]).unwrap();
    let found: Vec<String> = found.iter().map(|row| row.get(0)).collect();
    let expected = [
        "(t,-2,72,-9223372036854775808,36.6,سلام,\"{a,\"\"b c\"\"}\",2ed6657d-e927-568b-95e1-2665a8aea6a2,\
         1979-12-01,\"2026-01-02 01:04:05.123456+00\",\"{\"\"a\"\": 1.50}\")",
        "(,,,,,,,,,,)",
        "(,,,,,,{},,1969-12-31,\"1969-12-31 23:59:59.999+00\",)",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_value_of_another_type_is_refused_and_the_row_leaves_no_trace() {
    for (kind, wrong) in [
        ("bool", Datum::Text("yes")),
        ("int2", Datum::Int(40_000)),
        ("int4", Datum::Text("72.5")),
        ("numeric", Datum::Text("NaN")),
        ("numeric", Datum::Text("")),
        ("numeric", Datum::Text("1e999999")),
        ("float8", Datum::Text("inf")),
        ("text", Datum::Text("a\0b")),
        ("uuid", Datum::Text("not-a-uuid")),
        ("date", Datum::Text("2026-13-01")),
        ("date", Datum::Text("26-1-1")),
        ("timestamptz", Datum::Text("2026-01-02T03:04:05")),
        ("timestamptz", Datum::Int(i64::MAX)),
        ("jsonb", Datum::Int(1)),
    ] {
        let columns =
            [("a".to_owned(), ColumnType::Int4), ("b".to_owned(), ColumnType::of(kind).expect("known"))];
        let mut rows = CopyRows::new(&columns);
        assert_eq!(rows.push([Datum::Int(1), wrong].into_iter()).map_err(|(at, _)| at), Err(1), "{kind}");
        assert!(rows.is_empty());
    }
}
