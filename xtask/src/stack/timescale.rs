//! TimescaleDB, Apache edition, for Debian 12's PostgreSQL 15. Debian carries it only for a later PostgreSQL,
//! so its source package is built here once; the four files that count stay in the cache as an archive.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::install::{debian_packages, step};
use crate::shell;

const VERSION: &str = "2.19.3";
const SUITE: &str = "trixie";
/// Of the upstream archive within the Debian source package.
const SHA256: &str = "09fd11191768c220b071f61a108df9bd1df5522fbe4e7c2229f30f69b195454a";
const PACKAGES: &[&str] = &[
    "cmake",
    "g++",
    "gcc",
    "libssl-dev",
    "make",
    "ninja-build",
    "patch",
    "postgresql-server-dev-15",
    "xz-utils",
];

/// Installs the extension unless PostgreSQL 15 has one already, whatever its edition and version.
pub fn install(cache: &Path) -> Result<()> {
    let control = Path::new("/usr/share/postgresql/15/extension/timescaledb.control");
    if control.is_file() {
        return Ok(());
    }
    if !shell::is_root() {
        bail!(
            "TimescaleDB goes into PostgreSQL's own folders: run `sudo -E cargo xtask stack up postgres` once"
        );
    }
    let archive =
        cache.join(format!("timescaledb-{VERSION}-postgresql-15-{}.tar.gz", std::env::consts::ARCH));
    if !archive.is_file() {
        debian_packages(&PACKAGES.iter().copied().collect())?;
        step(&format!("timescaledb {VERSION}, from source"), || build(cache, &archive))?;
    }
    shell::capture(Command::new("tar").args(["-C", "/", "-xzf"]).arg(&archive)).map(drop)
}

fn build(cache: &Path, archive: &Path) -> Result<()> {
    let work = cache.join("timescaledb.build");
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    let source = unpack(&download(&work)?, &work)?;
    let build = work.join("build");
    let image = work.join("image");
    shell::capture(
        Command::new("cmake").arg("-S").arg(&source).arg("-B").arg(&build).args(["-G", "Ninja"]).args([
            "-DCMAKE_BUILD_TYPE=RelWithDebInfo",
            "-DPG_CONFIG=/usr/lib/postgresql/15/bin/pg_config",
            "-DREGRESS_CHECKS=OFF",
            "-DTAP_CHECKS=OFF",
            "-DWARNINGS_AS_ERRORS=OFF",
            "-DAPACHE_ONLY=1",
            "-DSEND_TELEMETRY_DEFAULT=OFF",
            "-DUSE_TELEMETRY=OFF",
        ]),
    )?;
    shell::capture(Command::new("ninja").arg("-C").arg(&build))?;
    shell::capture(Command::new("ninja").arg("-C").arg(&build).arg("install").env("DESTDIR", &image))?;
    let partial = archive.with_extension("partial");
    shell::capture(Command::new("tar").arg("-C").arg(&image).arg("-czf").arg(&partial).args([
        "usr/lib/postgresql/15/lib/timescaledb.so".to_owned(),
        format!("usr/lib/postgresql/15/lib/timescaledb-{VERSION}.so"),
        "usr/share/postgresql/15/extension/timescaledb.control".to_owned(),
        format!("usr/share/postgresql/15/extension/timescaledb--{VERSION}.sql"),
    ]))?;
    fs::rename(partial, archive)?;
    fs::remove_dir_all(work)?;
    Ok(())
}

/// Fetches the source package with lists of its own, so that the machine's package lists stay as they are.
fn download(work: &Path) -> Result<PathBuf> {
    let downloads = work.join("download");
    let cache = work.join("apt-cache");
    let lists = work.join("apt-lists");
    for dir in [&downloads, &cache.join("archives/partial"), &lists.join("partial")] {
        fs::create_dir_all(dir)?;
    }
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let sources = work.join("sources.list");
    fs::write(&sources, format!("deb-src [signed-by={keyring}] {} {SUITE} main\n", debian_mirror()?))?;
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        for (option, value) in [
            ("Dir::Etc::sourcelist", sources.as_path()),
            ("Dir::Etc::sourceparts", Path::new("/dev/null")),
            ("Dir::State::lists", &lists),
            ("Dir::Cache", &cache),
            ("APT::Sandbox::User", Path::new("root")),
        ] {
            command.arg("-o").arg(format!("{option}={}", value.display()));
        }
        shell::capture(command.current_dir(&downloads).arg("-qq").args(arguments))
    };
    apt(&["update"]).with_context(|| format!("the package lists of Debian {SUITE} could not be fetched"))?;
    apt(&["source", "--download-only", &format!("timescaledb={VERSION}+dfsg-1+deb13u1")])?;
    Ok(downloads)
}

/// The mirror this machine's apt already uses.
fn debian_mirror() -> Result<String> {
    let targets = shell::capture(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI)",
        "Created-By: Packages",
        "Component: main",
        "Origin: Debian",
        "Label: Debian",
    ]))?;
    let mirror = targets.lines().next();
    mirror
        .map(str::to_owned)
        .context("apt knows no Debian mirror: the native stack installs on Debian 12 only")
}

fn unpack(downloads: &Path, work: &Path) -> Result<PathBuf> {
    let find = |part: &str| {
        let mut files = fs::read_dir(downloads)?.flatten().map(|entry| entry.path());
        let found =
            files.find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().contains(part)));
        found.with_context(|| format!("the source package has no file named *{part}*"))
    };
    let original = find(".orig.tar")?;
    let sum = shell::capture(Command::new("sha256sum").arg(&original))?;
    if !sum.starts_with(SHA256) {
        bail!("{} has the wrong checksum: expected {SHA256}", original.display());
    }
    let source = work.join("source");
    fs::create_dir_all(&source)?;
    let tar = |archive: &Path, strip: &str| {
        let into = Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(&source).arg(strip).output();
        into.context("cannot run tar").and_then(|output| match output.status.success() {
            true => Ok(()),
            false => bail!("tar could not unpack {}", archive.display()),
        })
    };
    tar(&original, "--strip-components=1")?;
    tar(&find(".debian.tar")?, "--strip-components=0")?;
    let series = fs::read_to_string(source.join("debian/patches/series"))?;
    for patch in series.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let file = source.join("debian/patches").join(patch);
        shell::capture(Command::new("patch").args(["-p1", "-s", "-d"]).arg(&source).arg("-i").arg(file))?;
    }
    Ok(source)
}
