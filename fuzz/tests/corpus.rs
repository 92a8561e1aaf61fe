//! The seeds and everything the fuzzer has found, as tests.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use fhirehose_fuzz::{TARGETS, run};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn seeds_and_findings_pass() {
    for (name, _) in TARGETS {
        let seeds = files(&root().join("corpus").join(name));
        assert!(seeds.len() > 3, "{name} has hardly a seed");
        for file in seeds.into_iter().chain(files(&root().join("findings").join(name))) {
            let input = fs::read(&file).unwrap();
            let passed = std::panic::catch_unwind(|| run(name, &input));
            assert!(passed.is_ok(), "{}", file.display());
        }
    }
}

#[test]
fn seeds_are_small() {
    for (name, _) in TARGETS {
        let bytes: u64 =
            files(&root().join("corpus").join(name)).iter().map(|f| f.metadata().unwrap().len()).sum();
        assert!(bytes < 64 << 10, "{name}: {bytes} bytes");
    }
}

#[test]
fn every_target_is_a_program_of_the_fuzzer() {
    let manifest = fs::read_to_string(root().join("libfuzzer/Cargo.toml")).unwrap();
    let programs = manifest
        .lines()
        .filter_map(|line| line.strip_prefix("path = \"fuzz_targets/")?.strip_suffix(".rs\""));
    assert_eq!(programs.collect::<Vec<_>>(), TARGETS.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    for (name, _) in TARGETS {
        let program = fs::read_to_string(root().join(format!("libfuzzer/fuzz_targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!("fhirehose_fuzz::run(\"{name}\", input)")), "{name} runs another");
    }
}
