use std::collections::HashMap;
use std::sync::LazyLock;

use crate::tables::{ELEMENT, Primitive, RESOURCES, Ty, Type};

/// Every type of the tables by its name: resources, data types and backbone elements.
static TYPES: LazyLock<HashMap<&'static str, &'static Type>> = LazyLock::new(|| {
    fn walk(of: &'static Type, types: &mut HashMap<&'static str, &'static Type>) {
        if types.insert(of.name, of).is_some() {
            return;
        }
        for element in of.elements {
            if let Ty::Complex(inner) = element.ty {
                walk(inner, types);
            }
        }
    }
    let mut types = HashMap::new();
    walk(&ELEMENT, &mut types);
    RESOURCES.iter().for_each(|of| walk(of, &mut types));
    types
});

/// The type of an element, by the type it stands in and its name in JSON: of `Patient` and `contact` it is
/// `Patient.contact`, of `HumanName` and `family` it is `string`. Without a name it is the type itself, if the
/// tables have it. An element that may be any resource is a `Resource`.
pub fn element_type(of: &str, name: &str) -> Option<&'static str> {
    let of = TYPES.get(of)?;
    if name.is_empty() {
        return Some(of.name);
    }
    if name == "resourceType" && RESOURCES.iter().any(|resource| resource.name == of.name) {
        return Some(Primitive::Code.name());
    }
    let (_, element) = of.find(name)?;
    Some(match element.ty {
        Ty::Primitive(of) => of.name(),
        Ty::Complex(of) => of.name,
        Ty::Resource => "Resource",
    })
}

impl Primitive {
    /// As FHIR has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Primitive::Base64Binary => "base64Binary",
            Primitive::Boolean => "boolean",
            Primitive::Canonical => "canonical",
            Primitive::Code => "code",
            Primitive::Date => "date",
            Primitive::DateTime => "dateTime",
            Primitive::Decimal => "decimal",
            Primitive::Id => "id",
            Primitive::Instant => "instant",
            Primitive::Integer => "integer",
            Primitive::Markdown => "markdown",
            Primitive::Oid => "oid",
            Primitive::PositiveInt => "positiveInt",
            Primitive::String => "string",
            Primitive::Time => "time",
            Primitive::UnsignedInt => "unsignedInt",
            Primitive::Uri => "uri",
            Primitive::Url => "url",
            Primitive::Uuid => "uuid",
            Primitive::Xhtml => "xhtml",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::element_type;

    #[test]
    fn types_are_found_by_the_names_they_stand_under() {
        assert_eq!(element_type("Patient", ""), Some("Patient"));
        assert_eq!(element_type("Patient", "contact"), Some("Patient.contact"));
        assert_eq!(element_type("Patient.contact", "name"), Some("HumanName"));
        assert_eq!(element_type("HumanName", "family"), Some("string"));
        assert_eq!(element_type("Observation", "valueQuantity"), Some("Quantity"));
        assert_eq!(element_type("Patient", "contained"), Some("Resource"));
        assert_eq!(element_type("Patient", "resourceType"), Some("code"));
        assert_eq!(element_type("HumanName", "famly"), None);
        assert_eq!(element_type("Spaceship", ""), None);
    }
}
