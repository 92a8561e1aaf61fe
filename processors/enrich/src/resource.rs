use std::collections::BTreeMap;
use std::sync::Arc;

use fhirehose_codec::AvroEncoder;
use fhirehose_stream::Fault;
use fhirehose_topics::{Registry, Topic};

use crate::{Columns, Snapshots};

/// By name of the `fhir.*` topic.
pub type Resources = BTreeMap<Arc<str>, Resource>;

/// A resource type: where its records come from and how its enriched ones are written.
pub struct Resource {
    pub resource_type: String,
    pub input: Topic,
    pub output: Arc<str>,
    pub columns: Columns,
    pub encoder: AvroEncoder,
}

/// Compiles the schema of every `enriched.*` topic.
pub fn compile(
    registry: &Registry,
    snapshots: &Snapshots,
    schema_id: &dyn Fn(&str) -> Result<u32, Fault>,
) -> Result<Resources, Fault> {
    let mut resources = BTreeMap::new();
    for output in registry.iter() {
        let Some(name) = output.name.strip_prefix("enriched.") else { continue };
        let input = format!("fhir.{name}");
        let (Some(input), Some(schema)) = (registry.topic(&input), &output.schema) else {
            return Err(Fault::fatal(format!(
                "{} has no schema, or no topic {input} to come from",
                output.name
            )));
        };
        // Topics are named in lower case, resource types are not.
        let declared = snapshots.types().find(|declared| declared.eq_ignore_ascii_case(name));
        let resource_type = declared.map_or_else(|| capitalised(name), str::to_owned);
        let columns = Columns::compile(schema, &resource_type, snapshots)
            .map_err(|problems| Fault::fatal(problems.join("\n")))?;
        let encoder = AvroEncoder::new(schema, schema_id(&schema.subject)?)
            .map_err(|problem| Fault::fatal(format!("{}: {problem}", schema.subject)))?;
        let resource =
            Resource { resource_type, output: output.name.clone(), columns, encoder, input: input.clone() };
        resources.insert(input.name.clone(), resource);
    }
    Ok(resources)
}

/// The resource of an input topic.
pub fn of<'r>(resources: &'r Resources, topic: &str) -> Result<&'r Resource, Fault> {
    resources.get(topic).ok_or_else(|| Fault::fatal(format!("{topic} has no enriched topic")))
}

fn capitalised(name: &str) -> String {
    let mut chars = name.chars();
    chars.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(chars).collect()
}
