"""The `fhir.resources` models as a filter (6.4.0: FHIR 4.0.1; 8.3.0: FHIR 5.0.0): one resource as JSON per line on standard
input, one line `<line number>\t<message>` per invalid resource on standard output, then `done <count>`."""
import json
import sys

try:
    from fhir.resources import construct_fhir_element as construct
except ImportError:  # since 8.0
    from fhir.resources import get_fhir_model_class

    def construct(name, resource):
        get_fhir_model_class(name).model_validate(resource)


count = 0
for count, line in enumerate(sys.stdin, 1):
    resource = json.loads(line)
    try:
        construct(resource["resourceType"], resource)
    except Exception as error:  # whatever the models raise is a finding
        print(f"{count}\t{' '.join(str(error).split())}")
print(f"done {count}")
