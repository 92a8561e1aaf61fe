//! The validator on resources by anybody.

use fhirehose_fhir::validate;
use fhirehose_tape::{Tape, Value, write_string};

/// A resource has a verdict, the same however it is written.
pub fn validator(input: &[u8]) {
    let mut tape = Tape::new();
    if tape.parse_json(input).is_err() {
        return;
    }
    let verdict = validate(tape.root());
    if let Err(error) = &verdict {
        assert!(!error.path.is_empty(), "an error of nowhere");
    }
    let mut written = Vec::new();
    tape.root().write_json(&mut written);
    let mut again = Tape::new();
    assert!(again.parse_json(&written).is_ok());
    assert!(validate(again.root()) == verdict, "another verdict once it is written");

    // Members have no order in JSON; which of two errors comes first may differ.
    let mut reversed = Vec::new();
    backwards(tape.root(), &mut reversed);
    assert!(again.parse_json(&reversed).is_ok());
    assert!(validate(again.root()).is_ok() == verdict.is_ok(), "the order of members makes a difference");
}

/// Writes a value with the members of objects from the last to the first.
fn backwards(value: Value<'_>, out: &mut Vec<u8>) {
    match value.kind() {
        fhirehose_tape::Kind::Object => {
            let entries: Vec<_> = value.entries().collect();
            out.push(b'{');
            for (at, (key, value)) in entries.into_iter().rev().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write_string(key, out);
                out.push(b':');
                backwards(value, out);
            }
            out.push(b'}');
        }
        fhirehose_tape::Kind::Array => {
            out.push(b'[');
            for (at, value) in value.elements().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                backwards(value, out);
            }
            out.push(b']');
        }
        _ => value.write_json(out),
    }
}
