//! Functions beyond the official R4 suite: boundaries, precision, encodings, aggregates, types of FHIR.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use fhirehose_fhirpath::{Ctx, Env, Expr, NoFunctions, Temporal};
use fhirehose_tape::Tape;

const PATIENT: &str = r#"{"resourceType":"Patient","birthDate":"1980-05","_birthDate":{"extension":[
    {"url":"http://time","valueTime":"10:30"}]},"name":[{"given":["Amna","Sara"],"family":"Ali"},{"given":["A"]}],
    "multipleBirthInteger":2,"modifierExtension":[{"url":"http://known","valueBoolean":true}],
    "contact":[{"period":{"start":"2020-02-03T04:05:06Z"}}]}"#;

/// The items as JSON, or the error.
fn json(source: &str) -> String {
    let now = Temporal::date_time("2026-01-02T03:04:05.678+03:00").unwrap();
    let expr = match Expr::compile(source, &Env::fhir().clock(now)) {
        Ok(expr) => expr,
        Err(error) => return error.show(source),
    };
    let mut tape = Tape::new();
    tape.parse_json(PATIENT.as_bytes()).unwrap();
    match expr.eval(&Ctx::new(tape.root(), &NoFunctions)) {
        Ok(items) => {
            let texts = items.iter().map(|item| {
                let mut json = Vec::new();
                item.write_json(&mut json);
                String::from_utf8(json).unwrap()
            });
            texts.collect::<Vec<_>>().join(" ")
        }
        Err(error) => error.show(source),
    }
}

#[track_caller]
fn all(cases: &[(&str, &str)]) {
    for (source, wanted) in cases {
        assert_eq!(json(source), *wanted, "{source}");
    }
}

#[test]
fn boundaries_are_at_the_precision_asked_for() {
    all(&[
        ("1.587.lowBoundary()", "1.58650000"),
        ("1.587.lowBoundary(6)", "1.586500"),
        ("1.587.lowBoundary(2)", "1.58"),
        ("(-1.587).lowBoundary(2)", "-1.59"),
        ("1.587.lowBoundary(32)", ""),
        ("1.587.lowBoundary(-1)", ""),
        ("1.lowBoundary(0)", "0"),
        ("120.lowBoundary(2)", "119.50"),
        ("0.0034.lowBoundary(1)", "0.0"),
        ("(-0.0034).lowBoundary(1)", "-0.1"),
        ("1.587.highBoundary()", "1.58750000"),
        ("1.587.highBoundary(2)", "1.59"),
        ("(-1.587).highBoundary(2)", "-1.58"),
        ("1.highBoundary(5)", "1.50000"),
        ("12.500.highBoundary(4)", "12.5005"),
        ("1.587 'cm'.lowBoundary(4).value", "1.5865"),
        ("@2014.lowBoundary(6)", "\"2014-01\""),
        ("@2014.highBoundary(6)", "\"2014-12\""),
        ("@2014-05-06.lowBoundary(4)", "\"2014\""),
        ("@2014.lowBoundary(5)", ""),
        ("@2014-01-01T08.lowBoundary(17)", "\"2014-01-01T08:00:00.000+14:00\""),
        ("@2014-01-01T08:05+08:00.highBoundary(17)", "\"2014-01-01T08:05:59.999+08:00\""),
        ("@2014-01-01T08.lowBoundary(8)", "\"2014-01-01\""),
        ("@2014-01-01T08:05Z.highBoundary(14)", "\"2014-01-01T08:05:59Z\""),
        ("@T10:30.lowBoundary(9)", "\"10:30:00.000\""),
        ("@T10:30.highBoundary()", "\"10:30:59.999\""),
        ("birthDate.highBoundary()", "\"1980-05-31\""),
        ("contact.period.start.lowBoundary()", "\"2020-02-03T04:05:06.000Z\""),
    ]);
}

#[test]
fn precision_counts_digits() {
    all(&[
        ("1.58700.precision()", "5"),
        ("3.precision()", "0"),
        ("@2014.precision()", "4"),
        ("birthDate.precision()", "6"),
        ("@2014-01-05T10:30:00.000.precision()", "17"),
        ("@2014-01-05T10:30:00.precision()", "14"),
        ("@T10:30.precision()", "4"),
        ("@T10:30:00.000.precision()", "9"),
        ("1 'cm'.comparable(1 '[in_i]')", "true"),
        ("1 'cm'.comparable(1 's')", "false"),
    ]);
}

#[test]
fn text_takes_other_forms_and_comes_back() {
    all(&[
        ("'test'.encode('base64')", "\"dGVzdA==\""),
        ("'subjects?_d'.encode('urlbase64')", "\"c3ViamVjdHM_X2Q=\""),
        ("'test'.encode('hex')", "\"74657374\""),
        ("'74657374'.decode('hex')", "\"test\""),
        ("'dGVzdA=='.decode('base64')", "\"test\""),
        ("'c3ViamVjdHM_X2Q='.decode('urlbase64')", "\"subjects?_d\""),
        ("'7'.decode('hex') | '%%'.decode('base64') | 'x'.encode('rot13')", ""),
        ("'\"1<2\" & \\'x\\''.escape('html')", "\"&quot;1&lt;2&quot; &amp; &#39;x&#39;\""),
        ("'&lt;&amp;lt; &apos;&#x41;&#66; &nope; & &'.unescape('html')", "\"<&lt; 'AB &nope; & &\""),
        ("'\"a\\\\b\\n'.escape('json')", r#""\\\"a\\\\b\\n""#),
        ("'\\\\\"1\\\\\"'.unescape('json')", r#""\"1\"""#),
    ]);
}

#[test]
fn aggregates_and_choices_of_collections() {
    all(&[
        ("(1 | 2 | 4).avg()", "2.33333333"),
        ("(2 'mg' | 4 'mg').avg().value", "3"),
        ("(1 'g' | 500 'mg').sum() = 1.5 'g'", "true"),
        ("('b' | 'a' | 'c').min() & ('b' | 'c').max()", "\"ac\""),
        ("(@2020 | @2019-05).min()", "\"2019-05\""),
        ("(@2020 | @2020-05).min()", ""),
        ("{}.sum() | {}.min() | {}.avg()", ""),
        ("coalesce({}, name.family, 'none')", "\"Ali\""),
        ("name.given.repeatAll($this.where($this = 'x')).count()", "0"),
        ("name.select(given).count()", "3"),
        (
            "('a' | 1).min()",
            "values of different kinds cannot be compared (column 11)\n  ('a' | 1).min()\n            ^",
        ),
    ]);
}

#[test]
fn what_fhir_adds() {
    all(&[
        ("modifierExtension.exists() and checkModifiers('http://known').exists()", "true"),
        (
            "checkModifiers('http://other')",
            "checkModifiers() finds a modifier extension that is not known (column 1)\n  checkModifiers('http://other')\n  ^",
        ),
        ("birthDate.extension('http://time').value is time", "true"),
        ("birthDate.extension('http://time').value > @T10:00", "true"),
        ("multipleBirth.type().name", "\"integer\""),
        ("now().toTime() = timeOfDay() and today() = @2026-01-02", "true"),
        (
            "name.memberOf('http://x')",
            "memberOf() is refused: it asks a terminology server; use a concept map (column 6)\n  name.memberOf('http://x')\n       ^",
        ),
    ]);
}

#[test]
fn errors_point_at_their_line() {
    assert_eq!(
        json("name.where(\n\tfamily = 'é' + 1 or use = 'x')"),
        "arithmetic on values of kinds that do not fit (line 2, column 15)\n  \tfamily = 'é' + 1 or use = 'x')\n  \t             ^"
    );
}

#[test]
fn the_text_of_a_decimal_has_digits_on_both_sides_of_its_point_and_no_exponent() {
    all(&[
        ("'-1.50'.toDecimal()", "-1.50"),
        ("'+007'.toDecimal()", "7"),
        (
            "('7e5' | '1.' | '.5' | '+-5' | '1.5.2' | '' | ' 1').select(convertsToDecimal()).distinct()",
            "false",
        ),
        ("'7e5'.toDecimal()", ""),
    ]);
}
