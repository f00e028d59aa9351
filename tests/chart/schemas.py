"""Makes JSON schemas of Kubernetes' own description of its API, as kubeconform takes them."""

import json
import pathlib

DEFINITION = "#/definitions/"


def write(swagger, kinds, target):
    """Writes a schema for each of `kinds` to the directory `target`. `swagger` is api/openapi-spec/swagger.json."""
    definitions = json.loads(pathlib.Path(swagger).read_text())["definitions"]
    for definition in definitions.values():
        close(definition)
    target.mkdir(parents=True, exist_ok=True)
    for name, definition in definitions.items():
        versions = definition.get("x-kubernetes-group-version-kind", [])
        for kind in (version for version in versions if version["kind"] in kinds):
            group = kind["group"].split(".")[0]
            parts = [kind["kind"], *([group] if group else []), kind["version"]]
            schema = {"$ref": DEFINITION + name, "definitions": used(definitions, name)}
            target.joinpath("-".join(parts).lower() + ".json").write_text(json.dumps(schema))


def close(schema):
    """Forbids members that are not described, and allows texts where the API takes numbers as well."""
    if schema.get("format") == "int-or-string":
        del schema["type"], schema["format"]
        schema["type"] = ["string", "integer"]
    if "properties" in schema:
        schema.setdefault("additionalProperties", False)
        for part in schema["properties"].values():
            close(part)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            close(schema[key])


def used(definitions, name):
    """The definition `name` and all that it refers to."""
    found, open_names = {}, [name]
    while open_names:
        name = open_names.pop()
        if name not in found:
            found[name] = definitions[name]
            open_names.extend(references(definitions[name]))
    return found


def references(schema):
    if isinstance(schema, dict):
        for key, value in schema.items():
            # A description of schemas has a member of that name.
            if key == "$ref" and isinstance(value, str):
                yield value.removeprefix(DEFINITION)
            else:
                yield from references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from references(value)
