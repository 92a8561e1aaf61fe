//! The JSON tape against `serde_json`.

use fhirehose_tape::{JsonError, Kind, Tape, Value};
use serde_json::Value as Json;

/// How `serde_json` marks numbers in its own model; documents with such a member it reads as numbers.
const NUMBER_MARK: &[u8] = b"$serde_json";

pub fn json(input: &[u8]) {
    let mut tape = Tape::new();
    let read = tape.parse_json(input);
    if read.is_err() {
        assert!(tape.root().is_null(), "something is left of what was refused");
    }
    // Its escaped spellings would pass this, but nobody writes them by accident.
    if input.windows(NUMBER_MARK.len()).any(|window| window == NUMBER_MARK) {
        return;
    }
    let judged: Result<Json, _> = serde_json::from_slice(input);
    match (&read, &judged) {
        (Ok(()), Ok(expected)) => same(&tape, expected),
        (Err(_), Err(_)) => {}
        // Both stop at 128 levels, of which serde_json counts one that is empty differently.
        (Err(JsonError::TooDeep { .. }), Ok(_)) => {}
        (Ok(()), Err(error)) if error.to_string().starts_with("recursion limit") => {}
        (Ok(()), Err(error)) => assert!(read.is_err(), "read, but to serde_json it is none: {error}"),
        (Err(error), Ok(_)) => assert!(read.is_ok(), "serde_json reads it: {error}"),
    }
}

fn same(tape: &Tape, expected: &Json) {
    let mut written = Vec::new();
    tape.root().write_json(&mut written);
    let again: Result<Json, _> = serde_json::from_slice(&written);
    assert!(again.is_ok_and(|again| again == *expected), "written otherwise than serde_json has read it");
    compare(tape.root(), expected);

    // Built of copies it is the same, and so it is where it is read into another document.
    let mut copy = Tape::new();
    copy.begin_array();
    copy.value(tape.root());
    assert!(copy.json(&written).is_ok(), "what was written is not read");
    copy.end();
    let mut elements = copy.root().elements();
    for _ in 0..2 {
        let mut out = Vec::new();
        let element = elements.next();
        assert!(element.is_some(), "an element is missing");
        element.into_iter().for_each(|element| element.write_json(&mut out));
        assert!(out == written, "a copy differs");
    }
    assert!(elements.next().is_none(), "an element too many");
}

/// Every way to a value leads to the same one.
fn compare(value: Value<'_>, expected: &Json) {
    match expected {
        Json::Null => assert!(value.is_null()),
        Json::Bool(expected) => assert!(value.as_bool() == Some(*expected)),
        Json::Number(expected) => {
            assert!(value.kind() == Kind::Number);
            assert!(value.as_i64() == value.as_number().and_then(|text| text.parse().ok()));
            if let Some(integer) = value.as_i64()
                && integer != 0
            {
                assert!(expected.as_i64() == Some(integer));
            }
        }
        Json::String(expected) => assert!(value.as_str() == Some(expected)),
        Json::Array(expected) => {
            assert!(value.len() == expected.len() && value.elements().count() == expected.len());
            value.elements().zip(expected).for_each(|(value, expected)| compare(value, expected));
        }
        Json::Object(expected) => {
            assert!(value.len() == expected.len() && value.entries().count() == expected.len());
            for (key, found) in value.entries() {
                let expected = expected.get(key);
                assert!(expected.is_some(), "a key that is none");
                let got = value.get(key);
                assert!(
                    got.is_some_and(|got| got.position() == found.position()),
                    "a key that get does not find"
                );
                expected.into_iter().for_each(|expected| compare(found, expected));
            }
        }
    }
}
