use smallvec::SmallVec;
use wide::u8x16;

use crate::{Mark, Node, Start, Tag, Tape, UNDERSCORED};

/// What a [`Value`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

/// A cursor to one value of a [`Tape`]. It has no `Debug`: it may stand on personal data.
#[derive(Clone, Copy)]
pub struct Value<'t> {
    tape: &'t Tape,
    at: u32,
}

impl<'t> Value<'t> {
    pub(crate) fn new(tape: &'t Tape, at: u32) -> Self {
        Value { tape, at }
    }

    fn node(self) -> Node {
        self.tape.nodes.get(self.at as usize).copied().unwrap_or(Node::new(Tag::Null, 0, 0))
    }

    fn text(self, node: Node) -> &'t str {
        text(self.tape, node)
    }

    /// The nodes of a container, itself first.
    pub(crate) fn span(self) -> &'t [Node] {
        let end = self.node().a as usize;
        self.tape.nodes.get(self.at as usize..end).unwrap_or_default()
    }

    /// The document this is a part of.
    pub fn tape(self) -> &'t Tape {
        self.tape
    }

    /// Where it stands in its document, for [`Tape::at`].
    pub fn position(self) -> u32 {
        self.at
    }

    pub fn kind(self) -> Kind {
        match self.node().tag {
            Tag::False | Tag::True => Kind::Bool,
            Tag::Number => Kind::Number,
            Tag::String => Kind::String,
            Tag::Array => Kind::Array,
            Tag::Object => Kind::Object,
            Tag::Null | Tag::Key | Tag::DeadKey => Kind::Null,
        }
    }

    pub fn is_null(self) -> bool {
        self.kind() == Kind::Null
    }

    /// The text of a string; `None` for any other kind.
    pub fn as_str(self) -> Option<&'t str> {
        let node = self.node();
        (node.tag == Tag::String).then(|| self.text(node))
    }

    /// The text of a number, digit for digit as it was written; `None` for any other kind.
    pub fn as_number(self) -> Option<&'t str> {
        let node = self.node();
        (node.tag == Tag::Number).then(|| self.text(node))
    }

    /// A number written as an integer (no point, no exponent) that fits; `None` for anything else.
    pub fn as_i64(self) -> Option<i64> {
        self.as_number()?.parse().ok()
    }

    pub fn as_bool(self) -> Option<bool> {
        match self.node().tag {
            Tag::True => Some(true),
            Tag::False => Some(false),
            _ => None,
        }
    }

    /// Members of an object or elements of an array; 0 for scalars.
    pub fn len(self) -> usize {
        let node = self.node();
        if matches!(node.tag, Tag::Object | Tag::Array) { node.b as usize } else { 0 }
    }

    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// How many values and keys stand in it, itself and the replaced included.
    pub fn nodes(self) -> usize {
        self.span().len()
    }

    /// The member of an object; `None` where it has none of that name or is no object.
    pub fn get(self, key: &str) -> Option<Value<'t>> {
        // Most keys differ in length or beginning: the text is looked at last.
        let (length, mark) = (key.len() as u32, Mark::of(key.as_bytes()).word());
        let is_it = |name: &Node| {
            name.b == length && name.mark.word() == mark && bytes(self.tape, *name) == key.as_bytes()
        };
        // Of scalars alone, such as a row, every second node is a key, and none is dead.
        let node = self.node();
        let span = if node.tag == Tag::Object { self.span() } else { return None };
        if span.len() == 2 * node.b as usize + 1 {
            let (members, _) = span[1..].as_chunks::<2>();
            let found = members.iter().position(|[name, _]| is_it(name))?;
            return Some(Value { at: self.at + 2 + 2 * found as u32, ..self });
        }
        let mut entries = self.entries();
        while let Some((name, value)) = entries.next_node() {
            if is_it(&name) && name.tag == Tag::Key {
                return Some(value);
            }
        }
        None
    }

    /// Whether an object has a key that begins with `_`, as FHIR's JSON has beside primitives that carry more than
    /// their value.
    pub fn is_underscored(self) -> bool {
        self.node().mark == UNDERSCORED
    }

    /// The members of an object, in order, whose keys start with `name`, or with `_` and `name`: what their keys
    /// have behind it, and whether there is a `_`.
    pub fn starting(self, name: &str) -> impl Iterator<Item = (&'t str, bool, Value<'t>)> {
        let mut entries = self.entries();
        let plain = Start::of(name.as_bytes());
        let mut first = [b'_', 0, 0];
        first.iter_mut().skip(1).zip(name.bytes()).for_each(|(place, byte)| *place = byte);
        let underscored = Start::of(&first[..(name.len() + 1).min(3)]);
        std::iter::from_fn(move || {
            while let Some((key, value)) = entries.next_node() {
                if key.tag != Tag::Key || !(plain.may(key.mark) || underscored.may(key.mark)) {
                    continue;
                }
                let key = text(self.tape, key);
                if let Some(behind) = key.strip_prefix(name) {
                    return Some((behind, false, value));
                }
                if let Some(behind) = key.strip_prefix('_').and_then(|key| key.strip_prefix(name)) {
                    return Some((behind, true, value));
                }
            }
            None
        })
    }

    /// The members of an object in order; nothing for other kinds.
    pub fn entries(self) -> Entries<'t> {
        let node = self.node();
        let end = if node.tag == Tag::Object { node.a } else { 0 };
        Entries { tape: self.tape, at: self.at + 1, end }
    }

    /// The elements of an array in order; nothing for other kinds.
    pub fn elements(self) -> Elements<'t> {
        let node = self.node();
        let end = if node.tag == Tag::Array { node.a } else { 0 };
        Elements { tape: self.tape, at: self.at + 1, end }
    }

    /// Appends the value as JSON without white space; numbers as they were written.
    pub fn write_json(self, out: &mut Vec<u8>) {
        let node = self.node();
        if !matches!(node.tag, Tag::Object | Tag::Array) {
            return write_scalar(self.tape, node, out);
        }
        // Open containers: the node after the last, and the closing bracket.
        let mut open: SmallVec<[(u32, u8); 16]> = SmallVec::new();
        let mut at = self.at;
        let mut first = true;
        loop {
            while let Some(&(end, bracket)) = open.last() {
                if at < end {
                    break;
                }
                out.push(bracket);
                open.pop();
                first = false;
            }
            if open.is_empty() && at != self.at {
                return;
            }
            let value = Value { tape: self.tape, at };
            let mut node = value.node();
            if node.tag == Tag::DeadKey {
                at = next(self.tape, at + 1);
                continue;
            }
            if !first {
                out.push(b',');
            }
            if node.tag == Tag::Key {
                write_string(text(self.tape, node), out);
                out.push(b':');
                at += 1;
                node = Value { tape: self.tape, at }.node();
            }
            first = matches!(node.tag, Tag::Object | Tag::Array);
            match node.tag {
                Tag::Object => {
                    out.push(b'{');
                    open.push((node.a, b'}'));
                }
                Tag::Array => {
                    out.push(b'[');
                    open.push((node.a, b']'));
                }
                _ => write_scalar(self.tape, node, out),
            }
            at += 1;
        }
    }
}

/// Members of an object.
#[derive(Clone)]
pub struct Entries<'t> {
    tape: &'t Tape,
    at: u32,
    end: u32,
}

impl<'t> Entries<'t> {
    /// The next key, dead or alive, and its value.
    fn next_node(&mut self) -> Option<(Node, Value<'t>)> {
        if self.at >= self.end {
            return None;
        }
        let key = *self.tape.nodes.get(self.at as usize)?;
        let value = Value { tape: self.tape, at: self.at + 1 };
        self.at = next(self.tape, self.at + 1);
        Some((key, value))
    }
}

impl<'t> Iterator for Entries<'t> {
    type Item = (&'t str, Value<'t>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (key, value) = self.next_node()?;
            if key.tag == Tag::Key {
                return Some((text(self.tape, key), value));
            }
        }
    }
}

/// Elements of an array.
#[derive(Clone)]
pub struct Elements<'t> {
    tape: &'t Tape,
    at: u32,
    end: u32,
}

impl<'t> Iterator for Elements<'t> {
    type Item = Value<'t>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.end {
            return None;
        }
        let value = Value { tape: self.tape, at: self.at };
        self.at = next(self.tape, self.at);
        Some(value)
    }
}

/// Where the value after the one at `at` starts.
fn next(tape: &Tape, at: u32) -> u32 {
    match tape.nodes.get(at as usize) {
        Some(node) if matches!(node.tag, Tag::Object | Tag::Array) => node.a.max(at + 1),
        _ => at + 1,
    }
}

pub(crate) fn bytes(tape: &Tape, node: Node) -> &[u8] {
    tape.text
        .as_bytes()
        .get(node.a as usize..)
        .and_then(|text| text.get(..node.b as usize))
        .unwrap_or_default()
}

/// The text of a key, string or number.
pub(crate) fn text(tape: &Tape, node: Node) -> &str {
    tape.text.get(node.a as usize..node.a as usize + node.b as usize).unwrap_or_default()
}

fn write_scalar(tape: &Tape, node: Node, out: &mut Vec<u8>) {
    match node.tag {
        Tag::True => out.extend_from_slice(b"true"),
        Tag::False => out.extend_from_slice(b"false"),
        Tag::Number => out.extend_from_slice(text(tape, node).as_bytes()),
        Tag::String => write_string(text(tape, node), out),
        _ => out.extend_from_slice(b"null"),
    }
}

/// Appends a JSON string: quoted, with only what must be escaped escaped.
pub fn write_string(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let mut rest = text.as_bytes();
    loop {
        let (plain, special) = rest.split_at(plain(rest));
        out.extend_from_slice(plain);
        let Some((&byte, after)) = special.split_first() else { break };
        rest = after;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
            }
        }
    }
    out.push(b'"');
}

/// How many bytes from the start on need no attention in a JSON string: no quote, backslash or control
/// character. Many bytes at a time: this is where the time of reading and writing JSON goes.
#[inline]
pub(crate) fn plain(bytes: &[u8]) -> usize {
    let (words, tail) = bytes.as_chunks::<WORD>();
    for (i, word) in words.iter().enumerate() {
        if let Some(at) = special(word) {
            return i * WORD + at;
        }
    }
    let special = |&byte: &u8| byte == b'"' || byte == b'\\' || byte < 0x20;
    bytes.len() - tail.len() + tail.iter().position(special).unwrap_or(tail.len())
}

const WORD: usize = 16;

/// The first byte that needs attention.
#[inline]
fn special(word: &[u8; WORD]) -> Option<usize> {
    let word = u8x16::new(*word);
    let control = word.min(u8x16::splat(0x1F)).simd_eq(word);
    let marks = control | word.simd_eq(u8x16::splat(b'"')) | word.simd_eq(u8x16::splat(b'\\'));
    let marks = marks.to_bitmask();
    (marks != 0).then(|| marks.trailing_zeros() as usize)
}
