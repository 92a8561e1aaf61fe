//! FPML against its reference implementation.

use std::path::Path;

use fhirehose_fhirpath::{Ctx, Env, NoFunctions, Shape, collect};
use fhirehose_tape::Tape;
use fhirehose_testkit::conformance;
use serde_json::Value as Json;

use crate::problem::Problems;
use crate::render::{Arena, Renderer};
use crate::template::{Compiler, Makes, Scope};
use crate::terminology::Terminology;
use crate::yaml::{self, Data, Node, Scalar};

fn to_json(node: &Node) -> Json {
    match &node.data {
        Data::List(list) => list.iter().map(to_json).collect(),
        Data::Map(entries) => entries.iter().map(|(key, node)| (key.text.clone(), to_json(node))).collect(),
        Data::Scalar { .. } => match node.scalar().unwrap() {
            Scalar::Null => Json::Null,
            Scalar::Bool(value) => value.into(),
            Scalar::Number(text) => serde_json::from_str(text).unwrap(),
            Scalar::Text(text) => text.into(),
        },
    }
}

fn get<'n>(node: &'n Node, key: &str) -> &'n Node {
    let Data::Map(entries) = &node.data else { panic!("no map at {:?}", node.at) };
    entries.iter().find(|(k, _)| k.text == key).map(|(_, node)| node).unwrap()
}

/// What a template makes of a plain document; `Err` holds the problems of compiling it, or the rejection.
fn run(template: &Node, resource: &Json) -> Result<Json, String> {
    run_in(Env::plain(), template, resource, &[])
}

fn run_in(env: Env, template: &Node, resource: &Json, variables: &[(String, Json)]) -> Result<Json, String> {
    let file = Path::new("case.yaml");
    let mut problems = Problems::of(file);
    let mut scope = Scope::new(env);
    let tapes: Vec<_> = variables
        .iter()
        .map(|(name, value)| {
            let mut tape = Tape::new();
            tape.parse_json(value.to_string().as_bytes()).unwrap();
            (scope.declare(name, Shape::any()), tape)
        })
        .collect();
    let compiled = {
        let mut terminology = Terminology::default();
        let mut compiler = Compiler::of("case", &mut problems, &mut terminology);
        let template = compiler.template(template, &scope, Makes::Anything, "case");
        template.map(|template| (template, compiler.places.finish()))
    };
    let Some((compiled, repeated)) = compiled else {
        return Err(problems.into_vec().iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
    };
    let (arena, mut focus) = (Arena::default(), Tape::new());
    focus.parse_json(resource.to_string().as_bytes()).unwrap();
    let mut ctx = Ctx::new(focus.root(), &NoFunctions);
    for (slot, tape) in &tapes {
        ctx.set(*slot, collect(tape.root()));
    }
    let mut out = Vec::new();
    let renderer = Renderer::new(&arena, &repeated, None);
    match renderer.value(&compiled, &mut ctx, &mut out) {
        Ok(true) => Ok(serde_json::from_slice(&out).unwrap()),
        Ok(false) => {
            assert!(out.is_empty(), "what is absent leaves a trace");
            Ok(Json::Null)
        }
        Err(rejection) => Err(format!("{}: {}", rejection.reason.label(), rejection.detail)),
    }
}

#[test]
fn as_the_reference_does() {
    let cases = yaml::read(include_str!("../tests/fpml/cases.yaml"))
        .map_err(|(at, m)| format!("{at:?} {m}"))
        .unwrap();
    let expected: Json = serde_json::from_str(include_str!("../tests/fpml/expected.json")).unwrap();
    let Data::List(cases) = &cases.data else { panic!("a list of cases") };
    let mut wrong = Vec::new();
    for case in cases {
        let name = get(case, "name").text().unwrap();
        let made = run(get(case, "template"), &to_json(get(case, "resource")));
        if made.as_ref() != Ok(&expected[name]) {
            wrong.push(format!("{name}\n  reference {}\n  ours      {made:?}", expected[name]));
        }
    }
    assert!(cases.len() > 20 && wrong.is_empty(), "{}", wrong.join("\n"));
    let result = format!("all {} equal", cases.len());
    let suite = "FPML: own cases, with the results of the reference";
    conformance::assert_current(suite, &result, "fhirehose-mapping", "--lib fpml");
}

#[test]
fn the_references_own_long_example() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/fpml");
    let read = |name: &str| {
        let path = folder.join(format!("complex-example.fhir.{name}.yaml"));
        let text = std::fs::read_to_string(&path).ok()?;
        Some(yaml::read(&text).map_err(|(at, message)| format!("{name} {at:?} {message}")).unwrap())
    };
    let (Some(template), Some(context), Some(result)) = (read("template"), read("context"), read("result"))
    else {
        eprintln!("SKIPPED: {} is not there", folder.display());
        return;
    };
    let Json::Object(context) = to_json(&context) else { panic!("a map of variables") };
    let variables: Vec<_> = context.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    let made = run_in(Env::fhir(), &template, &context["QuestionnaireResponse"], &variables).unwrap();
    assert_eq!(made, to_json(&result));
    let suite = "FPML: the published case of the reference";
    conformance::assert_current(suite, "equal", "fhirehose-mapping", "--lib fpml");
}

fn problems(template: &str) -> String {
    let node = yaml::read(template).map_err(|(_, message)| message).unwrap();
    run(&node, &Json::Null).expect_err("refused")
}

#[test]
fn what_a_template_cannot_mean_is_told_with_its_place() {
    for (template, place, word) in [
        ("a: \"{{ b.nope() }}\"", "1:10", "nope"),
        ("a:\n  b: \"x {{ %gone }}\"", "2:", "gone"),
        ("a: \"{{ b\"", "1:5", "`}}`"),
        ("a: \"{[ b ]} c\"", "1:4", "alone"),
        ("a: \"{% if b %}\"", "1:4", "key"),
        ("\"{% if a %}\": 1\n\"{% if b %}\": 2", "2:1", "second"),
        ("\"{% else %}\": 1", "1:1", "without"),
        ("\"{% unless a %}\": 1", "1:1", "unknown"),
        ("\"{% for x of a %}\": 1", "1:1", "loop is"),
        ("\"{% for x in a %}\": 1\nb: 2", "1:1", "only key"),
        ("\"{% assign %}\": {a: 1, b: 2}", "1:", "one variable"),
        ("\"a {{ b }}\": 1", "1:1", "not both"),
        ("\"{% if a %}\": {b: 1}\n\"{% merge %}\": {c: 1}", "1:1", "inside the merge"),
    ] {
        let told = problems(template);
        assert!(told.starts_with(&format!("case.yaml:{place}")) && told.contains(word), "{template}\n{told}");
    }
}

#[test]
fn holes_end_outside_of_strings() {
    let node = yaml::read("a: \"{{ '}}' & `b` }}-{{ iif(c, {}, 'x') }}\"").map_err(|(_, m)| m).unwrap();
    let resource = serde_json::json!({"b": "B"});
    assert_eq!(run(&node, &resource), Ok(serde_json::json!({"a": "}}B-x"})));
}

#[test]
fn errors_at_run_time_name_the_place_and_no_value() {
    let resource = serde_json::json!({"o": {"secret": "Qanarywala"}, "l": [1, 2]});
    for (template, label) in
        [("a: {b: \"x{{ o }}\"}", "wrong_type: case.a.b"), ("a: \"{{ l + 1 }}\"", "wrong_type: case.a")]
    {
        let node = yaml::read(template).map_err(|(_, m)| m).unwrap();
        let told = run(&node, &resource).unwrap_err();
        assert!(told.starts_with(label) && !told.contains("Qanary"), "{told}");
    }
}

#[test]
fn what_comes_out_empty_or_null_merges_nothing() {
    let merged = |merge: &str| {
        let node = yaml::read(&format!("a: 1\n\"{{% merge %}}\": {merge}")).map_err(|(_, m)| m)?;
        run(&node, &serde_json::json!({"x": 5, "o": {"b": 2}}))
    };
    let alone = Ok(serde_json::json!({"a": 1}));
    for merge in [
        "\"{{+ y +}}\"",
        "\"<{{+ y +}}>\"",
        "\"<{{ y }}>\"",
        "[[]]",
        "{\"{% for v in y %}\": {b: 2}}",
        "null",
    ] {
        assert_eq!(merged(merge), alone, "{merge}");
    }
    assert_eq!(merged("\"{{ o }}\""), Ok(serde_json::json!({"a": 1, "b": 2})));
    for merge in ["\"<{{ x }}>\"", "\"{{ x }}\"", "{\"{% for v in x %}\": {b: 2}}"] {
        assert!(merged(merge).is_err_and(|told| told.contains("only an object can be merged")), "{merge}");
    }
}
