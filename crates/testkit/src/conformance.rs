//! `docs/generated/conformance.md`: what came of every suite, a row from the test that counted it.

use std::collections::BTreeMap;

use crate::root;

const HEAD: &str = "\
# Conformance

What our engines are checked against and what came of it, a row from each test. The test fails where the row is not what it counted; with `UPDATE_DOCS=1` it writes it. The differential tests run by `cargo xtask test`, which installs what they compare with; without it they say `SKIPPED`. `FHIREHOSE_DIFFERENTIAL` is their number of cases and `FHIREHOSE_SEED` the seed of those, both part of the row. A difference without a reason fails the test.

| suite | what came of it | test |
|---|---|---|
";

/// Compares a suite's row with what came of it, or writes it under `UPDATE_DOCS`. A suite run with other settings than
/// by default need not have one.
pub fn assert_current(suite: &str, result: &str, package: &str, test: &str) {
    let path = root().join("docs/generated/conformance.md");
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let row = format!("| {suite} | {result} | `cargo test -p {package} {test}` |");
    let updated = updated(&written, suite, &row);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, updated).unwrap();
        return;
    }
    let by_default =
        ["FHIREHOSE_DIFFERENTIAL", "FHIREHOSE_SEED"].iter().all(|name| std::env::var_os(name).is_none());
    let has_row = written.lines().any(|line| suite_of(line) == Some(suite));
    assert!(
        updated == written || !(by_default || has_row),
        "docs/generated/conformance.md is old: UPDATE_DOCS=1 cargo test -p {package} {test}\n{row}"
    );
}

fn suite_of(line: &str) -> Option<&str> {
    line.strip_prefix("| ")?.split(" | ").next()
}

/// The page with this row in place of the suite's, in the order of the suites.
fn updated(written: &str, suite: &str, row: &str) -> String {
    let rows = written.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let mut rows: BTreeMap<&str, &str> = rows.filter_map(|row| Some((suite_of(row)?, row))).collect();
    rows.insert(suite, row);
    rows.values().fold(HEAD.to_owned(), |page, row| page + row + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_takes_the_place_of_the_old_one_and_the_others_stay() {
        let page = updated("", "b", "| b | 1 | x |");
        let page = updated(&page, "a", "| a | 2 | y |");
        assert_eq!(page, format!("{HEAD}| a | 2 | y |\n| b | 1 | x |\n"));
        assert_eq!(updated(&page, "b", "| b | 1 | x |"), page);
        assert_eq!(updated(&page, "b", "| b | 3 | x |"), page.replace("| 1 |", "| 3 |"));
    }
}
