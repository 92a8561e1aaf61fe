use std::io::Read;

use memchr::memchr2;

use super::split::{Broken, Found, Input, MAX_DOCUMENT, too_long};

/// Where in the brackets `at` is.
#[derive(Default)]
pub struct Brackets {
    depth: usize,
    /// Depth at which documents stand: 0, 1 in an array of them, 2 in a Bundle.
    base: usize,
    /// Start and line of the document that is open.
    open: Option<(usize, u64)>,
    /// Start of the string `at` is in.
    string: Option<usize>,
    /// The last string of an outermost object: its key, when a colon follows.
    last: (usize, usize),
    key: Key,
    is_bundle: bool,
    /// Entries of the Bundle so far.
    entries: Option<u64>,
    /// Whether what is left of the outermost value holds no documents.
    over: bool,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Key {
    ResourceType,
    Entry,
    #[default]
    Other,
}

impl Brackets {
    /// The next document, after what was found before.
    pub fn next<R: Read>(&mut self, input: &mut Input<R>, whole: bool) -> Result<Option<Found>, Broken> {
        loop {
            if input.at >= input.buffer.len() {
                if !self.refill(input)? {
                    return Ok(None);
                }
                continue;
            }
            if let Some(start) = self.string {
                if !self.string_end(input, start) && !self.refill(input)? {
                    return Ok(None);
                }
                continue;
            }
            let at = input.at;
            input.at += 1;
            match input.buffer[at] {
                b' ' | b'\t' | b'\r' => {}
                b'\n' => input.line += 1,
                b'{' | b'[' if self.open.is_none() && !self.over => self.begin(at, input)?,
                b'{' => self.depth += 1,
                b'[' => {
                    if self.outermost() && self.is_bundle && self.key == Key::Entry && !whole {
                        self.open = None;
                        self.base = 2;
                        self.entries = Some(0);
                    }
                    self.depth += 1;
                }
                b'}' | b']' if self.depth == 0 => return Err(input.broken("a bracket closes nothing")),
                b'}' | b']' => {
                    if let Some(found) = self.end(input.at) {
                        return Ok(Some(found));
                    }
                }
                b'"' if self.open.is_some() || self.over => self.string = Some(input.at),
                b':' if self.outermost() => {
                    self.key = match &input.buffer[self.last.0..self.last.1] {
                        b"resourceType" => Key::ResourceType,
                        b"entry" => Key::Entry,
                        _ => Key::Other,
                    };
                }
                b',' if self.outermost() => self.key = Key::Other,
                b',' if self.depth > 0 => {}
                _ if self.open.is_some() || self.over => {}
                _ => return Err(input.broken("a JSON object expected")),
            }
        }
    }

    /// Whether `at` is directly within a document that is not in an array or Bundle.
    fn outermost(&self) -> bool {
        self.depth == 1 && self.base == 0 && self.open.is_some()
    }

    /// A bracket where no document is open.
    fn begin<R>(&mut self, at: usize, input: &Input<R>) -> Result<(), Broken>
    where
        R: Read,
    {
        match (input.buffer[at], self.depth) {
            (b'{', depth) if depth == self.base => self.open = Some((at, input.line)),
            (b'[', 0) => self.base = 1,
            _ => return Err(input.broken("a JSON object expected")),
        }
        self.depth += 1;
        Ok(())
    }

    /// A bracket ends, before `end`: the document too, if it is open and this was its last.
    fn end(&mut self, end: usize) -> Option<Found> {
        self.depth -= 1;
        let found = match self.open {
            Some((start, line)) if self.depth == self.base => {
                self.open = None;
                let entry = self.entries;
                self.entries = entry.map(|entry| entry + 1);
                Some(Found { start, end, line, entry })
            }
            _ => None,
        };
        if self.depth == 0 {
            *self = Brackets::default();
        } else if found.is_none() && self.open.is_none() {
            self.over = true;
        }
        found
    }

    /// Goes on to the end of a string; `false` where it is not in the buffer.
    fn string_end<R: Read>(&mut self, input: &mut Input<R>, start: usize) -> bool {
        match memchr2(b'"', b'\\', &input.buffer[input.at..]) {
            None => input.at = input.buffer.len(),
            Some(found) if input.buffer[input.at + found] == b'"' => {
                let end = input.at + found;
                input.at = end + 1;
                self.string = None;
                if self.outermost() {
                    self.last = (start, end);
                    if self.key == Key::ResourceType {
                        self.is_bundle = &input.buffer[start..end] == b"Bundle";
                    }
                }
            }
            // The escaped character is passed over with its backslash, and waited for.
            Some(found) if input.at + found + 1 < input.buffer.len() => input.at += found + 2,
            Some(found) => {
                input.at += found;
                return false;
            }
        }
        true
    }

    /// Reads more; `false` at the end of the file.
    fn refill<R: Read>(&mut self, input: &mut Input<R>) -> Result<bool, Broken> {
        let keep = self.open.map_or(input.at, |(start, _)| start);
        if input.buffer.len() - keep > MAX_DOCUMENT {
            return Err(input.broken(too_long()));
        }
        let moved = input.more(keep).map_err(|error| input.broken(error.to_string()))?;
        if let Some((start, _)) = &mut self.open {
            *start -= moved;
        }
        // What is not in an open document is not looked at again.
        self.string = self.string.map(|start| start.saturating_sub(moved));
        self.last = (self.last.0.saturating_sub(moved), self.last.1.saturating_sub(moved));
        if !input.ended {
            return Ok(true);
        }
        match (self.open, self.depth) {
            (Some((_, line)), _) => {
                Err(Broken { line, why: "the file ends within the document that begins here".into() })
            }
            (None, 0) => Ok(false),
            (None, _) => Err(input.broken("the file ends within an array or a Bundle")),
        }
    }
}
