//! The official SQL-on-FHIR v2 tests: every view of every file gives the expected rows, or the expected error.
//! `FHIREHOSE_SQL_ON_FHIR` names a directory with more of them than the design folder has.

#[cfg(test)]
mod suite;

use std::path::{Path, PathBuf};

use fhirehose_testkit::conformance;

#[test]
fn every_official_test_passes() {
    let at_hand = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/sql-on-fhir");
    let more = std::env::var_os("FHIREHOSE_SQL_ON_FHIR").map(PathBuf::from);
    let dir = more.as_ref().unwrap_or(&at_hand);
    assert!(dir.is_dir(), "the official tests are missing: {}", dir.display());
    let outcome = suite::run_dir(dir);
    println!("SQL-on-FHIR: {} pass in {} files", outcome.passed, outcome.files);
    assert!(outcome.files >= 12, "only {} files", outcome.files);
    assert!(outcome.failures.is_empty(), "{} pass\n{}", outcome.passed, outcome.failures.join("\n"));
    if more.is_none() {
        let result = format!("all {} tests of {} files pass", outcome.passed, outcome.files);
        conformance::assert_current(
            "SQL-on-FHIR v2: the official files",
            &result,
            "fhirehose-views",
            "--test official",
        );
    }
}
