//! What a verdict on a resource is, and how to get one.

use fhirehose_tape::Value;

use crate::tables::Version;
use crate::terminology::CodeError;
use crate::walk::{Path, Walk};

/// What is wrong, and where. Carries no value of the resource.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {rule}")]
pub struct Invalid {
    /// `Observation.component[0].valueQuantity.code`; of [`validate`], an unknown element is `*` under its parent,
    /// since its name is input.
    pub path: String,
    /// The rule that is broken.
    pub rule: Rule,
}

/// A rule of FHIR or of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rule {
    /// No table for that resource type, or no `resourceType`.
    #[error("unknown resource type")]
    UnknownResource,
    /// The type has no such element.
    #[error("unknown element")]
    UnknownElement,
    /// Minimum cardinality.
    #[error("required element is missing")]
    Missing,
    /// More than one in JSON means an array, at most one means none.
    #[error("array where one value belongs, or one value where an array belongs")]
    Cardinality,
    /// A number in quotes, an object for a string, a null.
    #[error("wrong JSON type")]
    Kind,
    /// The primitive's format: dates, ids, codes, ranges of integers.
    #[error("malformed value")]
    Format,
    /// Empty string, array or object.
    #[error("empty value")]
    Empty,
    /// Two of a choice such as value[x].
    #[error("more than one of a choice")]
    Choice,
    /// A required binding.
    #[error("code outside its required value set")]
    Code,
    /// A reference to a resource type that may not stand there.
    #[error("reference to a type that is not allowed here")]
    Target,
    /// A code whose check digit or shape is wrong.
    #[error("code: {0}")]
    Terminology(CodeError),
    /// A US national provider identifier whose check digit or shape is wrong; a warning, since sources have them.
    #[error("national provider identifier: {0}")]
    Npi(CodeError),
    /// The unit is not one its LOINC code may carry (UCUM).
    #[error("unit not allowed for this code")]
    Unit,
    /// An invariant of the specification, by its key.
    #[error("invariant {0}")]
    Invariant(&'static str),
}

impl Rule {
    /// Whether a resource that breaks it is still valid.
    pub fn is_warning(self) -> bool {
        matches!(self, Rule::Npi(_))
    }
}

/// Checks a resource against R4: elements, cardinality, JSON types, formats, required bindings, choices, emptiness,
/// reference targets, invariants; and against terminology: LOINC and SNOMED CT check digits, UCUM per LOINC, the base
/// rules of the vital-signs profiles. Tells what is wrong first; allocates nothing for a valid resource of a type
/// whose invariants are checked in Rust (as an Observation's are).
pub fn validate(resource: Value<'_>) -> Result<(), Invalid> {
    match walk(Version::R4, resource, false).into_iter().next() {
        Some(invalid) => Err(invalid),
        None => Ok(()),
    }
}

/// All that is wrong with a resource, in its order. Invariants are judged where the elements are sound. For a person
/// who has the resource: also warnings, and unknown elements are named.
pub fn findings(version: Version, resource: Value<'_>) -> Vec<Invalid> {
    walk(version, resource, true)
}

fn walk(version: Version, resource: Value<'_>, tell: bool) -> Vec<Invalid> {
    let definitions = version.definitions();
    let name = resource.get("resourceType").and_then(Value::as_str).unwrap_or_default();
    let Some(ty) = definitions.resource(name) else {
        return vec![Invalid { path: "resourceType".to_owned(), rule: Rule::UnknownResource }];
    };
    let mut walk =
        Walk { definitions, version, tell_names: tell, warnings: tell, found: Vec::new(), errors: 0 };
    walk.resource(resource, ty, &Path { above: None, name: ty.name, index: None }, None);
    walk.found
}
