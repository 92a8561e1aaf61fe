//! Tables as PostgreSQL's catalog has them, and what brings one to another.

use std::collections::{BTreeMap, BTreeSet};

use postgres::{Client, GenericClient};

use crate::spec::{TableSpec, comment};

/// What there is of a table. Expressions are as PostgreSQL writes them, so two tables can be compared.
struct Found {
    comment: Option<String>,
    columns: BTreeMap<String, FoundColumn>,
    constraints: BTreeSet<String>,
    /// Indexes that no constraint made, by name.
    indexes: BTreeMap<String, String>,
}

struct FoundColumn {
    sql_type: String,
    not_null: bool,
    default: Option<String>,
    computed: bool,
    comment: Option<String>,
}

/// What brings a table to its declaration.
#[derive(Default)]
pub(crate) struct Difference {
    pub sql: Vec<String>,
    /// What the statements leave as it is, for whoever reads the plan.
    pub notes: Vec<String>,
    /// What no statement does without losing something.
    pub refused: Vec<String>,
}

/// Types whose values all fit another one, by the names of PostgreSQL's catalog.
const WIDER: [(&str, &[&str]); 6] = [
    ("smallint", &["integer", "bigint", "numeric", "double precision"]),
    ("integer", &["bigint", "numeric", "double precision"]),
    ("bigint", &["numeric"]),
    ("numeric(", &["numeric"]),
    ("character varying", &["text"]),
    ("uuid", &["text"]),
];

/// Compares a table with what it must be. The latter is made as a temporary table, which is rolled back:
/// PostgreSQL alone knows how it writes an expression.
pub(crate) fn difference(client: &mut Client, spec: &TableSpec) -> Result<Difference, postgres::Error> {
    if !exists(client, &spec.name)? {
        return Ok(Difference { sql: spec.statements(), ..Difference::default() });
    }
    let mut transaction = client.transaction()?;
    let scratch = format!("pg_temp.{}", spec.bare());
    transaction.batch_execute(&spec.create(true, spec.bare()))?;
    for index in &spec.indexes {
        transaction.batch_execute(&index.create(&index.name, &scratch))?;
    }
    let wanted = Found::read(&mut transaction, &scratch)?;
    let found = Found::read(&mut transaction, &spec.name)?;
    transaction.rollback()?;
    let mut difference = Difference::default();
    columns(spec, &wanted, &found, &mut difference);
    for constraint in wanted.constraints.symmetric_difference(&found.constraints) {
        let there = if found.constraints.contains(constraint) { "has" } else { "lacks" };
        difference.refused.push(format!("{} {there} {constraint}", spec.name));
    }
    let schema = spec.name.split_once('.').map_or("public", |(schema, _)| schema);
    for index in &spec.indexes {
        let there = found.indexes.get(&index.name);
        if there == wanted.indexes.get(&index.name) {
            continue;
        }
        if there.is_some() {
            difference.sql.push(format!("DROP INDEX {schema}.{}", index.name));
        }
        difference.sql.push(index.create(&index.name, &spec.name));
    }
    if let Some(text) = spec.comment.as_ref().filter(|text| found.comment.as_ref() != Some(*text)) {
        difference.sql.push(comment("TABLE", &spec.name, text));
    }
    for column in &spec.columns {
        let there = found.columns.get(&column.name).and_then(|found| found.comment.as_ref());
        if there != column.comment.as_ref() {
            difference.sql.extend(column.commented(&spec.name));
        }
    }
    Ok(difference)
}

pub(crate) fn exists(client: &mut impl GenericClient, table: &str) -> Result<bool, postgres::Error> {
    client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&table])?.try_get(0)
}

fn columns(spec: &TableSpec, wanted: &Found, found: &Found, difference: &mut Difference) {
    let table = &spec.name;
    for column in &spec.columns {
        let name = &column.name;
        let Some(want) = wanted.columns.get(name) else { continue };
        let Some(is) = found.columns.get(name) else {
            if column.not_null && column.default.is_none() {
                difference.refused.push(format!("{table}.{name} is new and may not be null"));
                continue;
            }
            difference.sql.push(format!("ALTER TABLE {table} ADD COLUMN {}", column.definition()));
            if column.computed.is_none() {
                difference.notes.push(format!("{table}: rows there are have no {name} until they change"));
            }
            continue;
        };
        if want.sql_type != is.sql_type {
            match widens(&is.sql_type, &want.sql_type) && !is.computed {
                true => {
                    difference.sql.push(format!("ALTER TABLE {table} ALTER {name} TYPE {}", column.sql_type));
                }
                false => {
                    let (is, want) = (&is.sql_type, &want.sql_type);
                    difference.refused.push(format!("{table}.{name} is {is}, and declared as {want}"));
                }
            }
        }
        if want.computed != is.computed || (want.computed && want.default != is.default) {
            difference.refused.push(format!("{table}.{name} is computed in another way"));
        } else if want.default != is.default {
            let set =
                column.default.as_ref().map_or("DROP DEFAULT".into(), |sql| format!("SET DEFAULT {sql}"));
            difference.sql.push(format!("ALTER TABLE {table} ALTER {name} {set}"));
        }
        match (want.not_null, is.not_null) {
            (false, true) => difference.sql.push(format!("ALTER TABLE {table} ALTER {name} DROP NOT NULL")),
            (true, false) => {
                difference.refused.push(format!("{table}.{name} may be null, and is declared not to"))
            }
            _ => {}
        }
    }
    for name in found.columns.keys().filter(|name| !wanted.columns.contains_key(*name)) {
        difference.refused.push(format!("{table}.{name} is no longer declared"));
    }
}

fn widens(from: &str, to: &str) -> bool {
    WIDER.iter().any(|(narrow, wide)| from.starts_with(narrow) && wide.contains(&to))
}

impl Found {
    fn read(client: &mut impl GenericClient, table: &str) -> Result<Found, postgres::Error> {
        let comment =
            client.query_one("SELECT obj_description($1::text::regclass, 'pg_class')", &[&table])?;
        let mut columns = BTreeMap::new();
        for row in client.query(
            "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull, \
             pg_get_expr(d.adbin, d.adrelid), a.attgenerated = 's', col_description(a.attrelid, a.attnum) \
             FROM pg_attribute AS a LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
             WHERE a.attrelid = $1::text::regclass AND a.attnum > 0 AND NOT a.attisdropped",
            &[&table],
        )? {
            let column = FoundColumn {
                sql_type: row.try_get(1)?,
                not_null: row.try_get(2)?,
                default: row.try_get(3)?,
                computed: row.try_get(4)?,
                comment: row.try_get(5)?,
            };
            columns.insert(row.try_get(0)?, column);
        }
        let constraints = client.query(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint \
             WHERE conrelid = $1::text::regclass AND contype IN ('p', 'u', 'c', 'x')",
            &[&table],
        )?;
        let indexes = client.query(
            "SELECT c.relname::text, i.indisunique::text || substring(pg_get_indexdef(i.indexrelid) FROM ' USING .*') \
             FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid WHERE i.indrelid = $1::text::regclass \
             AND NOT EXISTS (SELECT FROM pg_constraint AS k WHERE k.conindid = i.indexrelid)",
            &[&table],
        )?;
        Ok(Found {
            comment: comment.try_get(0)?,
            columns,
            constraints: constraints.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?,
            indexes: indexes
                .iter()
                .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
                .collect::<Result<_, postgres::Error>>()?,
        })
    }
}
