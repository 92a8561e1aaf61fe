//! Our engines at work: each passes over the records it holds, again and again.

mod checks;
mod mappings;
mod views;

use std::path::Path;

use anyhow::Result;
use fhirehose_tape::Tape;
use serde_json::Value as Json;

use crate::resources::Resources;

pub use checks::Checks;
pub use mappings::{ByHand, Mapped, Templates, document, encounters, template};
pub use views::{Evaluations, Rows, VIEWS, definition};

/// Something that can be done over and over.
pub trait Work {
    /// Records of a pass.
    fn records(&self) -> usize;

    /// Works on every record once. JSON texts of what is made go to `out`, each with a line end behind it; returns
    /// how many there are.
    fn pass(&mut self, out: &mut Vec<u8>) -> Result<usize>;
}

/// What a pass makes.
pub fn made(work: &mut dyn Work) -> Result<Vec<Json>> {
    let mut out = Vec::new();
    work.pass(&mut out)?;
    let lines = out.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| Ok(serde_json::from_slice(line)?)).collect()
}

/// What steady work is looked at, by name.
pub fn steady(root: &Path, name: &str) -> Result<Box<dyn Work>> {
    Ok(match name {
        "mapping" => Box::new(Mapped::new(root)?),
        "by-hand" => Box::new(ByHand::new(root)?),
        "template" => Box::new(Templates::new(&template(root)?, &encounters(root)?, &[])?),
        "check" => Box::new(Checks::new(root, "vital-sign")?),
        view => Box::new(Rows::new(&definition(root, view)?, &Resources::load(root)?)?),
    })
}

fn decoded(texts: &[String]) -> Result<Vec<Tape>> {
    let read = |text: &String| {
        let mut tape = Tape::new();
        tape.parse_json(text.as_bytes())?;
        Ok(tape)
    };
    texts.iter().map(read).collect()
}
