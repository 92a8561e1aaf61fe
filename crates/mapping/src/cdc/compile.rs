//! A table's mapping, from its file.

use std::sync::Arc;

use fhirehose_fhirpath::Shape;
use fhirehose_topics::Registry;

use super::{CdcMapping, Slots};
use crate::columns::{Column, ColumnType, ColumnUse, Columns, PersonalData};
use crate::functions::{self, ConceptMaps};
use crate::header::Fields;
use crate::problem::Problems;
use crate::template::{Compiler, Scope};
use crate::terminology::Terminology;
use crate::yaml::{Data, Node};

impl CdcMapping {
    /// `path`: the file's, without `mappings/` and `.yaml`.
    pub(crate) fn compile(
        path: &str,
        node: &Node,
        maps: &Arc<ConceptMaps>,
        topics: &Registry,
        terminology: &mut Terminology,
        problems: &mut Problems<'_>,
    ) -> Option<CdcMapping> {
        let compiler = &mut Compiler::of(path, problems, terminology);
        let mut fields = Fields::of(node, compiler)?;
        let identity = compiler.identity(&mut fields, path);
        let (_, table_path) = path.split_once('/')?;
        let table = table_path.replacen('/', ".", 1);
        if let Some(node) = fields.need("table", compiler)
            && node.text() != Some(&table)
        {
            compiler.problems.add(node.at, format!("the table of this file is `{table}`"));
        }
        let columns = fields.need("columns", compiler).map(|node| columns(node, &table, compiler))?;
        let mut scope = Scope::of_row(functions::env(maps), columns.readable());
        let mut text = |name| scope.declare(name, Shape::of(&["string"]));
        let slots = Slots {
            tenant: text("tenant"),
            source: text("source"),
            table: text("table"),
            zone: text("zone"),
            op: text("op"),
            record_time: scope.declare("recordTime", Shape::of(&["string", "instant"])),
        };
        let facility = fields.take("facility").map(|node| compiler.hole(node, &scope, "facility"));
        let rules = compiler.rules(fields.take("rules"), &scope);
        let outputs = fields.take("outputs");
        let outputs = compiler.outputs(outputs, node.at, &scope, Some(&columns), topics);
        fields.end(compiler, "mapping, version, table, facility, columns, rules, outputs");
        let (name, version) = identity?;
        let facility = match facility {
            Some(hole) => Some(hole?),
            None => None,
        };
        let repeated = std::mem::take(&mut compiler.places).finish();
        let (table, maps) = (table.into(), maps.clone());
        Some(CdcMapping { name, version, table, columns, facility, rules, outputs, slots, repeated, maps })
    }
}

fn columns(node: &Node, table: &str, compiler: &mut Compiler<'_, '_>) -> Columns {
    let mut all = Vec::new();
    if let Data::Map(entries) = &node.data {
        for (key, node) in entries {
            if let Some(use_) = column(node, compiler) {
                all.push(Column { name: key.text.clone(), use_ });
            }
        }
    } else {
        compiler.problems.add(node.at, "`columns` is a map of every column of the table");
    }
    let columns = Columns::new(table.to_owned(), all);
    if columns.keys().next().is_none() {
        compiler.problems.add(node.at, "no column has `key: true`");
    }
    columns
}

fn column(node: &Node, compiler: &mut Compiler<'_, '_>) -> Option<ColumnUse> {
    let mut fields = Fields::of(node, compiler)?;
    let (key, optional) = (fields.flag("key", false, compiler), fields.flag("optional", false, compiler));
    let (kind, class) = (fields.take("type"), fields.take("class"));
    if fields.flag("forbidden", false, compiler) {
        if kind.is_some() || key || optional {
            compiler.problems.add(node.at, "a forbidden column is not read: it has no type");
        }
        fields.end(compiler, "forbidden, class");
        return Some(ColumnUse::Forbidden);
    }
    fields.end(compiler, "type, class, key, optional, forbidden");
    let kind_named = kind.and_then(Node::text).and_then(ColumnType::named);
    if kind_named.is_none() {
        let at = kind.map_or(node.at, |node| node.at);
        compiler.problems.add(at, format!("`type` is one of {}", ColumnType::NAMES));
    }
    let class_named = class.and_then(Node::text).and_then(PersonalData::named);
    if class_named.is_none() {
        let at = class.map_or(node.at, |node| node.at);
        compiler.problems.add(at, format!("`class` is one of {}", PersonalData::NAMES));
    }
    Some(ColumnUse::Read { kind: kind_named?, class: class_named?, key, optional })
}
