"""The view runner of the package sqlonfhir: JSON lines in, rows as JSON texts out."""

import copy
import json

import sqlonfhir
import turns


def prepare(case):
    def one_pass():
        resources = [json.loads(line) for line in case["resources"]]
        # It changes the definition it is given.
        rows = sqlonfhir.evaluate(resources, copy.deepcopy(case["view"]))
        return [turns.encoded(row) for row in rows]

    return one_pass


turns.take(prepare)
