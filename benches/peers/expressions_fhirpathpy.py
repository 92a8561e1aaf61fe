"""Expressions evaluated by fhirpathpy over resources read before."""

import json

import fhirpathpy
import turns
from fhirpathpy.models import models


def prepare(case):
    expression = fhirpathpy.compile(case["expression"], model=models["r4"])
    resources = [json.loads(line) for line in case["resources"]]
    return lambda: [expression(resource) for resource in resources]


turns.take(prepare)
