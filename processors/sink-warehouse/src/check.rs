//! What must hold between a declaration, its view and the other declarations.

use fhirehose_views::ColumnType;

use crate::declaration::{Declaration, Declared, Deletes, Kind};
use crate::spec;

/// Everything that is wrong with a declaration, in words.
pub(crate) fn check(table: &Declared, all: &[&Declared]) -> Vec<String> {
    let declaration = &table.declaration;
    let mut wrong = Vec::new();
    names(table, &mut wrong);
    kind(declaration, &mut wrong);
    id(table, &mut wrong);
    references(table, all, &mut wrong);
    // What the columns are can be told only where the rest is sound.
    if wrong.is_empty() {
        columns(table, all, &mut wrong);
    }
    wrong
}

fn is_view_column(table: &Declared, name: &str) -> bool {
    table.view.columns().iter().any(|column| &*column.name == name)
}

fn names(table: &Declared, wrong: &mut Vec<String>) {
    let Declared { declaration, view, .. } = table;
    let mut names = vec![&declaration.key];
    names.extend(&declaration.id);
    names.extend(declaration.lookups.keys().chain(declaration.columns.keys()));
    names.extend(declaration.indexes.keys().chain(declaration.indexes.values().flatten()));
    names.extend(declaration.tracked.iter().chain(&declaration.event_time));
    names.extend(declaration.refresh.iter().flat_map(|refresh| &refresh.columns));
    let columns = view.columns().iter().map(|column| &*column.name);
    for name in names.into_iter().map(String::as_str).chain(columns).filter(|name| !is_identifier(name)) {
        wrong.push(format!("`{name}` is not a column name: lower-case letters, digits and _"));
    }
    let tables = [Some(&declaration.table), declaration.changes.as_ref()];
    let functions = declaration.refresh.iter().map(|refresh| &refresh.function);
    for name in tables.into_iter().flatten().chain(functions) {
        if !name.split_once('.').is_some_and(|(schema, table)| is_identifier(schema) && is_identifier(table))
        {
            wrong.push(format!("`{name}` must be schema.name, lower-case"));
        }
    }
}

fn kind(declaration: &Declaration, wrong: &mut Vec<String>) {
    let scd2 = declaration.kind == Kind::Scd2;
    if scd2 != declaration.changes.is_some() || scd2 == declaration.tracked.is_empty() {
        wrong.push("`changes` and `tracked` are for kind scd2, which needs both".into());
    }
    if declaration.kind.is_dimension()
        && (declaration.event_time.is_some()
            || !declaration.lookups.is_empty()
            || declaration.refresh.is_some())
    {
        wrong.push("`event_time`, `lookups` and `refresh` are for the kinds fact and view".into());
    }
    // Facts point at rows of dimensions: these stay.
    let allowed: &[Deletes] = match declaration.kind {
        Kind::Scd2 => &[Deletes::Close],
        Kind::Scd1 => &[Deletes::Mark, Deletes::Keep],
        Kind::Code => &[Deletes::Keep],
        Kind::Fact | Kind::View => &[Deletes::Remove, Deletes::Mark, Deletes::Keep],
    };
    if !allowed.contains(&declaration.deletes()) {
        let allowed: Vec<String> = allowed.iter().map(|one| format!("{one:?}").to_lowercase()).collect();
        wrong.push(format!("deletes: this kind can {}", allowed.join(", ")));
    }
}

fn id(table: &Declared, wrong: &mut Vec<String>) {
    let declaration = &table.declaration;
    match declaration.kind {
        Kind::Code if declaration.id.is_empty() => wrong.push("id: name the columns of the code".into()),
        Kind::Code => {}
        _ if declaration.id.len() != 1 => {
            wrong.push("id: name the one column the resource's id goes to".into());
        }
        _ if is_view_column(table, &declaration.id[0]) => {
            wrong.push(format!("the view must not have {}: the resource's id goes there", declaration.id[0]));
        }
        _ => {}
    }
}

fn references(table: &Declared, all: &[&Declared], wrong: &mut Vec<String>) {
    let declaration = &table.declaration;
    let code_id = declaration.id.iter().filter(|_| declaration.kind == Kind::Code);
    let lookup_ids = declaration.lookups.values().flat_map(|lookup| &lookup.id);
    for name in declaration.tracked.iter().chain(&declaration.event_time).chain(code_id).chain(lookup_ids) {
        if !is_view_column(table, name) {
            wrong.push(format!("the view has no column {name}"));
        }
    }
    for (column, lookup) in &declaration.lookups {
        match all.iter().map(|other| &other.declaration).find(|other| other.table == lookup.table) {
            None => wrong.push(format!("lookups.{column}: no table {} is declared", lookup.table)),
            Some(other) if other.kind == Kind::View => {
                wrong.push(format!("lookups.{column}: {} has several rows of an id", other.table));
            }
            Some(other) if other.id.len() != lookup.id.len() => {
                wrong.push(format!("lookups.{column}: {} has the id ({})", other.table, other.id.join(", ")));
            }
            Some(_) => {}
        }
    }
    if let Some(refresh) = &declaration.refresh
        && !declaration.lookups.contains_key(&refresh.lookup)
    {
        wrong.push(format!("refresh: lookups has no {}", refresh.lookup));
    }
}

fn columns(table: &Declared, all: &[&Declared], wrong: &mut Vec<String>) {
    let declaration = &table.declaration;
    let engine = spec::engine_columns(table);
    for (name, column) in &declaration.columns {
        let refreshed = declaration.refresh.iter().any(|refresh| refresh.columns.contains(name));
        let of_engine = engine.iter().any(|column| column.name == *name);
        let is_id = declaration.kind != Kind::Code && declaration.id.contains(name);
        let of_view = is_view_column(table, name);
        if let Some(kind) = column.sql_type.as_deref().filter(|kind| !spec::TYPES.contains(kind)) {
            wrong.push(format!("columns.{name}: type {kind} is none of {}", spec::TYPES.join(", ")));
        }
        let typed = column.sql_type.is_some() || column.not_null;
        let told = if of_engine && typed && !is_id {
            "is the engine's: only a description can be given"
        } else if column.not_null && declaration.kind.is_dimension() {
            "may be null: a row can be inferred"
        } else if column.computed.is_some() && (of_engine || of_view || refreshed) {
            "is filled already: it cannot be computed too"
        } else if column.default.is_some() && !refreshed {
            "has a default, which is for refreshed columns"
        } else if !of_engine && !of_view && !refreshed && column.computed.is_none() {
            "is filled by nothing: neither the view nor `refresh` has it, and it has no `as`"
        } else if (refreshed || column.computed.is_some()) && column.sql_type.is_none() {
            "needs a type"
        } else {
            continue;
        };
        wrong.push(format!("columns.{name} {told}"));
    }
    for name in declaration.refresh.iter().flat_map(|refresh| &refresh.columns) {
        if !declaration.columns.contains_key(name) {
            wrong.push(format!("refresh: columns has no {name}, so its type is unknown"));
        }
    }
    for column in table.view.columns() {
        let name = &*column.name;
        if column.kind == ColumnType::Any && spec::view_type(table, all, column).is_none() {
            wrong.push(format!("the view's column {name} has no type: give it one"));
        }
        if column.kind == ColumnType::Time {
            wrong.push(format!("the view's column {name}: times of day cannot be stored, take a string"));
        }
        if engine.iter().any(|own| own.name == name) {
            wrong.push(format!("the view must not have {name}: the engine fills it"));
        }
    }
    if wrong.is_empty() {
        let spec = spec::table(table, all);
        for (index, columns) in &declaration.indexes {
            for name in columns.iter().filter(|name| spec.column(name).is_none()) {
                wrong.push(format!("indexes.{index}: the table has no column {name}"));
            }
            if columns.is_empty() {
                wrong.push(format!("indexes.{index}: name its columns"));
            }
        }
    }
}

/// Names go into SQL unquoted.
fn is_identifier(name: &str) -> bool {
    let first = name.bytes().next();
    first.is_some_and(|byte| byte.is_ascii_lowercase() || byte == b'_')
        && name.len() <= 63
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}
