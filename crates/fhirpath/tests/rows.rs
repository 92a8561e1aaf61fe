//! Expressions over rows and messages, as mappings use them: columns, host functions, variables, errors.

use std::borrow::Cow;

use fhirehose_fhirpath::{
    Collection, Ctx, Env, EvalError, Expr, Function, Functions, Item, NoFunctions, Shape,
};
use fhirehose_tape::Tape;
use proptest::prelude::*;

const ROW: &str = r#"{"id":"v-1","heart_rate":72,"temperature":36.50,"big":12345678901234567890123456789012345.5,
    "note":null,"noted_at":"2026-01-02T03:04:05","active":true,"tags":["a","b","a"],
    "device":{"value":7,"valueString":"x"},"name":"Amna"}"#;

fn columns() -> Env {
    let names =
        ["id", "heart_rate", "temperature", "big", "note", "noted_at", "active", "tags", "device", "name"];
    Env::plain().columns(names)
}

/// The items' texts, or the error.
fn texts(source: &str) -> Result<Vec<String>, String> {
    let mut tape = Tape::new();
    tape.parse_json(ROW.as_bytes()).map_err(|error| error.to_string())?;
    let expr = Expr::compile(source, &columns()).map_err(|error| error.to_string())?;
    let items = expr.eval(&Ctx::new(tape.root(), &NoFunctions)).map_err(|error| error.to_string())?;
    let mut texts = Vec::new();
    for item in items {
        let mut json = Vec::new();
        item.write_json(&mut json);
        texts.push(String::from_utf8(json).map_err(|error| error.to_string())?);
    }
    Ok(texts)
}

fn text(source: &str) -> String {
    match texts(source) {
        Ok(texts) => texts.join(" "),
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn numbers_keep_their_digits() {
    assert_eq!(text("temperature"), "36.50");
    assert_eq!(text("-(0.4.round(0))"), "0");
    assert_eq!(text("big"), "12345678901234567890123456789012345.5");
    assert_eq!(text("temperature + 0.10"), "36.60");
    assert_eq!(text("temperature * 1.8 + 32"), "97.700");
    assert_eq!(text("heart_rate / 3"), "24");
    assert_eq!(text("10 / 3"), "3.33333333");
    assert_eq!(text("7 div 2 + 7 mod 2"), "4");
    assert_eq!(text("1767323045123 div 1000"), "1767323045");
    assert_eq!(text("(0.1 + 0.2) = 0.3"), "true");
    assert_eq!(text("9223372036854775807 + 1"), "");
    assert_eq!(text("$this ~ $this and big = big and big ~ big"), "true");
    assert!(text("big + 1").starts_with("error: arithmetic"));
}

#[test]
fn what_is_missing_is_empty_and_neither_true_nor_false() {
    assert_eq!(text("note"), "");
    assert_eq!(text("note > 3"), "");
    assert_eq!(text("note.exists() or heart_rate < 10 or heart_rate > 350"), "false");
    assert_eq!(text("note > 3 or active"), "true");
    assert_eq!(text("note > 3 and active"), "");
    assert_eq!(text("iif(note > 3, 'high', 'not high')"), "\"not high\"");
    assert_eq!(text("name & note & '!'"), "\"Amna!\"");
    assert_eq!(text("name + note"), "");
}

#[test]
fn lists_are_collections_and_names_are_taken_literally() {
    assert_eq!(text("tags.count()"), "3");
    assert_eq!(text("tags.distinct().join('+')"), "\"a+b\"");
    assert_eq!(text("tags.where($this = 'a').select($index)"), "0 1");
    assert_eq!(text("device.value"), "7");
    assert_eq!(text("device.valueString"), "\"x\"");
    assert_eq!(text("name in ('Amna' | 'Sara')"), "true");
    assert_eq!(text("heart_rate is Integer and temperature is Decimal and name is String"), "true");
}

#[test]
fn times_in_text_compare_with_times() {
    assert_eq!(text("noted_at > @2026-01-01"), "true");
    assert_eq!(text("noted_at < @2026-01-02T03:04:06"), "true");
    // With an offset on one side only, what is less than 14 hours apart is undecided.
    assert_eq!(text("noted_at < @2026-01-02T03:04:06Z"), "");
    assert_eq!(text("noted_at < @2026-01-03T03:04:06Z"), "true");
    assert_eq!(text("noted_at = @2026-01-02"), "");
    assert_eq!(text("noted_at.toDate() + 1 month"), "\"2026-02-02\"");
    assert_eq!(text("@2024-02-29 + 1 year"), "\"2025-02-28\"");
    assert_eq!(text("@2026-01-31T23:59:59.5Z + 500 milliseconds"), "\"2026-02-01T00:00:00.0Z\"");
    assert_eq!(text("@T23:00 + 2 hours"), "\"01:00\"");
    assert_eq!(text("@2026-01.highBoundary()"), "\"2026-01-31\"");
    assert_eq!(text("@2026-01-02T03:04Z.lowBoundary()"), "\"2026-01-02T03:04:00.000Z\"");
    assert_eq!(text("'2026-02-30'.toDate()"), "");
    assert_eq!(text("@2026-13"), "error: not a date or time that exists (at byte 0)");
}

#[test]
fn quantities_convert_between_units() {
    assert_eq!(text("120 'mm[Hg]' > 15 'kPa'"), "true");
    assert_eq!(text("5.5 'mmol/L' = 5500 'umol/L'"), "true");
    assert_eq!(text("1 'kg' = 1 'm'"), "false");
    assert_eq!(text("1 'Cel' < 2 '[degF]'"), "");
    assert_eq!(text("1 year = 1 'a'"), "");
    let mg = r#"{"value":4.50,"unit":"mg","system":"http://unitsofmeasure.org","code":"mg"}"#;
    assert_eq!(text("4.50 'mg'"), mg);
}

#[test]
fn what_cannot_be_meant_is_refused_with_its_place() {
    let refused = |source: &str| match Expr::compile(source, &columns()) {
        Err(error) => (error.offset, error.message),
        Ok(_) => panic!("{source} compiles"),
    };
    assert_eq!(refused("id & pulse"), (5, "unknown column pulse".into()));
    assert_eq!(refused("$this.pulse").1, "unknown column pulse");
    assert_eq!(refused("iif(pulse > 3, 1, 2)").0, 4);
    assert_eq!(refused("where(pulse > 3)").0, 6);
    assert_eq!(refused("name.Lower()").1, "unknown function Lower(); did you mean lower()?");
    assert_eq!(refused("%facility"), (0, "unknown variable %facility".into()));
    assert_eq!(refused("name.substring()").1, "substring() takes 1 to 2 argument(s), not 0");
    assert_eq!(refused("name.matches('(')").1, "not a regular expression");
    assert_eq!(refused("name is Strin").1, "unknown type Strin");
    assert_eq!(refused("name = 'x"), (7, "no closing '".into()));
    assert_eq!(refused("name = "), (7, "an expression expected".into()));
    assert_eq!(refused("name name").0, 5);
    assert_eq!(refused("name.matches('\\d')").1, "unknown escape; a backslash itself is written \\\\");
    assert!(refused("today() > noted_at").1.contains("clock"));
    for deep in ["(".repeat(5000), "-".repeat(5000) + "1", "1".to_owned() + &"+1".repeat(5000), {
        "name".to_owned() + &".lower()".repeat(5000)
    }] {
        assert_eq!(refused(&deep).1, "nested or chained too deeply");
    }
    // Members of what is no root are not columns.
    assert!(Expr::compile("device.anything", &columns()).is_ok());
    assert!(Expr::compile("tags.where(anything = 1)", &columns()).is_ok());
}

#[test]
fn as_deep_as_allowed_is_evaluated() {
    assert_eq!(text(&("(".repeat(60) + "1" + &")".repeat(60))), "1");
    assert_eq!(text(&("1".to_owned() + &" + 1".repeat(60))), "61");
    let codes: Vec<String> = (0..500).map(|code| format!("'{code}'")).collect();
    assert_eq!(text(&format!("'499' in ({})", codes.join("|"))), "true");
    assert_eq!(text(&("name".to_owned() + &".lower()".repeat(60))), "\"amna\"");
    assert_eq!(text(&("iif(true, ".repeat(60) + "1" + &")".repeat(60))), "1");
}

#[test]
fn errors_never_hold_values() {
    for source in
        ["name + 1", "tags + 'x'", "tags.single()", "name > 3", "name.sqrt()", "device.join(',')", "-name"]
    {
        let error = texts(source).unwrap_err();
        assert!(!["Amna", "72", "\"a\""].iter().any(|value| error.contains(value)), "{source}: {error}");
    }
}

struct Host;

impl Functions for Host {
    fn call<'a>(
        &'a self,
        name: &'static str,
        input: Collection<'a>,
        args: &[Collection<'a>],
    ) -> Result<Collection<'a>, EvalError> {
        let map = args.first().and_then(|arg| arg.first()).and_then(Item::as_str);
        match (name, input.first().and_then(Item::as_str), map) {
            ("translate", Some("m"), Some("gender")) => {
                let coding = [
                    (Cow::Borrowed("code"), Item::string("male")),
                    (Cow::Borrowed("rank"), Item::Integer(1)),
                ];
                Ok(std::iter::once(Item::object(coding)).collect())
            }
            _ => Err(EvalError::refused("unknown_code", "not in map gender")),
        }
    }
}

#[test]
fn host_functions_are_checked_called_and_may_refuse() {
    let translate = Function::new("translate", 1..=1).checked(|args| match args {
        [Some("gender")] => Ok(()),
        _ => Err("no such concept map".into()),
    });
    let mut env = Env::plain().function(translate);
    let outer = env.declare("x");
    let mut inner = env.clone();
    let hiding = inner.declare("x");
    let error = Expr::compile("'m'.translate('sex')", &env).err().unwrap();
    assert_eq!(error.message, "translate(): no such concept map");
    assert!(Expr::compile("'m'.translate()", &env).is_err());

    let source = "%x.translate('gender').code";
    let found = Expr::compile(source, &env).unwrap();
    let whole = Expr::compile("%x.translate('gender')", &env).unwrap();
    let refused = Expr::compile(source, &inner).unwrap();

    let tape = Tape::new();
    let mut ctx = Ctx::new(tape.root(), &Host);
    ctx.set(hiding, std::iter::once(Item::string("f")).collect());
    ctx.set(outer, std::iter::once(Item::string("m")).collect());
    assert_eq!(found.eval(&ctx).unwrap()[0].as_str(), Some("male"));
    let mut json = Vec::new();
    whole.eval(&ctx).unwrap()[0].write_json(&mut json);
    assert_eq!(json, br#"{"code":"male","rank":1}"#);
    assert_eq!(refused.eval(&ctx).err().unwrap().reason, Some("unknown_code"));
}

#[test]
fn sets_of_hostile_size_are_refused() {
    let mut tape = Tape::new();
    let numbers: Vec<String> = (0..5000).map(|n| n.to_string()).collect();
    tape.parse_json(format!("[{}]", numbers.join(",")).as_bytes()).unwrap();
    for source in ["distinct()", "$this | 1", "intersect($this)", "subsetOf($this)"] {
        let expr = Expr::compile(source, &Env::plain()).unwrap();
        assert!(expr.eval(&Ctx::new(tape.root(), &NoFunctions)).is_err(), "{source}");
    }
    let sum = Expr::compile("sum()", &Env::plain()).unwrap();
    let ctx = Ctx::new(tape.root(), &NoFunctions);
    assert_eq!(sum.eval(&ctx).unwrap()[0].as_i64(), Some(12_497_500));
}

/// Pieces that make likely expressions, so that more than the parser is met.
fn expression() -> impl Strategy<Value = String> {
    const PIECES: &[&str] = &[
        "id",
        "heart_rate",
        "temperature",
        "note",
        "noted_at",
        "tags",
        "device",
        ".value",
        ".exists()",
        ".first()",
        ".where(",
        ".select(",
        ".count()",
        ".toString()",
        ".toDate()",
        ".substring(",
        ".lowBoundary()",
        ".round(",
        ".power(",
        ".not()",
        "$this",
        "(",
        ")",
        "[",
        "]",
        "{}",
        " + ",
        " - ",
        " * ",
        " / ",
        " mod ",
        " & ",
        " | ",
        " = ",
        " ~ ",
        " < ",
        " in ",
        " and ",
        " or ",
        " implies ",
        " is ",
        "Integer",
        "'a'",
        "1",
        "-",
        "2.50",
        "99999999999999999",
        "@2026-01-02",
        "@T03",
        "4 days",
        "1 'mg'",
        ",",
        "true",
        ".ln()",
        ".sqrt()",
        ".exp()",
    ];
    prop::collection::vec(prop::sample::select(PIECES), 1..10).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn no_expression_brings_it_down(source in expression()) {
        // A result or an error, and the same one each time.
        prop_assert_eq!(texts(&source), texts(&source));
    }

    #[test]
    fn no_text_brings_the_parser_down(source in "\\PC{0,40}") {
        if let Err(error) = Expr::compile(&source, &Env::fhir()) {
            prop_assert!(error.offset <= source.len());
        }
    }
}

/// Columns, a function and a variable that say what they are.
fn shaped() -> Env {
    let columns = [
        ("id", Shape::of(&["string"])),
        ("heart_rate", Shape::of(&["integer"])),
        ("noted_at", Shape::of(&["dateTime", "string"])),
        ("active", Shape::of(&["boolean"])),
        ("device", Shape::any()),
    ];
    let coded = Function::new("coded", 1..=1).gives(|args| match args {
        [Some("sex")] => Shape::object(["system", "code"]),
        _ => Shape::any(),
    });
    let mut env = Env::plain().typed().shaped_columns(columns).function(coded);
    env.declare_shaped("who", Shape::object(["patient", "tenant"]));
    env
}

#[test]
fn what_a_row_cannot_mean_does_not_compile() {
    for (source, wanted) in [
        ("heart_rate = 'fast'", "a number and a string are never equal (at byte 11)"),
        ("heart_rate + id", "+ does not go with a number and a string (at byte 11)"),
        ("active > 3", "a boolean has no order (at byte 7)"),
        ("heart_rate.substring(1)", "substring() takes a string"),
        ("noted_at > 20260102", "cannot be compared"),
        ("id.family", "a string has no member family (at byte 3)"),
        ("id.coded('sex').cod", "no member cod; there are system, code (at byte 16)"),
        ("%who.patientt", "no member patientt; there are patient, tenant (at byte 5)"),
        ("iif(active, id, id).x", "a string has no member x"),
        ("heart_rat", "unknown column heart_rat"),
    ] {
        let told = Expr::compile(source, &shaped()).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(told.contains(wanted), "{source}: {told}");
    }
    for source in [
        "heart_rate > 30 and noted_at > @2026-01-02 and id.length() > 3",
        "noted_at.substring(0, 10) & 'T' & heart_rate.toString()",
        "device.value.unit = 7 or device = 'x'",
        "id.coded('sex').code & id.coded('other').cod",
        "%who.patient",
    ] {
        assert_eq!(Expr::compile(source, &shaped()).err(), None, "{source}");
    }
}

#[test]
fn an_expression_tells_where_it_can_stand() {
    let fits = |source: &str, of: &str| match Expr::compile(source, &shaped()) {
        Ok(expr) => expr.fits(of),
        Err(error) => Err(error.to_string()),
    };
    for (source, of) in [
        ("id", "date"),
        ("noted_at", "instant"),
        ("heart_rate", "decimal"),
        ("device", "boolean"),
        ("id.coded('sex')", "Coding"),
        ("5 'mg'", "Quantity"),
        ("@2026-01-02", "string"),
    ] {
        assert_eq!(fits(source, of), Ok(()), "{source} as {of}");
    }
    for (source, of, wanted) in [
        ("heart_rate", "string", "a number"),
        ("id", "boolean", "a string"),
        ("id", "Coding", "a string"),
        ("active", "code", "a boolean"),
        ("id.coded('sex')", "code", "an object"),
    ] {
        assert_eq!(fits(source, of), Err(wanted.to_owned()), "{source} as {of}");
    }
}

#[test]
fn an_evaluation_tells_its_steps() {
    let mut tape = Tape::new();
    assert_eq!(tape.parse_json(ROW.as_bytes()), Ok(()));
    let steps = |source: &str| {
        let expr = Expr::compile(source, &columns()).map_err(|error| error.to_string())?;
        let ctx = Ctx::new(tape.root(), &NoFunctions);
        expr.eval(&ctx).map_err(|error| error.to_string())?;
        Ok::<_, String>(ctx.steps())
    };
    assert!(steps("tags.where($this = 'a').count()") > steps("id"));
    assert_eq!(steps("id"), steps("id"));
}

#[test]
fn what_is_empty_tells_why() {
    let mut tape = Tape::new();
    assert_eq!(tape.parse_json(ROW.as_bytes()), Ok(()));
    let why = |source: &str| {
        let expr = Expr::compile(source, &Env::plain()).map_err(|error| error.to_string())?;
        Ok::<_, String>(expr.why_empty(&Ctx::new(tape.root(), &NoFunctions)).unwrap_or_default())
    };
    for (source, wanted) in [
        ("note", "note is null"),
        ("note.text.length()", "note is null"),
        ("device.valu.unit", "there is no valu"),
        ("id.x", "there is no x: it is no object"),
        ("tags.where($this = 'z').first()", "where() kept none of 3"),
        ("tags[7]", "there are only 3 items"),
        ("heart_rate + note", "note is null"),
        ("iif(active.not(), id)", "the condition is not true"),
        ("iif(active, note, id)", "note is null"),
        ("name.ofType(Quantity)", "nothing of it is of type Quantity"),
        ("id", ""),
    ] {
        assert_eq!(why(source).as_deref(), Ok(wanted), "{source}");
    }
}
