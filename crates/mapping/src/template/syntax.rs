//! The text of FPML: where holes end, and what keys say.

/// What an object key of a template says.
pub(super) enum Directive<'k> {
    Name,
    Assign,
    Merge,
    If(&'k str),
    Else,
    For { index: Option<&'k str>, item: &'k str, over: &'k str },
    Focus(&'k str),
}

/// Bytes up to the `}}` that ends a hole: one outside of FHIRPath's strings, names and `{}`.
pub(super) fn hole_length(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0u32);
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'\'' | b'`' | b'"') => {
                at += 1;
                while at < bytes.len() && bytes[at] != quote {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
            }
            b'{' => depth += 1,
            b'}' if depth > 0 => depth -= 1,
            b'}' if bytes.get(at + 1) == Some(&b'}') => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

pub(super) fn directive(key: &str) -> Result<Directive<'_>, String> {
    let key = key.trim();
    if let Some(inner) = key.strip_prefix("{%").and_then(|rest| rest.strip_suffix("%}")) {
        let inner = inner.trim();
        let (word, rest) = inner.split_once(char::is_whitespace).unwrap_or((inner, ""));
        let rest = rest.trim();
        return match (word, rest.is_empty()) {
            ("assign", true) => Ok(Directive::Assign),
            ("merge", true) => Ok(Directive::Merge),
            ("else", true) => Ok(Directive::Else),
            ("if", false) => Ok(Directive::If(rest)),
            ("for", false) => for_directive(rest),
            _ => Err(format!("unknown `{key}`: there are if, else, for, assign and merge")),
        };
    }
    if let Some(inner) = key.strip_prefix("{{") {
        return match hole_length(inner) {
            Some(length) if length + 2 == inner.len() => Ok(Directive::Focus(inner[..length].trim())),
            _ => Err("a key is a name or one `{{ … }}`, not both".to_owned()),
        };
    }
    if key.contains("{{") || key.contains("{%") || key.contains("{[") {
        return Err("a key is a name or one `{{ … }}`, not both".to_owned());
    }
    Ok(Directive::Name)
}

fn for_directive(rest: &str) -> Result<Directive<'_>, String> {
    let usage = || "a loop is `{% for item in expr %}` or `{% for index, item in expr %}`".to_owned();
    let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    let position = rest.find(" in ").or_else(|| rest.find("\nin ")).ok_or_else(usage)?;
    let (names, over) = (rest[..position].trim(), rest[position + 4..].trim());
    let (index, item) = match names.split_once(',') {
        Some((index, item)) => (Some(index.trim()), item.trim()),
        None => (None, names),
    };
    if over.is_empty() || !is_name(item) || index.is_some_and(|name| !is_name(name)) {
        return Err(usage());
    }
    Ok(Directive::For { index, item, over })
}
