//! The official FHIRPath suite for R4 (687 tests): what passes must go on passing, and what is known not to
//! pass is listed with its reason in `official-known.txt`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "official/page.rs"]
mod page;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fhirehose_fhirpath::{Collection, Ctx, Env, EvalError, Expr, Item, NoFunctions, Temporal};
use fhirehose_tape::Tape;
use fhirehose_testkit::conformance;
use roxmltree::{Document, Node};
use serde_json::{Map, Value, json};

fn data() -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/fhirpath");
    assert!(dir.is_dir(), "the official suite is missing: {} (see docs on test data)", dir.display());
    dir
}

/// FHIR's XML as JSON, as far as the suite's inputs need it. Elements that may repeat but do not stay
/// single: navigation does not tell the difference.
fn resource(node: Node<'_, '_>) -> Value {
    let mut object = children(node);
    object.insert("resourceType".into(), json!(node.tag_name().name()));
    Value::Object(object)
}

fn children(node: Node<'_, '_>) -> Map<String, Value> {
    let mut object = Map::new();
    for attribute in ["id", "url"] {
        if let Some(value) = node.attribute(attribute) {
            object.insert(attribute.into(), json!(value));
        }
    }
    let mut seen: Vec<&str> = Vec::new();
    for child in node.children().filter(Node::is_element) {
        let name = child.tag_name().name();
        if seen.contains(&name) {
            continue;
        }
        seen.push(name);
        let same = || node.children().filter(move |other| other.tag_name().name() == name);
        let values: Vec<_> = same().map(value).collect();
        let extras: Vec<_> = same().map(extra).collect();
        if values.iter().any(|value| !value.is_null()) {
            object.insert(name.into(), one_or_all(values));
        }
        if extras.iter().any(|extra| !extra.is_null()) {
            object.insert(format!("_{name}"), one_or_all(extras));
        }
    }
    object
}

fn one_or_all(mut values: Vec<Value>) -> Value {
    if values.len() == 1 { values.remove(0) } else { Value::Array(values) }
}

fn value(node: Node<'_, '_>) -> Value {
    const NUMBERS: &[&str] = &["total", "offset", "count", "rank", "valueInteger", "valueDecimal"];
    let name = node.tag_name().name();
    if name == "div" {
        return json!(node.document().input_text()[node.range()].to_string());
    }
    if name == "contained" || name == "resource" {
        return node.first_element_child().map_or(Value::Null, resource);
    }
    match node.attribute("value") {
        Some(text @ ("true" | "false")) => json!(text == "true"),
        Some(text) if NUMBERS.contains(&name) || (name == "value" && text.parse::<f64>().is_ok()) => {
            serde_json::from_str(text).unwrap_or(Value::Null)
        }
        Some(text) => json!(text),
        None if node.children().any(|child| child.is_element() && child.tag_name().name() != "extension") => {
            Value::Object(children(node))
        }
        None if node.parent().is_some_and(|parent| parent.tag_name().name() == "Patient") => Value::Null,
        None => Value::Object(children(node)),
    }
}

/// Id and extensions of a primitive.
fn extra(node: Node<'_, '_>) -> Value {
    let extended = node.attribute("id").is_some() || node.has_children();
    let primitive = node.attribute("value").is_some() || value(node).is_null();
    if primitive && extended && node.tag_name().name() != "div" {
        Value::Object(children(node))
    } else {
        Value::Null
    }
}

fn input(file: &str) -> Result<Tape, Box<dyn std::error::Error>> {
    let text = std::fs::read_to_string(data().join(file))?;
    let xml = Document::parse(&text)?;
    let mut tape = Tape::new();
    tape.parse_json(resource(xml.root_element()).to_string().as_bytes())?;
    Ok(tape)
}

/// The suite asks the clock too.
fn clocked() -> Env {
    let now = Temporal::date_time("2026-01-02T03:04:05.678+03:00").expect("a moment");
    Env::fhir().clock(now)
}

enum Outcome<'a> {
    NotCompiled(String),
    Failed(EvalError),
    Items(Collection<'a>),
}

/// What is wrong with an outcome, if anything.
fn judge(test: Node<'_, '_>, expression: Node<'_, '_>, outcome: &Outcome<'_>) -> Option<String> {
    let invalid = expression.attribute("invalid").or(test.attribute("invalid")).is_some();
    let items = match outcome {
        Outcome::NotCompiled(_) | Outcome::Failed(_) if invalid => return None,
        Outcome::NotCompiled(message) => return Some(format!("does not compile: {message}")),
        Outcome::Failed(error) => return Some(format!("fails: {error}")),
        Outcome::Items(_) if invalid => return Some("an error is expected".into()),
        Outcome::Items(items) => items,
    };
    let outputs: Vec<_> = test.children().filter(|node| node.has_tag_name("output")).collect();
    if test.attribute("predicate") == Some("true") {
        let holds = !items.is_empty();
        return (outputs[0].text() != Some(if holds { "true" } else { "false" }))
            .then(|| "as a predicate".into());
    }
    if items.len() != outputs.len() {
        return Some(format!("{} items, {} expected", items.len(), outputs.len()));
    }
    let same = |item: &Item<'_>, output: &Node<'_, '_>| {
        let typed = match output.attribute("type") {
            Some("boolean") => item.as_bool().is_some(),
            Some("integer") => item.as_i64().is_some(),
            _ => true,
        };
        let text = output.text().unwrap_or_default();
        typed && (text.is_empty() || item.text().as_deref() == Some(text.trim_start_matches('@')))
    };
    let ordered = items.iter().zip(&outputs).all(|(item, output)| same(item, output));
    let unordered = test.attribute("ordered") == Some("false")
        && outputs.iter().all(|output| items.iter().any(|item| same(item, output)));
    let found = || items.iter().map(|item| item.text().unwrap_or_default()).collect::<Vec<_>>().join(", ");
    (!ordered && !unordered).then(|| format!("gives [{}]", found()))
}

/// What a group of the suite came to.
#[derive(Default)]
pub struct Group {
    pub name: String,
    pub passed: usize,
    pub total: usize,
}

#[test]
fn the_official_suite_passes_but_for_what_is_listed() {
    let text = std::fs::read_to_string(data().join("tests-fhir-r4.xml")).unwrap();
    // The suite is not quite XML: a declaration inside its root element, two attributes of one name, bare "<".
    let text = text.replace("<?xml version=\"1.0\" encoding=\"utf-8\" ?>", "");
    let text = text
        .replace("name=\"testPrecedence1\" name=", "name=")
        .replace(" < ", " &lt; ")
        .replace(" <= ", " &lt;= ");
    let suite = Document::parse(&text).unwrap();
    let mut inputs: BTreeMap<String, Tape> = BTreeMap::new();
    for test in suite.descendants().filter(|node| node.has_tag_name("test")) {
        let file = test.attribute("inputfile").unwrap_or("patient-example.xml");
        inputs.entry(file.to_owned()).or_insert_with(|| input(file).unwrap());
    }
    let known = include_str!("official-known.txt");
    let known: BTreeMap<&str, &str> = known
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_once(" -- ").expect("expression -- reason"))
        .collect();
    let (lenient, strict) = (clocked(), clocked().definitions(fhirehose_fhir::element_type));
    let mut groups: Vec<Group> = Vec::new();
    let (mut surprises, mut failed) = (Vec::new(), Vec::new());
    for test in suite.descendants().filter(|node| node.has_tag_name("test")) {
        let name = test.parent().and_then(|group| group.attribute("name")).unwrap_or_default();
        if groups.last().is_none_or(|group| group.name != name) {
            groups.push(Group { name: name.to_owned(), ..Group::default() });
        }
        let group = groups.last_mut().unwrap();
        group.total += 1;
        let expression = test.children().find(|node| node.has_tag_name("expression")).unwrap();
        let source = expression.text().unwrap();
        let tape = &inputs[test.attribute("inputfile").unwrap_or("patient-example.xml")];
        let of = tape.root().get("resourceType").and_then(|of| of.as_str()).unwrap_or_default();
        let strict = strict.clone().of(of);
        let env = if test.attribute("mode") == Some("strict") { &strict } else { &lenient };
        let compiled = Expr::compile(source, env);
        let outcome = match &compiled {
            Err(error) => Outcome::NotCompiled(error.to_string()),
            Ok(expr) => match expr.eval(&Ctx::new(tape.root(), &NoFunctions)) {
                Ok(items) => Outcome::Items(items),
                Err(error) => Outcome::Failed(error),
            },
        };
        let key = source.trim();
        match (judge(test, expression, &outcome), known.get(key)) {
            (None, None) => group.passed += 1,
            (None, Some(_)) => surprises.push(format!("passes now, take it off the list: {key}")),
            (Some(_), Some(reason)) => {
                failed.push((test.attribute("name").unwrap_or_default().to_owned(), key, *reason));
            }
            (Some(why), None) => surprises.push(format!("{key} -- {why}")),
        }
    }
    let (passed, total) = groups.iter().fold((0, 0), |(p, t), group| (p + group.passed, t + group.total));
    println!("official FHIRPath suite: {passed} of {total} pass");
    // The file counts 687; one stands in a comment.
    assert_eq!(total, 686);
    assert!(surprises.is_empty(), "{passed} of {total} pass\n{}", surprises.join("\n"));
    page::assert_current(&groups, &failed);
    conformance::assert_current(
        "FHIRPath: the official R4 suite",
        &format!(
            "{passed} of {total} pass ({:.1} %), [the others with reasons](fhirpath.md)",
            passed as f64 * 100.0 / total as f64
        ),
        "fhirehose-fhirpath",
        "--test official",
    );
}
