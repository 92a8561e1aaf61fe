"""Columns evaluated by the FHIRPath engine fhirpathpy, which is no view runner: this driver knows `where`, columns,
and `forEach` without anything in it, no more. JSON lines in, rows as JSON texts out."""

import json

import fhirpathpy
import turns
from fhirpathpy.models import models


def compiled(path):
    return fhirpathpy.compile(path, model=models["r4"])


def prepare(case):
    view = case["view"]
    wanted = [compiled(where["path"]) for where in view.get("where", [])]
    selects = [
        (
            compiled(select["forEach"]) if "forEach" in select else None,
            [(column["name"], compiled(column["path"])) for column in select["column"]],
        )
        for select in view["select"]
    ]

    def cells(columns, item):
        row = {}
        for name, path in columns:
            values = path(item)
            if len(values) > 1:
                raise ValueError("more than one value")
            row[name] = values[0] if values else None
        return row

    def rows_of(resource):
        if any(where(resource) != [True] for where in wanted):
            return []
        rows = [{}]
        for each, columns in selects:
            items = [resource] if each is None else each(resource)
            made = [cells(columns, item) for item in items]
            rows = [row | more for row in rows for more in made]
        return rows

    def one_pass():
        resources = (json.loads(line) for line in case["resources"])
        return [turns.encoded(row) for resource in resources for row in rows_of(resource)]

    return one_pass


turns.take(prepare)
