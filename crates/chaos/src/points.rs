//! The fault points each flow passes, and what else depends on where a flow leads.

use crate::flow::Target;
use crate::schedule::Subject;

/// Fault points a Kafka-to-Kafka flow passes under load.
const TRANSACT: &[&str] = &[
    "transact.processed",
    "transact.begun",
    "transact.sent",
    "transact.flushed",
    "transact.offsets",
    "transact.committed",
    "transact.revoking",
];
const STORE: &[&str] =
    &["store.claimed", "store.staged", "store.letters", "store.committed", "store.revoking"];

/// The points a flow passes, and where in them it stands in the middle of a commit.
pub fn points(subject: Subject) -> Vec<&'static str> {
    let more: &[&str] = match (subject.target, subject.flow) {
        (_, "whole") => return Vec::new(),
        // These have a changelog to restore.
        (Target::Kafka, "enrich" | "normalize-device") => &["transact.restoring"],
        (Target::Kafka, _) => &[],
        (Target::Postgres, _) => &["pg.begin", "pg.before_commit", "pg.after_commit"],
        (Target::Search, _) => &["store.offsets", "search.bulk_sent"],
        (Target::Redis, _) => &["store.offsets", "redis.evicted"],
    };
    let loop_points = if subject.target == Target::Kafka { TRANSACT } else { STORE };
    [loop_points, more].concat()
}

/// Where a flow stands in the middle of a commit.
pub fn commit_point(target: Target) -> &'static str {
    match target {
        Target::Kafka => "transact.offsets",
        Target::Postgres => "pg.before_commit",
        Target::Search => "search.bulk_sent",
        Target::Redis => "redis.evicted",
    }
}

/// What a flow is given of the load's rate: a search engine and a star schema take fewer records than a log.
pub fn share_of_rate(subject: Subject) -> f64 {
    match (subject.target, subject.flow) {
        (Target::Search, _) | (_, "sink-warehouse") => 0.3,
        _ => 1.0,
    }
}
