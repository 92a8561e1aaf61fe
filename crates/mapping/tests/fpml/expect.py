"""Writes expected.json: what the reference implementation (PyPI fpml 1.0.0) makes of cases.yaml.

    pip install fpml==1.0.0 pyyaml && python expect.py
"""
import json
import pathlib

import fpml
import yaml

here = pathlib.Path(__file__).parent
cases = yaml.safe_load((here / "cases.yaml").read_text())
results = {case["name"]: fpml.resolve_template(case["resource"], case["template"]) for case in cases}
(here / "expected.json").write_text(json.dumps(results, indent=1, default=float) + "\n")
