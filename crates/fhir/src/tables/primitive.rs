/// The primitive types of both releases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Primitive {
    Base64Binary,
    Boolean,
    Canonical,
    Code,
    Date,
    DateTime,
    Decimal,
    Id,
    Instant,
    Integer,
    /// R5; a string in JSON.
    Integer64,
    Markdown,
    Oid,
    PositiveInt,
    String,
    Time,
    UnsignedInt,
    Uri,
    Url,
    Uuid,
    Xhtml,
}

const NAMES: [(&str, Primitive); 21] = [
    ("base64Binary", Primitive::Base64Binary),
    ("boolean", Primitive::Boolean),
    ("canonical", Primitive::Canonical),
    ("code", Primitive::Code),
    ("date", Primitive::Date),
    ("dateTime", Primitive::DateTime),
    ("decimal", Primitive::Decimal),
    ("id", Primitive::Id),
    ("instant", Primitive::Instant),
    ("integer", Primitive::Integer),
    ("integer64", Primitive::Integer64),
    ("markdown", Primitive::Markdown),
    ("oid", Primitive::Oid),
    ("positiveInt", Primitive::PositiveInt),
    ("string", Primitive::String),
    ("time", Primitive::Time),
    ("unsignedInt", Primitive::UnsignedInt),
    ("uri", Primitive::Uri),
    ("url", Primitive::Url),
    ("uuid", Primitive::Uuid),
    ("xhtml", Primitive::Xhtml),
];

impl Primitive {
    /// The type that FHIR names so.
    pub fn named(name: &str) -> Option<Primitive> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, primitive)| *primitive)
    }

    /// As FHIR has it.
    pub fn name(self) -> &'static str {
        NAMES[self as usize].0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_name() {
        for (name, primitive) in NAMES {
            assert_eq!(primitive.name(), name);
        }
    }
}
