use fhirehose_stream::Fault;
use serde_json::{Value as Json, json};
use ureq::http::Method;

use crate::client::{Answer, Client, error_type};
use crate::shapes::{Index, Shapes};

/// Makes what is missing: templates, indices, new fields, the alias. Doing it again changes nothing. Tells what
/// it made.
pub fn ensure(client: &Client, shapes: &Shapes) -> Result<Vec<String>, Fault> {
    let mut made = Vec::new();
    for (name, body) in &shapes.components {
        put(client, &format!("/_component_template/{name}"), body)?;
    }
    for index in &shapes.indices {
        put(client, &format!("/_index_template/{}", index.template), &index.body)?;
        let mut found = client.json(Method::GET, &format!("/{}", index.name), None)?;
        if found.status == 404 {
            put(client, &format!("/{}", index.name), &json!({}))?;
            made.push(format!("created search index {}", index.name));
            found = client.json(Method::GET, &format!("/{}", index.name), None)?;
        }
        let found = found.body.get(&index.name).cloned().unwrap_or_default();
        same_version(index, &found)?;
        let missing = missing_fields(index, &found);
        if !missing.is_empty() {
            let properties = index.body["template"]["mappings"]["properties"].clone();
            put(client, &format!("/{}/_mapping", index.name), &json!({ "properties": properties }))?;
            made.push(format!("added {} to search index {}", missing.join(", "), index.name));
        }
        if alias_filter(&found, shapes.alias()).is_none() {
            put(client, &format!("/{}/_alias/{}", index.name, shapes.alias()), &shapes.alias.1)?;
            made.push(format!("added search index {} to alias {}", index.name, shapes.alias()));
        }
    }
    Ok(made)
}

/// Refuses where [`ensure`] has something to do.
pub fn check(client: &Client, shapes: &Shapes) -> Result<(), Fault> {
    for index in &shapes.indices {
        let mut found = client.json(Method::GET, &format!("/{}", index.name), None)?;
        if found.status == 404 {
            recovered(client)?;
            found = client.json(Method::GET, &format!("/{}", index.name), None)?;
        }
        let lacks = |what: String| Err(Fault::fatal(format!("{what}: run `fhirehose migrate apply`")));
        if found.status == 404 {
            return lacks(format!("the search index {} is missing", index.name));
        }
        let found = found.body.get(&index.name).cloned().unwrap_or_default();
        same_version(index, &found)?;
        let missing = missing_fields(index, &found);
        if !missing.is_empty() {
            return lacks(format!("the search index {} lacks {}", index.name, missing.join(", ")));
        }
        if alias_filter(&found, shapes.alias()).is_none() {
            return lacks(format!("the search index {} is not in the alias {}", index.name, shapes.alias()));
        }
    }
    Ok(())
}

/// A server that has just started answers that there is no such index until it has read its own state.
fn recovered(client: &Client) -> Result<(), Fault> {
    let state = client.json(Method::GET, "/_cluster/state/blocks", None)?;
    match state.body.pointer("/blocks/global").and_then(Json::as_object) {
        Some(blocks) if !blocks.is_empty() => {
            Err(Fault::transient("the search server has not recovered its state yet"))
        }
        _ => Ok(()),
    }
}

fn put(client: &Client, path: &str, body: &Json) -> Result<Answer, Fault> {
    let answer = client.json(Method::PUT, path, Some(body))?;
    match answer.status {
        200 | 201 => Ok(answer),
        // Another instance made it between our look and our step.
        400 if error_type(&answer.body) == "resource_already_exists_exception" => Ok(answer),
        status => Err(Fault::fatal(format!("search refuses {path}: {status} {}", error_type(&answer.body)))),
    }
}

fn same_version(index: &Index, found: &Json) -> Result<(), Fault> {
    let version = found.pointer("/mappings/_meta/version").and_then(Json::as_i64);
    if version == Some(index.version) {
        return Ok(());
    }
    Err(Fault::fatal(format!(
        "the search index {} was made by another version of its template ({}, declared {}): raise the number in \
         `_meta.index` of schemas/search/{}.json, run `fhirehose migrate apply`, and fill it with `fhirehose run \
         sink-search --start-from earliest` under a new group",
        index.name,
        version.map_or("none".into(), |version| version.to_string()),
        index.version,
        index.template
    )))
}

fn missing_fields<'i>(index: &'i Index, found: &Json) -> Vec<&'i str> {
    let properties = found.pointer("/mappings/properties");
    let has = |column: &str| properties.is_some_and(|properties| properties.get(column).is_some());
    index.columns.iter().map(String::as_str).filter(|column| !has(column)).collect()
}

fn alias_filter<'j>(found: &'j Json, alias: &str) -> Option<&'j Json> {
    found.get("aliases")?.get(alias)?.get("filter")
}
