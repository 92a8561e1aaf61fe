//! What the verdict on a vital sign costs: nanoseconds per resource, parsed already. For instructions run it under
//! `valgrind --tool=callgrind --toggle-collect=vital_sign::measured` with a count as argument.

use std::hint::black_box;
use std::io::Write;
use std::time::Instant;

use fhirehose_fhir::validate;
use fhirehose_tape::Tape;

const JSON: [(&str, &str); 2] = [
    ("vital sign", include_str!("../tests/vital-sign.json")),
    ("blood pressure", include_str!("../tests/blood-pressure.json")),
];

/// How many of so many verdicts were valid.
#[inline(never)]
fn measured(tape: &Tape, count: u32) -> u32 {
    (0..count).map(|_| u32::from(validate(black_box(tape.root())).is_ok())).sum()
}

fn main() {
    let count = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(200_000_u32);
    let mut out = std::io::stdout();
    for (name, json) in JSON {
        let mut tape = Tape::new();
        let valid = tape.parse_json(json.as_bytes()).is_ok() && validate(tape.root()).is_ok();
        let began = Instant::now();
        let sum = measured(&tape, count);
        let nanos = began.elapsed().as_nanos() / u128::from(count.max(1));
        drop(writeln!(out, "{name}: {nanos} ns each of {count}, valid: {}", valid && sum == count));
    }
}
