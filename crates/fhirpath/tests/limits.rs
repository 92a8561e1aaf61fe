//! Expressions and records that would cost too much are refused, soon.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use fhirehose_fhirpath::{Ctx, Env, Expr, NoFunctions, limits};
use fhirehose_tape::Tape;

/// What an expression gives on a document: a text of its items' JSON, or the error.
fn outcome(source: &str, document: &str) -> Result<String, String> {
    let expr = Expr::compile(source, &Env::plain()).map_err(|error| error.message)?;
    let mut tape = Tape::new();
    tape.parse_json(document.as_bytes()).unwrap();
    let items = expr.eval(&Ctx::new(tape.root(), &NoFunctions)).map_err(|error| error.to_string())?;
    let mut json = Vec::new();
    items.iter().for_each(|item| item.write_json(&mut json));
    Ok(String::from_utf8(json).unwrap())
}

fn numbers(n: usize) -> String {
    let all: Vec<String> = (0..n).map(|n| n.to_string()).collect();
    format!(r#"{{"n":[{}],"t":"{}"}}"#, all.join(","), "x".repeat(1000))
}

#[test]
fn long_and_deep_expressions_do_not_compile() {
    let refused = |source: &str| outcome(source, "{}").unwrap_err();
    assert_eq!(refused(&format!("'{}'", "x".repeat(limits::MAX_SOURCE))), "longer than 65536 bytes");
    assert_eq!(refused(&("iif(true, ".repeat(65) + "1" + &")".repeat(65))), "nested or chained too deeply");
    assert!(outcome(&format!("'{}'.length()", "x".repeat(limits::MAX_SOURCE - 20)), "{}").is_ok());
}

#[test]
fn what_an_evaluation_makes_is_bounded() {
    let document = numbers(100);
    for (source, message) in [
        // Texts that double, or grow by what they are replaced with.
        ("n.aggregate($total & $total & 'x', 'x')", "a text of more than 16777216 bytes"),
        ("n.aggregate($total + $total, 'x')", "a text of more than 16777216 bytes"),
        ("n.aggregate($total.replace('x', %context.t), 'x')", "a text of more than 16777216 bytes"),
        ("n.aggregate($total.replaceMatches('x+', '$0$0$0'), 'x')", "a text of more than 16777216 bytes"),
        ("n.aggregate($total.encode('hex'), 'x')", "a text of more than 16777216 bytes"),
        ("n.aggregate($total.combine($total), 1)", "a collection of more than 524288 items"),
        ("n.repeatAll($this + 1)", "repeat() finds no end"),
    ] {
        match outcome(source, &document) {
            Err(error) => assert_eq!(error, message, "{source}"),
            Ok(text) => panic!("{source} gives {} bytes", text.len()),
        }
    }
}

#[test]
fn what_takes_too_long_is_ended() {
    let document = numbers(1000);
    let steps = format!("the expression takes more than {} steps", limits::MAX_STEPS);
    for source in [
        "n.all(%context.n.all(%context.n.all(%context.n.all($this >= 0))))",
        "n.select('t'.matches(%context.t)).count()",
    ] {
        let started = Instant::now();
        let error = outcome(source, &document).unwrap_err();
        assert_eq!(error, steps, "{source}");
        // In a debug build, on a machine that does other things too.
        assert!(started.elapsed() < Duration::from_secs(120), "{source} took {:?}", started.elapsed());
    }
}

/// Steps are counted by what is looked at: a small expression on a large record may cost much.
#[test]
fn what_is_read_and_compared_counts() {
    let many: Vec<String> = (0..2_000).map(|n| format!("\"k{n}\":{n}")).collect();
    let (many, text) = (many.join(","), "x".repeat(50_000));
    let n: Vec<String> = (0..2_000).map(|n| n.to_string()).collect();
    let document =
        format!(r#"{{"n":[{}],"a":{{{many}}},"b":{{{many}}},"t":"{text}","u":"{text}"}}"#, n.join(","));
    let mut tape = Tape::new();
    tape.parse_json(document.as_bytes()).unwrap();
    let after = |source: &str, steps: u64| {
        let expr = Expr::compile(source, &Env::plain()).unwrap();
        let ctx = Ctx::new(tape.root(), &NoFunctions).sharing(steps);
        expr.eval(&ctx).map(drop).map_err(|error| error.to_string())
    };
    for source in [
        "n.select(%context.a.none)",
        "n.all(%context.a = %context.b)",
        "n.all(%context.a ~ %context.b)",
        "n.all(%context.t = %context.u)",
        "n.all(%context.t <= %context.u)",
        "n.all(%context.t ~ %context.u)",
        "n.where(%context.t in %context.u).empty()",
        "n.all(%context.t.indexOf('y') < 0)",
        "n.all(%context.t.matches('y').not())",
        "n.all('x'.indexOf(%context.t) < 0)",
    ] {
        // Many times what as many small items would take.
        let error = after(source, 150_000).unwrap_err();
        assert_eq!(error, "all that is evaluated takes more than 150000 steps", "{source}");
    }
    assert_eq!(after("a = b and t = u", 150_000), Ok(()));
    assert_eq!(after("n.all(%context.n[0] = 0 and 'x'.indexOf('y') < 0)", 150_000), Ok(()));
}

#[test]
fn each_evaluation_has_all_steps() {
    let expr = Expr::compile("n.where($this > 3).count()", &Env::plain()).unwrap();
    let mut tape = Tape::new();
    tape.parse_json(numbers(1000).as_bytes()).unwrap();
    let ctx = Ctx::new(tape.root(), &NoFunctions);
    for _ in 0..1_700 {
        assert!(expr.eval(&ctx).is_ok());
    }
}

#[test]
fn numbers_of_any_size_end_soon() {
    let started = Instant::now();
    for source in [
        "1.0000001.power(99999999999)",
        "0.9999999999.power(123456789.123)",
        "99999999999.power(99999999999)",
        "9999999.exp()",
        "(-9999999).exp()",
        "79228162514264337593543950335.ln()",
        "0.0000000000000000000000000001.ln()",
        "79228162514264337593543950335.sqrt()",
        "79228162514264337593543950335.log(1.0000000000001)",
        "79228162514264337593543950335.lowBoundary(28)",
        "1.highBoundary(28) + 79228162514264337593543950335.highBoundary()",
    ] {
        drop(outcome(source, "{}"));
        assert!(started.elapsed() < Duration::from_secs(20), "{source} took {:?}", started.elapsed());
    }
}
