//! The migration runner on a real PostgreSQL.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::Path;

use fhirehose_pgsink::migrate::{self, MigrateError, State};
use support::TestDatabase;

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("c")).unwrap();
    for (name, sql) in files {
        fs::write(dir.path().join("c").join(name), sql).unwrap();
    }
    dir
}

fn apply(database: &TestDatabase, dir: &Path) -> Result<Vec<String>, MigrateError> {
    let mut applied = Vec::new();
    migrate::apply(&database.url, dir, &["c"], |step| applied.push(step.name.clone()))?;
    Ok(applied)
}

#[test]
fn files_are_applied_once_and_in_order() {
    let database = TestDatabase::create("migrate");
    let dir = folder(&[
        ("0001_table.sql", "CREATE TABLE a (x int); INSERT INTO a VALUES (1);"),
        (
            "0002_index.sql",
            "-- fhirehose: no-transaction\nCREATE INDEX CONCURRENTLY IF NOT EXISTS a_x ON a (x)",
        ),
        ("0003_other.sql", "-- fhirehose: edition timescale\nSELECT 1"),
    ]);
    let plan = migrate::plan(&database.url, dir.path(), &["c"]).unwrap();
    assert!(plan.iter().all(|step| step.state == State::Pending));
    let pending =
        migrate::require(&mut database.connect(), dir.path(), &["c"]).map(|_| ()).expect_err("pending");
    assert!(pending.to_string().contains("c/0001_table"), "{pending}");

    assert_eq!(apply(&database, dir.path()).unwrap(), ["c/0001_table", "c/0002_index", "c/0003_other"]);
    assert!(apply(&database, dir.path()).unwrap().is_empty());
    migrate::require(&mut database.connect(), dir.path(), &["c"]).unwrap();
    let count: i64 = database.connect().query_one("SELECT count(*) FROM a", &[]).unwrap().get(0);
    assert_eq!(count, 1);
}

#[test]
fn a_failing_file_leaves_nothing_and_is_named() {
    let database = TestDatabase::create("migrate_fail");
    let dir = folder(&[
        ("0001_a.sql", "CREATE TABLE a (x int);"),
        ("0002_b.sql", "CREATE TABLE b (x int); SELEKT 1;"),
    ]);
    let error = apply(&database, dir.path()).unwrap_err().to_string();
    assert!(error.contains("c/0002_b") && error.contains("SELEKT"), "{error}");
    let found: bool =
        database.connect().query_one("SELECT to_regclass('b') IS NOT NULL", &[]).unwrap().get(0);
    assert!(!found);
    fs::write(dir.path().join("c/0002_b.sql"), "CREATE TABLE b (x int);").unwrap();
    assert_eq!(apply(&database, dir.path()).unwrap(), ["c/0002_b"]);
}

#[test]
fn edited_and_lost_files_are_refused() {
    let database = TestDatabase::create("migrate_edit");
    let dir = folder(&[("0001_a.sql", "CREATE TABLE a (x int);"), ("0002_b.sql", "CREATE TABLE b (x int);")]);
    apply(&database, dir.path()).unwrap();
    fs::write(dir.path().join("c/0001_a.sql"), "CREATE TABLE a (x bigint);").unwrap();
    assert!(
        matches!(apply(&database, dir.path()), Err(MigrateError::Edited { migration }) if migration == "c/0001_a")
    );
    fs::write(dir.path().join("c/0001_a.sql"), "CREATE TABLE a (x int);").unwrap();
    fs::remove_file(dir.path().join("c/0002_b.sql")).unwrap();
    assert!(
        matches!(apply(&database, dir.path()), Err(MigrateError::NoFile { migration }) if migration == "c/0002_b")
    );
}

#[test]
fn wrong_names_and_marks_are_refused() {
    let database = TestDatabase::create("migrate_names");
    for (files, said) in [
        (&[("1_a.sql", "SELECT 1")][..], "NNNN_name"),
        (&[("0001_a.sql", "SELECT 1"), ("0001_b.sql", "SELECT 1")], "two migrations"),
        (&[("0001_a.sql", "-- fhirehose: no-transactoin\nSELECT 1")], "unknown mark"),
        (&[], "no migration"),
    ] {
        let dir = folder(files);
        let error = apply(&database, dir.path()).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn two_runners_apply_each_file_once() {
    let database = TestDatabase::create("migrate_two");
    let dir =
        folder(&[("0001_a.sql", "SELECT pg_sleep(0.2); CREATE TABLE a (x int); INSERT INTO a VALUES (1);")]);
    std::thread::scope(|scope| {
        let runs: Vec<_> =
            (0..2).map(|_| scope.spawn(|| apply(&database, dir.path()).unwrap().len())).collect();
        let applied: usize = runs.into_iter().map(|run| run.join().unwrap()).sum();
        assert_eq!(applied, 1);
    });
}
