use std::borrow::Cow;

use fhirehose_fhirpath::{Env, Expr, Item, Temporal};
use fhirehose_tape::{Kind, Tape, Value};

use crate::{Column, ColumnType, Each, Select, View, ViewError};

/// Elements of a ViewDefinition that say nothing about its rows.
const DESCRIPTIVE: &[&str] = &[
    "resourceType",
    "id",
    "meta",
    "text",
    "extension",
    "url",
    "identifier",
    "name",
    "title",
    "version",
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
const SELECT: &[&str] = &["column", "select", "forEach", "forEachOrNull", "unionAll"];
const COLUMN: &[&str] = &["name", "path", "type", "collection", "description", "tag"];
const FILTER: &[&str] = &["path", "description"];

pub(crate) fn view(json: &str, env: &Env) -> Result<View, ViewError> {
    let mut tape = Tape::new();
    tape.parse_json(json.as_bytes()).or_else(|cause| error("", cause.to_string()))?;
    let root = tape.root();
    if root.kind() != Kind::Object {
        return error("", "a ViewDefinition is a JSON object");
    }
    known(root, "", &[VIEW, DESCRIPTIVE].concat())?;
    let resource = required(root, "", "resource")?;
    let mut env = env.clone().of(resource);
    let constants = list(root, "", "constant")?
        .into_iter()
        .map(|(constant, at)| {
            let (name, item) = constant_of(constant, &at)?;
            Ok((env.declare(name), item))
        })
        .collect::<Result<_, ViewError>>()?;
    let filters = list(root, "", "where")?
        .into_iter()
        .map(|(filter, at)| {
            known(filter, &at, FILTER)?;
            expression(filter, &at, "path", &env)
        })
        .collect::<Result<_, _>>()?;
    let selects = list(root, "", "select")?;
    if selects.is_empty() {
        return error("select", "at least one select is needed");
    }
    let mut columns = Columns::default();
    let selects = selects
        .into_iter()
        .map(|(select, at)| select_of(select, &at, &env, &mut columns))
        .collect::<Result<_, _>>()?;
    let body = Select { each: None, columns: Vec::new(), selects, union: Vec::new() };
    Ok(View { resource: resource.into(), columns: columns.0, constants, filters, body })
}

/// The view's columns so far, in the order the standard gives them.
#[derive(Default)]
struct Columns(Vec<Column>);

impl Columns {
    fn add(&mut self, column: Column, at: &str) -> Result<usize, ViewError> {
        if self.0.iter().any(|other| other.name == column.name) {
            return error(at, format!("a second column {}", column.name));
        }
        self.0.push(column);
        Ok(self.0.len() - 1)
    }
}

fn select_of(select: Value<'_>, at: &str, env: &Env, columns: &mut Columns) -> Result<Select, ViewError> {
    known(select, at, SELECT)?;
    let each = match (select.get("forEach"), select.get("forEachOrNull")) {
        (None, None) => None,
        (Some(_), Some(_)) => return error(at, "both forEach and forEachOrNull"),
        (each, _) => {
            let name = if each.is_some() { "forEach" } else { "forEachOrNull" };
            Some(Each { path: expression(select, at, name, env)?, or_null: each.is_none() })
        }
    };
    let inner = match &each {
        Some(each) => &env.clone().within(&each.path),
        None => env,
    };
    let mut own = Vec::new();
    for (column, at) in list(select, at, "column")? {
        let path = expression(column, &at, "path", inner)?;
        own.push((columns.add(column_of(column, &at)?, &at)?, path));
    }
    let mut selects = Vec::new();
    for (nested, at) in list(select, at, "select")? {
        selects.push(select_of(nested, &at, inner, columns)?);
    }
    let union = union_of(select, at, inner, columns)?;
    if own.is_empty() && selects.is_empty() && union.is_empty() {
        return error(at, "a select without columns");
    }
    Ok(Select { each, columns: own, selects, union })
}

/// The branches of a union: they fill the same columns, which the first of them declares.
fn union_of(select: Value<'_>, at: &str, env: &Env, columns: &mut Columns) -> Result<Vec<Select>, ViewError> {
    let first = columns.0.len();
    let mut union = Vec::new();
    for (branch, at) in list(select, at, "unionAll")? {
        if union.is_empty() {
            union.push(select_of(branch, &at, env, columns)?);
            continue;
        }
        let mut own = Columns(columns.0[..first].to_vec());
        union.push(select_of(branch, &at, env, &mut own)?);
        let (declared, found) = (&columns.0[first..], &own.0[first..]);
        let same =
            |(a, b): (&Column, &Column)| a.name == b.name && a.kind == b.kind && a.collection == b.collection;
        if declared.len() != found.len() || !declared.iter().zip(found).all(same) {
            return error(&at, "not the columns of the union's first branch, in the same order");
        }
    }
    Ok(union)
}

fn column_of(column: Value<'_>, at: &str) -> Result<Column, ViewError> {
    known(column, at, COLUMN)?;
    let name = required(column, at, "name")?;
    if !is_name(name) {
        return error(&join(at, "name"), "a column's name is letters, digits and _, beginning with a letter");
    }
    let kind = match optional(column, at, "type")? {
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
    let description = optional(column, at, "description")?.map(Box::from);
    Ok(Column { name: name.into(), kind, collection, description })
}

/// Name and value of a constant.
fn constant_of<'v>(constant: Value<'v>, at: &str) -> Result<(&'v str, Item<'static>), ViewError> {
    let name = required(constant, at, "name")?;
    let mut values = constant.entries().filter(|(key, _)| key.starts_with("value"));
    let (Some((key, value)), None) = (values.next(), values.next()) else {
        return error(at, "a constant has exactly one value");
    };
    let text = || value.as_str().map(|text| Cow::<str>::Owned(text.to_owned()));
    let item = match key {
        "valueBoolean" => value.as_bool().map(Item::Boolean),
        "valueInteger" | "valuePositiveInt" | "valueUnsignedInt" | "valueInteger64" => {
            value.as_i64().map(Item::Integer)
        }
        "valueDecimal" => Item::of(value).and_then(|item| item.as_decimal()).map(Item::Decimal),
        "valueDate" => text().and_then(|text| Temporal::date(&text)).map(Item::Date),
        "valueDateTime" | "valueInstant" => {
            text().and_then(|text| Temporal::date_time(&text)).map(Item::DateTime)
        }
        "valueTime" => text().and_then(|text| Temporal::time(&text)).map(Item::Time),
        "valueString" | "valueCode" | "valueId" | "valueUri" | "valueUrl" | "valueCanonical" | "valueOid"
        | "valueUuid" | "valueBase64Binary" => text().map(Item::String),
        _ => return error(&join(at, key), "a constant cannot be of this type"),
    };
    match item {
        Some(item) => Ok((name, item)),
        None => error(&join(at, key), "not a value of its type"),
    }
}

fn expression(object: Value<'_>, at: &str, name: &str, env: &Env) -> Result<Expr, ViewError> {
    let source = required(object, at, name)?;
    Expr::compile(source, env).or_else(|cause| error(&join(at, name), cause.to_string()))
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The elements of an array member, each with its path; nothing where there is no such member.
fn list<'v>(object: Value<'v>, at: &str, name: &str) -> Result<Vec<(Value<'v>, String)>, ViewError> {
    let path = join(at, name);
    let Some(array) = object.get(name) else { return Ok(Vec::new()) };
    if array.kind() != Kind::Array {
        return error(&path, "an array expected");
    }
    array
        .elements()
        .enumerate()
        .map(|(i, element)| {
            let at = format!("{path}[{i}]");
            if element.kind() == Kind::Object { Ok((element, at)) } else { error(&at, "an object expected") }
        })
        .collect()
}

fn optional<'v>(object: Value<'v>, at: &str, name: &str) -> Result<Option<&'v str>, ViewError> {
    match object.get(name) {
        None => Ok(None),
        Some(value) => match value.as_str() {
            Some(text) => Ok(Some(text)),
            None => error(&join(at, name), "a string expected"),
        },
    }
}

fn required<'v>(object: Value<'v>, at: &str, name: &str) -> Result<&'v str, ViewError> {
    match optional(object, at, name)? {
        Some(text) => Ok(text),
        None => error(&join(at, name), "is missing"),
    }
}

fn known(object: Value<'_>, at: &str, names: &[&str]) -> Result<(), ViewError> {
    match object.entries().find(|(key, _)| !names.contains(key)) {
        Some((key, _)) => error(&join(at, key), "unknown element"),
        None => Ok(()),
    }
}

fn join(at: &str, name: &str) -> String {
    if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") }
}

fn error<T>(path: &str, message: impl Into<String>) -> Result<T, ViewError> {
    Err(ViewError { path: path.to_owned(), message: message.into() })
}
