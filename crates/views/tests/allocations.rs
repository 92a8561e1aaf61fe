//! Once it has seen a resource, a view takes no memory for the next.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use allocation_counter::measure;
use fhirehose_fhirpath::{Ctx, Env, Expr, NoFunctions};
use fhirehose_tape::Tape;
use fhirehose_views::{Scratch, View};

/// More of everything than fits into a collection without the heap.
fn patient() -> String {
    let telecom: Vec<String> = (0..5)
        .map(|n| {
            format!(r#"{{"system":"{}","value":"030 {n}"}}"#, if n % 2 == 0 { "phone" } else { "email" })
        })
        .collect();
    let names: Vec<String> =
        (0..4).map(|n| format!(r#"{{"use":"u{n}","family":"Ali","given":["A","B","C"]}}"#)).collect();
    format!(
        r#"{{"resourceType":"Patient","id":"p1","active":true,"birthDate":"1974-12-25","name":[{}],"telecom":[{}],
        "extension":[{{"url":"a","valueString":"x"}},{{"url":"b","valueInteger":1}},{{"url":"c","valueCode":"y"}}],
        "managingOrganization":{{"reference":"Organization/o1"}},"multipleBirthInteger":2}}"#,
        names.join(","),
        telecom.join(",")
    )
}

fn tape(json: &str) -> Tape {
    let mut tape = Tape::new();
    tape.parse_json(json.as_bytes()).unwrap();
    tape
}

const VIEWS: &[&str] = &[
    r#"{"resource":"Patient","where":[{"path":"active and birthDate > @1950"}],"select":[{"column":[
        {"name":"id","path":"getResourceKey()","type":"id"},
        {"name":"born","path":"birthDate","type":"date"},
        {"name":"family","path":"name.where(use = 'u3').family","type":"string"},
        {"name":"mail","path":"telecom.where(system = 'email').value.first()","type":"string"},
        {"name":"ext","path":"extension('c').value.ofType(code)","type":"code"},
        {"name":"org","path":"managingOrganization.getReferenceKey(Organization)","type":"id"},
        {"name":"many","path":"name.given.count() > 3","type":"boolean"},
        {"name":"births","path":"multipleBirth.ofType(integer)","type":"integer"}]}]}"#,
    r#"{"resource":"Patient","constant":[{"name":"kind","valueCode":"phone"}],"select":[
        {"column":[{"name":"id","path":"id","type":"id"}]},
        {"forEach":"name","column":[{"name":"family","path":"family","type":"string"}],
            "select":[{"forEachOrNull":"given","column":[{"name":"given","path":"$this","type":"string"},
                {"name":"nth","path":"%rowIndex","type":"integer"}]}]},
        {"unionAll":[{"forEach":"telecom.where(system = %kind)","column":[{"name":"t","path":"value"}]},
            {"forEach":"telecom.where(system != %kind)","column":[{"name":"t","path":"value"}]}]}]}"#,
];

#[test]
fn rows_take_no_memory() {
    let json = patient();
    for definition in VIEWS {
        let view = View::compile(definition, &Env::fhir().definitions(fhirehose_fhir::element_type)).unwrap();
        let (mut scratch, mut tape, mut count) = (Scratch::default(), tape(&json), 0);
        let mut once = |tape: &mut Tape| {
            tape.parse_json(json.as_bytes()).unwrap();
            view.rows_in(&mut scratch, tape.root(), &mut |_| count += 1).unwrap();
        };
        once(&mut tape);
        let taken = measure(|| once(&mut tape));
        assert_eq!(taken.count_total, 0, "{definition}");
        assert!(count == 2 || count == 2 * 4 * 3 * 5, "{count} rows");
    }
}

#[test]
fn paths_take_no_memory() {
    let tape = tape(&patient());
    for source in [
        "name.given.first()",
        "name.where(use = 'u2').given[1]",
        "telecom.where(system = 'phone' and value.exists()).value.count()",
        "name.given.exists($this = 'C') or telecom.empty()",
        "extension('b').value.ofType(integer) + 3",
        "birthDate >= @1950-01-01",
        "name.select(family).first() in ('Ali' | 'Sara')",
        "iif(active, 'a', 'b')",
    ] {
        let expr = Expr::compile(source, &Env::fhir()).unwrap();
        let ctx = Ctx::new(tape.root(), &NoFunctions);
        let taken = measure(|| drop(expr.eval(&ctx)));
        assert_eq!(taken.count_total, 0, "{source}");
    }
}
