use fhirehose_fhirpath::{CompileError, Env, Expr};
use fhirehose_tape::{Kind, Tape, Value};

use crate::json::{error, join, known, objects, optional, required, sql_name, strings};
use crate::limits::{MAX_COLUMNS, MAX_DEFINITION, MAX_EXPRESSION, MAX_NESTING};
use crate::{Column, ColumnType, Each, Select, Tag, View, ViewError, constant, functions};

/// Elements of a ViewDefinition that say nothing about its rows.
const DESCRIPTIVE: &[&str] = &[
    "resourceType",
    "meta",
    "implicitRules",
    "language",
    "text",
    "url",
    "identifier",
    "name",
    "title",
    "version",
    "versionAlgorithmString",
    "versionAlgorithmCoding",
    "status",
    "experimental",
    "date",
    "publisher",
    "contact",
    "description",
    "useContext",
    "jurisdiction",
    "copyright",
    "copyrightLabel",
    "purpose",
    "fhirVersion",
    "profile",
];
const VIEW: &[&str] = &["resource", "constant", "select", "where"];
const SELECT: &[&str] = &["column", "select", "forEach", "forEachOrNull", "repeat", "unionAll"];
const EACH: &[&str] = &["forEach", "forEachOrNull", "repeat"];
const COLUMN: &[&str] = &["name", "path", "type", "collection", "description", "tag"];
const TAG: &[&str] = &["name", "value"];
const FILTER: &[&str] = &["path", "description"];

pub(crate) fn view(json: &str, env: &Env) -> Result<View, ViewError> {
    if json.len() > MAX_DEFINITION {
        return error("", format!("longer than {MAX_DEFINITION} bytes"));
    }
    let mut tape = Tape::new();
    tape.parse_json(json.as_bytes()).or_else(|cause| error("", cause.to_string()))?;
    let root = tape.root();
    if root.kind() != Kind::Object {
        return error("", "a ViewDefinition is a JSON object");
    }
    described(root)?;
    let resource = required(root, "", "resource")?;
    let versions = strings(root, "", "fhirVersion")?;
    let is_r4 = versions.is_empty() || versions.iter().any(|(version, _)| version.starts_with("4."));
    let mut env = functions::declared(env);
    if is_r4 {
        env = env.of(resource);
    }
    // In a forEach, too, these are the resource, not the item.
    let whole = [env.declare("resource"), env.declare("rootResource")];
    let row_index = env.declare("rowIndex");
    let mut constants = Vec::new();
    let mut names = Vec::new();
    for (constant, at) in objects(root, "", "constant")? {
        let (name, item) = constant::constant(constant, &at)?;
        if names.contains(&name) {
            return error(&at, format!("a second constant {name}"));
        }
        names.push(name);
        constants.push((env.declare(name), item));
    }
    let filters = objects(root, "", "where")?
        .into_iter()
        .map(|(filter, at)| {
            known(filter, &at, FILTER)?;
            expression(filter, &at, "path", &env)
        })
        .collect::<Result<_, _>>()?;
    let mut columns = Columns::default();
    let selects = nested(root, "", "select", &env, &mut columns, 1)?;
    if selects.is_empty() {
        return error("select", "at least one select is needed");
    }
    let body = Select { each: None, columns: Vec::new(), selects, union: Vec::new() };
    Ok(View { resource: resource.into(), columns: columns.0, constants, whole, row_index, filters, body })
}

/// What the elements that say nothing about rows must be all the same.
fn described(root: Value<'_>) -> Result<(), ViewError> {
    known(root, "", &[VIEW, DESCRIPTIVE].concat())?;
    if let Some(of) = optional(root, "", "resourceType")?
        && of.rsplit('/').next() != Some("ViewDefinition")
    {
        return error("resourceType", "not a ViewDefinition");
    }
    if root.get("name").is_some() {
        sql_name(root, "")?;
    }
    if let Some(status) = optional(root, "", "status")?
        && !["draft", "active", "retired", "unknown"].contains(&status)
    {
        return error("status", "draft, active, retired or unknown expected");
    }
    Ok(())
}

/// The view's columns so far, in the order the standard gives them.
#[derive(Default)]
struct Columns(Vec<Column>);

impl Columns {
    fn add(&mut self, column: Column, at: &str) -> Result<usize, ViewError> {
        if self.0.iter().any(|other| other.name == column.name) {
            return error(at, format!("a second column {}", column.name));
        }
        if self.0.len() == MAX_COLUMNS {
            return error(at, format!("more than {MAX_COLUMNS} columns"));
        }
        self.0.push(column);
        Ok(self.0.len() - 1)
    }
}

/// The selects in an array member.
fn nested(
    object: Value<'_>,
    at: &str,
    name: &str,
    env: &Env,
    columns: &mut Columns,
    depth: usize,
) -> Result<Vec<Select>, ViewError> {
    let select = |(select, at): (Value<'_>, String)| select_of(select, &at, env, columns, depth);
    objects(object, at, name)?.into_iter().map(select).collect()
}

fn select_of(
    select: Value<'_>,
    at: &str,
    env: &Env,
    columns: &mut Columns,
    depth: usize,
) -> Result<Select, ViewError> {
    if depth > MAX_NESTING {
        return error(at, format!("selects nested deeper than {MAX_NESTING}"));
    }
    known(select, at, SELECT)?;
    let (mut each, inner) = each_of(select, at, env)?;
    let mut own = Vec::new();
    for (column, at) in objects(select, at, "column")? {
        let path = expression(column, &at, "path", &inner)?;
        own.push((columns.add(column_of(column, &at, &path)?, &at)?, path));
    }
    let selects = nested(select, at, "select", &inner, columns, depth + 1)?;
    let union = union_of(select, at, &inner, columns, depth + 1)?;
    if own.is_empty() && selects.is_empty() && union.is_empty() {
        return error(at, "a select without columns");
    }
    if let Some(Each::OrNull(_, zero)) = &mut each {
        row_indexes(&own, selects.iter().chain(&union), zero);
    }
    Ok(Select { each, columns: own, selects, union })
}

/// What a select is done for, and the environment of what is in it.
fn each_of(select: Value<'_>, at: &str, env: &Env) -> Result<(Option<Each>, Env), ViewError> {
    let mut named = EACH.iter().copied().filter(|name| select.get(name).is_some());
    let Some(name) = named.next() else { return Ok((None, env.clone())) };
    if let Some(other) = named.next() {
        return error(at, format!("both {name} and {other}"));
    }
    if name != "repeat" {
        let path = expression(select, at, name, env)?;
        let inner = env.clone().within(&path);
        let each = if name == "forEach" { Each::Every(path) } else { Each::OrNull(path, Vec::new()) };
        return Ok((Some(each), inner));
    }
    // The paths begin at the select's own item and at all they lead to: where that is, nobody can tell before.
    let nowhere = compiled("{}", at, env)?;
    let inner = env.clone().within(&nowhere);
    let paths: Vec<_> = strings(select, at, name)?
        .into_iter()
        .map(|(source, at)| compiled(source, &at, &inner))
        .collect::<Result<_, _>>()?;
    if paths.is_empty() {
        return error(&join(at, name), "at least one path is needed");
    }
    Ok((Some(Each::Repeat(paths)), inner))
}

/// Columns that are nothing but `%rowIndex`, at any depth.
fn row_indexes<'s>(own: &[(usize, Expr)], inner: impl Iterator<Item = &'s Select>, found: &mut Vec<usize>) {
    found.extend(own.iter().filter(|(_, path)| is_row_index(path)).map(|(column, _)| *column));
    for select in inner {
        row_indexes(&select.columns, select.selects.iter().chain(&select.union), found);
    }
}

fn is_row_index(path: &Expr) -> bool {
    path.source().trim() == "%rowIndex"
}

/// The branches of a union: they fill the same columns, which the first of them declares.
fn union_of(
    select: Value<'_>,
    at: &str,
    env: &Env,
    columns: &mut Columns,
    depth: usize,
) -> Result<Vec<Select>, ViewError> {
    let first = columns.0.len();
    let mut union = Vec::new();
    for (branch, at) in objects(select, at, "unionAll")? {
        if union.is_empty() {
            union.push(select_of(branch, &at, env, columns, depth)?);
            continue;
        }
        let mut own = Columns(columns.0[..first].to_vec());
        union.push(select_of(branch, &at, env, &mut own, depth)?);
        let (declared, found) = (&columns.0[first..], &own.0[first..]);
        let same =
            |(a, b): (&Column, &Column)| a.name == b.name && a.kind == b.kind && a.collection == b.collection;
        if declared.len() != found.len() || !declared.iter().zip(found).all(same) {
            return error(&at, "not the columns of the union's first branch, in the same order");
        }
    }
    Ok(union)
}

fn column_of(column: Value<'_>, at: &str, path: &Expr) -> Result<Column, ViewError> {
    known(column, at, COLUMN)?;
    let name = sql_name(column, at)?;
    let declared = optional(column, at, "type")?;
    let of = declared.map(|of| of.strip_prefix("http://hl7.org/fhir/StructureDefinition/").unwrap_or(of));
    let kind = match of {
        None if is_row_index(path) => ColumnType::Integer,
        None => ColumnType::Any,
        Some(of) => match ColumnType::of(of) {
            Some(kind) => kind,
            None => return error(&join(at, "type"), format!("unknown type {of}")),
        },
    };
    let collection = match column.get("collection") {
        None => false,
        Some(value) => match value.as_bool() {
            Some(value) => value,
            None => return error(&join(at, "collection"), "true or false expected"),
        },
    };
    let mut tags = Vec::new();
    for (tag, at) in objects(column, at, "tag")? {
        known(tag, &at, TAG)?;
        tags.push(Tag {
            name: required(tag, &at, "name")?.into(),
            value: required(tag, &at, "value")?.into(),
        });
    }
    let description = optional(column, at, "description")?.map(Box::from);
    Ok(Column {
        name: name.into(),
        path: path.source().into(),
        kind,
        of: of.map(Box::from),
        collection,
        description,
        tags,
    })
}

fn expression(object: Value<'_>, at: &str, name: &str, env: &Env) -> Result<Expr, ViewError> {
    compiled(required(object, at, name)?, &join(at, name), env)
}

fn compiled(source: &str, at: &str, env: &Env) -> Result<Expr, ViewError> {
    if source.len() > MAX_EXPRESSION {
        return error(at, format!("an expression longer than {MAX_EXPRESSION} bytes"));
    }
    Expr::compile(source, env).map_err(|cause: CompileError| ViewError {
        path: at.to_owned(),
        message: cause.to_string(),
        expression: Some((source.into(), cause.offset)),
    })
}
