//! Tests of the product as a whole: every processor over every example, everything it says judged by others,
//! and the real binary on the real stack while things break. Each crate tests its own parts itself.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests fail by panicking and skip by saying so"
)]

mod bad_input;
mod bad_on_stack;
mod by_hand;
mod chain;
mod docs;
mod end_to_end;
mod examples;
mod fleet;
mod kafka;
mod oracles;
mod outages;
mod secrecy;
mod stores;
