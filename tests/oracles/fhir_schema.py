"""The JSON Schema of FHIR R4 as a filter: one resource as JSON per line on standard input, one line
`<line number>\t<message>` per invalid resource on standard output, then `done <count>`. Argument: the schema's file."""
import json
import sys

import jsonschema_rs

with open(sys.argv[1]) as file:
    schema = json.load(file)
# The package adds resources of its own to R4's, which name definitions that it does not have.
for name in ("Resource", "integer64"):
    schema["definitions"].setdefault(name, {})
validators, count = {}, 0
for count, line in enumerate(sys.stdin, 1):
    resource = json.loads(line)
    name = resource.get("resourceType")
    if name not in schema["definitions"]:
        print(f"{count}\tno resource type of the schema")
        continue
    # Of one type: the schema's own oneOf over all types would only say that none fits.
    if name not in validators:
        of_type = {"$ref": f"#/definitions/{name}", "definitions": schema["definitions"]}
        validators[name] = jsonschema_rs.Draft6Validator(of_type, validate_formats=False)
    error = next(validators[name].iter_errors(resource), None)
    if error is not None:
        path = ".".join(map(str, error.instance_path))
        print(f"{count}\t{path}: {' '.join(error.message.split())[:300]}")
print(f"done {count}")
