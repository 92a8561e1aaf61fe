//! Text in other forms: encodings and escapes.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use fhirehose_tape::{Tape, write_string};

use super::Call;
use crate::eval::{Evaluated, single_text};
use crate::item::{Collection, Item};

/// How a text is turned into a form.
type Turn = fn(&str) -> Option<String>;

/// Turns a text into the form the argument names; `None` of a text that is none of that form. A form that is
/// not known gives nothing, as the specification has it.
fn turned<'a>(call: &Call<'a>, forms: &[(&str, Turn)]) -> Evaluated<'a> {
    let (text, form) = (single_text(&call.input, call.name)?, single_text(call.arg(0), call.name)?);
    let (Some(text), Some(form)) = (text, form) else { return Ok(Collection::new()) };
    let turn = forms.iter().find(|(name, _)| *name == form).map(|(_, turn)| turn);
    Ok(turn.and_then(|turn| turn(&text)).map(Item::string).into_iter().collect())
}

pub(super) fn encode(call: Call<'_>) -> Evaluated<'_> {
    turned(
        &call,
        &[
            ("hex", |text| Some(text.bytes().map(|byte| format!("{byte:02x}")).collect())),
            ("base64", |text| Some(STANDARD.encode(text))),
            ("urlbase64", |text| Some(URL_SAFE.encode(text))),
        ],
    )
}

pub(super) fn decode(call: Call<'_>) -> Evaluated<'_> {
    turned(
        &call,
        &[
            ("hex", from_hex),
            ("base64", |text| String::from_utf8(STANDARD.decode(text).ok()?).ok()),
            ("urlbase64", |text| String::from_utf8(URL_SAFE.decode(text).ok()?).ok()),
        ],
    )
}

fn from_hex(text: &str) -> Option<String> {
    let pairs = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| match pair {
        [high, low] => {
            let digit = |digit: u8| char::from(digit).to_digit(16);
            u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()
        }
        _ => None,
    };
    String::from_utf8(pairs.map(byte).collect::<Option<_>>()?).ok()
}

const ENTITIES: [(&str, char); 5] =
    [("&lt;", '<'), ("&gt;", '>'), ("&quot;", '"'), ("&#39;", '\''), ("&amp;", '&')];

pub(super) fn escape(call: Call<'_>) -> Evaluated<'_> {
    turned(&call, &[("html", to_html), ("json", to_json)])
}

pub(super) fn unescape(call: Call<'_>) -> Evaluated<'_> {
    turned(&call, &[("html", from_html), ("json", from_json)])
}

fn to_html(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match ENTITIES.iter().find(|(_, plain)| *plain == char) {
            Some((entity, _)) => out.push_str(entity),
            None => out.push(char),
        }
    }
    Some(out)
}

/// The five entities that `escape` writes, `&apos;` and characters by number; others stay as they are.
fn from_html(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        match rest.find(';').and_then(|end| Some((entity(&rest[..=end])?, end))) {
            Some((char, end)) => {
                out.push(char);
                rest = &rest[end + 1..];
            }
            None => {
                out.push('&');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    Some(out)
}

fn entity(text: &str) -> Option<char> {
    if let Some((_, char)) = ENTITIES.iter().find(|(entity, _)| *entity == text) {
        return Some(*char);
    }
    let name = text.strip_prefix('&')?.strip_suffix(';')?;
    if name == "apos" {
        return Some('\'');
    }
    let number = name.strip_prefix('#')?;
    let code = match number.strip_prefix(['x', 'X']) {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => number.parse(),
    };
    char::from_u32(code.ok()?)
}

/// As in a JSON string, without its quotes.
fn to_json(text: &str) -> Option<String> {
    let mut quoted = Vec::new();
    write_string(text, &mut quoted);
    let inner = quoted.get(1..quoted.len() - 1)?;
    String::from_utf8(inner.to_vec()).ok()
}

fn from_json(text: &str) -> Option<String> {
    let mut tape = Tape::new();
    tape.parse_json(format!("\"{text}\"").as_bytes()).ok()?;
    tape.root().as_str().map(str::to_owned)
}
