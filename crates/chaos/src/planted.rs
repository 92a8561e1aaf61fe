//! Bugs built into the product by the feature `chaos`, to prove that the harness can fail: each must be seen
//! within [`RUNS`] runs.

use anyhow::{Result, bail};

use crate::matrix::Moment;
use crate::report::Outcome;
use crate::run::Harness;
use crate::schedule::{self, Filter, Plan, Subject};

pub const RUNS: u64 = 50;

#[derive(Debug)]
pub struct Bug {
    /// As `FHIREHOSE_PLANTED_BUG` and the product have it.
    pub name: &'static str,
    pub breaks: &'static str,
    /// The flow it is looked for in.
    pub flow: &'static str,
    /// Faults that should show it, tried first and in turn: as in `--only`, with the moment where it matters.
    pub faults: &'static [(&'static str, Option<Moment>)],
}

use Moment::{Commit, Rebalance};

pub static BUGS: &[Bug] = &[
    // crates/runtime
    Bug {
        name: "offsets-before-outputs",
        breaks: "offsets are committed before the outputs they stand for",
        flow: "normalize-cdc",
        faults: &[("kill-at:transact.sent", None), ("kill-at:transact.flushed", None)],
    },
    Bug {
        name: "offsets-outside-transaction",
        breaks: "outputs in the transaction, offsets by a consumer's commit after it",
        flow: "normalize-cdc",
        faults: &[("kill-at:transact.committed", None)],
    },
    Bug {
        name: "fence-skipped",
        breaks: "a transactional id per start, and transactions without the group's generation",
        flow: "normalize-cdc",
        faults: &[("freeze-at:transact.processed", None), ("freeze-at:transact.sent", None)],
    },
    Bug {
        name: "dead-letters-not-awaited",
        breaks: "a sink's dead letters go out by a producer nobody waits for",
        flow: "sink-timescale",
        faults: &[("kill-at:store.committed", None), ("dlq-unavailable", None)],
    },
    Bug {
        name: "revoke-without-drain",
        breaks: "records of revoked partitions are still processed and committed",
        flow: "normalize-cdc",
        faults: &[("sluggish", None), ("kill", Some(Rebalance))],
    },
    Bug {
        name: "aborted-batch-dropped",
        breaks: "a batch whose transaction aborted is taken for done",
        flow: "normalize-cdc",
        faults: &[("broker-kill", None), ("usurper", None), ("cut:kafka", None)],
    },
    Bug {
        name: "late-end-trusted",
        breaks: "a producer whose end of transaction came late goes on",
        flow: "normalize-cdc",
        faults: &[("end-txn-overtaken", None)],
    },
    Bug {
        name: "unknown-commit-is-committed",
        breaks: "a commit without an answer is taken for done",
        flow: "normalize-cdc",
        faults: &[("half-open:kafka", None), ("cut:kafka", Some(Commit)), ("end-txn-held", None)],
    },
    Bug {
        name: "unknown-commit-is-aborted",
        breaks: "a commit without an answer is done again",
        flow: "normalize-cdc",
        faults: &[("answers-lost:kafka", None), ("end-txn-held", None)],
    },
    Bug {
        name: "changelog-outside-transaction",
        breaks: "changelog records go out by a producer of their own",
        flow: "normalize-device",
        faults: &[("kill-at:transact.sent", None), ("kill-at:transact.flushed", None)],
    },
    Bug {
        name: "claim-ignored",
        breaks: "after a claim the store is read on from Kafka's offset",
        flow: "sink-timescale",
        faults: &[("backend-terminated", Some(Commit)), ("postgres-kill", None), ("kill", None)],
    },
    Bug {
        name: "retained-records-forgotten",
        breaks: "at a revocation, polled records of partitions that stay are dropped too",
        flow: "enrich",
        faults: &[("lingering", None)],
    },
    Bug {
        name: "letter-mark-ignored",
        breaks: "what was dead-lettered before a claim is dead-lettered again",
        flow: "sink-timescale",
        faults: &[("kill-at:store.letters", None), ("backend-terminated", Some(Commit))],
    },
    Bug {
        name: "aborted-inputs-read",
        breaks: "consumers read what was aborted",
        flow: "enrich",
        faults: &[("none", None), ("kill", None)],
    },
    // crates/pgsink
    Bug {
        name: "no-epoch-predicate",
        breaks: "offsets in PostgreSQL move on whoever owns the partition",
        flow: "sink-timescale",
        faults: &[("freeze-at:store.staged", None), ("freeze-at:pg.begin", None), ("freeze", None)],
    },
    Bug {
        name: "offsets-in-own-transaction",
        breaks: "data is committed first, its offsets after it",
        flow: "sink-timescale",
        faults: &[("kill-at:pg.after_commit", None), ("none", None)],
    },
    Bug {
        name: "failed-commit-taken-for-done",
        breaks: "a COMMIT without an answer counts as done",
        flow: "sink-timescale",
        faults: &[("backend-terminated", Some(Commit)), ("postgres-kill", None)],
    },
    // sinks
    Bug {
        name: "bulk-item-errors-ignored",
        breaks: "a bulk request that was answered counts as done, item by item",
        flow: "sink-search",
        faults: &[("search-partial", None)],
    },
    Bug {
        name: "conflict-is-an-error",
        breaks: "409, the store holds a newer version, is dead-lettered",
        flow: "sink-search",
        faults: &[("none", None), ("kill-at:search.bulk_sent", None)],
    },
    Bug {
        name: "version-guard-dropped",
        breaks: "documents are written without a version",
        flow: "sink-search",
        faults: &[("none", None), ("kill-at:search.bulk_sent", None)],
    },
    Bug {
        name: "delete-without-tombstone",
        breaks: "a delete takes the document away instead of leaving a tombstone",
        flow: "sink-search",
        faults: &[("none", None)],
    },
    Bug {
        name: "eviction-without-marker",
        breaks: "an eviction leaves no marker against slow fillers",
        flow: "sink-redis",
        faults: &[("none", None), ("latency:redis", None)],
    },
    Bug {
        name: "guard-dropped",
        breaks: "an event evicts entries read after its change, too",
        flow: "sink-redis",
        faults: &[("cut:redis", None), ("freeze", None)],
    },
    Bug {
        name: "sample-version-ignored",
        breaks: "any version of a reading goes over whatever is there",
        flow: "sink-timescale",
        faults: &[("none", None), ("kill", None)],
    },
    Bug {
        name: "pending-fact-forgotten",
        breaks: "facts are not re-pointed when a version that holds at their time comes later",
        flow: "sink-warehouse",
        faults: &[("none", None)],
    },
    Bug {
        name: "scd2-open-interval-kept",
        breaks: "a version is not closed when the next begins",
        flow: "sink-warehouse",
        faults: &[("none", None)],
    },
    Bug {
        name: "scd2-gap",
        breaks: "a version is closed a millisecond before the next begins",
        flow: "sink-warehouse",
        faults: &[("none", None)],
    },
    // processors
    Bug {
        name: "watermark-lost-on-restart",
        breaks: "the source position kept with the offset is not read back",
        flow: "normalize-cdc",
        faults: &[("kill", None), ("rolling-restart", None)],
    },
    Bug {
        name: "pending-forgotten",
        breaks: "records whose target is missing are not restored from the changelog",
        flow: "enrich",
        faults: &[("kill", None), ("rolling-restart", None)],
    },
    Bug {
        name: "reference-goes-back",
        breaks: "the reference store is emptied at every assignment",
        flow: "enrich",
        faults: &[("kill", None), ("rolling-restart", None)],
    },
    Bug {
        name: "parked-not-restored",
        breaks: "parked readings are not restored from the changelog",
        flow: "normalize-device",
        faults: &[("kill", None), ("rolling-restart", None)],
    },
    Bug {
        name: "park-order-broken",
        breaks: "parked readings of a device flow last first",
        flow: "normalize-device",
        faults: &[("none", None)],
    },
];

/// The bug of that name, or all.
pub fn chosen(name: Option<&str>) -> Result<Vec<&'static Bug>> {
    let found: Vec<_> = BUGS.iter().filter(|bug| name.is_none_or(|name| name == bug.name)).collect();
    if found.is_empty() {
        bail!("no bug is called so; --list names them");
    }
    Ok(found)
}

/// The run with which a bug is looked for at the `number`th time, from 0: its own faults twice each, then any.
pub fn hunt(bug: &Bug, number: u64, seed: u64, subjects: &[Subject]) -> Result<Plan> {
    let flow = Some(bug.flow.to_owned());
    let own = bug.faults.len() as u64;
    let filter = if number < 2 * own {
        let (fault, moment) = bug.faults[(number % own) as usize];
        Filter { fault: Some(fault.to_owned()), flow, moment }
    } else {
        Filter { fault: None, flow, moment: None }
    };
    Ok(schedule::plan(seed + number, &schedule::cells(subjects, &filter)?, &filter))
}

/// Looks for the bug until it is seen; each run is told. Returns whether it was seen.
pub fn catch(
    harness: &Harness,
    bug: &Bug,
    seed: u64,
    subjects: &[Subject],
    mut tell: impl FnMut(&Plan, &Outcome) -> Result<()>,
) -> Result<bool> {
    for number in 0..RUNS {
        let plan = hunt(bug, number, seed, subjects)?;
        let outcome = harness.run(&plan, Some(bug.name));
        tell(&plan, &outcome)?;
        if !outcome.violations.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Target;

    fn subjects() -> Vec<Subject> {
        let of = |target: Target, flows: &[&'static str]| -> Vec<Subject> {
            flows.iter().map(|flow| Subject { flow, target }).collect()
        };
        [
            of(Target::Kafka, &["normalize-cdc", "normalize-device", "enrich", "invalidate-cache"]),
            of(Target::Postgres, &["sink-timescale", "sink-warehouse"]),
            of(Target::Search, &["sink-search"]),
            of(Target::Redis, &["sink-redis"]),
        ]
        .concat()
    }

    #[test]
    fn every_bug_can_be_hunted_with_its_own_faults_first_and_any_after() {
        for bug in BUGS {
            for number in 0..RUNS {
                let plan = hunt(bug, number, 1, &subjects()).unwrap();
                assert_eq!(plan.cell.subject.flow, bug.flow);
                let (fault, moment) = bug.faults[number as usize % bug.faults.len()];
                if number < bug.faults.len() as u64 {
                    assert_eq!(plan.cell.fault_name(), fault, "{}", bug.name);
                    assert!(moment.is_none_or(|moment| moment == plan.moment));
                }
            }
        }
    }

    /// The product asks for bugs by name, and nothing tells of one it does not know.
    #[test]
    fn every_bug_is_somewhere_in_the_product_and_none_there_is_missing_here() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut found = std::collections::BTreeSet::new();
        for dir in ["crates/runtime/src", "crates/pgsink/src", "crates/state/src", "processors"] {
            planted_in(&root.join(dir), &mut found);
        }
        let listed = BUGS.iter().map(|bug| bug.name.to_owned()).collect();
        assert_eq!(found, listed);
    }

    fn planted_in(dir: &std::path::Path, found: &mut std::collections::BTreeSet<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                planted_in(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let names = text.split("planted(\"").skip(1).filter_map(|rest| rest.split('"').next());
                found.extend(names.map(str::to_owned));
            }
        }
    }
}
