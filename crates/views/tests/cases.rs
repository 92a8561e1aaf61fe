//! Our own cases for everything the specification says: `cases/*.json`, in the format of the official tests.

#[cfg(test)]
mod suite;

use std::path::Path;

use fhirehose_testkit::conformance;

#[test]
fn every_case_passes() {
    let outcome = suite::run_dir(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases"));
    assert!(outcome.passed >= 80, "only {} cases", outcome.passed);
    assert!(outcome.failures.is_empty(), "{} pass\n{}", outcome.passed, outcome.failures.join("\n"));
    let result = format!("all {} pass", outcome.passed);
    let suite = "SQL-on-FHIR v2: own cases for the rest of the specification";
    conformance::assert_current(suite, &result, "fhirehose-views", "--test cases");
}
