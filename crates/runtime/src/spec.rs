use std::sync::Arc;

/// From a physical topic to another.
pub type TopicOf = Arc<dyn Fn(&str) -> Arc<str> + Send + Sync>;

/// What the runtime must know of a processor to run it.
#[derive(Clone)]
pub struct Spec {
    /// The processor's name, as in metrics, logs and dead letters.
    pub name: &'static str,
    /// Its consumer group: the name, behind the configured prefix.
    pub group: String,
    pub inputs: Inputs,
    /// Topics every worker reads whole, beside the group.
    pub tables: Vec<Arc<str>>,
    /// The compacted topic the processor keeps its state in. Partition `n` of it is restored whenever
    /// partition `n` of an input is assigned.
    pub changelog: Option<Arc<str>>,
    /// Topics it produces to, dead letters aside; checked to exist at start.
    pub outputs: Vec<Arc<str>>,
    /// What a sink writes to, in words.
    pub store: Option<&'static str>,
    /// The dead-letter topic for records of a physical input topic.
    pub dead_letters: TopicOf,
}

/// The input topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inputs {
    /// Topics by name, which must exist at start.
    Topics(Vec<Arc<str>>),
    /// Every topic that matches a regular expression starting with `^` and a literal prefix, also those that
    /// come to be later.
    Pattern(String),
}

impl Inputs {
    /// The names to subscribe to, as librdkafka takes them.
    pub(crate) fn subscription(&self) -> Vec<&str> {
        match self {
            Inputs::Topics(names) => names.iter().map(AsRef::as_ref).collect(),
            Inputs::Pattern(pattern) => vec![pattern],
        }
    }

    /// Whether a topic may be one of them: exact for names, by the literal prefix for patterns.
    pub(crate) fn may_cover(&self, topic: &str) -> bool {
        match self {
            Inputs::Topics(names) => names.iter().any(|name| &**name == topic),
            Inputs::Pattern(pattern) => topic.starts_with(&literal_prefix(pattern)),
        }
    }
}

/// `^cdc\.(a|b)\..*` gives `cdc.`.
fn literal_prefix(pattern: &str) -> String {
    let mut prefix = String::new();
    let mut chars = pattern.trim_start_matches('^').chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(escaped) if escaped.is_ascii_punctuation() => prefix.push(escaped),
                _ => break,
            },
            c if c.is_alphanumeric() || c == '_' || c == '-' => prefix.push(c),
            _ => break,
        }
    }
    prefix
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_topics_with_its_literal_prefix() {
        assert_eq!(literal_prefix(r"^cdc\.(hospital_a|hospital_b)\..*"), "cdc.");
        assert_eq!(literal_prefix(r"^t-runtime\-x\d+"), "t-runtime-x");
        let inputs = Inputs::Pattern(r"^cdc\..*".into());
        assert!(inputs.may_cover("cdc.a.b.c") && !inputs.may_cover("cdcx"));
        let named = Inputs::Topics(vec!["fhir.patient".into()]);
        assert!(named.may_cover("fhir.patient") && !named.may_cover("fhir.patients"));
    }
}
