//! The engines of shapes (views, mappings, FHIRPath) against open ones, without a server.

mod contest;
mod difference;
mod helios;
mod peer;
mod steadiness;

use std::path::Path;

use anyhow::{Context, Result, bail};
use fhirehose_benches::resources::{Resources, TAKEN};
use fhirehose_benches::work::{
    ByHand, Checks, Evaluations, Mapped, Rows, Templates, VIEWS, Work, definition, document, encounters,
    made, template,
};
use serde_json::{Value as Json, json};

pub use contest::Effort;
use contest::{Case, hold, ratios, turn};
use helios::Helios;
use peer::{Package, Peer, Script};

use crate::figure::{Figure, Goal, Section, Spread, Unit};

const SQLONFHIR: Package = Package::Python("sqlonfhir-0.0.2");
const FHIRPATHPY: Package = Package::Python("fhirpathpy-2.2.4");
const FPML: Package = Package::Python("fpml-1.0.0");
const FHIRPATH_JS: Package = Package::Node("fhirpath-4.9.1");

/// Wanted of views against the fastest runner.
const VIEWS_GOAL: f64 = 10.0;
/// Wanted of mappings against the same by hand.
const MAPPINGS_GOAL: f64 = 0.7;
/// Wanted of the check of a vital sign, in microseconds.
const CHECK_GOAL: f64 = 3.0;
/// The published example of FPML, beside the repository.
const PUBLISHED: &str = "../shared/data/fpml/complex-example.fhir";

/// Expressions, and the type of resource they are about.
const EXPRESSIONS: [(&str, &str); 12] = [
    ("Observation", "code.coding.code"),
    ("Observation", "status = 'final' and category.coding.exists(code = 'vital-signs')"),
    ("Observation", "value.ofType(Quantity).value > 100"),
    ("Observation", "effective.ofType(dateTime) >= @2010-01-01T00:00:00Z"),
    ("Observation", "component.where(code.coding.code = '8480-6').value.ofType(Quantity).value"),
    (
        "Observation",
        "code.coding.where(system = 'http://loinc.org').display.first().lower().contains('body')",
    ),
    ("Encounter", "type.coding.select(system & '|' & code)"),
    ("Encounter", "period.end > period.start"),
    ("Encounter", "period.start.toString().substring(0, 4)"),
    ("Claim", "item.where(sequence > 1).productOrService.coding.display"),
    ("Patient", "name.where(use = 'official').given.first()"),
    (
        "Patient",
        "extension.where(url.endsWith('us-core-race')).extension.where(url = 'text').value.ofType(string)",
    ),
];

pub fn measure(root: &Path, effort: Effort) -> Result<Vec<Section>> {
    let resources = Resources::load(root)?;
    Ok(vec![
        views(root, &resources, effort).context("views")?,
        mappings(root, effort).context("mappings")?,
        expressions(root, &resources, effort).context("expressions")?,
        checks(root, effort).context("checks")?,
        steadiness::measure(root)?,
    ])
}

fn views(root: &Path, resources: &Resources, effort: Effort) -> Result<Section> {
    let (mut cases, mut inputs) = (Vec::new(), Vec::new());
    for name in VIEWS {
        let text = definition(root, name)?;
        let rows = Rows::new(&text, resources)?;
        inputs.push(json!({"view": serde_json::from_str::<Json>(&text)?, "resources": rows.resources()}));
        cases.push(Case::new(name, Box::new(rows))?);
    }
    let mut peers: Vec<Box<dyn Peer>> = vec![
        Box::new(Script::start(root, SQLONFHIR, "views_sqlonfhir.py", &inputs)?),
        Box::new(Script::start(root, FHIRPATH_JS, "views_fhirpath.js", &inputs)?),
        Box::new(Script::start(root, FHIRPATHPY, "views_fhirpathpy.py", &inputs)?),
    ];
    let helios = Helios::of_environment(&inputs)?;
    let of_helios = match helios {
        Some(_) => format!(
            "helios-sof's `sof-cli` is a process for each pass, over the same resources {} times, with one thread; its CPU \
             time holds its start.",
            helios::COPIES
        ),
        None => format!(
            "**helios-sof, the other open runner in Rust, was not measured**: its build takes some 4 GB and most of an hour, so \
             it is not installed here; it is measured where `{}` names its program.",
            helios::PROGRAM
        ),
    };
    peers.extend(helios.map(|helios| Box::new(helios) as Box<dyn Peer>));
    let (outcomes, told) = hold(cases, &mut peers, effort)?;
    Ok(Section {
        title: "Views against open runners",
        how: format!(
            "The plan of `fhirehose views run`, on one thread, over up to {TAKEN} Synthea resources of the view's type, evenly \
             from all bundles: from the JSON bytes of a resource to the JSON text of its rows, for everyone. sqlonfhir is a \
             view runner; fhirpath (npm) and fhirpathpy are FHIRPath engines, no view runners, and evaluate the same \
             columns in a thin driver (`benches/peers`). {of_helios} {} The goal is against the fastest.{}",
            way(effort),
            not_counted(&told)
        ),
        figures: outcomes.iter().flat_map(|it| it.figures("rows", Goal::AtLeast(VIEWS_GOAL))).collect(),
    })
}

fn mappings(root: &Path, effort: Effort) -> Result<Section> {
    let rows = encounters(root)?;
    let plain = template(root)?;
    let published = |part: &str| root.join(format!("{PUBLISHED}.{part}.yaml"));
    let Json::Object(context) = document(&published("context"))? else { bail!("{PUBLISHED}: no variables") };
    let variables: Vec<(String, Json)> = context.clone().into_iter().collect();
    let long = [context["QuestionnaireResponse"].clone()];
    let long_template = std::fs::read_to_string(published("template"))?;
    let of = |document: &Json, variables: Json| json!({"document": document, "variables": variables});
    let none = || Json::Object(serde_json::Map::new());
    let inputs = [
        json!({
            "template": document(&root.join("benches/templates/encounter.yaml"))?,
            "documents": rows.iter().map(|row| of(row, none())).collect::<Vec<_>>(),
        }),
        json!({
            "template": document(&published("template"))?,
            "documents": [of(&long[0], Json::Object(context))],
        }),
    ];
    let cases = vec![
        Case::new("a plain template of encounters", Box::new(Templates::new(&plain, &rows, &[])?))?,
        Case::new("the published example", Box::new(Templates::new(&long_template, &long, &variables)?))?,
    ];
    let mut peers: Vec<Box<dyn Peer>> =
        vec![Box::new(Script::start(root, FPML, "mappings_fpml.py", &inputs)?)];
    let (outcomes, told) = hold(cases, &mut peers, effort)?;
    let mut figures = by_hand(root, effort)?;
    figures.extend(outcomes.iter().flat_map(|it| it.figures("resources", Goal::None)));
    Ok(Section {
        title: "Mappings against Rust by hand and against the FPML reference",
        how: format!(
            "By hand: `mappings/cdc/clinical_data/encounters.yaml` from decoded rows to the bytes of checked resources, against \
             a Rust function that does the same with structs and serde (`benches/src/encounter.rs`); both write the very same \
             bytes. The one by hand does not check the finished resource against R4, which the engine always does; the second \
             line is with that check added to it. The reference: templates without anything of ours (`benches/templates`, and \
             the example that the reference publishes), decoded documents in, JSON text out; its expressions are compiled \
             once, which it does not do by itself. {}{}",
            way(effort),
            not_counted(&told)
        ),
        figures,
    })
}

/// The product's mapping against the same by hand: without the check of the resource, and with it.
fn by_hand(root: &Path, effort: Effort) -> Result<Vec<Figure>> {
    let mut ours = Mapped::new(root)?;
    let (mut plain, mut checked) = (ByHand::new(root)?, ByHand::new(root)?);
    checked.checked = true;
    let expected = made(&mut ours)?;
    for hand in [&mut plain, &mut checked] {
        if made(hand)? != expected {
            bail!("benches/src/encounter.rs does not make what the mapping makes");
        }
    }
    let mut contestants: [(&mut dyn Work, Vec<f64>); 3] =
        [(&mut ours, Vec::new()), (&mut plain, Vec::new()), (&mut checked, Vec::new())];
    let mut out = Vec::new();
    // The first round warms all up.
    for round in 0..=effort.rounds {
        for (work, rates) in &mut contestants {
            let turn = turn(*work, &mut out, effort.seconds)?;
            if round > 0 {
                rates.push(turn.count / turn.cpu);
            }
        }
    }
    let [(_, ours), (_, plain), (_, checked)] = contestants;
    let figure = |what: &str, hand: &[f64], goal| {
        let (ours_median, hand_median) = (Spread::of(&ours).median, Spread::of(hand).median);
        Figure {
            what: what.into(),
            measured: format!("{ours_median:.0} against {hand_median:.0} resources per core-second"),
            value: ratios(&ours, hand),
            unit: Unit::Share,
            goal,
        }
    };
    Ok(vec![
        figure("mapping of encounters / by hand", &plain, Goal::AtLeast(MAPPINGS_GOAL)),
        figure("mapping of encounters / by hand, and checked as ours", &checked, Goal::None),
    ])
}

fn expressions(root: &Path, resources: &Resources, effort: Effort) -> Result<Section> {
    let (mut cases, mut inputs) = (Vec::new(), Vec::new());
    for (of, expression) in EXPRESSIONS {
        let resources = resources.of(of)?;
        inputs.push(json!({"expression": expression, "resources": resources}));
        let mut evaluations = Evaluations::new(expression, of, &resources)?;
        evaluations.shown = true;
        let shown = Case::new(format!("{of}: `{expression}`"), Box::new(evaluations))?;
        let measured = Box::new(Evaluations::new(expression, of, &resources)?);
        cases.push(Case { ours: measured, ..shown });
    }
    let mut peers: Vec<Box<dyn Peer>> = vec![
        Box::new(Script::start(root, FHIRPATH_JS, "expressions_fhirpath.js", &inputs)?),
        Box::new(Script::start(root, FHIRPATHPY, "expressions_fhirpathpy.py", &inputs)?),
    ];
    let (outcomes, told) = hold(cases, &mut peers, effort)?;
    Ok(Section {
        title: "FHIRPath against other engines",
        how: format!(
            "Compiled expressions over up to {TAKEN} decoded Synthea resources of a type; results are not written. {} There is no \
             goal.{}",
            way(effort),
            not_counted(&told)
        ),
        figures: outcomes.iter().flat_map(|it| it.figures("evaluations", Goal::None)).collect(),
    })
}

fn checks(root: &Path, effort: Effort) -> Result<Section> {
    let mut figures = Vec::new();
    for (what, name, goal) in [
        ("a vital sign", "vital-sign", Goal::AtMost(CHECK_GOAL)),
        ("a blood pressure with two components", "blood-pressure", Goal::None),
    ] {
        let (mut work, mut times) = (Checks::new(root, name)?, Vec::new());
        for _ in 0..effort.rounds {
            let turn = turn(&mut work, &mut Vec::new(), effort.seconds)?;
            times.push(turn.cpu / turn.count * 1e6);
        }
        figures.push(Figure {
            what: format!("check of {what}"),
            measured: format!("`crates/fhir/tests/{name}.json`"),
            value: Spread::of(&times),
            unit: Unit::Microseconds,
            goal,
        });
    }
    Ok(Section {
        title: "The check against R4",
        how: format!(
            "`fhirehose_fhir::validate` of a decoded resource, valid: thread CPU time, the same resource again and again for at \
             least {} s a round, {} rounds.",
            effort.seconds, effort.rounds
        ),
        figures,
    })
}

fn way(effort: Effort) -> String {
    let Effort { rounds, seconds } = effort;
    format!(
        "CPU time, of the process for peers, of the thread for ours; whole passes for at least {seconds} s a turn, contestants \
         in turn, {rounds} rounds after one that warms up. What a contestant makes is compared with ours before."
    )
}

fn not_counted(told: &[String]) -> String {
    if told.is_empty() { String::new() } else { format!(" Not counted: {}.", told.join("; ")) }
}
