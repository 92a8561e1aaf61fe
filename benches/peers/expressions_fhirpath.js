// Expressions evaluated by fhirpath.js over resources read before.
'use strict';
const fhirpath = require('fhirpath');
const r4 = require('fhirpath/fhir-context/r4');
const turns = require('./turns.js');

turns.take(({ expression, resources }) => {
  const compiled = fhirpath.compile(expression, r4);
  const read = resources.map((line) => JSON.parse(line));
  return () => read.map((resource) => compiled(resource));
});
