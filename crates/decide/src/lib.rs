//! What the engine decides, without doing it: which offset is next, whether a transaction took effect, when a
//! producer may be used again, who owns a partition, when to wait, to ask, to stand still or to start anew.
//! State machines without clock, thread or I/O: the runtime's two loops do what [`transact::Step`] and
//! [`store::Step`] say and tell what came of it, and so does the simulation in `tests/`, against a model of
//! Kafka and of a store in which everything goes wrong. Promises: in every order of events each record takes
//! effect once. Never: calls anything.

mod backoff;
mod breaker;
mod positions;
pub mod store;
pub mod transact;
mod transaction;

pub use backoff::Backoff;
pub use breaker::{Breaker, Limits};
pub use positions::{Admission, Offsets, Positions};
pub use transaction::{Answer, Ended, Settled, Wear, settle};
