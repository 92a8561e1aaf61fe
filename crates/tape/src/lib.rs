//! One document, read from JSON text or built call by call, in flat buffers that are reused from record to
//! record. Reads bytes, gives cursors and writes JSON bytes; promises that number text stays digit for digit
//! and that of duplicate keys the last wins; never allocates per value and never recurses on input.

mod parse;
mod value;

pub use parse::{JsonError, MAX_DEPTH};
pub use value::{Elements, Entries, Kind, Value, write_string};

/// A document. Building it again with [`Tape::clear`] or [`Tape::parse_json`] keeps the buffers.
#[derive(Default)]
pub struct Tape {
    nodes: Vec<Node>,
    text: String,
    open: Vec<u32>,
}

/// Pre-order: a container is followed by its content; a key by its value.
#[derive(Clone, Copy)]
pub(crate) struct Node {
    tag: Tag,
    /// Of a key how its text begins, so that other keys are told apart without a look at the text; of an object
    /// [`UNDERSCORED`] where one of its keys begins so.
    mark: Mark,
    /// Container: the node after its last. Key, string, number: start of the text.
    a: u32,
    /// Container: members. Key, string, number: length of the text.
    b: u32,
}

impl Node {
    fn new(tag: Tag, a: u32, b: u32) -> Node {
        Node { tag, mark: Mark::default(), a, b }
    }

    /// A key whose text stands at `start`.
    fn key(start: u32, text: &str) -> Node {
        Node { tag: Tag::Key, mark: Mark::of(text.as_bytes()), a: start, b: position(text.len()) }
    }
}

/// An object with a key that begins with `_`.
const UNDERSCORED: Mark = Mark([b'_', 0, 0]);

/// The first three bytes of a text; zeros behind a shorter one.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Mark([u8; 3]);

impl Mark {
    fn of(text: &[u8]) -> Mark {
        let byte = |at| text.get(at).copied().unwrap_or(0);
        text.first_chunk().map_or_else(|| Mark([byte(0), byte(1), 0]), |first| Mark(*first))
    }

    fn word(self) -> u32 {
        let Mark([first, second, third]) = self;
        u32::from_le_bytes([first, second, third, 0])
    }
}

/// How keys that start with a text begin.
#[derive(Clone, Copy)]
pub(crate) struct Start {
    word: u32,
    mask: u32,
}

impl Start {
    pub fn of(text: &[u8]) -> Start {
        let mask = match text.len() {
            0 => 0,
            1 => 0xFF,
            2 => 0xFFFF,
            _ => 0xFF_FFFF,
        };
        Start { word: Mark::of(text).word(), mask }
    }

    /// Whether a key with that mark may start so; one without does not.
    pub fn may(self, mark: Mark) -> bool {
        mark.word() & self.mask == self.word
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Tag {
    Null,
    False,
    True,
    Number,
    String,
    Array,
    Object,
    Key,
    /// A key that a later one of the same name replaced.
    DeadKey,
}

impl Tape {
    pub fn new() -> Self {
        Tape::default()
    }

    /// Empties the document; it is `null` then.
    pub fn clear(&mut self) {
        self.nodes.clear();
        self.text.clear();
        self.open.clear();
    }

    /// The document's value; `null` where nothing was parsed or built.
    pub fn root(&self) -> Value<'_> {
        Value::new(self, 0)
    }

    /// The value at a [`Value::position`] of this document.
    pub fn at(&self, position: u32) -> Value<'_> {
        Value::new(self, position)
    }

    /// Starts an object; its keys and values follow, then [`Tape::end`]. Keys must differ.
    pub fn begin_object(&mut self) {
        self.begin(Tag::Object);
    }

    /// Starts an array; its elements follow, then [`Tape::end`].
    pub fn begin_array(&mut self) {
        self.begin(Tag::Array);
    }

    /// Ends the innermost open object or array.
    pub fn end(&mut self) {
        let after = position(self.nodes.len());
        if let Some(node) = self.open.pop().and_then(|at| self.nodes.get_mut(at as usize)) {
            node.a = after;
        }
    }

    /// The key of the next value of an object.
    pub fn key(&mut self, key: &str) {
        let start = self.copy(key);
        self.push_key(Node::key(start, key));
    }

    fn push_key(&mut self, key: Node) {
        let Mark([first, ..]) = key.mark;
        if first == b'_'
            && let Some(object) = self.open.last().and_then(|&at| self.nodes.get_mut(at as usize))
        {
            object.mark = UNDERSCORED;
        }
        self.nodes.push(key);
    }

    pub fn string(&mut self, value: &str) {
        let start = self.copy(value);
        self.push(Tag::String, start, position(value.len()));
    }

    /// A number by its JSON text, which is kept as it is.
    pub fn number_text(&mut self, text: &str) {
        debug_assert!(parse::is_number(text.as_bytes()), "not the text of a JSON number");
        let start = self.copy(text);
        self.push(Tag::Number, start, position(text.len()));
    }

    pub fn integer(&mut self, value: i64) {
        use std::fmt::Write;
        let start = self.text.len();
        // Writing to a String cannot fail.
        let _ = write!(self.text, "{value}");
        self.push(Tag::Number, position(start), position(self.text.len() - start));
    }

    pub fn bool(&mut self, value: bool) {
        self.push(if value { Tag::True } else { Tag::False }, 0, 0);
    }

    pub fn null(&mut self) {
        self.push(Tag::Null, 0, 0);
    }

    /// A copy of a value of another document.
    pub fn value(&mut self, value: Value<'_>) {
        match value.kind() {
            Kind::Null => self.null(),
            Kind::Bool => self.bool(value.as_bool() == Some(true)),
            Kind::Number => self.number_text(value.as_number().unwrap_or("0")),
            Kind::String => self.string(value.as_str().unwrap_or_default()),
            Kind::Array | Kind::Object => self.splice(value),
        }
    }

    /// Copies a container node by node: only the positions in it change.
    fn splice(&mut self, value: Value<'_>) {
        self.count();
        let nodes = value.span();
        let (from, to) = (value.position(), position(self.nodes.len()));
        self.nodes.reserve(nodes.len());
        for node in nodes {
            let a = match node.tag {
                Tag::Array | Tag::Object => node.a - from + to,
                Tag::Null | Tag::False | Tag::True => 0,
                Tag::Number | Tag::String | Tag::Key | Tag::DeadKey => {
                    self.copy(value::text(value.tape(), *node))
                }
            };
            self.nodes.push(Node { a, ..*node });
        }
    }

    fn begin(&mut self, tag: Tag) {
        let at = position(self.nodes.len());
        self.push(tag, 0, 0);
        self.open.push(at);
    }

    fn push(&mut self, tag: Tag, a: u32, b: u32) {
        self.count();
        self.nodes.push(Node::new(tag, a, b));
    }

    /// Counts one more member of the innermost open container.
    fn count(&mut self) {
        if let Some(node) = self.open.last().and_then(|&at| self.nodes.get_mut(at as usize)) {
            node.b += 1;
        }
    }

    fn copy(&mut self, text: &str) -> u32 {
        let start = position(self.text.len());
        self.text.push_str(text);
        start
    }
}

/// Documents are bounded far below 4 GiB by the record size limits; one beyond reads as truncated text, it
/// does not wrap around.
fn position(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
