//! The keys of a mapping file around its templates.

use std::collections::BTreeSet;
use std::sync::Arc;

use fhirehose_fhir::{ElementRules, Left};
use fhirehose_stream::Reason;
use fhirehose_tape::{Tape, write_string};
use fhirehose_topics::{Registry, Schema};

use crate::problem::Position;
use crate::template::{Compiler, Hole, Makes, Object, Scope, Template, fold, missing_of, watch};
use crate::yaml::{Data, Key, Node, Scalar};

/// A data-quality rule: `when` it holds, the record is rejected or flagged.
pub(crate) struct Rule {
    pub when: Hole,
    pub then: Consequence,
}

pub(crate) enum Consequence {
    Reject { reason: Reason, path: Box<str> },
    Flag(Arc<str>),
}

/// One output of a mapping.
pub(crate) struct Output {
    pub name: Box<str>,
    /// Logical topic.
    pub topic: Arc<str>,
    pub when: Option<Hole>,
    pub makes: Made,
}

pub(crate) enum Made {
    Resource(Resource),
    Record(Record),
}

pub(crate) struct Resource {
    pub of_type: Box<str>,
    /// Columns whose values identify the resource; none for devices, where the device does.
    pub key: Vec<Box<str>>,
    pub discriminator: Option<Box<str>>,
    /// `"profile":[…],` or nothing.
    pub profile: Box<[u8]>,
    pub assigns: Vec<crate::template::Assign>,
    /// `{"resourceType":…,"id":`
    pub start: Box<[u8]>,
    /// Without `resourceType`, `id` and `meta`.
    pub members: Object,
    /// To judge when the members are written.
    pub left: Left,
}

pub(crate) struct Record {
    /// Joined by `/`.
    pub key: Vec<Template>,
    pub assigns: Vec<crate::template::Assign>,
    pub members: Object,
    /// Whether the schema has `flags`, which we write.
    pub flags: bool,
}

/// The keys of a map, each of which must be taken.
pub(crate) struct Fields<'n> {
    pub at: Position,
    entries: Vec<(&'n Key, &'n Node)>,
}

impl<'n> Fields<'n> {
    pub fn of(node: &'n Node, compiler: &mut Compiler<'_, '_>) -> Option<Fields<'n>> {
        match &node.data {
            Data::Map(entries) => {
                Some(Fields { at: node.at, entries: entries.iter().map(|(k, v)| (k, v)).collect() })
            }
            _ => {
                compiler.problems.add(node.at, format!("a map is wanted, not {}", node.kind()));
                None
            }
        }
    }

    pub fn take(&mut self, name: &str) -> Option<&'n Node> {
        let at = self.entries.iter().position(|(key, _)| key.text == name)?;
        Some(self.entries.remove(at).1)
    }

    pub fn need(&mut self, name: &str, compiler: &mut Compiler<'_, '_>) -> Option<&'n Node> {
        let node = self.take(name);
        if node.is_none() {
            compiler.problems.add(self.at, format!("`{name}` is missing"));
        }
        node
    }

    pub fn need_text(&mut self, name: &str, compiler: &mut Compiler<'_, '_>) -> Option<&'n str> {
        let node = self.need(name, compiler)?;
        compiler.text_of(node, name)
    }

    pub fn flag(&mut self, name: &str, default: bool, compiler: &mut Compiler<'_, '_>) -> bool {
        match self.take(name).map(|node| (node.at, node.scalar())) {
            None => default,
            Some((_, Some(Scalar::Bool(value)))) => value,
            Some((at, _)) => {
                compiler.problems.add(at, format!("`{name}` is true or false"));
                default
            }
        }
    }

    /// Refuses what was not taken.
    pub fn end(self, compiler: &mut Compiler<'_, '_>, known: &str) {
        for (key, _) in self.entries {
            compiler.problems.add(key.at, format!("unknown key `{}`; there are {known}", key.text));
        }
    }
}

impl Compiler<'_, '_> {
    pub fn text_of<'n>(&mut self, node: &'n Node, name: &str) -> Option<&'n str> {
        let text = node.text().filter(|text| !text.trim().is_empty());
        if text.is_none() {
            self.problems.add(node.at, format!("`{name}` is a text"));
        }
        text
    }

    pub fn texts(&mut self, node: Option<&Node>, name: &str) -> Vec<Box<str>> {
        let Some(node) = node else { return Vec::new() };
        let Data::List(list) = &node.data else {
            self.problems.add(node.at, format!("`{name}` is a list of texts"));
            return Vec::new();
        };
        list.iter().filter_map(|node| self.text_of(node, name).map(Box::from)).collect()
    }

    /// `mapping` and `version`: the name must be the file's path.
    pub fn identity(&mut self, fields: &mut Fields<'_>, path: &str) -> Option<(Arc<str>, i32)> {
        let name = fields.need("mapping", self);
        let version = fields.need("version", self);
        if let Some(node) = name
            && node.text() != Some(path)
        {
            self.problems.add(node.at, format!("the mapping of this file is named `{path}`"));
        }
        let number = version?.text().and_then(|text| text.parse().ok()).filter(|version| *version > 0);
        if number.is_none() {
            self.problems.add(version?.at, "`version` is a whole number from 1");
        }
        name?;
        Some((path.into(), number?))
    }

    pub fn rules(&mut self, node: Option<&Node>, scope: &Scope) -> Vec<Rule> {
        let Some(node) = node else { return Vec::new() };
        let Data::List(list) = &node.data else {
            self.problems.add(node.at, "`rules` is a list");
            return Vec::new();
        };
        list.iter().filter_map(|node| self.rule(node, scope)).collect()
    }

    fn rule(&mut self, node: &Node, scope: &Scope) -> Option<Rule> {
        let mut fields = Fields::of(node, self)?;
        let when = fields.need("when", self).and_then(|node| self.hole(node, scope, "rule"));
        let (reject, flag) = (fields.take("reject"), fields.take("flag"));
        let path = fields.take("path");
        fields.end(self, "when, reject, flag, path");
        let then = match (reject, flag) {
            (Some(reject), None) => {
                let reason = self.reject_reason(reject);
                let Some(path) = path.and_then(|node| self.text_of(node, "path")) else {
                    self.problems.add(node.at, "`reject` needs `path`: the column or element that is wrong");
                    return None;
                };
                Consequence::Reject { reason: reason?, path: path.into() }
            }
            (None, Some(flag)) => {
                let code = self.text_of(flag, "flag")?;
                if !code.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
                    self.problems.add(flag.at, "a flag is a code of lower-case letters, digits and `-`");
                }
                if let Some(path) = path {
                    self.problems.add(path.at, "`path` is for `reject`");
                }
                Consequence::Flag(code.into())
            }
            _ => {
                self.problems.add(node.at, "a rule has either `reject` or `flag`");
                return None;
            }
        };
        Some(Rule { when: when?, then })
    }

    fn reject_reason(&mut self, node: &Node) -> Option<Reason> {
        const OF_RULES: [Reason; 8] = [
            Reason::ImpossibleValue,
            Reason::InvalidTime,
            Reason::MissingElement,
            Reason::UnknownCode,
            Reason::WrongType,
            Reason::MissingKey,
            Reason::UnknownFacility,
            Reason::ForbiddenColumn,
        ];
        let reason = node.text().and_then(Reason::from_label).filter(|reason| OF_RULES.contains(reason));
        if reason.is_none() {
            let labels: Vec<_> = OF_RULES.iter().map(|reason| reason.label()).collect();
            self.problems.add(node.at, format!("a rule rejects with one of {}", labels.join(", ")));
        }
        reason
    }

    /// `keys`: the columns of the primary key, `None` for devices.
    pub fn outputs(
        &mut self,
        node: Option<&Node>,
        at: Position,
        scope: &Scope,
        columns: Option<&crate::columns::Columns>,
        topics: &Registry,
    ) -> Vec<Output> {
        let list = match node.map(|node| &node.data) {
            Some(Data::List(list)) if !list.is_empty() => list,
            _ => {
                self.problems.add(node.map_or(at, |node| node.at), "`outputs` is a list of at least one");
                return Vec::new();
            }
        };
        let mut names = BTreeSet::new();
        let mut outputs = Vec::new();
        for node in list {
            if let Some(output) = self.output(node, scope, columns, topics) {
                if !names.insert(output.name.clone()) {
                    self.problems.add(node.at, format!("a second output `{}`", output.name));
                }
                outputs.push(output);
            }
        }
        outputs
    }

    fn output(
        &mut self,
        node: &Node,
        scope: &Scope,
        columns: Option<&crate::columns::Columns>,
        topics: &Registry,
    ) -> Option<Output> {
        let mut fields = Fields::of(node, self)?;
        let name = fields.need_text("name", self);
        let path = name.unwrap_or("output");
        let when = fields.take("when").map(|node| self.hole(node, scope, path));
        let to = fields.need("to", self);
        let topic = to.and_then(|node| {
            let topic = node.text().and_then(|name| topics.topic(name));
            if topic.is_none() {
                self.problems.add(node.at, "no such topic is declared in topics/");
            }
            topic
        });
        let makes = match topic {
            Some(topic) => match topic.name.strip_prefix("fhir.") {
                Some(of_type) => self.resource(&mut fields, scope, of_type, columns).map(Made::Resource),
                None => {
                    let schema = topic.schema.as_deref();
                    if schema.is_none() {
                        self.problems
                            .add(node.at, format!("{} has no schema to write records of", topic.name));
                    }
                    self.record(&mut fields, scope, path, schema?).map(Made::Record)
                }
            },
            None => return None,
        };
        let known = "name, to, when; id, profile, resource; or key, record";
        fields.end(self, known);
        Some(Output {
            name: name?.into(),
            topic: topic?.name.clone(),
            when: match when {
                Some(hole) => Some(hole?),
                None => None,
            },
            makes: makes?,
        })
    }

    fn resource(
        &mut self,
        fields: &mut Fields<'_>,
        scope: &Scope,
        topic_type: &str,
        columns: Option<&crate::columns::Columns>,
    ) -> Option<Resource> {
        let (mut key, mut discriminator): (Vec<Box<str>>, _) = (Vec::new(), None);
        if let Some(mut id) = fields.take("id").and_then(|node| Fields::of(node, self)) {
            let named = id.take("key");
            key = self.texts(named, "key");
            discriminator = id.take("discriminator").and_then(|node| self.text_of(node, "discriminator"));
            if let (Some(node), None) = (named, columns) {
                self.problems.add(node.at, "the id of a reading is made of the device: no `key`");
            }
            for unknown in key.iter().filter(|name| !columns.is_none_or(|columns| columns.has(name))) {
                self.problems.add(named.map_or(id.at, |node| node.at), format!("no column `{unknown}`"));
            }
            id.end(self, "key, discriminator");
        }
        if let Some(columns) = columns.filter(|_| key.is_empty()) {
            key = columns.keys().map(Box::from).collect();
        }
        if columns.is_none() && discriminator.is_none() {
            self.problems.add(fields.at, "`id: {discriminator: …}` tells apart what one reading becomes");
        }
        let profile = self.profile(fields.take("profile"));
        let node = fields.need("resource", self)?;
        let of_type = self.resource_type(node, topic_type)?;
        let template = self.template(node, scope, Makes::Element(&of_type), &of_type)?;
        let (assigns, mut members) = self.whole_object(template, node)?;
        members.entries.retain(|entry| &*entry.key != "resourceType");
        for name in ["id", "meta"] {
            if members_of(&members).contains(name) {
                self.problems.add(node.at, format!("`{name}` is written by the engine: leave it out"));
            }
        }
        for required in missing_of(&of_type, &members) {
            self.problems.add(node.at, format!("`{of_type}` needs `{required}`"));
        }
        let discriminator = discriminator.map(Box::from);
        let left = watch(&of_type, &mut members);
        fold(&mut members);
        let start = format!("{{\"resourceType\":\"{of_type}\",\"id\":").into_bytes().into();
        Some(Resource { of_type, key, discriminator, profile, assigns, start, members, left })
    }

    fn resource_type(&mut self, node: &Node, topic_type: &str) -> Option<Box<str>> {
        let Data::Map(entries) = &node.data else {
            self.problems.add(node.at, "`resource` is an object");
            return None;
        };
        let entry = entries.iter().find(|(key, _)| key.text == "resourceType");
        let name = entry.and_then(|(_, node)| node.text());
        let known = fhirehose_fhir::resource_types().find(|known| Some(*known) == name);
        match known {
            Some(known) if known.to_lowercase() == topic_type => Some(known.into()),
            Some(_) => {
                self.problems.add(node.at, format!("fhir.{topic_type} takes no such `resourceType`"));
                None
            }
            None => {
                self.problems.add(node.at, "`resourceType` is a type of R4 we emit, written out");
                None
            }
        }
    }

    fn profile(&mut self, node: Option<&Node>) -> Box<[u8]> {
        let urls = self.texts(node, "profile");
        let mut json = Vec::new();
        for url in &urls {
            json.push(if json.is_empty() { b'[' } else { b',' });
            write_string(url, &mut json);
        }
        let Some(node) = node.filter(|_| !json.is_empty()) else { return Box::default() };
        json.push(b']');
        let rules = ElementRules::of("Meta", "profile");
        if !rules.is_some_and(|rules| rules.takes(&json, &mut Tape::new())) {
            self.problems.add(node.at, "`profile` is a list of canonical URLs");
        }
        [b"\"profile\":", &*json, b","].concat().into()
    }

    fn record(
        &mut self,
        fields: &mut Fields<'_>,
        scope: &Scope,
        path: &str,
        schema: &Schema,
    ) -> Option<Record> {
        let key = fields.need("key", self).and_then(|node| self.record_key(node, scope));
        let node = fields.need("record", self)?;
        let template = self.template(node, scope, Makes::Anything, path)?;
        let (assigns, members) = self.whole_object(template, node)?;
        let written = members_of(&members);
        for name in &written {
            if schema.field(name).is_none() {
                self.problems.add(node.at, format!("{} has no field `{name}`", schema.subject));
            }
        }
        if written.contains("flags") {
            self.problems.add(node.at, "`flags` is written by the engine: leave it out");
        }
        let missing = schema.fields.iter().filter(|field| field.required && !written.contains(&*field.name));
        for field in missing {
            self.problems.add(node.at, format!("{} needs the field `{}`", schema.subject, field.name));
        }
        Some(Record { key: key?, assigns, members, flags: schema.field("flags").is_some() })
    }

    fn record_key(&mut self, node: &Node, scope: &Scope) -> Option<Vec<Template>> {
        let Data::List(list) = &node.data else {
            self.problems.add(node.at, "`key` is a list of FHIRPath expressions");
            return None;
        };
        let parts: Vec<_> = list
            .iter()
            .map(|node| match node.text() {
                Some(text) if text.contains("{{") => self.text(text, node, scope, "key"),
                _ => self.hole(node, scope, "key").map(Template::First),
            })
            .collect();
        parts.into_iter().collect()
    }

    /// The object a whole resource or record is, with the variables before it.
    fn whole_object(
        &mut self,
        template: Template,
        node: &Node,
    ) -> Option<(Vec<crate::template::Assign>, Object)> {
        let (assigns, body) = match template {
            Template::Scope { assigns, body } => (assigns, *body),
            other => (Vec::new(), other),
        };
        match body {
            Template::Object(object) if object.merges.iter().all(written_out) => Some((assigns, object)),
            _ => {
                self.problems.add(node.at, "the whole of it is one object whose members are written out");
                None
            }
        }
    }
}

/// Whether the names a merge adds are known.
fn written_out(template: &Template) -> bool {
    match template {
        Template::Object(object) => object.merges.iter().all(written_out),
        Template::If { then, otherwise, .. } => {
            written_out(then) && otherwise.as_deref().is_none_or(written_out)
        }
        Template::Scope { body, .. } => written_out(body),
        _ => false,
    }
}

/// Names an object may have, merges included.
fn members_of(object: &Object) -> BTreeSet<&str> {
    fn add<'t>(template: &'t Template, names: &mut BTreeSet<&'t str>) {
        match template {
            Template::Object(object) => {
                names.extend(object.entries.iter().map(|entry| &*entry.key));
                object.merges.iter().for_each(|merge| add(merge, names));
            }
            Template::If { then, otherwise, .. } => {
                add(then, names);
                otherwise.iter().for_each(|other| add(other, names));
            }
            Template::Scope { body, .. } => add(body, names),
            _ => {}
        }
    }
    let mut names: BTreeSet<&str> = object.entries.iter().map(|entry| &*entry.key).collect();
    object.merges.iter().for_each(|merge| add(merge, &mut names));
    names
}
