//! What runs and what each run expects: the one table of faults. Whatever is struck, invariants I1 to I11 hold
//! after it; `expects` says what may be seen besides.
//!
//! Not in the table, because nothing is promised: a topic deleted and made anew under a running group (it is to be
//! stopped first, docs/RUNBOOK.md), more partitions of a topic whose offsets make versions (`topics apply` refuses
//! them), a cluster that lost acknowledged records.

pub use crate::fault::{Fault, Moment, On};
use crate::faults::{debezium, group, kafka, network, postgres, process, stores};
use crate::flow::Target;

use Moment::{Commit, Idle, Load, Rebalance};

const ANY: &[Moment] = &[Idle, Load, Rebalance, Commit];
const BUSY: &[Moment] = &[Load, Rebalance, Commit];
const MOVES: u64 = 30;
/// Nothing moves before Debezium does, which takes its time to come back.
const MOVES_BEHIND_DEBEZIUM: u64 = 120;

/// The commonest of everything; entries name what differs.
const USUAL: Fault = Fault {
    name: "none",
    what: "nothing breaks",
    expects: "nothing but the work done",
    on: On::All,
    at: &[Load],
    lasts_ms: (0, 0),
    moves_within_s: MOVES,
    slow: false,
    clean: false,
    zombie: false,
    between: None,
    strike: process::nothing,
    undo: |_, _, _| Ok(()),
};

const POSTGRES: On = On::Targets(&[Target::Postgres]);
const SEARCH: On = On::Targets(&[Target::Search]);
const REDIS: On = On::Targets(&[Target::Redis]);
const KAFKA: On = On::Targets(&[Target::Kafka]);
const WHOLE: On = On::Flows(&["whole"]);

pub static FAULTS: &[Fault] = &[
    Fault { strike: process::nothing, ..USUAL },
    // Processes
    Fault {
        name: "kill",
        what: "kill -9 at a random instant; started again at once, as an orchestrator would",
        expects: "the other instance takes over what the dead one had",
        at: ANY,
        strike: process::kill,
        ..USUAL
    },
    Fault {
        name: "kill-both",
        what: "kill -9 of both instances in the same instant",
        expects: "both go on under their names",
        at: ANY,
        strike: process::kill_both,
        ..USUAL
    },
    Fault {
        name: "kill-at",
        what: "kill -9 at a named point of the engine, at one of its first passings",
        expects: "as kill",
        on: On::Points,
        at: &[Load],
        strike: process::kill_at,
        ..USUAL
    },
    Fault {
        name: "freeze",
        what: "SIGSTOP past the session and transaction timeouts, SIGCONT while the new owner works",
        expects: "I9: the thawed one is fenced and joins anew",
        at: BUSY,
        lasts_ms: (10_000, 13_000),
        zombie: true,
        strike: process::freeze,
        ..USUAL
    },
    Fault {
        name: "freeze-at",
        what: "as freeze, at a named point of the engine",
        expects: "as freeze; what stood half done at the point takes no effect, or its effect once",
        on: On::Points,
        at: &[Load],
        lasts_ms: (10_000, 13_000),
        zombie: true,
        strike: process::freeze_at,
        ..USUAL
    },
    Fault {
        name: "pause",
        what: "SIGSTOP for less than the timeouts: nobody notices",
        expects: "nothing",
        at: ANY,
        lasts_ms: (1_000, 4_000),
        strike: process::freeze,
        ..USUAL
    },
    Fault {
        name: "sluggish",
        what: "each batch takes an instance some seconds more, and another one joins",
        expects: "what it must give up it has done before, or does not do",
        at: &[Load],
        lasts_ms: (3_000, 6_000),
        strike: process::sluggish,
        ..USUAL
    },
    Fault {
        name: "twin",
        what: "a second process under the same instance name, for some seconds",
        expects: "they fence each other off in turns until one is gone",
        at: &[Load, Rebalance],
        lasts_ms: (4_000, 9_000),
        zombie: true,
        strike: process::twin,
        ..USUAL
    },
    Fault {
        name: "clock",
        what: "an instance runs with its wall clock an hour ahead or behind",
        expects: "nothing: no decision rests on a worker's clock",
        at: &[Idle, Load],
        lasts_ms: (6_000, 9_000),
        strike: process::clock,
        ..USUAL
    },
    // The group
    Fault {
        name: "rolling-restart",
        what: "each instance stopped by SIGTERM and started again in turn",
        expects: "each ends within 10 s with exit code 0",
        at: &[Idle, Load, Rebalance],
        strike: group::rolling_restart,
        ..USUAL
    },
    Fault {
        name: "storm",
        what: "50 joins and leaves of the group in a minute",
        expects: "nothing; partitions wander",
        at: &[Load],
        lasts_ms: (60_000, 60_000),
        slow: true,
        strike: group::storm,
        ..USUAL
    },
    Fault {
        name: "lingering",
        what: "instances that wait four seconds for a batch to fill, and five joins and leaves",
        expects: "what was polled and not begun is kept, but of the partitions that go",
        at: &[Load],
        lasts_ms: (10_000, 15_000),
        strike: group::lingering,
        ..USUAL
    },
    Fault {
        name: "rebalances",
        what: "200 rebalances",
        expects: "I12: file handles, threads and memory as after the first 20",
        at: &[Load],
        slow: true,
        clean: true,
        strike: group::rebalances,
        ..USUAL
    },
    Fault {
        name: "partitions-raised",
        what: "an input topic gets one partition more",
        expects: "it is read from its beginning",
        on: On::Flows(&["normalize-cdc", "invalidate-cache"]),
        at: &[Load, Rebalance],
        strike: kafka::partitions_raised,
        undo: kafka::partitions_as_declared,
        ..USUAL
    },
    Fault {
        name: "topic-recreated",
        what: "after a first load all input topics are deleted and made anew, as the runbook says",
        expects: "what they hold now is read from its beginning, and nothing of before is missed or done again",
        on: On::Flows(&["normalize-cdc", "sink-timescale", "sink-search", "sink-redis"]),
        between: Some(kafka::topics_recreated),
        ..USUAL
    },
    // Kafka
    Fault {
        name: "usurper",
        what: "a foreign producer takes an instance's transactional id, leaves a transaction open, and tries to commit it",
        expects: "I9: its commit is refused once the instance has taken its name back",
        on: KAFKA,
        at: BUSY,
        lasts_ms: (1_000, 3_000),
        zombie: true,
        strike: kafka::usurper,
        ..USUAL
    },
    Fault {
        name: "broker-restart",
        what: "a broker stopped and started",
        expects: "waiting, then as before",
        at: ANY,
        strike: kafka::broker_restart,
        ..USUAL
    },
    Fault {
        name: "broker-kill",
        what: "kill -9 of a broker, started again after some seconds",
        expects: "waiting, then as before",
        at: ANY,
        lasts_ms: (1_000, 6_000),
        strike: kafka::broker_kill,
        ..USUAL
    },
    Fault {
        name: "broker-frozen",
        what: "SIGSTOP of a broker, at times past the session that makes it the cluster's; SIGCONT",
        expects: "time-outs, then as before: what it still says of its old leadership is refused",
        at: BUSY,
        lasts_ms: (3_000, 14_000),
        strike: kafka::broker_frozen,
        ..USUAL
    },
    Fault {
        name: "leaders-moved",
        what: "every input partition gets another leader",
        expects: "nothing",
        at: BUSY,
        strike: kafka::leaders_moved,
        ..USUAL
    },
    Fault {
        name: "group-coordinator",
        what: "kill -9 of the broker that leads the group's part of __consumer_offsets",
        expects: "waiting, then as before",
        at: BUSY,
        lasts_ms: (1_000, 4_000),
        // librdkafka may wait for the coordinator that is gone: it is given up after 12 s, and a session follows.
        moves_within_s: 45,
        strike: kafka::group_coordinator,
        ..USUAL
    },
    Fault {
        name: "transaction-coordinator",
        what: "kill -9 of the broker that leads the transactional id's part of __transaction_state",
        expects: "a commit without an answer is looked up",
        at: BUSY,
        lasts_ms: (1_000, 4_000),
        strike: kafka::transaction_coordinator,
        ..USUAL
    },
    Fault {
        name: "end-txn-held",
        what: "EndTxn held back past the client's retry, and delivered after it (KAFKA-17754)",
        expects: "the late end hits no later transaction",
        at: &[Load],
        on: KAFKA,
        lasts_ms: (6_000, 11_000),
        zombie: true,
        strike: kafka::end_txn_held,
        ..USUAL
    },
    Fault {
        name: "end-txn-overtaken",
        what: "EndTxn held back and its connection closed: the client sends it again, which is answered, and the first \
               is delivered into a later transaction (KAFKA-17754)",
        expects: "a producer whose end was sent twice begins no other transaction",
        at: &[Load],
        on: KAFKA,
        lasts_ms: (4_000, 8_000),
        zombie: true,
        strike: kafka::end_txn_overtaken,
        ..USUAL
    },
    Fault {
        name: "dlq-unavailable",
        what: "the dead-letter topics take nothing, at 1 % poison",
        expects: "standing still rather than losing a reject",
        on: On::All,
        at: &[Load],
        lasts_ms: (3_000, 7_000),
        strike: kafka::dead_letters_unavailable,
        ..USUAL
    },
    Fault {
        name: "poison",
        what: "1 % of the input must be rejected",
        expects: "each reject dead-lettered once, nothing else held up",
        strike: process::nothing,
        ..USUAL
    },
    // The network, on each leg
    Fault {
        name: "cut",
        what: "connections closed, new ones refused",
        expects: "waiting",
        on: On::Legs,
        at: BUSY,
        lasts_ms: (2_000, 12_000),
        strike: network::cut,
        ..USUAL
    },
    Fault {
        name: "reset",
        what: "all connections reset, several times",
        expects: "new connections",
        on: On::Legs,
        at: BUSY,
        lasts_ms: (1_000, 5_000),
        strike: network::reset,
        ..USUAL
    },
    Fault {
        name: "half-open",
        what: "connections stay open and carry nothing",
        expects: "timeouts",
        on: On::Legs,
        at: BUSY,
        lasts_ms: (3_000, 12_000),
        strike: network::half_open,
        ..USUAL
    },
    Fault {
        name: "answers-lost",
        what: "requests arrive, answers do not",
        expects: "what was done is found done",
        on: On::Legs,
        at: BUSY,
        lasts_ms: (2_000, 8_000),
        strike: network::answers_lost,
        ..USUAL
    },
    Fault {
        name: "latency",
        what: "every packet 50 to 300 ms late",
        expects: "less throughput",
        on: On::Legs,
        at: &[Load, Rebalance],
        lasts_ms: (4_000, 8_000),
        strike: network::latency,
        ..USUAL
    },
    Fault {
        name: "slow",
        what: "20 kB per second",
        expects: "less throughput",
        on: On::Legs,
        lasts_ms: (4_000, 8_000),
        strike: network::slow,
        ..USUAL
    },
    // The schema registry
    Fault {
        name: "registry-down",
        what: "the registry is killed, and an instance started without it",
        expects: "what is known goes on; the new one waits",
        at: &[Idle, Load],
        lasts_ms: (3_000, 6_000),
        strike: stores::registry_down,
        ..USUAL
    },
    Fault {
        name: "registry-slow",
        what: "the registry answers after 2 s, and an instance is started meanwhile",
        expects: "a late start",
        at: &[Load],
        lasts_ms: (6_000, 9_000),
        strike: stores::registry_slow,
        ..USUAL
    },
    Fault {
        name: "registry-wrong",
        what: "the registry answers 404 without a code of its own, and an instance is started meanwhile",
        expects: "taken for an outage, not for an unknown schema: no dead letters",
        at: &[Load],
        lasts_ms: (4_000, 8_000),
        strike: stores::registry_wrong,
        ..USUAL
    },
    // PostgreSQL
    Fault {
        name: "postgres-restart",
        what: "PostgreSQL restarted",
        expects: "waiting, then claiming again",
        on: POSTGRES,
        at: ANY,
        strike: postgres::restart,
        ..USUAL
    },
    Fault {
        name: "postgres-kill",
        what: "kill -9 of PostgreSQL",
        expects: "recovery by its log, then claiming again",
        on: POSTGRES,
        at: BUSY,
        lasts_ms: (500, 3_000),
        strike: postgres::kill,
        ..USUAL
    },
    Fault {
        name: "backend-terminated",
        what: "the sinks' backends terminated, several times, also at COMMIT",
        expects: "claiming again",
        on: POSTGRES,
        at: &[Load, Commit],
        lasts_ms: (1_000, 4_000),
        strike: postgres::terminated,
        ..USUAL
    },
    Fault {
        name: "commit-answer-lost",
        what: "COMMIT is done and its answer lost",
        expects: "found done by claiming again",
        on: POSTGRES,
        strike: postgres::commit_answer_lost,
        ..USUAL
    },
    Fault {
        name: "lock-held",
        what: "somebody holds a lock on the offsets and the tables",
        expects: "waiting",
        on: POSTGRES,
        at: BUSY,
        lasts_ms: (3_000, 12_000),
        strike: postgres::lock_held,
        ..USUAL
    },
    Fault {
        name: "disk-full",
        what: "writes fail with SQLSTATE 53100",
        expects: "waiting",
        on: POSTGRES,
        lasts_ms: (2_000, 6_000),
        strike: postgres::disk_full,
        ..USUAL
    },
    Fault {
        name: "deadlock",
        what: "writes fail with SQLSTATE 40P01, some",
        expects: "tried again",
        on: POSTGRES,
        lasts_ms: (2_000, 6_000),
        strike: postgres::deadlock,
        ..USUAL
    },
    Fault {
        name: "serialization",
        what: "writes fail with SQLSTATE 40001, some",
        expects: "tried again",
        on: POSTGRES,
        lasts_ms: (2_000, 6_000),
        strike: postgres::serialization,
        ..USUAL
    },
    Fault {
        name: "postgres-read-only",
        what: "backends ended, and new ones may not write: a server that has become a standby",
        expects: "waiting, then claiming again",
        on: POSTGRES,
        at: BUSY,
        lasts_ms: (2_000, 8_000),
        strike: postgres::read_only,
        ..USUAL
    },
    Fault {
        name: "store-frozen",
        what: "SIGSTOP of the store: connections stay open, and it says nothing; SIGCONT",
        expects: "time-outs; what was done is found done",
        on: On::Targets(&[Target::Postgres, Target::Search, Target::Redis]),
        at: BUSY,
        lasts_ms: (3_000, 14_000),
        strike: stores::store_frozen,
        ..USUAL
    },
    // OpenSearch
    Fault {
        name: "search-kill",
        what: "kill -9 of OpenSearch",
        expects: "waiting",
        on: SEARCH,
        at: BUSY,
        strike: stores::search_kill,
        ..USUAL
    },
    Fault {
        name: "search-429",
        what: "OpenSearch answers 429 to a share of requests",
        expects: "tried again",
        on: SEARCH,
        at: &[Load, Commit],
        lasts_ms: (3_000, 8_000),
        strike: stores::search_429,
        ..USUAL
    },
    Fault {
        name: "search-partial",
        what: "a share of the items of each bulk request is refused with 429, the rest done",
        expects: "only those are tried again, or all: every write carries its version",
        on: SEARCH,
        at: &[Load, Rebalance],
        lasts_ms: (3_000, 8_000),
        strike: stores::search_partial,
        ..USUAL
    },
    Fault {
        name: "search-503",
        what: "OpenSearch answers 503",
        expects: "waiting",
        on: SEARCH,
        lasts_ms: (2_000, 8_000),
        strike: stores::search_unavailable,
        ..USUAL
    },
    // Redis
    Fault {
        name: "redis-restart",
        what: "Redis restarted: what it held in memory is gone or as saved",
        expects: "I8: no entry older than the source beyond the bound",
        on: REDIS,
        at: ANY,
        strike: stores::redis_restart,
        ..USUAL
    },
    Fault {
        name: "redis-kill",
        what: "kill -9 of Redis",
        expects: "as redis-restart",
        on: REDIS,
        at: BUSY,
        lasts_ms: (500, 4_000),
        strike: stores::redis_kill,
        ..USUAL
    },
    // The whole product, from the hospitals' databases on
    Fault {
        name: "connect-kill",
        what: "kill -9 of Kafka Connect: Debezium sends again what it had not noted as sent",
        expects: "redelivered changes are dropped",
        on: WHOLE,
        strike: debezium::kill,
        moves_within_s: MOVES_BEHIND_DEBEZIUM,
        ..USUAL
    },
    Fault {
        name: "connector-restart",
        what: "the connectors restarted, as a failover to another worker does",
        expects: "redelivered changes are dropped",
        on: WHOLE,
        strike: debezium::restart,
        moves_within_s: MOVES_BEHIND_DEBEZIUM,
        ..USUAL
    },
    Fault {
        name: "mariadb-restart",
        what: "a hospital's database restarted",
        expects: "waiting",
        on: WHOLE,
        strike: debezium::mariadb,
        moves_within_s: MOVES_BEHIND_DEBEZIUM,
        ..USUAL
    },
];
