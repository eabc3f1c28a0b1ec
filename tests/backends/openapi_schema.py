"""A value against a schema of an OpenAPI 3.0 description: the keywords that TEI's description uses, and an error for others."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

TEI = Path(__file__).with_name("tei-openapi.json")
PROSE = {"description", "example", "default", "format", "title"}
TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}


@cache
def tei_description() -> Any:
    return json.loads(TEI.read_text(encoding="utf-8"))


def tei_operation(method: str, path: str) -> Any:
    return tei_description()["paths"][path][method.lower()]


def request_problems(path: str, body: Any) -> list[str]:
    content = tei_operation("post", path)["requestBody"]["content"]["application/json"]
    return problems(content["schema"], body)


def response_problems(method: str, path: str, status: int, body: Any) -> list[str]:
    responses = tei_operation(method, path)["responses"]
    return problems(responses[str(status)]["content"]["application/json"]["schema"], body)


def problems(schema: Any, value: Any, where: str = "$") -> list[str]:
    """What is wrong with the value; unknown fields too, since a misspelt wish would be ignored."""
    if "$ref" in schema:
        return problems(tei_description()["components"]["schemas"][schema["$ref"].rpartition("/")[2]], value, where)
    unknown = (
        schema.keys() - PROSE - RULES.keys() - {"type", "nullable", "required", "properties", "additionalProperties"}
    )
    if unknown:
        raise NotImplementedError(f"schema keywords {unknown}")
    if value is None and schema.get("nullable"):
        return []
    found = _type_problems(schema, value, where)
    return found or [
        text for name, rule in RULES.items() if name in schema for text in rule(schema[name], value, where)
    ]


def _type_problems(schema: Any, value: Any, where: str) -> list[str]:
    kind = schema.get("type")
    if kind is None:
        return []
    if not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
        return [f"{where}: {value!r} is no {kind}"]
    if kind != "object":
        return []
    known, extra = schema.get("properties", {}), schema.get("additionalProperties")
    found = [f"{where}.{name} is missing" for name in schema.get("required", []) if name not in value]
    for name, item in value.items():
        if name in known or isinstance(extra, dict):
            found += problems(known.get(name, extra), item, f"{where}.{name}")
        else:
            found.append(f"{where}.{name} is unknown")
    return found


def _one_of(schemas: Any, value: Any, where: str) -> list[str]:
    fitting = sum(not problems(schema, value, where) for schema in schemas)
    # an empty list, or one of single strings, fits several
    return [] if fitting >= 1 else [f"{where}: {value!r} is none of {len(schemas)} kinds"]


RULES: dict[str, Any] = {
    "oneOf": _one_of,
    "allOf": lambda schemas, value, where: [text for schema in schemas for text in problems(schema, value, where)],
    "items": lambda schema, value, where: [
        text for number, item in enumerate(value) for text in problems(schema, item, f"{where}[{number}]")
    ],
    "enum": lambda values, value, where: [] if value in values else [f"{where}: {value!r} is none of {values}"],
    "minimum": lambda least, value, where: [] if value >= least else [f"{where}: {value} < {least}"],
    "minItems": lambda least, value, where: [] if len(value) >= least else [f"{where}: {len(value)} items"],
    "maxItems": lambda most, value, where: [] if len(value) <= most else [f"{where}: {len(value)} items"],
}
