//! The tape against `serde_json` as the oracle, and the promises of its documentation one by one.

use fhirehose_tape::{JsonError, Kind, MAX_DEPTH, Tape};
use proptest::prelude::*;

fn parse(json: &str) -> Result<String, JsonError> {
    let mut tape = Tape::new();
    tape.parse_json(json.as_bytes())?;
    Ok(written(&tape))
}

fn written(tape: &Tape) -> String {
    let mut out = Vec::new();
    tape.root().write_json(&mut out);
    String::from_utf8_lossy(&out).into_owned()
}

#[test]
fn numbers_keep_their_digits() {
    for number in ["36.50", "-0.0", "1e3", "1E+05", "123456789012345678901234567890.10", "0"] {
        assert_eq!(parse(number).unwrap(), number);
    }
    assert_eq!(parse(" [ 1.0 , 2 ] ").unwrap(), "[1.0,2]");
}

#[test]
fn what_is_not_json_is_refused_where_it_goes_wrong() {
    let syntax = |json: &str| match parse(json) {
        Err(JsonError::Syntax { offset, expected }) => (offset, expected),
        other => panic!("{json}: {other:?}"),
    };
    assert_eq!(syntax(""), (0, "value"));
    assert_eq!(syntax("NaN"), (0, "value"));
    assert_eq!(syntax("-Infinity"), (0, "number"));
    assert_eq!(syntax("01"), (0, "number"));
    assert_eq!(syntax("[1,]"), (3, "value"));
    assert_eq!(syntax("{\"a\":1,}"), (7, "key"));
    assert_eq!(syntax("{\"a\" 1}"), (5, "':'"));
    assert_eq!(syntax("{} x"), (3, "end of document"));
    assert_eq!(syntax("\"\\ud800x\""), (1, "low surrogate"));
    assert_eq!(syntax("\"a\nb\""), (2, "escaped control character"));
    assert_eq!(syntax("\"abc"), (4, "end of string"));
    assert_eq!(syntax("[1"), (2, "',' or ']'"));
    let mut tape = Tape::new();
    assert_eq!(tape.parse_json(b"{\"a\":\"\xff\"}"), Err(JsonError::InvalidUtf8 { offset: 6 }));
    assert!(tape.root().is_null());
}

#[test]
fn depth_is_bounded() {
    let nested = |n: usize| "[".repeat(n) + &"]".repeat(n);
    assert!(parse(&nested(MAX_DEPTH)).is_ok());
    assert_eq!(parse(&nested(MAX_DEPTH + 1)), Err(JsonError::TooDeep { offset: MAX_DEPTH }));
}

#[test]
fn of_duplicate_keys_the_last_wins() {
    let mut tape = Tape::new();
    tape.parse_json(br#"{"a":{"x":1},"b":2,"a":3,"\u0061":[4]}"#).unwrap();
    let root = tape.root();
    assert_eq!(root.len(), 2);
    assert_eq!(root.get("a").map(|a| a.kind()), Some(Kind::Array));
    assert_eq!(root.entries().map(|(key, _)| key).collect::<Vec<_>>(), ["b", "a"]);
    assert_eq!(written(&tape), r#"{"b":2,"a":[4]}"#);
    assert_eq!(parse(r#"{"a":1,"a":2}"#).unwrap(), r#"{"a":2}"#);
}

#[test]
fn a_built_document_reads_like_a_parsed_one() {
    let mut inner = Tape::new();
    inner.parse_json(br#"{"skip":0,"keep":{"deep":["\n",{"n":1.50}],"e":{}}}"#).unwrap();
    let mut tape = Tape::new();
    tape.begin_object();
    tape.key("id");
    tape.integer(-7);
    tape.key("copied");
    tape.value(inner.root().get("keep").unwrap());
    tape.key("json");
    assert!(tape.json(b"[1,").is_err());
    tape.json(b"[1,\"\\u00e9\"]").unwrap();
    tape.key("list");
    tape.begin_array();
    tape.bool(true);
    tape.null();
    tape.string("q\"\u{1}");
    tape.number_text("36.50");
    tape.end();
    tape.end();
    let expected = r#"{"id":-7,"copied":{"deep":["\n",{"n":1.50}],"e":{}},"json":[1,"é"],"list":[true,null,"q\"\u0001",36.50]}"#;
    assert_eq!(written(&tape), expected);
    let root = tape.root();
    assert_eq!(root.len(), 4);
    assert_eq!(root.get("id").unwrap().as_i64(), Some(-7));
    let list = root.get("list").unwrap();
    assert_eq!(list.elements().nth(3).unwrap().as_number(), Some("36.50"));
    assert_eq!(list.elements().nth(3).unwrap().as_i64(), None);
    assert_eq!(tape.at(list.position()).len(), 4);
    assert!(root.get("nothing").is_none());
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(5, 200, 12, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..12).prop_map(Into::into),
            prop::collection::vec(("[a-c]{0,3}", inner), 0..12)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn a_document_written_is_the_document_read(value in json(), pretty in any::<bool>()) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
        let out = parse(&text.unwrap()).unwrap();
        prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&out).unwrap(), value);
    }

    #[test]
    fn arbitrary_text_is_judged_as_serde_json_judges_it(text in "[\\[\\]{}:,\"\\\\u0-9a-f.eE+ntr -]{0,24}") {
        let oracle: Result<serde_json::Value, _> = serde_json::from_str(&text);
        let ours = parse(&text);
        prop_assert_eq!(ours.is_ok(), oracle.is_ok(), "{}", text);
        if let (Ok(out), Ok(value)) = (ours, oracle) {
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&out).unwrap(), value);
        }
    }
}
