//! Lines of elements. A document's values do not know where they stood in the text, and few are ever asked; the text
//! is known to be JSON.

/// Lines of a document. What was found last is kept: findings come in the document's order, and each goes on from there.
pub struct Lines<'t> {
    text: &'t [u8],
    steps: Vec<Step>,
    /// A place and its line.
    counted: (usize, usize),
}

/// A part of the last path.
struct Step {
    name: Box<str>,
    index: Option<usize>,
    /// Where the member's value begins.
    member: usize,
    /// Where it begins, or the element of that index.
    at: usize,
}

impl<'t> Lines<'t> {
    pub fn new(text: &'t [u8]) -> Self {
        Lines { text, steps: Vec::new(), counted: (0, 1) }
    }

    /// The line, from 1, of the element of that path, `Bundle.entry[3].resource.code`; of a missing one that of what
    /// should have it.
    pub fn line(&mut self, path: &str) -> usize {
        let mut at = space(self.text, 0);
        let mut same = true;
        for (depth, segment) in path.split('.').skip(1).enumerate() {
            let (name, index) = match segment.strip_suffix(']').and_then(|segment| segment.split_once('[')) {
                Some((name, index)) => (name, index.parse().ok()),
                None => (segment, None),
            };
            let last = self.steps.get(depth).filter(|last| same && *last.name == *name);
            same = last.is_some_and(|last| last.index == index);
            if let Some(last) = last.filter(|_| same) {
                at = last.at;
                continue;
            }
            let step = self.step(at, name, index, last);
            self.steps.truncate(depth);
            let Some(step) = step else { break };
            at = step.at;
            self.steps.push(step);
        }
        let (from, line) = if self.counted.0 <= at { self.counted } else { (0, 1) };
        let at = at.min(self.text.len());
        self.counted = (at, line + self.text[from..at].iter().filter(|byte| **byte == b'\n').count());
        self.counted.1
    }

    /// A member of the object at a place; `last` is the same member with another index.
    fn step(&self, object: usize, name: &str, index: Option<usize>, last: Option<&Step>) -> Option<Step> {
        let text = self.text;
        let begins = match last {
            Some(last) => last.member,
            None => member(text, object, name).or_else(|| member(text, object, &format!("_{name}")))?,
        };
        let before = last.and_then(|last| Some((last.index?, last.at)));
        let element = match (index, before) {
            (None, _) => Some(begins),
            (Some(to), Some((from, at))) if from <= to => skip(text, at, to - from),
            (Some(to), _) => opened(text, begins, b'[').and_then(|first| skip(text, first, to)),
        };
        // An element that is not there stands where its array begins; nothing goes on from it.
        let (index, at) = element.map_or((None, begins), |at| (index, at));
        Some(Step { name: name.into(), index, member: begins, at })
    }
}

fn space(text: &[u8], at: usize) -> usize {
    at + text[at.min(text.len())..].iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

/// Where a member's value begins, of the object at that place.
fn member(text: &[u8], object: usize, name: &str) -> Option<usize> {
    let mut at = opened(text, object, b'{')?;
    while text.get(at) == Some(&b'"') {
        let end = end(text, at);
        let found = text.get(at + 1..end - 1) == Some(name.as_bytes());
        at = space(text, space(text, end) + 1);
        if found {
            return Some(at);
        }
        at = next(text, at);
    }
    None
}

/// Where the element begins that is so many after the one at that place.
fn skip(text: &[u8], mut at: usize, count: usize) -> Option<usize> {
    for _ in 0..count {
        at = next(text, at);
    }
    text.get(at).filter(|byte| **byte != b']').map(|_| at)
}

fn opened(text: &[u8], at: usize, bracket: u8) -> Option<usize> {
    (text.get(at) == Some(&bracket)).then(|| space(text, at + 1))
}

/// What follows the value at that place and a comma.
fn next(text: &[u8], at: usize) -> usize {
    let after = space(text, end(text, at));
    if text.get(after) == Some(&b',') { space(text, after + 1) } else { after }
}

/// Where the value at that place ends.
fn end(text: &[u8], at: usize) -> usize {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for (offset, byte) in text.iter().enumerate().skip(at) {
        match (quoted, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (true, b'"') => {
                quoted = false;
                if depth == 0 {
                    return offset + 1;
                }
            }
            (true, _) => {}
            (false, b'"') => quoted = true,
            (false, b'{' | b'[') => depth += 1,
            (false, b'}' | b']') if depth == 0 => return offset,
            (false, b'}' | b']') => {
                depth -= 1;
                if depth == 0 {
                    return offset + 1;
                }
            }
            (false, b',' | b' ' | b'\t' | b'\n' | b'\r') if depth == 0 => return offset,
            (false, _) => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::Lines;

    #[test]
    fn lines_of_paths() {
        let text = r#"{
  "resourceType": "Observation", "note": "a } ] \" b",
  "code": {
    "coding": [
      {"system": "x"},
      { "system": "y",
        "code": "z" }
    ]
  },
  "_status": {"id": "x"},
  "empty": [], "value": 12
}"#;
        let paths = [
            ("Observation", 1),
            ("Observation.note", 2),
            ("Observation.code", 3),
            ("Observation.code.coding[0].system", 5),
            ("Observation.code.coding[1]", 6),
            ("Observation.code.coding[1].code", 7),
            ("Observation.code.coding[2].code", 4),
            ("Observation.code.missing", 3),
            ("Observation.status", 10),
            ("Observation.empty[0].x", 11),
            ("Observation.value.x", 11),
            ("Observation.subject", 1),
        ];
        for (path, wanted) in paths {
            assert_eq!(Lines::new(text.as_bytes()).line(path), wanted, "{path}");
            for (other, other_wanted) in paths {
                let mut lines = Lines::new(text.as_bytes());
                let both = (lines.line(path), lines.line(other), lines.line(path));
                assert_eq!(both, (wanted, other_wanted, wanted), "{path}, then {other}");
            }
        }
        assert_eq!(Lines::new(b"").line("a.b"), 1);
        assert_eq!(Lines::new(b"{\"a\":").line("x.a"), 1);
    }
}
