//! The verdict on a resource as it is written. What its template settles was judged at load ([`Watch`]); the rest is
//! judged part by part, and parts that come again and again are remembered. A resource with a part that was not taken
//! is judged whole, as one of a template of which nothing is known.

use std::cell::{Cell, RefCell};

use fhirehose_fhir::{ElementRules, Invalid, Left, rules_hold, validate};
use fhirehose_stream::{Reason, Rejection};
use fhirehose_tape::Tape;

use crate::remembered::Remembered;
use crate::template::{Entry, Watch};

/// Buffers and memory of the check of what mappings make, reused from record to record.
#[derive(Default)]
pub(crate) struct Checker {
    tape: RefCell<Tape>,
    /// Parts that were taken.
    taken: Remembered<ElementRules, ()>,
    /// Whether a part of the resource being written was not taken.
    doubt: Cell<bool>,
}

impl Checker {
    /// Forgets the doubts about the resource before.
    pub fn begin(&self) {
        self.doubt.set(false);
    }

    /// Judges what an entry has written; nothing where it is left out.
    pub fn entry(&self, entry: &Entry, written: Option<&[u8]>) {
        let taken = match (entry.watch, written) {
            (_, None) => !entry.required,
            (Watch::Nothing, _) => true,
            (Watch::Scalar(rules), Some(json)) => rules.takes_scalar(json),
            (Watch::Reference(rules), Some(json)) => rules.takes_reference(json),
            (Watch::All(rules), Some(json)) => self.takes(rules, json),
            (Watch::Resource, _) => false,
        };
        self.judged(taken);
    }

    /// Judges one value of a primitive element.
    pub fn scalar(&self, rules: Option<ElementRules>, json: &[u8]) {
        self.judged(rules.is_some_and(|rules| rules.takes_scalar(json)));
    }

    fn judged(&self, taken: bool) {
        if !taken {
            self.doubt.set(true);
        }
    }

    fn takes(&self, rules: ElementRules, json: &[u8]) -> bool {
        let judge = || rules.takes(json, &mut self.tape.borrow_mut()).then_some(());
        self.taken.get(rules, json, judge).is_some()
    }

    /// The verdict on the whole, whose members were judged as they were written.
    pub fn resource(&self, of_type: &str, left: Left, json: &[u8]) -> Result<(), Rejection> {
        let tape = &mut self.tape.borrow_mut();
        let sound = !self.doubt.get()
            && match left {
                Left::Nothing => true,
                Left::Rules => tape.parse_json(json).is_ok() && rules_hold(tape.root()),
                Left::All => false,
            };
        if !sound {
            return whole(of_type, json, tape);
        }
        debug_assert!(whole(of_type, json, tape).is_ok(), "{:?} of {of_type}", whole(of_type, json, tape));
        Ok(())
    }
}

fn whole(of_type: &str, json: &[u8], tape: &mut Tape) -> Result<(), Rejection> {
    tape.parse_json(json)
        .map_err(|error| Rejection::new(Reason::InvalidFhir, format!("{of_type}: {error}")))?;
    validate(tape.root()).map_err(|Invalid { path, rule }| {
        let missing = rule == fhirehose_fhir::Rule::Missing;
        let reason = if missing { Reason::MissingElement } else { Reason::InvalidFhir };
        Rejection::new(reason, Invalid { path, rule }.to_string())
    })
}
