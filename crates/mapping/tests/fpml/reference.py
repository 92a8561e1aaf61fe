"""Runs templates with the reference implementation of FPML.

Standard input: a line per case, {"template": …, "document": …, "variables": {…}}.
Standard output: a line per case, {"value": …} or {"error": …}.
"""

import functools
import json
import sys

import fhirpathpy
import fpml


@functools.lru_cache(maxsize=None)
def compiled(expression):
    return fhirpathpy.compile(expression)


def evaluate(resource, expression, context):
    # As the package's own evaluator, which compiles on every evaluation.
    return compiled(expression)(resource, context)


def plain(value):
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    return float(value)


def main():
    for line in sys.stdin:
        case = json.loads(line)
        try:
            value = fpml.resolve_template(
                case["document"], case["template"], case["variables"], evaluate=evaluate
            )
            result = {"value": plain(value)}
        except Exception as error:  # every failure is a result
            result = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(result), flush=True)


main()
