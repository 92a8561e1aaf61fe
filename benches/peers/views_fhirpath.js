// Columns evaluated by the FHIRPath engine fhirpath.js, which is no view runner: this driver knows `where`, columns,
// and `forEach` without anything in it, no more. JSON lines in, rows as JSON texts out.
'use strict';
const fhirpath = require('fhirpath');
const r4 = require('fhirpath/fhir-context/r4');
const turns = require('./turns.js');

const compiled = (path) => fhirpath.compile(path, r4);

function cells(columns, item) {
  const row = {};
  for (const [name, path] of columns) {
    const values = path(item);
    if (values.length > 1) throw new RangeError('more than one value');
    row[name] = values.length > 0 ? values[0] : null;
  }
  return row;
}

turns.take(({ view, resources }) => {
  const wanted = (view.where ?? []).map((where) => compiled(where.path));
  const selects = view.select.map((select) => ({
    each: select.forEach === undefined ? (resource) => [resource] : compiled(select.forEach),
    columns: select.column.map((column) => [column.name, compiled(column.path)]),
  }));
  const rowsOf = (resource) => {
    if (!wanted.every((where) => where(resource)[0] === true)) return [];
    let rows = [{}];
    for (const { each, columns } of selects) {
      const made = each(resource).map((item) => cells(columns, item));
      rows = rows.flatMap((row) => made.map((more) => ({ ...row, ...more })));
    }
    return rows;
  };
  return () => resources.flatMap((line) => rowsOf(JSON.parse(line)).map((row) => JSON.stringify(row)));
});
