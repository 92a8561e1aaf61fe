//! FHIRPath: expressions by anybody, on documents by anybody.

use fhirehose_fhir::element_type;
use fhirehose_fhirpath::{Ctx, Env, Expr, Item, NoFunctions};
use fhirehose_tape::Tape;

/// For rows, for FHIR, and for FHIR whose definitions are known.
fn environments() -> [Env; 3] {
    [Env::plain(), Env::fhir(), Env::fhir().definitions(element_type)]
}

/// An expression compiles, or is refused at a place that it has.
pub fn parse(input: &[u8]) {
    let Ok(source) = std::str::from_utf8(input) else { return };
    for env in environments() {
        compile(source, &env);
    }
    let of = Env::fhir().definitions(element_type).of("Observation");
    // Definitions refuse more and never less.
    if compile(source, &of).is_some() {
        assert!(compile(source, &Env::fhir()).is_some(), "compiles with definitions only");
    }
}

fn compile(source: &str, env: &Env) -> Option<Expr> {
    match Expr::compile(source, env) {
        Ok(expr) => {
            assert!(expr.source() == source);
            Some(expr)
        }
        Err(error) => {
            assert!(error.offset <= source.len(), "refused behind its end");
            assert!(error.show(source).starts_with(&error.message));
            None
        }
    }
}

/// A line with an expression, then a document. Every evaluation ends, and all of them alike.
pub fn eval(input: &[u8]) {
    let Some((source, document)) = crate::parts(input) else { return };
    let mut tape = Tape::new();
    if tape.parse_json(document).is_err() {
        return;
    }
    for env in environments() {
        let Ok(expr) = Expr::compile(source, &env) else { continue };
        let ctx = Ctx::new(tape.root(), &NoFunctions);
        let once = outcome(&expr, &ctx);
        assert!(once == outcome(&expr, &ctx), "the second time it is another");
        // A condition is what its value says; where that fails, and/or may know without it.
        if let Ok((items, _)) = &once {
            let test = expr.test(&ctx);
            assert!(test.is_err() == (*items > 1), "{items} items as a condition");
        }
    }
}

/// How many items, and them as a JSON array.
fn outcome<'a>(expr: &'a Expr, ctx: &Ctx<'a>) -> Result<(usize, Vec<u8>), String> {
    let items = expr.eval(ctx).map_err(|error| {
        assert!(error.offset.is_none_or(|offset| offset <= expr.source().len()), "fails behind its end");
        error.show(expr.source())
    })?;
    let mut json = vec![b'['];
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            json.push(b',');
        }
        item.write_json(&mut json);
        whole(item);
    }
    json.push(b']');
    let mut tape = Tape::new();
    let read = tape.parse_json(&json);
    // A document in an array is a level deeper.
    assert!(
        matches!(read, Ok(()) | Err(fhirehose_tape::JsonError::TooDeep { .. })),
        "what it gives is no JSON"
    );
    Ok((items.len(), json))
}

/// What an item says of itself goes together.
fn whole(item: &Item<'_>) {
    let atom = item.atom();
    assert!(atom.text().is_some() == item.text().is_some(), "a scalar without text");
    if item.as_i64().is_some() {
        assert!(item.as_decimal().is_some(), "an integer that is no number");
    }
}
