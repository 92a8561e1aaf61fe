//! What the verdict on a vital sign costs: nanoseconds per resource, parsed already. Arguments: how many verdicts, and
//! of which resource. For instructions run it under `valgrind --tool=callgrind --toggle-collect='*measured*'`.

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

/// Whether an argument says so.
fn asked(name: &str) -> bool {
    std::env::args().any(|argument| argument == name)
}

fn main() {
    let count = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(200_000_u32);
    let mut out = std::io::stdout();
    let named = |(name, _): &(&str, &str)| JSON.iter().all(|(n, _)| !asked(n)) || asked(name);
    for (name, json) in JSON.into_iter().filter(named) {
        let mut tape = Tape::new();
        let valid = tape.parse_json(json.as_bytes()).is_ok() && validate(tape.root()).is_ok();
        let began = Instant::now();
        let sum = measured(&tape, count);
        let nanos = began.elapsed().as_nanos() / u128::from(count.max(1));
        drop(writeln!(out, "{name}: {nanos} ns each of {count}, valid: {}", valid && sum == count));
    }
}
