//! FPML templates by anybody, on documents by anybody.

use std::path::Path;

use fhirehose_mapping::{Fpml, FpmlOptions};
use fhirehose_tape::{JsonError, Tape};

/// A line with a template, then a document. A template is refused at a place it has, or makes JSON, always the same.
pub fn fpml(input: &[u8]) {
    let Some((template, document)) = crate::parts(input) else { return };
    let file = Path::new("template");
    let fpml = match Fpml::compile(file, template, &FpmlOptions::default()) {
        Ok(fpml) => fpml,
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a problem");
            return;
        }
    };
    let mut tape = Tape::new();
    if tape.parse_json(document).is_err() {
        return;
    }
    let once = fpml.resolve(tape.root(), &[]);
    let again = fpml.resolve(tape.root(), &[]);
    assert!(once == again, "the second time it makes another");
    if let Ok(Some(json)) = once {
        let read = Tape::new().parse_json(&json);
        // A document in a template is some levels deeper.
        assert!(matches!(read, Ok(()) | Err(JsonError::TooDeep { .. })), "what it makes is no JSON");
    }
}
