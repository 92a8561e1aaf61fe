//! What the servers are made of, at pinned versions: Debian packages and Maven artifacts, kept in the cache.
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::shell;

const DEPENDENCY_PLUGIN: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1";

/// Something Maven brings into a folder of the cache, `<cache>/<name>`. The name holds the version.
pub enum Artifact {
    /// Jars with everything they need at run time, in `<name>/libs`.
    Jars { name: &'static str, coordinates: &'static [&'static str], without: &'static [&'static str] },
    /// One tar archive, unpacked.
    Archive { name: &'static str, coordinate: &'static str },
}

impl Artifact {
    pub fn name(&self) -> &'static str {
        match self {
            Artifact::Jars { name, .. } | Artifact::Archive { name, .. } => name,
        }
    }

    /// Its folder: complete if it exists, since it is filled under another name first.
    pub fn dir(&self, cache: &Path) -> PathBuf {
        cache.join(self.name())
    }

    fn fetch(&self, cache: &Path) -> Result<()> {
        let target = self.dir(cache);
        if target.exists() {
            return Ok(());
        }
        let partial = cache.join(format!("{}.partial", self.name()));
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        fs::create_dir_all(&partial)?;
        step(self.name(), || match self {
            Artifact::Jars { coordinates, without, .. } => fetch_jars(&partial, coordinates, without),
            Artifact::Archive { coordinate, .. } => fetch_archive(&partial, coordinate),
        })?;
        fs::rename(&partial, &target)?;
        Ok(())
    }
}

fn fetch_jars(dir: &Path, coordinates: &[&str], without: &[&str]) -> Result<()> {
    let mut pom = String::from(
        "<project><modelVersion>4.0.0</modelVersion><groupId>fhirehose</groupId><artifactId>stack</artifactId>\
         <version>1</version><packaging>pom</packaging><dependencies>\n",
    );
    for coordinate in coordinates {
        let parts: Vec<&str> = coordinate.split(':').collect();
        let [group, artifact, version] = parts[..] else {
            bail!("'{coordinate}' is not group:artifact:version")
        };
        pom.push_str(&format!(
            "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></dependency>\n"
        ));
    }
    pom.push_str("</dependencies></project>\n");
    fs::write(dir.join("pom.xml"), pom)?;
    maven(dir)
        .arg(format!("{DEPENDENCY_PLUGIN}:copy-dependencies"))
        .arg("-DincludeScope=runtime")
        .arg(format!("-DexcludeArtifactIds={}", without.join(",")))
        .arg(format!("-DoutputDirectory={}", dir.join("libs").display()))
        .capture()
}

fn fetch_archive(dir: &Path, coordinate: &str) -> Result<()> {
    let download = dir.join("download");
    maven(dir)
        .arg(format!("{DEPENDENCY_PLUGIN}:copy"))
        .arg(format!("-Dartifact={coordinate}"))
        .arg(format!("-DoutputDirectory={}", download.display()))
        .capture()?;
    let archive = fs::read_dir(&download)?.next().context("Maven copied nothing")??.path();
    shell::capture(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(dir))?;
    fs::remove_dir_all(download)?;
    Ok(())
}

/// Batch mode, quiet, and `-U`, because Maven remembers a failed download as a fact.
fn maven(dir: &Path) -> MavenRun {
    let mut command = Command::new("mvn");
    command.current_dir(dir).args(["-q", "-B", "-U"]);
    MavenRun(command)
}

struct MavenRun(Command);

impl MavenRun {
    fn arg(mut self, argument: impl AsRef<std::ffi::OsStr>) -> Self {
        self.0.arg(argument);
        self
    }

    fn capture(mut self) -> Result<()> {
        shell::capture(&mut self.0).map(drop).context(
            "Maven could not fetch it; is Maven Central (or your mirror in ~/.m2/settings.xml) reachable?",
        )
    }
}

/// All of them, one after the other: Maven's local repository does not stand two writers.
pub fn artifacts(wanted: &[Artifact], cache: &Path) -> Result<()> {
    for artifact in wanted {
        artifact.fetch(cache).with_context(|| format!("installing {}", artifact.name()))?;
    }
    Ok(())
}

/// Installs those Debian packages that are missing, in one go. Without root it says what to type.
pub fn debian_packages(wanted: &BTreeSet<&str>) -> Result<()> {
    let installed = installed_packages(wanted)?;
    let missing: Vec<&str> = wanted
        .iter()
        .copied()
        .filter(|package| !installed.contains(*package) && !has_program(package))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !shell::is_root() {
        bail!(
            "Debian packages are missing and only root can install them. Run:\n  sudo apt-get update && sudo apt-get install -y --no-install-recommends {list}\nand try again"
        );
    }
    step(&format!("apt: {list}"), || {
        // A foreign source that does not answer must not matter: the install itself fails if something lacks.
        let updated = shell::capture(Command::new("apt-get").args(["update", "-qq"]));
        let install = shell::capture(
            Command::new("apt-get")
                .args(["install", "-y", "-qq", "--no-install-recommends"])
                .args(&missing)
                .env("DEBIAN_FRONTEND", "noninteractive"),
        );
        match (install, updated) {
            (Err(error), Err(update)) => {
                Err(error.context(format!("apt-get update failed before: {update}")))
            }
            (Err(error), Ok(_)) => Err(error),
            (Ok(_), _) => Ok(()),
        }
    })
}

/// For these a program from elsewhere serves as well as the package's.
fn has_program(package: &str) -> bool {
    const PROGRAMS: &[(&str, &str)] = &[
        ("cmake", "cmake"),
        ("maven", "mvn"),
        ("ninja-build", "ninja"),
        ("nodejs", "node"),
        ("npm", "npm"),
        ("python3-pip", "pip3"),
        ("zip", "zip"),
    ];
    PROGRAMS.iter().any(|(name, program)| *name == package && shell::which(program).is_some())
}

fn installed_packages(wanted: &BTreeSet<&str>) -> Result<BTreeSet<String>> {
    if shell::which("dpkg-query").is_none() {
        bail!(
            "this machine has no dpkg: the native stack installs on Debian 12 only. \
             With a container engine: docker compose -f docker-compose.kafka.yml up"
        );
    }
    // Exit code 1 means "some are unknown", which is what is asked; the known ones are listed all the same.
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Status} ${Package}\n"])
        .args(wanted)
        .output()
        .context("cannot run dpkg-query")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().filter_map(|line| line.strip_prefix("installed ")).map(str::to_owned).collect())
}

/// Runs one long step with a line before and a line after it.
pub fn step<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("  {name} … installing");
    let begin = Instant::now();
    let result = work()?;
    println!("  {name} … ready in {:.1} s", begin.elapsed().as_secs_f64());
    Ok(result)
}

/// What the product's own build needs beyond a Rust toolchain: librdkafka is compiled from source.
pub fn build_prerequisites() -> Result<()> {
    const PACKAGES: [&str; 8] =
        ["cmake", "g++", "gcc", "libcurl4-openssl-dev", "libssl-dev", "make", "pkg-config", "zlib1g-dev"];
    debian_packages(&PACKAGES.into())
}
