use crate::value::{bytes, plain, text};
use crate::{Mark, Node, Tag, Tape, position};

/// Nesting beyond which a document is refused.
pub const MAX_DEPTH: usize = 128;

/// Why bytes are no JSON document. Says where, never what stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    #[error("invalid UTF-8 at byte {offset}")]
    InvalidUtf8 { offset: usize },
    #[error("{expected} expected at byte {offset}")]
    Syntax { offset: usize, expected: &'static str },
    #[error("nested deeper than {MAX_DEPTH} levels at byte {offset}")]
    TooDeep { offset: usize },
    #[error("longer than 1 GiB")]
    TooLong,
}

impl Tape {
    /// Reads one JSON document (RFC 8259) and nothing after it, in place of what the tape held. On an error
    /// the tape is empty.
    pub fn parse_json(&mut self, json: &[u8]) -> Result<(), JsonError> {
        self.clear();
        self.json(json).inspect_err(|_| self.clear())
    }

    /// Reads a JSON document as the next value of the one being built, as for a column that holds JSON. On an
    /// error nothing is added.
    pub fn json(&mut self, json: &[u8]) -> Result<(), JsonError> {
        if json.len() > 1 << 30 {
            return Err(JsonError::TooLong);
        }
        let text = std::str::from_utf8(json)
            .map_err(|error| JsonError::InvalidUtf8 { offset: error.valid_up_to() })?;
        let (nodes, used, open) = (self.nodes.len(), self.text.len(), self.open.len());
        let parent = self.open.last().copied();
        let members = parent.and_then(|at| self.nodes.get(at as usize)).map_or(0, |node| node.b);
        // Strings without escapes are used where they stand in the copied text, others are added behind it.
        self.text.push_str(text);
        self.count();
        let mut parser =
            Parser { tape: self, json, at: 0, base: used, floor: open, error: JsonError::TooLong };
        let result = parser.document().ok_or(parser.error);
        if result.is_err() {
            self.nodes.truncate(nodes);
            self.text.truncate(used);
            self.open.truncate(open);
            if let Some(node) = parent.and_then(|at| self.nodes.get_mut(at as usize)) {
                node.b = members;
            }
        }
        result
    }
}

/// So many keys are compared with each other.
const FEW: usize = 8;

/// What reads gives `None` where it fails, and says why in `error`: that keeps results small.
struct Parser<'p> {
    tape: &'p mut Tape,
    json: &'p [u8],
    at: usize,
    /// Where the copy of `json` starts in the tape's text.
    base: usize,
    /// Containers that were open before this document.
    floor: usize,
    error: JsonError,
}

impl Parser<'_> {
    fn document(&mut self) -> Option<()> {
        self.white();
        loop {
            match self.peek() {
                b'"' => {
                    let (start, len) = self.string()?;
                    self.push(Tag::String, start, len);
                }
                b'{' => {
                    self.open(Tag::Object)?;
                    if self.peek() != b'}' {
                        self.key()?;
                        continue;
                    }
                    self.close();
                }
                b'[' => {
                    self.open(Tag::Array)?;
                    if self.peek() != b']' {
                        continue;
                    }
                    self.close();
                }
                b't' => self.word(b"true", Tag::True)?,
                b'f' => self.word(b"false", Tag::False)?,
                b'n' => self.word(b"null", Tag::Null)?,
                b'-' | b'0'..=b'9' => {
                    let Some(len) = number(&self.json[self.at..]) else { return self.expected("number") };
                    self.push(Tag::Number, position(self.base + self.at), position(len));
                    self.at += len;
                }
                _ => return self.expected("value"),
            }
            if self.after_value()? {
                return Some(());
            }
        }
    }

    /// Ends what ends after a value, and goes to where the next one stands; whether there is none, for the document
    /// is over.
    fn after_value(&mut self) -> Option<bool> {
        loop {
            self.white();
            let next = self.peek();
            let inside = self.tape.open.get(self.floor..).and_then(<[u32]>::last);
            let Some(container) = inside.and_then(|&at| self.tape.nodes.get_mut(at as usize)) else {
                return if self.at == self.json.len() {
                    Some(true)
                } else {
                    self.expected("end of document")
                };
            };
            container.b += 1;
            match (next, container.tag == Tag::Object) {
                (b',', in_object) => {
                    self.at += 1;
                    self.white();
                    if in_object {
                        self.key()?;
                    }
                    return Some(false);
                }
                (b'}', true) => {
                    self.bury_duplicates();
                    self.close();
                }
                (b']', false) => self.close(),
                (_, true) => return self.expected("',' or '}'"),
                (_, false) => return self.expected("',' or ']'"),
            }
        }
    }

    /// A value, which is counted once it is over.
    fn push(&mut self, tag: Tag, a: u32, b: u32) {
        self.tape.nodes.push(Node::new(tag, a, b));
    }

    fn open(&mut self, tag: Tag) -> Option<()> {
        if self.tape.open.len() - self.floor == MAX_DEPTH {
            self.error = JsonError::TooDeep { offset: self.at };
            return None;
        }
        self.at += 1;
        self.tape.open.push(position(self.tape.nodes.len()));
        self.push(tag, 0, 0);
        self.white();
        Some(())
    }

    fn close(&mut self) {
        self.at += 1;
        self.tape.end();
    }

    #[inline]
    fn key(&mut self) -> Option<()> {
        if self.peek() != b'"' {
            return self.expected("key");
        }
        let start = self.at + 1;
        let rest = &self.json[start..];
        let (name, behind) = rest.split_at(plain(rest));
        let (mark, a, b) = if behind.first() == Some(&b'"') {
            self.at = start + name.len() + 1;
            (Mark::of(name), position(self.base + start), position(name.len()))
        } else {
            let (a, b) = self.escaped(start)?;
            (Mark::of(bytes(self.tape, Node::new(Tag::Key, a, b))), a, b)
        };
        self.tape.push_key(Node { tag: Tag::Key, mark, a, b });
        // Few have blanks around the colon.
        if let [b':', next, ..] = self.json[self.at..]
            && next > b' '
        {
            self.at += 1;
            return Some(());
        }
        self.white();
        if self.peek() != b':' {
            return self.expected("':'");
        }
        self.at += 1;
        self.white();
        Some(())
    }

    fn word(&mut self, word: &[u8], tag: Tag) -> Option<()> {
        if !self.json[self.at..].starts_with(word) {
            return self.expected("value");
        }
        self.at += word.len();
        self.push(tag, 0, 0);
        Some(())
    }

    /// Reads a string; returns start and length of its text in the tape.
    fn string(&mut self) -> Option<(u32, u32)> {
        let start = self.at + 1;
        let stop = start + plain(&self.json[start..]);
        if self.json.get(stop) == Some(&b'"') {
            self.at = stop + 1;
            return Some((position(self.base + start), position(stop - start)));
        }
        self.escaped(start)
    }

    /// A string with escapes: its text is put together behind the copy of the document.
    #[cold]
    fn escaped(&mut self, start: usize) -> Option<(u32, u32)> {
        let unescaped = self.tape.text.len();
        self.at = start;
        loop {
            let stop = self.at + plain(&self.json[self.at..]);
            // Both ends stand at ASCII characters, so this is whole UTF-8, checked before.
            self.tape.text.push_str(std::str::from_utf8(&self.json[self.at..stop]).unwrap_or_default());
            self.at = stop;
            match self.json.get(stop) {
                Some(b'"') => {
                    self.at += 1;
                    return Some((position(unescaped), position(self.tape.text.len() - unescaped)));
                }
                Some(b'\\') => self.escape()?,
                Some(_) => return self.expected("escaped control character"),
                None => return self.expected("end of string"),
            }
        }
    }

    fn escape(&mut self) -> Option<()> {
        let char = match self.json.get(self.at + 1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(),
            _ => return self.expected("escape"),
        };
        self.tape.text.push(char);
        self.at += 2;
        Some(())
    }

    fn unicode_escape(&mut self) -> Option<()> {
        let Some(high) = self.hex(self.at + 2) else { return self.expected("four hex digits") };
        let mut len = 6;
        let code = if (0xD800..0xDC00).contains(&high) {
            let low = (self.json[self.at + 6..].starts_with(b"\\u")).then(|| self.hex(self.at + 8)).flatten();
            let Some(low) = low.filter(|low| (0xDC00..0xE000).contains(low)) else {
                return self.expected("low surrogate");
            };
            len = 12;
            0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00)
        } else {
            high
        };
        let Some(char) = char::from_u32(code) else { return self.expected("high surrogate") };
        self.tape.text.push(char);
        self.at += len;
        Some(())
    }

    fn hex(&self, at: usize) -> Option<u32> {
        let digits = self.json.get(at..at + 4)?;
        digits.iter().try_fold(0, |code, &digit| Some(code * 16 + char::from(digit).to_digit(16)?))
    }

    #[inline]
    fn white(&mut self) {
        while let b' ' | b'\t' | b'\n' | b'\r' = self.peek() {
            self.at += 1;
        }
    }

    /// The next byte; behind the end a zero, which stands nowhere in JSON.
    #[inline]
    fn peek(&self) -> u8 {
        self.json.get(self.at).copied().unwrap_or(0)
    }

    #[cold]
    fn expected<T>(&mut self, expected: &'static str) -> Option<T> {
        self.error = JsonError::Syntax { offset: self.at, expected };
        None
    }

    /// Of the innermost object's keys, leaves the last of each name alive.
    fn bury_duplicates(&mut self) {
        let Some(&object) = self.tape.open.last() else { return };
        let members = self.tape.nodes[object as usize].b;
        if members < 2 || (members as usize <= FEW && self.differ(object)) {
            return;
        }
        // A sieve tells at once that the keys of a usual object differ; only when it cannot are they sorted.
        let mut sieve = [0u64; 16];
        let mut clash = false;
        let mut at = object + 1;
        while let Some(key) = self.tape.nodes.get(at as usize) {
            let hash = sieve_hash(key.mark, bytes(self.tape, *key));
            let (word, bit) = ((hash >> 6) & 15, 1 << (hash & 63));
            clash |= sieve[word] & bit != 0;
            sieve[word] |= bit;
            at = self.next(at + 1);
        }
        if !clash {
            return;
        }
        let mut keys: Vec<u32> = Vec::with_capacity(members as usize);
        at = object + 1;
        while (at as usize) < self.tape.nodes.len() {
            keys.push(at);
            at = self.next(at + 1);
        }
        let text = |at: u32| self.key_text(self.tape.nodes[at as usize]);
        keys.sort_by(|&a, &b| text(a).cmp(text(b)));
        let dead: Vec<u32> = keys.windows(2).filter(|w| text(w[0]) == text(w[1])).map(|w| w[0]).collect();
        for &at in &dead {
            self.tape.nodes[at as usize].tag = Tag::DeadKey;
        }
        self.tape.nodes[object as usize].b -= position(dead.len());
    }

    /// Whether the few keys of an object differ in beginning or length, as most do.
    fn differ(&self, object: u32) -> bool {
        let (mut seen, mut count, mut at) = ([0; FEW], 0, object + 1);
        while let Some(key) = self.tape.nodes.get(at as usize) {
            let told = u64::from(key.mark.word()) | u64::from(key.b) << 32;
            let (before, rest) = seen.split_at_mut(count.min(FEW));
            let Some(place) = rest.first_mut().filter(|_| !before.contains(&told)) else { return false };
            (*place, count) = (told, count + 1);
            at = self.next(at + 1);
        }
        true
    }

    fn key_text(&self, key: Node) -> &str {
        text(self.tape, key)
    }

    /// The node after the value at `at`; containers in an object that is ending have ended.
    fn next(&self, at: u32) -> u32 {
        match self.tape.nodes.get(at as usize) {
            Some(node) if matches!(node.tag, Tag::Object | Tag::Array) => node.a,
            _ => at + 1,
        }
    }
}

/// A cheap hash of a key by its beginning, its length and its last four bytes, of 10 bits.
fn sieve_hash(mark: Mark, key: &[u8]) -> usize {
    let last = key.last_chunk().map_or(0, |last| u32::from_le_bytes(*last));
    let mixed = u64::from(mark.word()) << 8 ^ u64::from(last) << 29 ^ key.len() as u64;
    (mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 54) as usize
}

/// The length of the number the bytes start with, by the grammar of RFC 8259.
fn number(json: &[u8]) -> Option<usize> {
    let digits = |from: usize| json[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut at = usize::from(json.first() == Some(&b'-'));
    let whole = digits(at);
    if whole == 0 || (whole > 1 && json[at] == b'0') {
        return None;
    }
    at += whole;
    if json.get(at) == Some(&b'.') {
        let fraction = digits(at + 1);
        if fraction == 0 {
            return None;
        }
        at += 1 + fraction;
    }
    if let Some(b'e' | b'E') = json.get(at) {
        let sign = usize::from(matches!(json.get(at + 1), Some(b'+' | b'-')));
        let exponent = digits(at + 1 + sign);
        if exponent == 0 {
            return None;
        }
        at += 1 + sign + exponent;
    }
    Some(at)
}

pub(crate) fn is_number(text: &[u8]) -> bool {
    number(text) == Some(text.len())
}
