//! A valid vital sign is found valid without allocating.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::alloc::System;

use fhirehose_fhir::validate;
use fhirehose_tape::Tape;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The only test of this program: another one's allocations would count.
#[test]
fn a_valid_vital_sign_costs_no_allocation() {
    for json in [include_str!("vital-sign.json"), include_str!("blood-pressure.json")] {
        let mut tape = Tape::new();
        tape.parse_json(json.as_bytes()).unwrap();
        assert_eq!(validate(tape.root()), Ok(()), "the tables are read and the invariants compiled now");
        let region = Region::new(ALLOCATOR);
        let verdict = validate(tape.root());
        assert_eq!(region.change().allocations, 0, "{json}");
        assert_eq!(verdict, Ok(()));
        let region = Region::new(ALLOCATOR);
        drop(String::from("x"));
        assert_eq!(region.change().allocations, 1, "what is measured");
    }
}
