//! Resources of files and standard input, one after the other: a JSON document, NDJSON, or a Bundle. Gzip is told by its first bytes. NDJSON is read line by line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use anyhow::Context;
use fhirehose_tape::{Tape, Value};
use flate2::bufread::MultiGzDecoder;

/// Name of standard input among files.
pub const STANDARD_INPUT: &str = "-";

/// A resource, maybe a Bundle, and where it stands: file and line.
pub struct Document<'t> {
    pub value: Value<'t>,
    pub place: String,
    /// The text, where it is a file's and may have many lines.
    pub lines: Option<&'t [u8]>,
}

impl<'t> Document<'t> {
    /// Its resources and where they stand; `whole` takes a Bundle as one resource.
    pub fn resources(&self, whole: bool) -> Vec<(Value<'t>, String)> {
        let of = self.value.get("resourceType").and_then(Value::as_str);
        if whole || of != Some("Bundle") {
            return vec![(self.value, self.place.clone())];
        }
        let entries = self.value.get("entry").into_iter().flat_map(Value::elements).enumerate();
        let resource = |(index, entry): (usize, Value<'t>)| {
            Some((entry.get("resource")?, format!("{}, entry {index}", self.place)))
        };
        entries.filter_map(resource).collect()
    }
}

/// What is no resource, and why.
pub struct Broken {
    pub place: String,
    pub why: String,
}

/// Calls for each document of a file in order. Broken ones are told too, and the rest is read.
pub fn each(
    path: &Path,
    mut visit: impl FnMut(Result<Document<'_>, Broken>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let name = path.display().to_string();
    let mut reader = open(path).with_context(|| name.clone())?;
    let (mut tape, mut text) = (Tape::new(), Vec::new());
    reader.read_until(b'\n', &mut text).with_context(|| name.clone())?;
    if !is_ndjson(&name) && tape.parse_json(&text).is_err() {
        reader.read_to_end(&mut text).with_context(|| name.clone())?;
        let whole = document(&mut tape, &text, name);
        return visit(whole.map(|whole| Document { lines: Some(&text), ..whole }));
    }
    let mut line = 1_u64;
    while !text.is_empty() {
        if !text.trim_ascii().is_empty() {
            visit(document(&mut tape, &text, format!("{name}:{line}")))?;
        }
        text.clear();
        line += 1;
        reader.read_until(b'\n', &mut text).with_context(|| format!("{name}:{line}"))?;
    }
    Ok(())
}

fn is_ndjson(name: &str) -> bool {
    let name = name.strip_suffix(".gz").unwrap_or(name);
    name.ends_with(".ndjson") || name.ends_with(".jsonl")
}

fn open(path: &Path) -> io::Result<Box<dyn BufRead>> {
    let source: Box<dyn Read> = match path.to_str() {
        Some(STANDARD_INPUT) => Box::new(io::stdin()),
        _ => Box::new(File::open(path)?),
    };
    let mut reader = BufReader::with_capacity(1 << 16, source);
    let gzip = reader.fill_buf()?.starts_with(&[0x1f, 0x8b]);
    Ok(if gzip { Box::new(BufReader::new(MultiGzDecoder::new(reader))) } else { Box::new(reader) })
}

fn document<'t>(tape: &'t mut Tape, text: &[u8], place: String) -> Result<Document<'t>, Broken> {
    if let Err(error) = tape.parse_json(text) {
        return Err(Broken { place, why: error.to_string() });
    }
    let value = tape.root();
    match value.get("resourceType") {
        Some(_) => Ok(Document { value, place, lines: None }),
        None => Err(Broken { place, why: "no resource: it has no resourceType".into() }),
    }
}
