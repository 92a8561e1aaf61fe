"""Templates resolved by the reference implementation of FPML: documents read before in, JSON texts out. Expressions
are compiled once, which the package itself does on every evaluation."""

import functools

import fhirpathpy
import fpml
import turns
from fhirpathpy.models import models


@functools.lru_cache(maxsize=None)
def compiled(expression):
    return fhirpathpy.compile(expression, model=models["r4"])


def evaluate(resource, expression, context):
    return compiled(expression)(resource, context)


def prepare(case):
    template, documents = case["template"], case["documents"]

    def resolved(of):
        return fpml.resolve_template(of["document"], template, of["variables"], evaluate=evaluate)

    return lambda: [turns.encoded(resolved(of)) for of in documents]


turns.take(prepare)
