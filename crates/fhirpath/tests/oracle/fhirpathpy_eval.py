"""Evaluates FHIRPath expressions with fhirpathpy.

Standard input: a line with a JSON array of resources, then a line per expression: {"expr": …, "on": [index, …]}.
Standard output: a line per expression, an array with {"items": […]} or {"error": …} for each of its resources.
"""

import json
import signal
import sys
from decimal import Decimal

import fhirpathpy
from fhirpathpy.engine.nodes import FP_Quantity, FP_Type
from fhirpathpy.models import models

SECONDS = 20


class TooLong(BaseException):
    pass


def too_long(*_):
    raise TooLong()


def plain(item):
    if isinstance(item, Decimal):
        return float(item)
    if isinstance(item, FP_Quantity):
        return {"value": float(item.value), "unit": str(item.unit).strip("'")}
    if isinstance(item, FP_Type):
        return str(item)
    if isinstance(item, (list, tuple)):
        return [plain(inner) for inner in item]
    if isinstance(item, dict):
        return {name: plain(inner) for name, inner in item.items()}
    if isinstance(item, (str, int, float, bool)) or item is None:
        return item
    return str(item)


def outcome(compiled, resource):
    try:
        return {"items": plain(compiled(resource))}
    except TooLong:
        return {"error": "too long"}
    except Exception as error:  # every failure is an outcome
        return {"error": type(error).__name__}


def main():
    signal.signal(signal.SIGALRM, too_long)
    resources = json.loads(sys.stdin.readline(), parse_float=Decimal)
    for line in sys.stdin:
        case = json.loads(line)
        signal.alarm(SECONDS)
        try:
            compiled = fhirpathpy.compile(case["expr"], models["r4"])
            outcomes = [outcome(compiled, resources[index]) for index in case["on"]]
        except TooLong:
            outcomes = [{"error": "too long"}] * len(case["on"])
        except Exception as error:  # also of the parser
            outcomes = [{"error": "compile " + type(error).__name__}] * len(case["on"])
        signal.alarm(0)
        print(json.dumps(outcomes), flush=True)


main()
