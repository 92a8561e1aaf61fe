use std::collections::HashMap;

use fhirehose_fhirpath::{Collection, EvalError, Functions, Item};
use fhirehose_tape::Value;

/// What `resolve()` finds: what the resource contains, and the other resources of its Bundle.
pub struct References<'t> {
    resource: Value<'t>,
    bundle: &'t HashMap<String, Value<'t>>,
}

/// The resources of a Bundle by full URL and by `Type/id`; empty for any other document.
pub fn targets(document: Value<'_>) -> HashMap<String, Value<'_>> {
    let mut targets = HashMap::new();
    if text(document, "resourceType") != Some("Bundle") {
        return targets;
    }
    for entry in document.get("entry").into_iter().flat_map(Value::elements) {
        let Some(resource) = entry.get("resource") else { continue };
        if let Some(url) = text(entry, "fullUrl") {
            targets.insert(url.to_owned(), resource);
        }
        if let (Some(of), Some(id)) = (text(resource, "resourceType"), text(resource, "id")) {
            targets.insert(format!("{of}/{id}"), resource);
        }
    }
    targets
}

fn text<'t>(value: Value<'t>, name: &str) -> Option<&'t str> {
    value.get(name)?.as_str()
}

impl<'t> References<'t> {
    /// Of a resource in the document whose targets are given.
    pub fn of(resource: Value<'t>, bundle: &'t HashMap<String, Value<'t>>) -> Self {
        References { resource, bundle }
    }

    fn target(&self, reference: &str) -> Option<Value<'t>> {
        match reference.strip_prefix('#') {
            Some("") => Some(self.resource),
            Some(id) => {
                let mut contained = self.resource.get("contained")?.elements();
                contained.find(|inner| text(*inner, "id") == Some(id))
            }
            None => {
                let unversioned = reference.split_once("/_history/").map_or(reference, |(before, _)| before);
                self.bundle.get(unversioned).copied()
            }
        }
    }
}

impl Functions for References<'_> {
    /// `resolve()`: the targets that are at hand; the others are left out.
    fn call<'a>(
        &'a self,
        _: &'static str,
        input: Collection<'a>,
        _: &[Collection<'a>],
    ) -> Result<Collection<'a>, EvalError> {
        let reference = |item: &Item<'a>| match item.value() {
            Some(value) => value.as_str().or_else(|| text(value, "reference")).map(str::to_owned),
            None => item.as_str().map(str::to_owned),
        };
        Ok(input
            .iter()
            .filter_map(reference)
            .filter_map(|reference| self.target(&reference))
            .filter_map(Item::of)
            .collect())
    }
}
