"""The `fhir.resources` models (FHIR 4.0.1) as a filter: one resource as JSON per line on standard input,
one line `<line number>\t<message>` per invalid resource on standard output, then `done <count>`."""
import json
import sys

from fhir.resources import construct_fhir_element

count = 0
for count, line in enumerate(sys.stdin, 1):
    resource = json.loads(line)
    try:
        construct_fhir_element(resource["resourceType"], resource)
    except Exception as error:  # whatever the models raise is a finding
        print(f"{count}\t{' '.join(str(error).split())}")
print(f"done {count}")
