//! A scaffold of any table is a mapping that loads.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says so")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use fhirehose_mapping::{Mappings, TableColumn, scaffold};
use fhirehose_topics::Registry;

fn column(name: &str, sql_type: &str, primary: bool) -> TableColumn {
    TableColumn { name: name.into(), sql_type: sql_type.into(), primary, computed: false }
}

/// Loads scaffolds as the only mappings there are; every problem.
fn problems(files: &[(String, String, String)]) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let dir = tempfile::tempdir().unwrap();
    for (db, table, text) in files {
        let path = dir.path().join("mappings/cdc").join(db).join(format!("{table}.yaml"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let loaded = Mappings::load(dir.path(), &Registry::load(&root).unwrap());
    loaded.err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

#[test]
fn what_is_guessed_is_marked() {
    let text = scaffold(
        "clinical_data",
        "lab_results",
        &[
            column("id", "char(36)", true),
            column("patient_id", "char(36)", false),
            column("taken_at", "datetime", false),
            column("value", "decimal(10,3)", false),
            column("duration", "time", false),
            column("api_token", "varchar(64)", false),
            column("order", "bigint(20) unsigned", false),
            column("patient name", "varchar(100)", false),
        ],
    );
    for line in [
        "mapping: cdc/clinical_data/lab_results",
        "  id: {type: string, class: none, key: true}  # GUESS: class",
        "  value: {type: decimal, class: clinical}  # GUESS: class",
        "  duration: {type: string, class: clinical}  # GUESS: type, class",
        "  api_token: {forbidden: true}  # GUESS: it looks like a secret",
        "  order: {type: decimal, class: clinical}  # GUESS: class",
        "  'patient name': {type: string, class: direct}  # GUESS: class",
        "    to: fhir.observation  # GUESS",
        "      identifier: [{system: \"urn:clinical_data:lab_results\", value: \"{{ id.toString() }}\"}]",
        "      effectiveDateTime: \"{{ taken_at.instant(%zone) }}\"  # GUESS",
        "# Not mapped yet: value, duration, order, patient name",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert_eq!(problems(&[("clinical_data".into(), "lab_results".into(), text)]), Vec::<String>::new());
}

#[test]
fn names_of_any_kind_and_tables_without_a_key_load() {
    let columns =
        [column("a\"b\\c", "int", false), column("true", "bit(1)", false), column("1st", "blob", false)];
    let text = scaffold("db", "odd_ones", &columns);
    assert!(text.contains("key: true}  # GUESS: class, key"), "{text}");
    assert_eq!(problems(&[("db".into(), "odd_ones".into(), text.clone())]), Vec::<String>::new(), "{text}");
}

#[test]
fn every_table_of_the_hospital_gives_a_mapping_that_loads() {
    let facts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/facts/mysql-columns.csv");
    assert!(facts.is_file(), "the hospital's columns are missing: {}", facts.display());
    let mut tables: BTreeMap<(String, String), Vec<TableColumn>> = BTreeMap::new();
    for record in csv::Reader::from_path(facts).unwrap().records() {
        let record = record.unwrap();
        let mut found = column(&record[3], &record[4], &record[6] == "PRI");
        found.computed = record[8].contains("VIRTUAL");
        tables.entry((record[0].into(), record[1].into())).or_default().push(found);
    }
    let files: Vec<_> = tables
        .iter()
        .map(|((db, table), columns)| (db.clone(), table.clone(), scaffold(db, table, columns)))
        .collect();
    assert!(files.len() > 40, "{} tables", files.len());
    assert_eq!(problems(&files), Vec::<String>::new());
}
