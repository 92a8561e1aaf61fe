//! The repository's shapes in a folder of a test's own, where it may change the warehouse's.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

/// `topics` and `schemas` as they are, and copies of `views/warehouse`.
pub fn own_shapes(repository: &Path) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in ["topics", "schemas"] {
        let there = repository.join(name).canonicalize().unwrap();
        std::os::unix::fs::symlink(there, dir.path().join(name)).unwrap();
    }
    let views = dir.path().join("views/warehouse");
    fs::create_dir_all(&views).unwrap();
    for entry in fs::read_dir(repository.join("views/warehouse")).unwrap() {
        let from = entry.unwrap().path();
        fs::copy(&from, views.join(from.file_name().unwrap())).unwrap();
    }
    dir
}
