//! What the processes themselves tell and use: personal data nowhere (I11), nothing that grows (I12), none of
//! their own counters of broken guarantees above zero.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::ledger::{Breaches, Invariant};
use crate::product::{Fleet, Resources};

/// How much a process may have grown over 180 rebalances: a few handles and threads that clients open anew when
/// servers or partitions move, and what an allocator keeps.
const FILES: u64 = 12;
const THREADS: u64 = 4;
const RESIDENT_KIB: u64 = 48 << 10;

/// Resources of each process at some time.
pub struct Growth(Vec<(String, u32, Resources)>);

impl Growth {
    pub fn since_now(fleet: &Fleet) -> Result<Growth> {
        let each = fleet.processes.iter();
        let measured: Result<_> = each.map(|p| Ok((p.instance.clone(), p.starts, p.resources()?))).collect();
        Ok(Growth(measured?))
    }

    /// Processes that were started anew meanwhile have nothing to be compared with.
    pub fn judge(&self, fleet: &Fleet, breaches: &mut Breaches) -> Result<()> {
        for (instance, starts, before) in &self.0 {
            let same = fleet.processes.iter().find(|p| p.instance == *instance && p.starts == *starts);
            if let Some(process) = same {
                for (what, before, after) in grown(*before, process.resources()?) {
                    breaches.add(Invariant::I12, what, format!("{instance} from {before} to {after}"));
                }
            }
        }
        Ok(())
    }
}

fn grown(before: Resources, after: Resources) -> impl Iterator<Item = (&'static str, u64, u64)> {
    [
        ("file handles have grown", before.files, after.files, FILES),
        ("threads have grown", before.threads, after.threads, THREADS),
        ("KiB of memory have grown", before.resident_kib, after.resident_kib, RESIDENT_KIB),
    ]
    .into_iter()
    .filter(|(_, before, after, more)| *after > before + more)
    .map(|(what, before, after, _)| (what, before, after))
}

/// Personal values of the examples, as the flows put them into their inputs.
pub fn canaries(root: &Path) -> Result<Vec<String>> {
    let file = root.join("examples/canaries.txt");
    let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    Ok(text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
}

/// Pages of the processes, while they run.
pub fn pages(fleet: &Fleet, canaries: &[String], breaches: &mut Breaches) {
    for process in &fleet.processes {
        for page in ["/", "/metrics", "/admin/status"] {
            if let Some(text) = process.get(page) {
                told(&format!("{} {page}", process.instance), &text, canaries, breaches);
            }
        }
        for (kind, count) in process.violations().unwrap_or_default() {
            breaches.add(own(&kind), "a process counts a broken guarantee", format!("{kind} {count}"));
        }
    }
}

/// Logs of all lives of all processes of a run.
pub fn logs(dir: &Path, canaries: &[String], breaches: &mut Breaches) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let text = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
            told(&name, &text, canaries, breaches);
            for line in text.lines().filter(|line| line.contains("a guarantee did not hold")) {
                breaches.add(own(line), "a process logs a broken guarantee", &name);
            }
            for _ in text.lines().filter(|line| line.contains("panicked")) {
                breaches.add(Invariant::I10, "a worker panicked", &name);
            }
        }
    }
    Ok(())
}

/// The product's own kinds of violations among the invariants.
fn own(kind: &str) -> Invariant {
    if kind.contains("offset_regression") { Invariant::I3 } else { Invariant::I1 }
}

/// Names the canary's line in the list, not the canary.
fn told(place: &str, text: &str, canaries: &[String], breaches: &mut Breaches) {
    for (line, canary) in (1..).zip(canaries) {
        if text.contains(canary.as_str()) {
            breaches.add(Invariant::I11, "a personal value is told", format!("{place}: canary {line}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_within_the_bounds_is_none() {
        let before = Resources { files: 60, threads: 30, resident_kib: 90_000 };
        let slightly = Resources { files: 65, threads: 32, resident_kib: 100_000 };
        assert_eq!(grown(before, slightly).count(), 0);
        let leaking = Resources { files: 160, threads: 60, resident_kib: 300_000 };
        let found: Vec<_> = grown(before, leaking).map(|(what, ..)| what).collect();
        assert_eq!(found.len(), 3, "{found:?}");
    }

    #[test]
    fn a_canary_or_a_broken_guarantee_in_a_log_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let write = |text: &str| fs::write(dir.path().join("a.log"), text).unwrap();
        let found = || {
            let mut breaches = Breaches::default();
            logs(dir.path(), &["Qanary".into()], &mut breaches).unwrap();
            breaches.into_vec()
        };
        write("{\"message\":\"started\"}\n");
        assert_eq!(found(), []);
        write("{\"name\":\"Amna Qanary\"}\n");
        assert_eq!(found()[0].invariant, Invariant::I11);
        assert!(!found()[0].what.contains("Qanary"));
        write(
            "{\"message\":\"a guarantee did not hold; please report this\",\"kind\":\"offset_regression\"}\n",
        );
        assert_eq!(found()[0].invariant, Invariant::I3);
    }
}
