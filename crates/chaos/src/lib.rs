//! The chaos harness: runs the real binary on real servers, breaks both on purpose at seeded moments, and counts
//! every input record afterwards. Reads the stack's addresses from the environment and what Kafka and the stores
//! hold; writes the inputs of a run and its report. Promises that the same seed makes the same schedule, and
//! never asks the product whether it was right.

pub mod fault;
pub mod faults;
pub mod flow;
pub mod flows;
pub mod health;
pub mod ledger;
pub mod matrix;
pub mod planted;
pub mod points;
pub mod product;
pub mod proxy;
pub mod report;
pub mod run;
pub mod schedule;
pub mod servers;
pub mod world;
