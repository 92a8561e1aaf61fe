//! What every observation of category vital-signs must hold (profile `vitalsigns`, R4), and blood pressure (`bp`).

use fhirehose_tape::Value;

use crate::invariants::{Check, coded, elements, require, text};
use crate::observation::Observed;
use crate::primitive::moment;
use crate::terminology::{LOINC, UCUM};
use crate::validate::Rule;

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
pub(crate) fn check(observed: &Observed<'_>) -> Check {
    let by_category =
        observed.category.is_some_and(|of| of.elements().any(|c| coded(c, CATEGORY, "vital-signs")));
    let claimed = || observed.meta.into_iter().flat_map(|meta| elements(meta, "profile")).filter_map(profile);
    if !by_category && claimed().next().is_none() {
        return Ok(());
    }
    for (name, present) in
        [("category", by_category), ("subject", observed.has_subject), ("effective", observed.has_effective)]
    {
        if !present {
            return Err((name.to_owned(), Rule::Missing));
        }
    }
    for (name, loinc) in claimed().filter_map(|(name, loinc)| Some((name, loinc?))) {
        require(name, is(observed, loinc))?;
        measured(observed)?;
    }
    require("vs-1", observed.effective_date_time.and_then(moment).is_none_or(|m| m.date.2 != 0))?;
    let answered = |o: &Observed<'_>| o.has_value || o.has_reason_for_none;
    require("vs-2", answered(observed) || observed.component.is_some() || observed.has_member)?;
    require("vs-3", observed.components().all(|component| answered(&component)))?;
    for (index, component) in observed.components().enumerate() {
        let unit = component.quantity.map(|q| (text(q, "system"), text(q, "code")));
        let bound = unit
            .is_none_or(|(system, code)| system == Some(UCUM) && code.is_some_and(|c| UNITS.contains(&c)));
        if !bound || component.has_value_concept {
            return Err((format!("component[{index}].value"), Rule::Unit));
        }
    }
    blood_pressure(observed)
}

/// Whether its code has that LOINC code.
fn is(observed: &Observed<'_>, loinc: &str) -> bool {
    observed.codings().any(|c| text(c, "code") == Some(loinc) && text(c, "system") == Some(LOINC))
}

fn profile(url: Value<'_>) -> Option<(&'static str, Option<&'static str>)> {
    let name = url.as_str()?.strip_prefix(STRUCTURE)?;
    PROFILES.iter().copied().find(|(known, _)| *known == name)
}

/// A quantity of a profiled vital sign has a number and a unit to show; its code is checked by LOINC.
fn measured(observed: &Observed<'_>) -> Check {
    match observed.quantity.and_then(|q| ["value", "unit"].into_iter().find(|name| q.get(name).is_none())) {
        Some(missing) => Err((format!("valueQuantity.{missing}"), Rule::Missing)),
        None => Ok(()),
    }
}

/// The panel has no value of its own and exactly one systolic and one diastolic component, absent or not.
fn blood_pressure(observed: &Observed<'_>) -> Check {
    if !is(observed, PANEL) {
        return Ok(());
    }
    if observed.has_value {
        return Err(("value".to_owned(), Rule::Invariant("bp")));
    }
    let count = |loinc| observed.components().filter(|component| is(component, loinc)).count();
    match (count(SYSTOLIC), count(DIASTOLIC)) {
        (1, 1) => Ok(()),
        _ => Err(("component".to_owned(), Rule::Invariant("bp"))),
    }
}
