//! What the files of a shapes folder say about codes: concept maps and written-out codings must agree.

use std::collections::{BTreeSet, HashMap};

use fhirehose_fhir::terminology::{self, CodeError};

/// Systems of our own: what the concept maps have of one is all of it.
const OWN: &str = "urn:fhirehose:codes:";

/// What is wrong with a written-out code by itself: its check digit, or its shape.
pub(crate) fn check_code(system: &str, code: &str) -> Result<(), CodeError> {
    match system {
        terminology::ICD_10_CM => terminology::icd_10_cm(code),
        _ => terminology::check_code(system, code),
    }
}

/// The codes the files name, and what each is displayed as.
#[derive(Default)]
pub(crate) struct Terminology {
    /// By system and code: the display, and the file that says so.
    displays: HashMap<(String, String), (String, String)>,
    /// Codes of our own systems that concept maps have.
    own: HashMap<String, BTreeSet<String>>,
}

impl Terminology {
    /// Takes a row of a concept map in.
    pub fn add(&mut self, system: &str, code: &str) {
        if system.starts_with(OWN) {
            self.own.entry(system.to_owned()).or_default().insert(code.to_owned());
        }
    }

    /// Takes the display of a code in; what is wrong if another file displays the code as something else.
    pub fn display(&mut self, system: &str, code: &str, display: &str, file: &str) -> Result<(), String> {
        if display.is_empty() {
            return Ok(());
        }
        let key = (system.to_owned(), code.to_owned());
        let (known, by) = self.displays.entry(key).or_insert_with(|| (display.to_owned(), file.to_owned()));
        if known == display {
            return Ok(());
        }
        Err(format!("`{code}` of {system} is displayed as `{display}` here and as `{known}` in {by}"))
    }

    /// What is wrong with a code of a system of our own.
    pub fn code(&self, system: &str, code: &str) -> Result<(), String> {
        match self.own.get(system) {
            Some(codes) if !codes.contains(code) => {
                let known: Vec<&str> = codes.iter().map(String::as_str).collect();
                Err(format!("{system} has no code `{code}`; the concept maps have {}", known.join(", ")))
            }
            _ => Ok(()),
        }
    }
}
