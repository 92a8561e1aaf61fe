//! A message's mapping, from its file.

use std::sync::Arc;

use fhirehose_fhirpath::Shape;
use fhirehose_topics::Registry;

use super::{ALERTS, Assignment, DeviceMapping, Slots};
use crate::functions::{self, ConceptMaps};
use crate::header::Fields;
use crate::problem::Problems;
use crate::template::{Compiler, Hole, Scope};
use crate::terminology::Terminology;
use crate::yaml::Node;

impl DeviceMapping {
    /// `path`: the file's, without `mappings/` and `.yaml`.
    pub(crate) fn compile(
        path: &str,
        node: &Node,
        maps: &Arc<ConceptMaps>,
        topics: &Registry,
        terminology: &mut Terminology,
        problems: &mut Problems<'_>,
    ) -> Option<DeviceMapping> {
        let compiler = &mut Compiler::of(path, problems, terminology);
        let mut fields = Fields::of(node, compiler)?;
        let identity = compiler.identity(&mut fields, path);
        let topic = format!("device.{}", path.split('/').nth(1)?);
        if let Some(node) = fields.need("topic", compiler)
            && (node.text() != Some(&topic) || topics.topic(&topic).is_none())
        {
            compiler
                .problems
                .add(node.at, format!("the topic of this file is `{topic}`, declared in topics/"));
        }
        let mut scope = Scope::new(functions::env(maps));
        let text = || Shape::of(&["string"]);
        let time = || Shape::of(&["string", "instant"]);
        let [source, vendor, zone] = ["source", "vendor", "zone"].map(|name| scope.declare(name, text()));
        let record_time = scope.declare("recordTime", time());
        let [header, message] = ["header", "message"].map(|name| scope.declare(name, Shape::any()));
        let matches = fields.need("match", compiler).and_then(|node| compiler.hole(node, &scope, "match"));
        let items = fields.take("items").map(|node| compiler.hole(node, &scope, "items"));
        let item = scope.declare("item", Shape::any());
        let device = fields.need("device", compiler).and_then(|node| compiler.hole(node, &scope, "device"));
        let reading_time = fields.take("time").map(|node| compiler.hole(node, &scope, "time"));
        let [device_slot, tenant] = ["device", "tenant"].map(|name| scope.declare(name, text()));
        let time = scope.declare("time", time());
        let assignment = scope.declare("assignment", Shape::object(Assignment::MEMBERS));
        let rules = compiler.rules(fields.take("rules"), &scope);
        let outputs = compiler.outputs(fields.take("outputs"), node.at, &scope, None, topics);
        let emergency = fields.flag("emergency", false, compiler);
        if emergency != outputs.iter().any(|output| &*output.topic == ALERTS) && !outputs.is_empty() {
            compiler
                .problems
                .add(node.at, format!("`emergency: true` exactly where there is an output to {ALERTS}"));
        }
        fields
            .end(compiler, "mapping, version, topic, match, items, device, time, emergency, rules, outputs");
        let (name, version) = identity?;
        Some(DeviceMapping {
            name,
            version,
            topic: topic.into(),
            matches: matches?,
            items: sound(items)?,
            device: device?,
            time: sound(reading_time)?,
            rules,
            outputs,
            slots: Slots {
                tenant,
                source,
                vendor,
                zone,
                record_time,
                header,
                message,
                item,
                device: device_slot,
                time,
                assignment,
            },
            repeated: std::mem::take(&mut compiler.places).finish(),
            maps: maps.clone(),
        })
    }
}

/// What is absent stays so; what did not compile makes the whole fail.
fn sound(hole: Option<Option<Hole>>) -> Option<Option<Hole>> {
    match hole {
        Some(None) => None,
        Some(compiled) => Some(compiled),
        None => Some(None),
    }
}
