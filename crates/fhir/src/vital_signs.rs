//! What every observation of category vital-signs must hold (profile `vitalsigns`, R4), and blood pressure (`bp`).

use fhirehose_tape::Value;

use crate::invariants::{coded, elements, has, has_choice, require, text};
use crate::primitive::moment;
use crate::terminology::{LOINC, UCUM};
use crate::validate::{Invalid, Rule};

const CATEGORY: &str = "http://terminology.hl7.org/CodeSystem/observation-category";
const STRUCTURE: &str = "http://hl7.org/fhir/StructureDefinition/";
/// The profiles, and the LOINC code each demands.
const PROFILES: [(&str, Option<&str>); 11] = [
    ("vitalsigns", None),
    ("bp", Some(PANEL)),
    ("heartrate", Some("8867-4")),
    ("resprate", Some("9279-1")),
    ("oxygensat", Some("2708-6")),
    ("bodytemp", Some("8310-5")),
    ("bodyweight", Some("29463-7")),
    ("bodyheight", Some("8302-2")),
    ("bmi", Some("39156-5")),
    ("headcircum", Some("9843-4")),
    ("vitalspanel", Some("85353-1")),
];
/// Value set ucum-vitals-common, to which the profile binds component values.
const UNITS: [&str; 12] =
    ["%", "cm", "[in_i]", "kg", "g", "[lb_av]", "Cel", "[degF]", "mm[Hg]", "/min", "kg/m2", "m2"];
const PANEL: &str = "85354-9";
const SYSTOLIC: &str = "8480-6";
const DIASTOLIC: &str = "8462-4";

/// Checks an observation that says it is a vital sign, by category or by profile; any other passes.
pub(crate) fn check(observation: Value<'_>) -> Result<(), Invalid> {
    let by_category = elements(observation, "category").any(|c| coded(c, CATEGORY, "vital-signs"));
    let claimed =
        || observation.get("meta").into_iter().flat_map(|meta| elements(meta, "profile")).filter_map(profile);
    if !by_category && claimed().next().is_none() {
        return Ok(());
    }
    for (name, present) in [
        ("category", by_category),
        ("subject", has(observation, "subject")),
        ("effective", has(observation, "effectiveDateTime") || has(observation, "effectivePeriod")),
    ] {
        if !present {
            return Err(Invalid::at(name, Rule::Missing));
        }
    }
    for (name, loinc) in claimed().filter_map(|(name, loinc)| Some((name, loinc?))) {
        let code = observation.get("code").is_some_and(|code| coded(code, LOINC, loinc));
        require(name, code)?;
        measured(observation)?;
    }
    let to_the_day = |t: &str| moment(t).is_none_or(|m| m.date.2 != 0);
    require("vs-1", text(observation, "effectiveDateTime").is_none_or(to_the_day))?;
    let answered = |o: Value<'_>| has_choice(o, "value") || has(o, "dataAbsentReason");
    require("vs-2", answered(observation) || has(observation, "component") || has(observation, "hasMember"))?;
    require("vs-3", elements(observation, "component").all(answered))?;
    for (index, component) in elements(observation, "component").enumerate() {
        let unit = component.get("valueQuantity").map(|q| (text(q, "system"), text(q, "code")));
        let bound = unit
            .is_none_or(|(system, code)| system == Some(UCUM) && code.is_some_and(|c| UNITS.contains(&c)));
        if !bound || has(component, "valueCodeableConcept") {
            return Err(Invalid::at(&format!("component[{index}].value"), Rule::Unit));
        }
    }
    blood_pressure(observation)
}

fn profile(url: Value<'_>) -> Option<(&'static str, Option<&'static str>)> {
    let name = url.as_str()?.strip_prefix(STRUCTURE)?;
    PROFILES.iter().copied().find(|(known, _)| *known == name)
}

/// A quantity of a profiled vital sign has a number and a unit to show; its code is checked by LOINC.
fn measured(observation: Value<'_>) -> Result<(), Invalid> {
    let quantity = observation.get("valueQuantity");
    match quantity.and_then(|q| ["value", "unit"].into_iter().find(|name| q.get(name).is_none())) {
        Some(missing) => Err(Invalid::at(&format!("valueQuantity.{missing}"), Rule::Missing)),
        None => Ok(()),
    }
}

/// The panel has no value of its own and exactly one systolic and one diastolic component, absent or not.
fn blood_pressure(observation: Value<'_>) -> Result<(), Invalid> {
    if !observation.get("code").is_some_and(|code| coded(code, LOINC, PANEL)) {
        return Ok(());
    }
    if has_choice(observation, "value") {
        return Err(Invalid::at("value", Rule::Invariant("bp")));
    }
    let count = |loinc| {
        let of = |c: &Value<'_>| c.get("code").is_some_and(|code| coded(code, LOINC, loinc));
        elements(observation, "component").filter(of).count()
    };
    match (count(SYSTOLIC), count(DIASTOLIC)) {
        (1, 1) => Ok(()),
        _ => Err(Invalid::at("component", Rule::Invariant("bp"))),
    }
}
