//! Installs the peers of `cargo xtask bench shapes` into the cache, each in a folder of its own that is named after
//! the package and its version. None is part of the product.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;
use crate::stack::install::{debian_packages, step};

/// Python packages: the folder, what must be installed with it at a version, and the module that must be there.
const PYTHON: [(&str, &[&str], &str); 3] = [
    ("sqlonfhir-0.0.2", &["fhirpathpy==2.1.0"], "sqlonfhir"),
    ("fhirpathpy-2.2.4", &[], "fhirpathpy"),
    // It imports typing_extensions without asking for it.
    ("fpml-1.0.0", &["fhirpathpy==2.2.4", "typing_extensions==4.16.0"], "fpml"),
];
/// Packages of npm.
const NODE: [&str; 1] = ["fhirpath-4.9.1"];

/// What the machine must have. Without root it says what to type.
pub fn prerequisites() -> Result<()> {
    debian_packages(&["nodejs", "npm", "python3-venv"].into())
}

/// Returns the folder the bench finds them in.
pub fn install(cache: &Path) -> Result<PathBuf> {
    let dir = cache.join("peers");
    fs::create_dir_all(&dir)?;
    for (folder, others, module) in PYTHON {
        python(&dir.join(folder), folder, others, module).with_context(|| format!("installing {folder}"))?;
    }
    for folder in NODE {
        node(&dir.join(folder), folder).with_context(|| format!("installing {folder}"))?;
    }
    Ok(dir)
}

fn python(environment: &Path, folder: &str, others: &[&str], module: &str) -> Result<()> {
    let python = environment.join("bin/python");
    let works = || shell::capture(Command::new(&python).args(["-c", &format!("import {module}")]));
    if python.exists() && works().is_ok() {
        return Ok(());
    }
    step(folder, || {
        shell::capture(Command::new("python3").args(["-m", "venv", "--clear"]).arg(environment))?;
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "-q", &at_version(folder, "==")]).args(others);
        shell::capture(&mut pip)?;
        works().map(drop)
    })
}

fn node(target: &Path, folder: &str) -> Result<()> {
    if target.exists() {
        return Ok(());
    }
    // Complete if it exists: it is filled under another name first.
    let partial = target.with_file_name(format!("{folder}.partial"));
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    fs::create_dir_all(&partial)?;
    step(folder, || {
        let mut npm = Command::new("npm");
        npm.args(["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]);
        shell::capture(npm.arg(&partial).arg(at_version(folder, "@"))).map(drop)
    })?;
    fs::rename(&partial, target)?;
    Ok(())
}

/// `name-1.2.3` as an installer takes it: `name==1.2.3`, `name@1.2.3`.
fn at_version(folder: &str, sign: &str) -> String {
    folder
        .rsplit_once('-')
        .map_or_else(|| folder.to_owned(), |(name, version)| format!("{name}{sign}{version}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_names_the_package_and_its_version() {
        assert_eq!(at_version("fhirpath-4.9.1", "@"), "fhirpath@4.9.1");
        assert_eq!(at_version("a-b-1.0", "=="), "a-b==1.0");
    }

    #[test]
    fn the_bench_looks_for_the_folders_that_are_made() {
        let bench = Path::new(env!("CARGO_MANIFEST_DIR")).join("../benches/src/engines/mod.rs");
        let bench = fs::read_to_string(bench).unwrap();
        for folder in PYTHON.map(|(folder, ..)| folder).iter().chain(&NODE) {
            assert!(bench.contains(&format!("\"{folder}\"")), "{folder}");
        }
    }
}
