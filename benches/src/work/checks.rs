//! The check of a finished resource.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use fhirehose_tape::Tape;

use super::Work;

/// Checks of a pass.
const CHECKS: usize = 500;

/// One decoded resource, checked again and again.
pub struct Checks(Tape);

impl Checks {
    /// `name`: of a resource in `crates/fhir/tests`.
    pub fn new(root: &Path, name: &str) -> Result<Checks> {
        let file = root.join(format!("crates/fhir/tests/{name}.json"));
        let text = fs::read(&file).with_context(|| file.display().to_string())?;
        let mut tape = Tape::new();
        tape.parse_json(&text)?;
        Ok(Checks(tape))
    }
}

impl Work for Checks {
    fn records(&self) -> usize {
        CHECKS
    }

    fn pass(&mut self, _: &mut Vec<u8>) -> Result<usize> {
        for _ in 0..CHECKS {
            let checked = fhirehose_fhir::validate(std::hint::black_box(self.0.root()));
            checked.map_err(|invalid| anyhow!("{invalid}"))?;
        }
        Ok(CHECKS)
    }
}
