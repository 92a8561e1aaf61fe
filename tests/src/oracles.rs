//! Two judges that are not ours: the official FHIR validator and the `fhir.resources` models.
//! `cargo xtask test` installs them and says where (`FHIREHOSE_TEST_ORACLES`).

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use fhirehose_testkit::root;

/// Where the judges are installed; nothing when tests that need installations are to be skipped.
fn installed() -> Option<PathBuf> {
    if std::env::var_os("FHIREHOSE_TEST_SKIP_STACK").is_some() {
        eprintln!("skipped: the FHIR validators are not asked (FHIREHOSE_TEST_SKIP_STACK)");
        return None;
    }
    let given = std::env::var_os("FHIREHOSE_TEST_ORACLES").map(PathBuf::from);
    let found = given.or_else(|| Some(std::env::home_dir()?.join(".cache/fhirehose/oracles")));
    match found {
        Some(dir) if dir.join("py/bin/python").exists() => Some(dir),
        _ => panic!(
            "the FHIR validators are not installed: run `cargo xtask test --only integration -- -p fhirehose-tests`, \
             or set FHIREHOSE_TEST_SKIP_STACK=1 to go without"
        ),
    }
}

/// What both judges find wrong with resources given as JSON, by their names.
pub fn findings(resources: &[(String, String)]) -> Vec<String> {
    let Some(dir) = installed() else { return Vec::new() };
    let class_path = format!("{0}/hapi-8.8.1-classes:{0}/hapi-8.8.1/*", dir.display());
    let mut official = Command::new("java");
    official.args(["-Xmx1g", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp"]);
    official.args([&class_path, "FhirValidate"]);
    let mut models = Command::new(dir.join("py/bin/python"));
    models.arg(root().join("tests/oracles/fhir_resources.py"));
    thread::scope(|scope| {
        let official = scope.spawn(|| ask("official validator", official, resources));
        let mut found = ask("fhir.resources", models, resources);
        found.extend(official.join().unwrap());
        found
    })
}

/// Feeds a judge that answers `<line>\t<finding>` for whatever is wrong, and `done <count>` at the end.
fn ask(judge: &str, mut command: Command, resources: &[(String, String)]) -> Vec<String> {
    let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = started.unwrap_or_else(|error| panic!("{judge} does not start: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let lines: String = resources.iter().map(|(_, json)| format!("{json}\n")).collect();
    let writer = thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = child.wait_with_output().unwrap();
    // A judge that ended early is told by what it said last.
    drop(writer.join());
    let said = String::from_utf8_lossy(&output.stdout);
    let done = format!("done {}", resources.len());
    assert_eq!(said.lines().last(), Some(&*done), "{judge}: {}", String::from_utf8_lossy(&output.stderr));
    let findings = said.lines().filter_map(|line| line.split_once('\t'));
    let named = findings.map(|(line, finding)| {
        let (name, json) = &resources[line.parse::<usize>().unwrap() - 1];
        format!("{judge}: {name}: {finding}\n    {json}")
    });
    named.collect()
}

#[test]
fn the_judges_find_what_is_wrong() {
    if installed().is_none() {
        return;
    }
    let wrong = r#"{"resourceType":"Patient","id":"p","birthDate":"2026-02-31"}"#;
    let right = r#"{"resourceType":"Patient","id":"p","birthDate":"2026-02-28","text":{"status":"generated","div":"<div xmlns=\"http://www.w3.org/1999/xhtml\">p</div>"}}"#;
    let resources = [("wrong".to_owned(), wrong.to_owned()), ("right".to_owned(), right.to_owned())];
    let found = findings(&resources);
    assert!(found.iter().all(|finding| finding.contains(": wrong: ")), "{found:?}");
    for judge in ["official validator", "fhir.resources"] {
        assert!(found.iter().any(|finding| finding.starts_with(judge)), "{judge} let 31 February pass");
    }
}
