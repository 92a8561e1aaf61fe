//! What elements there are and of what types, for those who compile expressions and templates.

use fhirehose_tape::Value;

use crate::primitive;
use crate::tables::{Definitions, Primitive, Ty, Type, Version};
use crate::validate::Rule;

/// Types that no resource is of itself; what an element of one holds is known only with its type.
const ABSTRACT: [&str; 4] = ["Resource", "DomainResource", "CanonicalResource", "MetadataResource"];

/// The R4 type of an element, by the type it stands in and its name in JSON: of `Patient` and `contact` it is
/// `Patient.contact`, of `HumanName` and `family` it is `string`. Without a name it is the type itself, if the
/// tables have it. An element that may be any resource is a `Resource`.
pub fn element_type(of: &str, name: &str) -> Option<&'static str> {
    typed(Version::R4.definitions(), of, name)
}

/// Whether an R4 element may stand several times, and so is a list in JSON; by type and name as [`element_type`].
pub fn element_repeats(of: &str, name: &str) -> bool {
    let of = Version::R4.definitions().named(of);
    of.and_then(|of| of.find(name)).is_some_and(|element| element.many)
}

/// The elements an R4 type must have; of a choice such as `value[x]` the name before the type.
pub fn required_elements(of: &str) -> impl Iterator<Item = &'static str> {
    let of = Version::R4.definitions().named(of);
    let slots =
        |of: &'static Type| of.slots.iter().enumerate().map(|(slot, name)| (of.required >> slot & 1, *name));
    of.into_iter().flat_map(slots).filter(|(required, _)| *required == 1).map(|(_, name)| name)
}

/// Whether an R4 element of a primitive type may have that value, or may have it among others: its JSON type, its
/// format, its required binding. What is of another type, or unknown, may have any.
pub fn element_takes(of: &str, name: &str, value: Value<'_>) -> Result<(), Rule> {
    let definitions = Version::R4.definitions();
    let Some(element) = definitions.named(of).and_then(|of| of.find(name)) else { return Ok(()) };
    let Ty::Primitive(of) = element.ty else { return Ok(()) };
    primitive::check(of, value)?;
    let bound = element.codes.map(|set| definitions.set(set));
    match (bound, value.as_str()) {
        (Some(set), Some(code)) if !set.has_code(code) => Err(Rule::Code),
        _ => Ok(()),
    }
}

/// As [`element_type`], of R5.
pub fn element_type_r5(of: &str, name: &str) -> Option<&'static str> {
    typed(Version::R5.definitions(), of, name)
}

fn typed(definitions: &'static Definitions, of: &str, name: &str) -> Option<&'static str> {
    let of = definitions.named(of).filter(|of| !ABSTRACT.contains(&of.name))?;
    if name.is_empty() {
        return Some(of.name);
    }
    if name == "resourceType" && of.is_resource {
        return Some(Primitive::Code.name());
    }
    Some(match of.find(name)?.ty {
        Ty::Primitive(of) => of.name(),
        Ty::Complex(of) => definitions.complex(of).name,
        Ty::Resource => "Resource",
    })
}

/// The resource types of R4.
pub fn resource_types() -> impl Iterator<Item = &'static str> {
    Version::R4.definitions().types.iter().filter(|ty| ty.is_resource).map(|ty| ty.name)
}

/// Whether an R4 resource type has an element, by dotted JSON names without indexes:
/// `element_exists("Observation", "component.valueQuantity.code")`.
pub fn element_exists(resource_type: &str, path: &str) -> bool {
    let definitions = Version::R4.definitions();
    let Some(mut ty) = definitions.resource(resource_type) else { return false };
    let mut names = path.split('.').peekable();
    if path == "resourceType" {
        return true;
    }
    while let Some(name) = names.next() {
        let (sibling, name) = name.strip_prefix('_').map_or((false, name), |base| (true, base));
        let Some(element) = ty.find(name) else { return false };
        match (element.ty, sibling) {
            (Ty::Primitive(_), true) => ty = definitions.element(),
            (Ty::Primitive(_), false) => return names.peek().is_none(),
            (Ty::Complex(inner), false) => ty = definitions.complex(inner),
            // What a contained resource holds is known only with its type.
            (Ty::Resource, false) => return true,
            (Ty::Complex(_) | Ty::Resource, true) => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::{element_repeats, element_type, element_type_r5, required_elements};

    #[test]
    fn types_are_found_by_the_names_they_stand_under() {
        assert_eq!(element_type("Patient", ""), Some("Patient"));
        assert_eq!(element_type("Patient", "contact"), Some("Patient.contact"));
        assert_eq!(element_type("Patient.contact", "name"), Some("HumanName"));
        assert_eq!(element_type("HumanName", "family"), Some("string"));
        assert_eq!(element_type("Observation", "valueQuantity"), Some("Quantity"));
        assert_eq!(
            element_type("Observation.component", "referenceRange"),
            Some("Observation.referenceRange")
        );
        assert_eq!(element_type("Patient", "contained"), Some("Resource"));
        assert_eq!(element_type("Patient", "resourceType"), Some("code"));
        assert_eq!(element_type("HumanName", "famly"), None);
        assert_eq!(element_type("Spaceship", ""), None);
        assert_eq!(element_type("Encounter", "period"), Some("Period"));
        assert_eq!(element_type_r5("Encounter", "period"), None);
        assert_eq!(element_type_r5("Encounter", "actualPeriod"), Some("Period"));
    }

    #[test]
    fn cardinality_is_told() {
        assert!(element_repeats("Patient", "name") && !element_repeats("Patient", "birthDate"));
        assert!(!element_repeats("Patient", "spaceship") && !element_repeats("Spaceship", "name"));
        assert_eq!(required_elements("Observation").collect::<Vec<_>>(), ["status", "code"]);
        assert_eq!(required_elements("MedicationRequest.substitution").collect::<Vec<_>>(), ["allowed"]);
    }
}
