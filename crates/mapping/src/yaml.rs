//! YAML as a tree that keeps every place, every number's digits and the order of keys.

use std::collections::HashMap;

use fhirehose_tape::Tape;
use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

use crate::limits::{MAX_DEPTH, MAX_FILE, MAX_NODES};
use crate::problem::Position;

pub(crate) struct Node {
    pub at: Position,
    pub data: Data,
}

pub(crate) enum Data {
    /// `plain`: neither quoted nor a block, so `null`, `true` and `36.5` mean what they look like.
    Scalar {
        text: String,
        style: Style,
    },
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Quoted,
    Block,
}

#[derive(Clone)]
pub(crate) struct Key {
    pub at: Position,
    pub text: String,
}

/// What a plain scalar means, by the core schema of YAML 1.2.
pub(crate) enum Scalar<'n> {
    Null,
    Bool(bool),
    /// The text of a JSON number.
    Number(&'n str),
    Text(&'n str),
}

/// Reads a file of exactly one document.
pub(crate) fn read(text: &str) -> Result<Node, (Position, String)> {
    if text.len() > MAX_FILE {
        return Err((Position::START, format!("a file of more than {MAX_FILE} bytes")));
    }
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| (position(error.marker()), error.info().to_owned()))?;
        builder.event(event, position(&span.start))?;
    }
    builder.root.ok_or((Position::START, "the file is empty".to_owned()))
}

fn position(marker: &Marker) -> Position {
    Position { line: marker.line().max(1), column: marker.col() + 1 }
}

#[derive(Default)]
struct Builder {
    /// Open lists and maps, with the id of their anchor and the key that awaits its value.
    open: Vec<(Node, usize, Option<Key>)>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    root: Option<Node>,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, at: Position) -> Result<(), (Position, String)> {
        let tagged = || (at, "tags such as `!!str` are not used in mappings".to_owned());
        match event {
            Event::Scalar(_, _, _, Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => {
                return Err(tagged());
            }
            Event::Scalar(text, style, anchor, None) => {
                let style = match style {
                    ScalarStyle::Plain => Style::Plain,
                    ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Style::Quoted,
                    ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
                };
                self.add(Node { at, data: Data::Scalar { text: text.into_owned(), style } }, anchor)?;
            }
            Event::SequenceStart(anchor, None) => {
                self.open(Node { at, data: Data::List(Vec::new()) }, anchor)?;
            }
            Event::MappingStart(anchor, None) => {
                self.open(Node { at, data: Data::Map(Vec::new()) }, anchor)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some((node, anchor, _)) = self.open.pop() {
                    self.add(node, anchor)?;
                }
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                Some(node) => {
                    let (nodes, depth) = node.size();
                    too_deep(at, self.open.len() + depth)?;
                    // One is counted as it is added.
                    self.nodes += nodes - 1;
                    too_many(at, self.nodes)?;
                    let node = node.copy();
                    self.add(node, 0)?;
                }
                None => return Err((at, "an alias inside its own anchor".to_owned())),
            },
            Event::DocumentStart(_) if self.root.is_some() => {
                return Err((at, "a second document: a file holds one".to_owned()));
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn open(&mut self, node: Node, anchor: usize) -> Result<(), (Position, String)> {
        too_deep(node.at, self.open.len())?;
        self.open.push((node, anchor, None));
        Ok(())
    }

    fn add(&mut self, node: Node, anchor: usize) -> Result<(), (Position, String)> {
        self.nodes += 1;
        too_many(node.at, self.nodes)?;
        if anchor > 0 {
            self.anchors.insert(anchor, node.copy());
        }
        let Some((parent, _, awaits)) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut parent.data {
            Data::List(list) => list.push(node),
            Data::Map(entries) => match awaits.take() {
                Some(key) => entries.push((key, node)),
                None => {
                    let Data::Scalar { text, .. } = node.data else {
                        return Err((node.at, "a key is a text".to_owned()));
                    };
                    if entries.iter().any(|(key, _)| key.text == text) {
                        return Err((node.at, format!("the key `{text}` stands here twice")));
                    }
                    *awaits = Some(Key { at: node.at, text });
                }
            },
            Data::Scalar { .. } => {}
        }
        Ok(())
    }
}

fn too_many(at: Position, nodes: usize) -> Result<(), (Position, String)> {
    if nodes > MAX_NODES {
        return Err((at, format!("more than {MAX_NODES} values, what aliases repeat included")));
    }
    Ok(())
}

fn too_deep(at: Position, depth: usize) -> Result<(), (Position, String)> {
    if depth >= MAX_DEPTH {
        return Err((at, format!("nested deeper than {MAX_DEPTH} levels")));
    }
    Ok(())
}

impl Node {
    /// How many values it is, and how deep they are nested.
    fn size(&self) -> (usize, usize) {
        let children: Vec<_> = match &self.data {
            Data::Scalar { .. } => return (1, 0),
            Data::List(list) => list.iter().map(Node::size).collect(),
            Data::Map(entries) => entries.iter().map(|(_, node)| node.size()).collect(),
        };
        let nodes: usize = children.iter().map(|(nodes, _)| nodes).sum();
        (nodes + 1, children.iter().map(|(_, depth)| depth + 1).max().unwrap_or(1))
    }

    /// Appends it to a tape as what it means, templates in it as the text they are.
    pub fn write(&self, tape: &mut Tape) {
        match &self.data {
            Data::Scalar { .. } => match self.scalar() {
                Some(Scalar::Bool(value)) => tape.bool(value),
                Some(Scalar::Number(text)) => tape.number_text(text),
                Some(Scalar::Text(text)) => tape.string(text),
                Some(Scalar::Null) | None => tape.null(),
            },
            Data::List(list) => {
                tape.begin_array();
                list.iter().for_each(|node| node.write(tape));
                tape.end();
            }
            Data::Map(entries) => {
                tape.begin_object();
                for (key, node) in entries {
                    tape.key(&key.text);
                    node.write(tape);
                }
                tape.end();
            }
        }
    }

    fn copy(&self) -> Node {
        let data = match &self.data {
            Data::Scalar { text, style } => Data::Scalar { text: text.clone(), style: *style },
            Data::List(list) => Data::List(list.iter().map(Node::copy).collect()),
            Data::Map(entries) => Data::Map(entries.iter().map(|(k, v)| (k.clone(), v.copy())).collect()),
        };
        Node { at: self.at, data }
    }

    pub fn scalar(&self) -> Option<Scalar<'_>> {
        let Data::Scalar { text, style } = &self.data else { return None };
        Some(match (text.as_str(), style) {
            ("" | "~" | "null" | "Null" | "NULL", Style::Plain) => Scalar::Null,
            ("true" | "True" | "TRUE", Style::Plain) => Scalar::Bool(true),
            ("false" | "False" | "FALSE", Style::Plain) => Scalar::Bool(false),
            (text, Style::Plain) if is_json_number(text) => Scalar::Number(text),
            (text, _) => Scalar::Text(text),
        })
    }

    /// Text of a scalar however it is written: `key: 12` is the text `12` where a text is wanted.
    pub fn text(&self) -> Option<&str> {
        match &self.data {
            Data::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// Place of a character of a scalar, counted in bytes of its text. Exact on a line of its own; in a text
    /// of several lines the place where it starts.
    pub fn inside(&self, offset: usize) -> Position {
        match &self.data {
            Data::Scalar { text, style: Style::Plain | Style::Quoted } if !text.contains('\n') => {
                let quote = usize::from(!matches!(&self.data, Data::Scalar { style: Style::Plain, .. }));
                let characters = text.get(..offset).map_or(0, |before| before.chars().count());
                Position { line: self.at.line, column: self.at.column + quote + characters }
            }
            _ => self.at,
        }
    }

    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self.data {
            Data::Scalar { .. } => "a scalar",
            Data::List(_) => "a list",
            Data::Map(_) => "a map",
        }
    }
}

pub(crate) fn is_json_number(text: &str) -> bool {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry<'n>(node: &'n Node, key: &str) -> (&'n Key, &'n Node) {
        let Data::Map(entries) = &node.data else { panic!("no map") };
        entries.iter().find(|(k, _)| k.text == key).map(|(k, v)| (k, v)).unwrap()
    }

    #[test]
    fn places_digits_and_order_are_kept() {
        let node = read("a: 36.50\n\"b c\":\n  - 'x'\n  - ~\n").unwrap();
        let (key, value) = entry(&node, "a");
        assert_eq!((key.at, value.at), (Position { line: 1, column: 1 }, Position { line: 1, column: 4 }));
        assert!(matches!(value.scalar(), Some(Scalar::Number("36.50"))));
        let (_, list) = entry(&node, "b c");
        let Data::List(list) = &list.data else { panic!("no list") };
        assert_eq!(list[0].at, Position { line: 3, column: 5 });
        assert_eq!(list[0].inside(0), Position { line: 3, column: 6 });
        assert!(matches!(list[0].scalar(), Some(Scalar::Text("x"))));
        assert!(matches!(list[1].scalar(), Some(Scalar::Null)));
    }

    #[test]
    fn codes_are_text_and_quotes_matter() {
        let node = read("a: 8867-4\nb: '12'\nc: 012\nd: 1e3\n").unwrap();
        assert!(matches!(entry(&node, "a").1.scalar(), Some(Scalar::Text("8867-4"))));
        assert!(matches!(entry(&node, "b").1.scalar(), Some(Scalar::Text("12"))));
        assert!(matches!(entry(&node, "c").1.scalar(), Some(Scalar::Text("012"))));
        assert!(matches!(entry(&node, "d").1.scalar(), Some(Scalar::Number("1e3"))));
    }

    #[test]
    fn anchors_are_copied() {
        let node = read("a: &x {k: v}\nb: *x\n").unwrap();
        assert_eq!(entry(entry(&node, "b").1, "k").1.text(), Some("v"));
    }

    #[test]
    fn hostile_files_are_refused_with_their_place() {
        let told = |text: &str| read(text).err().map(|(at, message)| (at.line, message)).unwrap_or_default();
        let levels = |depth: usize| format!("a:\n  {}1{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(told(&levels(MAX_DEPTH - 1)), Default::default());
        assert_eq!(told(&levels(MAX_DEPTH)), (2, "nested deeper than 64 levels".into()));
        // The parser may be the first to refuse it.
        assert!(!told(&levels(200_000)).1.is_empty());
        // Ten lines that stand for 10^10 values.
        let mut laughs = String::from("l0: &l0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..10 {
            let aliases = vec![format!("*l{}", level - 1); 10].join(", ");
            laughs += &format!("l{level}: &l{level} [{aliases}]\n");
        }
        let (line, message) = told(&laughs);
        assert!(line > 3 && message.contains("more than 100000 values"), "{line} {message}");
        let mut deep = String::from("l0: &l0 [x]\n");
        (1..70).for_each(|level| deep += &format!("l{level}: &l{level} [*l{}]\n", level - 1));
        assert!(told(&deep).1.contains("deeper"), "{:?}", told(&deep));
        assert!(told(&"# long\n".repeat(MAX_FILE / 4)).1.contains("bytes"));
    }

    #[test]
    fn what_is_refused_says_where() {
        for (text, line, word) in [
            ("a: 1\na: 2\n", 2, "twice"),
            ("a: [1\n", 2, ""),
            ("", 1, "empty"),
            ("a: 1\n---\nb: 2\n", 2, "second"),
            ("? [x]\n: 1\n", 1, "key"),
            ("a: !!str 1\n", 1, "tags"),
        ] {
            let (at, message) = read(text).err().unwrap_or((Position::START, "accepted".into()));
            assert!(
                at.line == line && message.contains(word) && message != "accepted",
                "{text}: {at:?} {message}"
            );
        }
    }
}
