//! One table in the place of another, with all that rests on the name.

use postgres::Transaction;

use crate::declaration::{Declared, Kind};
use crate::rebuild::RebuildError;
use crate::scd2;
use crate::spec::{self, TableSpec};

/// Brings the filled table to where the sink would have it: members that facts refer to and no record made, and
/// keys of the versions that hold now.
pub(crate) fn complete(
    transaction: &mut Transaction<'_>,
    declared: &Declared,
    all: &[&Declared],
    spec: &TableSpec,
    shadow: &str,
) -> Result<(), RebuildError> {
    let declaration = &declared.declaration;
    if declaration.kind.is_dimension() {
        return keep_members(transaction, spec, &declaration.key, shadow);
    }
    for (column, lookup) in &declaration.lookups {
        let target = all.iter().find(|other| other.declaration.table == lookup.table);
        let Some(target) = target.filter(|target| target.declaration.kind == Kind::Scd2) else { continue };
        let time = declaration.event_time.as_deref().unwrap_or("source_ts");
        let sql = scd2::point_all(
            (shadow, &declaration.key),
            (column, &lookup.id[0]),
            &format!("coalesce(f.{time}, f.source_ts)"),
            &target.declaration,
        );
        transaction.batch_execute(&sql)?;
    }
    Ok(())
}

/// Copies members that no record of the topic made: inferred ones, and those whose delete Kafka holds no more.
fn keep_members(
    transaction: &mut Transaction<'_>,
    spec: &TableSpec,
    key: &str,
    shadow: &str,
) -> Result<(), RebuildError> {
    let rows = transaction.query(
        "SELECT n.attname::text FROM pg_attribute AS n JOIN pg_attribute AS o \
         ON o.attname = n.attname AND o.atttypid = n.atttypid AND o.attnum > 0 AND o.attgenerated = '' \
         WHERE n.attrelid = $1::text::regclass AND o.attrelid = $2::text::regclass AND n.attnum > 0 \
         AND n.attgenerated = ''",
        &[&shadow, &spec.name],
    )?;
    let common: Vec<String> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    let needed = spec.columns.iter().filter(|column| column.not_null && column.default.is_none());
    if let Some(column) = needed.into_iter().find(|column| !common.contains(&column.name)) {
        return Err(RebuildError::Key(format!(
            "{}.{} is new or of another type: members that Kafka holds no record of, to which facts refer, could not \
             be kept",
            spec.name, column.name
        )));
    }
    let columns = common.join(", ");
    transaction.batch_execute(&format!(
        "INSERT INTO {shadow} ({columns}) SELECT {columns} FROM {} AS o \
         WHERE NOT EXISTS (SELECT FROM {shadow} AS n WHERE n.{key} = o.{key})",
        spec.name
    ))?;
    Ok(())
}

/// Drops the old table and gives its name, its privileges and the views on it to the new one.
pub(crate) fn replace(
    transaction: &mut Transaction<'_>,
    spec: &TableSpec,
    shadow: &str,
) -> Result<(), RebuildError> {
    let (schema, table) = spec.name.split_once('.').unwrap_or(("public", &spec.name));
    transaction.batch_execute(&format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", spec.name))?;
    let views = transaction.query(VIEWS, &[&spec.name])?;
    let mut again = Vec::new();
    for row in &views {
        let (view, create): (String, String) = (row.try_get(0)?, row.try_get(1)?);
        again.push(create);
        again.extend(rights_and_comments(transaction, &view)?);
    }
    for row in views.iter().rev() {
        transaction.batch_execute(&format!("DROP VIEW {}", row.try_get::<_, String>(0)?))?;
    }
    let rights = rights_and_comments(transaction, &spec.name)?;
    transaction.batch_execute(&format!(
        "DROP TABLE {}; ALTER TABLE {shadow} SET SCHEMA {schema}; ANALYZE {schema}.{table}",
        spec.name
    ))?;
    let comments_of_spec = |statement: &String| statement.starts_with("COMMENT");
    for statement in rights.iter().filter(|statement| !comments_of_spec(statement)).chain(&again) {
        transaction.batch_execute(statement)?;
    }
    let left = "SELECT EXISTS (SELECT FROM pg_class WHERE relnamespace = $1::text::regnamespace)";
    let others = format!("rebuild_{schema}");
    if !transaction.query_one(left, &[&others])?.try_get::<_, bool>(0)? {
        transaction.batch_execute(&format!("DROP SCHEMA {others}"))?;
    }
    Ok(())
}

/// Views on a table, and on these, those that others rest on first; and the statement that makes each again.
const VIEWS: &str = "
    WITH RECURSIVE rests AS (
        SELECT r.ev_class AS oid, 1 AS depth FROM pg_depend AS d JOIN pg_rewrite AS r ON r.oid = d.objid
        WHERE d.classid = 'pg_rewrite'::regclass AND d.refobjid = $1::text::regclass AND r.ev_class <> d.refobjid
        UNION
        SELECT r.ev_class, rests.depth + 1 FROM rests JOIN pg_depend AS d ON d.refobjid = rests.oid
        JOIN pg_rewrite AS r ON r.oid = d.objid
        WHERE d.classid = 'pg_rewrite'::regclass AND r.ev_class <> d.refobjid
    ), deepest AS (SELECT oid, max(depth) AS depth FROM rests GROUP BY oid)
    SELECT c.oid::regclass::text, format('CREATE VIEW %s%s AS %s', c.oid::regclass,
        ' WITH (' || array_to_string(c.reloptions, ', ') || ')', pg_get_viewdef(c.oid))
    FROM deepest JOIN pg_class AS c USING (oid) ORDER BY depth, c.oid";

/// Owner, privileges and comments of a table or view, as the statements that give them.
fn rights_and_comments(
    transaction: &mut Transaction<'_>,
    relation: &str,
) -> Result<Vec<String>, postgres::Error> {
    let rows = transaction.query(
        "SELECT format('ALTER TABLE %s OWNER TO %s', c.oid::regclass, c.relowner::regrole)
         FROM pg_class AS c WHERE c.oid = $1::text::regclass
         UNION ALL
         SELECT format('GRANT %s ON %s TO %s%s', a.privilege_type, c.oid::regclass,
             CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END,
             CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
         FROM pg_class AS c, aclexplode(c.relacl) AS a WHERE c.oid = $1::text::regclass AND a.grantee <> c.relowner
         UNION ALL
         SELECT CASE d.objsubid WHEN 0 THEN format('COMMENT ON %s %s IS %L',
             CASE c.relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, c.oid::regclass, d.description)
             ELSE format('COMMENT ON COLUMN %s.%I IS %L', c.oid::regclass, a.attname, d.description) END
         FROM pg_description AS d JOIN pg_class AS c ON c.oid = d.objoid
         LEFT JOIN pg_attribute AS a ON a.attrelid = d.objoid AND a.attnum = d.objsubid
         WHERE d.objoid = $1::text::regclass AND d.classoid = 'pg_class'::regclass",
        &[&relation],
    )?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

/// Computes refreshed columns for all members, as the sink does for those of a batch.
pub(crate) fn refresh(
    transaction: &mut Transaction<'_>,
    declared: &Declared,
    all: &[&Declared],
) -> Result<(), RebuildError> {
    let declaration = &declared.declaration;
    let Some(refresh) = &declaration.refresh else { return Ok(()) };
    let Some(lookup) = declaration.lookups.get(&refresh.lookup) else { return Ok(()) };
    let id = &lookup.id[0];
    let kind =
        spec::table(declared, all).column(id).map(|column| column.sql_type.clone()).unwrap_or_default();
    transaction.batch_execute(&format!(
        "SELECT {function}(coalesce(array_agg(tenant_id), '{{}}'), coalesce(array_agg(id), '{{}}')) \
         FROM (SELECT DISTINCT tenant_id, {id}::{kind} AS id FROM {table} WHERE {id} IS NOT NULL) AS m",
        function = refresh.function,
        table = declaration.table,
    ))?;
    Ok(())
}
