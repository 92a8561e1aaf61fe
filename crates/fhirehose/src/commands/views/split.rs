use std::io::{self, Read};
use std::mem;

use fhirehose_tape::Tape;
use memchr::memchr;

use super::brackets::Brackets;

/// Bytes read at a time; a first line longer than that is not asked for whether it is a document.
const CHUNK: usize = 1 << 18;
/// Bytes of a document beyond which it is not read.
pub const MAX_DOCUMENT: usize = 1 << 28;

/// One document of a file.
pub struct Document<'b> {
    pub json: &'b [u8],
    /// Line of the file it begins in.
    pub line: u64,
    /// Which entry of a Bundle it is, from 0 on; it is the entry then, not its resource.
    pub entry: Option<u64>,
}

/// Why the rest of a file is not read.
#[derive(Debug)]
pub struct Broken {
    pub line: u64,
    pub why: String,
}

/// Cuts a file into its documents, in memory for the longest of them. NDJSON is cut at line ends; other JSON by its
/// brackets: documents one after the other, elements of an array, entries of a Bundle whose `resourceType` comes
/// before them. Whether a document is sound JSON is not asked here.
pub struct Splitter<R> {
    input: Input<R>,
    mode: Mode,
    /// Whether a Bundle is one document.
    whole: bool,
}

enum Mode {
    /// Nothing was read yet; whether the file's name says that lines are documents.
    Unknown(bool),
    Lines,
    Brackets(Brackets),
    Done,
}

/// What is read and not yet taken.
pub struct Input<R> {
    read: R,
    pub buffer: Vec<u8>,
    pub at: usize,
    /// Line of `at`.
    pub line: u64,
    pub ended: bool,
}

impl<R: Read> Input<R> {
    /// Reads more, after dropping what lies before `keep`; returns how far everything moved. At the end nothing
    /// is added.
    pub fn more(&mut self, keep: usize) -> io::Result<usize> {
        self.buffer.drain(..keep);
        self.at -= keep;
        let length = self.buffer.len();
        self.buffer.resize(length + CHUNK, 0);
        let read = loop {
            match self.read.read(&mut self.buffer[length..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.buffer.truncate(length + *read.as_ref().unwrap_or(&0));
        self.ended = read? == 0;
        Ok(keep)
    }

    pub fn broken(&self, why: impl Into<String>) -> Broken {
        Broken { line: self.line, why: why.into() }
    }
}

impl<R: Read> Splitter<R> {
    /// Of a file whose name may say that it is NDJSON; `whole` takes a Bundle as one document.
    pub fn new(read: R, is_ndjson: bool, whole: bool) -> Self {
        let input = Input { read, buffer: Vec::new(), at: 0, line: 1, ended: false };
        Splitter { input, mode: Mode::Unknown(is_ndjson), whole }
    }

    /// The next document; after an error there is none.
    pub fn next(&mut self) -> Option<Result<Document<'_>, Broken>> {
        let found = match &mut self.mode {
            Mode::Unknown(is_ndjson) => {
                let is_ndjson = *is_ndjson;
                return match self.begin(is_ndjson) {
                    Ok(()) => self.next(),
                    Err(broken) => {
                        self.mode = Mode::Done;
                        Some(Err(broken))
                    }
                };
            }
            Mode::Lines => next_line(&mut self.input),
            Mode::Brackets(brackets) => brackets.next(&mut self.input, self.whole),
            Mode::Done => Ok(None),
        };
        match found {
            Ok(Some(Found { start, end, line, entry })) => {
                Some(Ok(Document { json: &self.input.buffer[start..end], line, entry }))
            }
            Ok(None) => None,
            Err(broken) => {
                self.mode = Mode::Done;
                Some(Err(broken))
            }
        }
    }

    /// Decides how to cut: at line ends where the name says so, or where the first line is a document and others
    /// follow.
    fn begin(&mut self, is_ndjson: bool) -> Result<(), Broken> {
        let input = &mut self.input;
        while !input.ended && input.buffer.len() < CHUNK && memchr(b'\n', &input.buffer).is_none() {
            input.more(0).map_err(|error| input.broken(error.to_string()))?;
        }
        if input.buffer.starts_with(b"\xEF\xBB\xBF") {
            input.at = 3;
        }
        let text = &input.buffer[input.at..];
        let lines =
            is_ndjson || memchr(b'\n', text).is_some_and(|end| Tape::new().parse_json(&text[..end]).is_ok());
        self.mode = if lines { Mode::Lines } else { Mode::Brackets(Brackets::default()) };
        Ok(())
    }
}

/// Where a document lies in the buffer.
pub struct Found {
    pub start: usize,
    pub end: usize,
    pub line: u64,
    pub entry: Option<u64>,
}

fn next_line<R: Read>(input: &mut Input<R>) -> Result<Option<Found>, Broken> {
    let mut searched = input.at;
    loop {
        let (end, next) = match memchr(b'\n', &input.buffer[searched..]) {
            Some(end) => (searched + end, searched + end + 1),
            None if input.ended => (input.buffer.len(), input.buffer.len()),
            None => {
                if input.buffer.len() - input.at > MAX_DOCUMENT {
                    return Err(input.broken(too_long()));
                }
                searched = input.buffer.len();
                let keep = input.at;
                searched -= input.more(keep).map_err(|error| input.broken(error.to_string()))?;
                continue;
            }
        };
        let (start, line) = (mem::replace(&mut input.at, next), input.line);
        if start == next {
            return Ok(None);
        }
        input.line += 1;
        searched = next;
        if !input.buffer[start..end].trim_ascii().is_empty() {
            return Ok(Some(Found { start, end, line, entry: None }));
        }
    }
}

pub fn too_long() -> String {
    format!("a document of more than {MAX_DOCUMENT} bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader that gives so many bytes at a time.
    struct Slow<'t>(&'t [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(self.0.len()).min(buffer.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    /// `line[entry]:document` of each, however the bytes come.
    fn split(text: &str, is_ndjson: bool) -> Vec<String> {
        let at = |bytes: usize| {
            let mut splitter = Splitter::new(Slow(text.as_bytes(), bytes), is_ndjson, false);
            let mut found = Vec::new();
            while let Some(next) = splitter.next() {
                found.push(match next {
                    Ok(Document { json, line, entry: None }) => {
                        format!("{line}:{}", String::from_utf8_lossy(json))
                    }
                    Ok(Document { json, line, entry: Some(entry) }) => {
                        format!("{line}[{entry}]:{}", String::from_utf8_lossy(json))
                    }
                    Err(Broken { line, why }) => format!("{line}: {why}"),
                });
            }
            found
        };
        let whole = at(usize::MAX);
        for bytes in [1, 2, 3, 7] {
            assert_eq!(at(bytes), whole, "{bytes} bytes at a time");
        }
        whole
    }

    #[test]
    fn lines_are_documents_where_the_name_or_the_first_line_says_so() {
        let text = "{\"a\":1}\n\n  {\"a\":\n{\"a\":3}";
        assert_eq!(split(text, true), ["1:{\"a\":1}", "3:  {\"a\":", "4:{\"a\":3}"]);
        assert_eq!(split(text, false), split(text, true));
        assert_eq!(split("", true), [""; 0]);
        assert_eq!(split("\u{feff}{}\n{}\n", false), ["1:{}", "2:{}"]);
    }

    #[test]
    fn documents_end_where_their_brackets_do() {
        assert_eq!(split("\u{feff}{\"a\":\n[{}, \"}\\\"]\"]}", false), ["1:{\"a\":\n[{}, \"}\\\"]\"]}"]);
        assert_eq!(split("{\n} {} \n\n{\"b\":\"\\\\\"}", false), ["1:{\n}", "2:{}", "4:{\"b\":\"\\\\\"}"]);
        assert_eq!(
            split("[\n{\"a\":[]},\n{\"b\":{}}\n]\n{\n}", false),
            ["2:{\"a\":[]}", "3:{\"b\":{}}", "5:{\n}"]
        );
        assert_eq!(split("\n[\n]", false), [""; 0]);
    }

    #[test]
    fn entries_of_a_bundle_come_one_by_one_whatever_stands_around() {
        let text = "{\"meta\":{\"entry\":[1]},\"resourceType\":\"Bundle\",\n\"entry\":[\n{\"resource\":{\"entry\":[{}]}},\n{}],\n\"link\":[{\"relation\":\"]\"}],\"total\":2}\n{\n}";
        assert_eq!(split(text, false), ["3[0]:{\"resource\":{\"entry\":[{}]}}", "4[1]:{}", "6:{\n}"]);
        let list = "{\"resourceType\":\"List\",\n\"entry\":[{\"item\":{}}]}";
        assert_eq!(split(list, false), [format!("1:{list}")]);
        let late = "{\"entry\":[{}],\n\"resourceType\":\"Bundle\"}";
        assert_eq!(split(late, false), [format!("1:{late}")]);
        let named = "{\"x\":\"resourceType\",\n\"type\":\"Bundle\",\"entry\":[{}]}";
        assert_eq!(split(named, false), [format!("1:{named}")]);
        assert_eq!(split("{\n\"resourceType\":\"Bundle\",\"entry\":[]}", false), [""; 0]);
    }

    #[test]
    fn what_cannot_be_cut_ends_the_file() {
        assert_eq!(split("{\n\"a\":\n", false), ["1: the file ends within the document that begins here"]);
        assert_eq!(
            split("{\n}\n{\"a\":\"", false)[1],
            "3: the file ends within the document that begins here"
        );
        assert_eq!(split("{\n}\nnull\n{}", false)[1..], ["3: a JSON object expected"]);
        assert_eq!(split("[\n1]", false), ["2: a JSON object expected"]);
        assert_eq!(split("[\n\"a\"]", false), ["2: a JSON object expected"]);
        assert_eq!(split("}\n{}", false), ["1: a bracket closes nothing"]);
        let bundle = "{\n\"resourceType\":\"Bundle\",\"entry\":[{},";
        assert_eq!(split(bundle, false), ["2[0]:{}", "2: the file ends within an array or a Bundle"]);
        let after = "{\n\"resourceType\":\"Bundle\",\"entry\":[{}],\"a\":\"";
        assert_eq!(split(after, false)[1..], ["2: the file ends within an array or a Bundle"]);
    }
}
