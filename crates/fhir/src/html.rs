//! Narrative: the XHTML that FHIR lets a resource carry (invariants txt-1 and txt-2).

/// Elements of the chapters on text, lists, tables and so on of HTML 4.0 that R4 names, 2.22.
const ELEMENTS: &[&str] = &[
    "a",
    "abbr",
    "acronym",
    "b",
    "big",
    "blockquote",
    "br",
    "caption",
    "cite",
    "code",
    "col",
    "colgroup",
    "dd",
    "dfn",
    "div",
    "dl",
    "dt",
    "em",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "hr",
    "i",
    "img",
    "li",
    "ol",
    "p",
    "pre",
    "q",
    "samp",
    "small",
    "span",
    "strong",
    "sub",
    "sup",
    "table",
    "tbody",
    "td",
    "tfoot",
    "th",
    "thead",
    "tr",
    "tt",
    "ul",
    "var",
];
const ATTRIBUTES: &[&str] = &[
    "abbr",
    "accesskey",
    "align",
    "alt",
    "axis",
    "bgcolor",
    "border",
    "cellhalign",
    "cellpadding",
    "cellspacing",
    "cellvalign",
    "char",
    "charoff",
    "charset",
    "cite",
    "class",
    "colspan",
    "compact",
    "coords",
    "dir",
    "frame",
    "headers",
    "height",
    "href",
    "hreflang",
    "hspace",
    "id",
    "lang",
    "longdesc",
    "name",
    "nowrap",
    "rel",
    "rev",
    "rowspan",
    "rules",
    "scope",
    "shape",
    "span",
    "src",
    "start",
    "style",
    "summary",
    "tabindex",
    "title",
    "type",
    "valign",
    "value",
    "vspace",
    "width",
    "xml:lang",
    "xmlns",
];

/// Whether it is one well-formed `div` of allowed elements and attributes, with something to see in it.
pub(crate) fn fits(text: &str) -> bool {
    let (mut rest, mut open, mut visible) = (text.trim(), Vec::new(), false);
    while !rest.is_empty() {
        let Some(markup) = rest.strip_prefix('<') else {
            let (content, after) = rest.split_at(rest.find('<').unwrap_or(rest.len()));
            if open.is_empty() {
                return false;
            }
            visible |= content.chars().any(|c| !c.is_whitespace());
            rest = after;
            continue;
        };
        if let Some(comment) = markup.strip_prefix("!--") {
            let Some((_, after)) = comment.split_once("-->") else { return false };
            rest = after;
            continue;
        }
        if let Some(closing) = markup.strip_prefix('/') {
            let Some((name, after)) = closing.split_once('>') else { return false };
            if open.pop() != Some(name.trim_end()) || (open.is_empty() && !after.is_empty()) {
                return false;
            }
            rest = after;
            continue;
        }
        let Some((name, empty, after)) = tag(markup) else { return false };
        if open.is_empty() && name != "div" {
            return false;
        }
        visible |= name == "img";
        if !empty {
            open.push(name);
        } else if open.is_empty() {
            return false;
        }
        rest = after;
    }
    open.is_empty() && visible
}

/// An opening tag after its `<`: the name, whether it closes itself, and what follows.
fn tag(markup: &str) -> Option<(&str, bool, &str)> {
    let end = markup.find(|c: char| c.is_whitespace() || c == '>' || c == '/')?;
    let (name, mut rest) = markup.split_at(end);
    if !ELEMENTS.contains(&name) {
        return None;
    }
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix('>') {
            return Some((name, false, after));
        }
        if let Some(after) = rest.strip_prefix("/>") {
            return Some((name, true, after));
        }
        let (attribute, value) = rest.split_once('=')?;
        let quote = value.trim_start().chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
        let (content, after) = value.trim_start().get(1..)?.split_once(quote)?;
        if !ATTRIBUTES.contains(&attribute.trim()) || content.contains('<') {
            return None;
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn narratives() {
        let of = |body: &str| format!("<div xmlns=\"http://www.w3.org/1999/xhtml\">{body}</div>");
        for good in
            ["text", "<p>a<br/>b &amp; c</p>", "<img src='x' alt=\"y\"/>", "<!-- c --><b>x</b>", "<b >x</b >"]
        {
            assert!(fits(&of(good)), "{good}");
        }
        for bad in [
            "",
            " \n",
            "<p></p>",
            "<script>x</script>",
            "<p onclick=\"x\">x</p>",
            "<p>x",
            "x</p>",
            "<b><i>x</b></i>",
            "<p class=x>x</p>",
            "</div><div>x",
            "<p",
            "<!-- x",
            "<br/>",
        ] {
            assert!(!fits(&of(bad)), "{bad}");
        }
        for bad in ["", "x", "<p>x</p>", "<div/>", "<div>x</div>y", "<div>x", "<"] {
            assert!(!fits(bad), "{bad}");
        }
    }
}
