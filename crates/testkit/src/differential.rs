//! Comparing with other implementations: where they are, asking them, and the differences that are known.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::{File, read_dir};
use std::io::{BufWriter, Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use flate2::read::GzDecoder;
use regex::Regex;
use serde_json::Value as Json;

use crate::root;

/// A number from the environment.
pub fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}: {text}")))
}

/// Where `cargo xtask test` installed the other implementations. Nothing if it did not, which is told.
pub fn oracles() -> Option<PathBuf> {
    let dir = std::env::var_os("FHIREHOSE_TEST_ORACLES").map(PathBuf::from);
    if dir.is_none() {
        eprintln!(
            "SKIPPED: nothing to compare with; `cargo xtask test` installs it and sets FHIREHOSE_TEST_ORACLES"
        );
    }
    dir
}

/// Writes lines to a process and gives those it answers with. One that fails is told by what it said last.
pub fn ask<T: Display>(mut command: Command, lines: impl IntoIterator<Item = T> + Send) -> Vec<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = started.unwrap_or_else(|error| panic!("{name} does not start: {error}"));
    let mut input = BufWriter::new(child.stdin.take().unwrap());
    let output = std::thread::scope(|scope| {
        // A write fails where the process has ended, which its status tells.
        scope.spawn(move || lines.into_iter().try_for_each(|line| writeln!(input, "{line}")));
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Kinds of differences and the reason of each: lines `regular expression -- reason`; the first that matches counts.
pub struct Known(Vec<(Regex, &'static str)>);

impl Known {
    /// Reads a list; empty lines and those with `#` are none.
    pub fn read(list: &'static str) -> Known {
        let lines = list.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let kind = |line: &'static str| {
            let (pattern, reason) = line.split_once(" -- ").unwrap_or_else(|| panic!("no reason: {line}"));
            (Regex::new(pattern).unwrap_or_else(|error| panic!("{error}")), reason)
        };
        Known(lines.map(kind).collect())
    }

    /// Why there is this difference, if that is known.
    pub fn reason(&self, difference: &str) -> Option<&'static str> {
        self.0.iter().find(|(pattern, _)| pattern.is_match(difference)).map(|(_, reason)| *reason)
    }

    /// All expressions and reasons.
    pub fn kinds(&self) -> impl Iterator<Item = (&str, &'static str)> {
        self.0.iter().map(|(pattern, reason)| (pattern.as_str(), *reason))
    }
}

/// The same JSON; numbers by value, up to a relative difference.
pub fn same(a: &Json, b: &Json, tolerance: f64) -> bool {
    match (a, b) {
        (Json::Number(a), Json::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            (a - b).abs() <= tolerance * a.abs().max(1.0)
        }
        (Json::Array(a), Json::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b, tolerance))
        }
        (Json::Object(a), Json::Object(b)) => {
            let in_b = |(name, a)| b.get(name).is_some_and(|b| same(a, b, tolerance));
            a.len() == b.len() && a.iter().all(in_b)
        }
        _ => a == b,
    }
}

/// All resources of Synthea's bundles, by type, each type in the order of the files.
pub fn synthea() -> BTreeMap<String, Vec<Json>> {
    let dir = root().join("../shared/data/synthea");
    assert!(dir.is_dir(), "Synthea's bundles are missing: {}", dir.display());
    let mut files: Vec<_> = read_dir(dir).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "gz"));
    files.sort();
    let mut by_type: BTreeMap<String, Vec<Json>> = BTreeMap::new();
    for file in files {
        let mut text = String::new();
        GzDecoder::new(File::open(file).unwrap()).read_to_string(&mut text).unwrap();
        let mut bundle: Json = serde_json::from_str(&text).unwrap();
        for entry in bundle["entry"].as_array_mut().into_iter().flatten() {
            let resource = entry["resource"].take();
            let of = resource["resourceType"].as_str().unwrap_or_default().to_owned();
            by_type.entry(of).or_default().push(resource);
        }
    }
    by_type
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_kind_that_matches_gives_the_reason() {
        let known = Known::read("# head\n\n^a.* => 1 -- theirs: one\n^a -- ours: any\n");
        assert_eq!(known.reason("ab => 1"), Some("theirs: one"));
        assert_eq!(known.reason("ab => 2"), Some("ours: any"));
        assert_eq!(known.reason("b"), None);
    }

    #[test]
    fn numbers_are_the_same_by_value_and_names_in_any_order() {
        let a = json!({"a": 1.0, "b": [1, null]});
        assert!(same(&a, &json!({"b": [1.0, null], "a": 1}), 0.0));
        assert!(
            !same(&a, &json!({"a": 1.0, "b": [1]}), 0.0)
                && !same(&a, &json!({"a": 1.0, "c": [1, null]}), 0.0)
        );
        assert!(same(&json!(1.0), &json!(1.000_000_001), 1e-8) && !same(&json!(1.0), &json!(1.001), 1e-8));
    }

    #[test]
    fn a_process_is_asked_and_one_that_fails_is_told() {
        assert_eq!(ask(Command::new("cat"), ["a", "b"]), ["a", "b"]);
        let mut failing = Command::new("sh");
        failing.args(["-c", "echo no such luck >&2; exit 3"]);
        let told = std::thread::spawn(move || ask(failing, ["a"])).join().unwrap_err();
        assert!(told.downcast_ref::<String>().is_some_and(|told| told.contains("no such luck")));
    }
}
