"""Turns of a contestant: what it makes of each case first, then a turn for every line it reads.

Standard input: a line with the list of cases; then `<number of a case> <CPU seconds>` per turn.
Standard output: a line with the list of {"made": ...} or {"error": ...}; then {"count": ..., "cpu": ...} per turn,
with the CPU time of the whole process and whole passes over a case only.
"""

import json
import sys
import time


def _plain(value):
    """Decimals as numbers, dates and times as the text they were."""
    from decimal import Decimal

    if isinstance(value, Decimal):
        return float(value)
    return value.asStr if hasattr(value, "asStr") else str(value)


def encoded(value):
    return json.dumps(value, default=_plain)


def take(prepare):
    """`prepare(case)` gives a function that makes one pass and returns the list of what it made."""
    cases = []
    answers = []
    for case in json.loads(sys.stdin.readline()):
        try:
            one_pass = prepare(case)
            made = one_pass()
            # The first pass also warms up; what it made must be JSON.
            encoded(made)
            cases.append(one_pass)
            answers.append({"made": made})
        except Exception as error:
            cases.append(None)
            answers.append({"error": type(error).__name__})
    print(encoded(answers), flush=True)
    for line in sys.stdin:
        number, seconds = line.split()
        one_pass, seconds = cases[int(number)], float(seconds)
        begun = time.process_time()
        count, used, passes = 0, 0.0, 1
        while used < seconds:
            for _ in range(passes):
                count += len(one_pass())
            used = time.process_time() - begun
            # Asking for the time must not take much of it.
            if used < seconds / 10:
                passes *= 2
        print(json.dumps({"count": count, "cpu": used}), flush=True)
