//! Installs the judges of the tests into the cache: the official FHIR validator, the `fhir.resources` models and
//! `fhirpathpy`. None is part of the product.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;
use crate::stack::install::{debian_packages, step};

/// Folder of the validator's jars; the version is that of `tests/oracles/pom.xml`.
const JARS: &str = "hapi-8.8.1";
const DEPENDENCY_PLUGIN: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1";
/// The last models of FHIR 4.0.1, and what they run on; another FHIRPath.
const MODELS: [&str; 3] = ["fhir.resources==6.4.0", "pydantic<2", "fhirpathpy==2.2.4"];

/// What the machine must have. Apart from [`install`], since two package installations at once do not work.
pub fn prerequisites() -> Result<()> {
    let mut packages = vec!["maven", "python3-venv"];
    if shell::which("javac").is_none() {
        packages.push("default-jdk-headless");
    }
    debian_packages(&packages.into_iter().collect())
}

/// Returns the folder the tests find them in.
pub fn install(root: &Path, cache: &Path) -> Result<PathBuf> {
    let dir = cache.join("oracles");
    fs::create_dir_all(&dir)?;
    validator(&root.join("tests/oracles"), &dir).context("the official FHIR validator")?;
    models(&dir).context("the fhir.resources models")?;
    Ok(dir)
}

fn validator(source: &Path, dir: &Path) -> Result<()> {
    let jars = dir.join(JARS);
    if !jars.exists() {
        // Complete if it exists: it is filled under another name first.
        let partial = dir.join(format!("{JARS}.partial"));
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        step("FHIR validator", || {
            let mut maven = Command::new("mvn");
            maven.args(["-q", "-B", "-f"]).arg(source.join("pom.xml"));
            maven.arg(format!("{DEPENDENCY_PLUGIN}:copy-dependencies")).arg("-DincludeScope=runtime");
            shell::capture(maven.arg(format!("-DoutputDirectory={}", partial.display())))
        })?;
        fs::rename(&partial, &jars)?;
    }
    let mut compiler = Command::new("javac");
    compiler.arg("-cp").arg(jars.join("*")).arg("-d").arg(dir.join(format!("{JARS}-classes")));
    shell::capture(compiler.arg(source.join("FhirValidate.java"))).map(drop)
}

fn models(dir: &Path) -> Result<()> {
    let (environment, python) = (dir.join("py"), dir.join("py/bin/python"));
    let mut works = Command::new(&python);
    if python.exists() && shell::capture(works.args(["-c", "import fhir.resources, fhirpathpy"])).is_ok() {
        return Ok(());
    }
    step("fhir.resources and fhirpathpy", || {
        shell::capture(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment))?;
        shell::capture(Command::new(&python).args(["-m", "pip", "install", "-q"]).args(MODELS)).map(drop)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_named_after_the_version_it_holds() {
        let pom = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/oracles/pom.xml"));
        let version = JARS.trim_start_matches("hapi-");
        let named = format!("<artifactId>hapi-fhir-validation</artifactId><version>{version}</version>");
        assert!(pom.unwrap().contains(&named), "{named}");
    }
}
