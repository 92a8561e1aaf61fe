//! Who judges part by part accepts nothing that the verdict on the whole refuses: Synthea's resources and mutated ones,
//! each taken apart as a template would, where it is not known whole. `FHIREHOSE_DIFFERENTIAL` is the number of mutated
//! resources, `FHIREHOSE_SEED` the seed.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "differential/mutate.rs"]
mod mutate;

use fhirehose_fhir::{
    ElementRules, Known, Left, element_repeats, left_to_judge, required_elements, rules_hold, validate,
};
use fhirehose_tape::Tape;
use fhirehose_testkit::differential::{setting, synthea};
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value};

const MUTATED: usize = 2000;
/// Of each type.
const SHARE: usize = 30;

/// What is left to judge of an object when all of its parts have been taken; all of it where one was not.
fn taken_apart(of: &str, object: &Map<String, Value>, random: &mut impl Rng) -> Left {
    let members: Vec<_> = object.iter().filter(|(name, _)| *name != "resourceType").collect();
    let required = |name: &str| {
        let choice = |of: &str| of.starts_with(|c: char| c.is_ascii_uppercase());
        members
            .iter()
            .any(|(of, _)| of.strip_prefix(name).is_some_and(|rest| rest.is_empty() || choice(rest)))
    };
    let known: Vec<_> = members.iter().map(|(name, value)| (&***name, known(value, random))).collect();
    let left = left_to_judge(of, &known);
    let parts = |random: &mut _| members.iter().all(|(name, value)| is_taken(of, name, value, random));
    match required_elements(of).all(required) && left != Left::All && parts(random) {
        true => left,
        false => Left::All,
    }
}

fn known<'v>(value: &'v Value, random: &mut impl Rng) -> Known<'v> {
    match value.as_str() {
        Some(text) => match random.random_range(0..3) {
            0 => Known::Text(text),
            1 => {
                text.get(..random.random_range(1..=text.len().max(1))).map_or(Known::Anything, Known::Begins)
            }
            _ => Known::Anything,
        },
        None => Known::Anything,
    }
}

fn is_taken(of: &str, name: &str, value: &Value, random: &mut impl Rng) -> bool {
    let Some(rules) = ElementRules::of(of, name) else { return false };
    let (json, repeats) = (value.to_string().into_bytes(), element_repeats(of, name));
    if rules.is_primitive() && !repeats {
        return rules.takes_scalar(&json);
    }
    let objects: Option<Vec<_>> = match value {
        Value::Array(list) if repeats => list.iter().map(Value::as_object).collect(),
        one if !repeats => one.as_object().map(|object| vec![object]),
        _ => None,
    };
    let mut apart = |objects: Vec<&Map<String, Value>>| {
        !objects.is_empty() && objects.iter().all(|object| is_object_taken(rules, object, random))
    };
    objects.filter(|_| !rules.is_primitive() && !rules.is_bound()).is_some_and(&mut apart)
        || rules.takes(&json, &mut Tape::new())
}

fn is_object_taken(rules: ElementRules, object: &Map<String, Value>, random: &mut impl Rng) -> bool {
    let refers = || match object.get("reference") {
        Some(text) => !object.contains_key("type") && rules.takes_reference(text.to_string().as_bytes()),
        None => !object.contains_key("type"),
    };
    !object.is_empty()
        && (rules.type_name() != "Reference" || refers())
        && taken_apart(rules.type_name(), object, random) == Left::Nothing
}

#[test]
fn what_is_taken_part_by_part_is_valid_as_a_whole() {
    let mut random = ChaCha8Rng::seed_from_u64(setting("FHIREHOSE_SEED", 1) as u64);
    let mut pool = Vec::new();
    for mut of in synthea().into_values() {
        of.shuffle(&mut random);
        of.truncate(SHARE);
        pool.append(&mut of);
    }
    let (mut valid, mut settled, mut by_rules) = (0, 0, 0);
    for at in 0..pool.len() + setting("FHIREHOSE_DIFFERENTIAL", MUTATED) {
        let resource = match pool.get(at) {
            Some(resource) => resource.clone(),
            None => mutate::mutated(pool.choose(&mut random).unwrap(), &mut random).0,
        };
        let mut tape = Tape::new();
        tape.parse_json(resource.to_string().as_bytes()).unwrap();
        let verdict = validate(tape.root());
        let (Some(object), Some(of)) = (resource.as_object(), resource["resourceType"].as_str()) else {
            continue;
        };
        let taken = match taken_apart(of, object, &mut random) {
            Left::Nothing => true,
            Left::Rules => rules_hold(tape.root()),
            Left::All => false,
        };
        if taken && let Err(invalid) = &verdict {
            panic!("taken, but {invalid}: {resource}");
        }
        valid += usize::from(verdict.is_ok());
        settled += usize::from(taken);
        by_rules += usize::from(taken && taken_apart(of, object, &mut random) == Left::Rules);
    }
    assert!(by_rules > 0 && settled > by_rules, "{by_rules} of {settled}");
    assert!(settled * 3 > valid, "of {valid} valid resources only {settled} were taken part by part");
}
