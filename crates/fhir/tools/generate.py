#!/usr/bin/env python3
"""Writes src/tables/{r4,r5}.txt from the official definitions: every resource type and what its elements are made of.

By hand, when a rule of src/tables/mod.rs needs something the tables do not tell yet; the packages come from npm:
    for p in hl7.fhir.r4.corexml@4.0.1 hl7.fhir.r4.expansions@4.0.1 hl7.fhir.r5.core@5.0.0 hl7.fhir.r5.expansions@5.0.0; do
      npm pack $p && mkdir -p defs/${p%@*} && tar xzf ${p/@/-}.tgz -C defs/${p%@*}; done
    python3 crates/fhir/tools/generate.py defs
Bindings to value sets that cannot be listed (MIME types, languages, filters over big terminologies) are printed, so
that nobody believes they are checked. The format is described at the head of src/tables/parse.rs.
"""
import json
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

DEFS = Path(sys.argv[1])
OUT = Path(__file__).parent.parent / "src" / "tables"
NS = "{http://hl7.org/fhir}"
# A warning in R4 whose expression compares a CodeableConcept with a string; no resource of ours may break what it says.
STRICT = {"con-3": "clinicalStatus.exists() or verificationStatus.coding.where(system = "
                   "'http://terminology.hl7.org/CodeSystem/condition-ver-status' and code = 'entered-in-error').exists() or "
                   "category.coding.where(system = 'http://terminology.hl7.org/CodeSystem/condition-category' "
                   "and code = 'problem-list-item').empty()"}
MAX_SET = 800  # codes; above it are whole terminologies


def each(node, name):
    """The children of that name, of a node in XML or JSON."""
    if isinstance(node, ET.Element):
        return node.findall(NS + name)
    found = node.get(name, []) if isinstance(node, dict) else []
    return found if isinstance(found, list) else [found]


def text(node, *path):
    for name in path:
        node = next(iter(each(node, name)), None)
        if node is None:
            return None
    return node.get("value") if isinstance(node, ET.Element) else str(node)


def profiles(element):
    for node in each(element, "type"):
        for profile in each(node, "profile"):
            yield profile.get("value") if isinstance(profile, ET.Element) else profile


class Package:
    def __init__(self, folder, suffix):
        self.folder, self.suffix = folder, suffix
        self.systems, self.sets = {}, {}
        for kind, into in (("CodeSystem", self.systems), ("ValueSet", self.sets)):
            for file in folder.glob(f"{kind}-*{suffix}"):
                root = self.load(file)
                into.setdefault(text(root, "url"), root)

    def load(self, file):
        return ET.parse(file).getroot() if self.suffix == ".xml" else json.loads(file.read_text())

    def structures(self):
        for file in sorted(self.folder.glob(f"StructureDefinition-*{self.suffix}")):
            root = self.load(file)
            if text(root, "kind") in ("resource", "complex-type") and text(root, "derivation") != "constraint":
                yield text(root, "name"), root

    def concepts(self, node):
        for concept in each(node, "concept"):
            yield text(concept, "code")
            yield from self.concepts(concept)

    def expand(self, url, seen=()):
        """{system: codes}, or None where they cannot be listed."""
        root = self.sets.get(url)
        compose = next(iter(each(root, "compose")), None) if root is not None and url not in seen else None
        if compose is None or each(compose, "exclude"):
            return None
        groups = {}
        for include in each(compose, "include"):
            if each(include, "filter"):
                return None
            for imported in each(include, "valueSet"):
                imported = imported.get("value") if isinstance(imported, ET.Element) else imported
                inner = self.expand(imported.split("|")[0], (*seen, url))
                if inner is None:
                    return None
                for system, codes in inner.items():
                    groups.setdefault(system, set()).update(codes)
            system = text(include, "system")
            if system is None:
                continue
            codes = [text(concept, "code") for concept in each(include, "concept")]
            if not codes:
                known = self.systems.get(system)
                if known is None or text(known, "content") != "complete":
                    return None
                codes = list(self.concepts(known))
            groups.setdefault(system, set()).update(codes)
        return groups or None


def expansion(release, url):
    """As the expansions package lists it."""
    file = DEFS / f"hl7.fhir.{release}.expansions" / "package" / f"ValueSet-{url.rsplit('/', 1)[1]}.json"
    if not file.exists():
        return None
    root, groups = json.loads(file.read_text()), {}
    for code in root.get("expansion", {}).get("contains", []):
        groups.setdefault(code["system"], set()).add(code["code"])
    return groups or None


def generate(release, package, source):
    sets, unlisted = {}, {}

    def bound(element, path):
        binding = next(iter(each(element, "binding")), None)
        if binding is None or text(binding, "strength") != "required" or text(binding, "valueSet") is None:
            return ""
        url = text(binding, "valueSet").split("|")[0]
        if url not in sets and url not in unlisted:
            groups = package.expand(url) or expansion(release, url)
            if groups and sum(map(len, groups.values())) <= MAX_SET:
                sets[url] = groups
            else:
                unlisted[url] = path
        return "=" + url.rsplit("/", 1)[1] if url in sets else ""

    def typed(path, types, leaf, is_resource):
        """The types of an element, with the targets of references."""
        named = {}
        for node in types:
            code = text(node, "code")
            if code.startswith("http://hl7.org/fhirpath/"):
                code = "id" if is_resource and path.count(".") == 1 and leaf == "id" else "uri" if leaf == "url" else "string"
            targets = named.setdefault(code, set())
            for profile in each(node, "targetProfile"):
                url = profile.get("value") if isinstance(profile, ET.Element) else profile
                targets.add(url.rsplit("/", 1)[1])
        for code, targets in named.items():
            if code in ("Element", "BackboneElement"):
                yield "."
            elif code in ("Reference", "CodeableReference") and targets and "Resource" not in targets:
                yield f"{code}({'|'.join(sorted(targets))})"
            else:
                yield code

    structures = dict(package.structures())
    elements, bases, kinds, invariants = {}, {}, {}, {}
    for name, root in structures.items():
        base = text(root, "baseDefinition")
        bases[name] = base.rsplit("/", 1)[1] if base else None
        kinds[name] = text(root, "kind") == "resource" and text(root, "abstract") != "true"
        elements[name] = {}
        snapshot = each(each(root, "snapshot")[0], "element")
        for element in snapshot:
            path = text(element, "path")
            if path == name:
                continue
            parent, leaf = path.rsplit(".", 1)
            low, high = int(text(element, "min")), text(element, "max")
            assert low in (0, 1) and high in ("1", "*"), path
            reference = text(element, "contentReference")
            types = [reference.split("#")[1]] if reference else list(
                typed(path, each(element, "type"), leaf, text(root, "kind") == "resource"))
            if types == ["."]:
                elements.setdefault(path, {})
                bases[path] = text(each(element, "type")[0], "code")
            card = {(0, "1"): "?", (1, "1"): "1", (0, "*"): "*", (1, "*"): "+"}[low, high]
            elements[parent][leaf] = (card, " ".join(types), bound(element, path))
            if any(profile.endswith("/SimpleQuantity") for profile in profiles(element)):
                simple = "ofType(Quantity).comparator.empty()" if leaf.endswith("[x]") else "comparator.empty()"
                invariants.setdefault(parent, []).append(("sqty-1", leaf.removesuffix("[x]"), simple))
        for element in each(each(root, "differential")[0], "element"):
            path = text(element, "path")
            for constraint in each(element, "constraint"):
                key, expression = text(constraint, "key"), text(constraint, "expression")
                strict = STRICT.get(key) if release == "r4" else None
                if expression and (text(constraint, "severity") == "error" or strict):
                    # FHIRPath knows the types of R4; a leading type says nothing that the context does not.
                    expression = strict or re.sub(rf"\b{name}\.(?=[a-z])", "", re.sub(r"\s+", " ", expression))
                    owner, leaf = (path, "") if path in elements else path.rsplit(".", 1)
                    invariants.setdefault(owner, []).append((key, leaf.removesuffix("[x]"), expression))

    # Only what resources are made of, and what they inherit from.
    wanted, pending = set(), [name for name in elements if kinds.get(name)] + ["Element"]
    while pending:
        name = pending.pop()
        if name in wanted or name not in elements:
            continue
        wanted.add(name)
        if bases.get(name):
            pending.append(bases[name])
        for leaf, (_, types, _) in elements[name].items():
            pending += [f"{name}.{leaf}" if t == "." else t.split("(")[0] for t in types.split(" ")]
    ordered = []

    def place(name):
        if name in wanted and name not in ordered:
            if bases.get(name):
                place(bases[name])
            ordered.append(name)

    for name in sorted(wanted):
        place(name)
    lines = [f"# Generated by tools/generate.py from {source} (CC0). Not edited by hand."]
    names = [url.rsplit("/", 1)[1] for url in sets]
    assert len(names) == len(set(names)), "two value sets of one name"
    for url in sorted(sets, key=lambda url: url.rsplit("/", 1)[1]):
        lines.append("=" + url.rsplit("/", 1)[1])
        for system, codes in sorted(sets[url].items()):
            lines.append("\t".join(["", system, *sorted(codes)]))
    for name in ordered:
        base = bases.get(name)
        inherited = {}
        above = base
        while above:
            inherited = {**elements.get(above, {}), **inherited}
            above = bases.get(above)
        lines.append(f":{name}\t{base or ''}" + ("\tresource" if kinds.get(name) else ""))
        for leaf, (card, types, rule) in elements[name].items():
            if inherited.get(leaf) != (card, types, rule):
                lines.append("\t".join([leaf, card, types, rule]).rstrip("\t"))
        for key, leaf, expression in invariants.get(name, []):
            lines.append(f"!{key}\t{leaf}\t{expression}")
    (OUT / f"{release}.txt").write_text("\n".join(lines) + "\n")
    print(f"{release}: {sum(map(bool, kinds.values()))} resource types, {len(ordered)} types, {len(sets)} value sets, "
          f"{sum(len(invariants.get(name, [])) for name in ordered)} invariants; not listed:")
    for url, path in sorted(unlisted.items()):
        print(f"  {url} ({path})")


OUT.mkdir(parents=True, exist_ok=True)
generate("r4", Package(DEFS / "hl7.fhir.r4.corexml" / "package", ".xml"), "hl7.fhir.r4.corexml 4.0.1")
generate("r5", Package(DEFS / "hl7.fhir.r5.core" / "package", ".json"), "hl7.fhir.r5.core 5.0.0")
