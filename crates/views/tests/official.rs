//! The official SQL-on-FHIR v2 tests: every view of every file gives the expected rows, or the expected error.
//! `FHIREHOSE_SQL_ON_FHIR` names a directory with more of them than the design folder has.

#[cfg(test)]
mod suite;

use std::path::{Path, PathBuf};

#[test]
fn every_official_test_passes() {
    let at_hand = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/sql-on-fhir");
    let dir = std::env::var_os("FHIREHOSE_SQL_ON_FHIR").map_or(at_hand, PathBuf::from);
    assert!(dir.is_dir(), "the official tests are missing: {}", dir.display());
    let outcome = suite::run_dir(&dir);
    println!("SQL-on-FHIR: {} pass in {} files", outcome.passed, outcome.files);
    assert!(outcome.files >= 12, "only {} files", outcome.files);
    assert!(outcome.failures.is_empty(), "{} pass\n{}", outcome.passed, outcome.failures.join("\n"));
}
