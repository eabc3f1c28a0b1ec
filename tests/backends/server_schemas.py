"""What servers take and give, by their own published descriptions: a value against the schema of a call, with jsonschema.

`schemas/` holds TEI's OpenAPI description as it is, and of the others' what these tests need, written as JSON Schema; each
names its source. Unknown fields are refused, since a misspelt wish would be ignored.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

FOLDER = Path(__file__).with_name("schemas")


def known_paths(backend: str) -> set[str]:
    return set(_calls(backend)["requests"])


def request_problems(backend: str, path: str, body: Any, own: tuple[str, ...] = ()) -> list[str]:
    """What is wrong with a request; `own` are fields of a server that only speaks like this one."""
    return _problems(backend, _calls(backend)["requests"][path], {name: body[name] for name in body if name not in own})


def response_problems(backend: str, path: str, status: int, body: Any) -> list[str]:
    """What is wrong with an answer. Only TEI describes its errors to the letter."""
    schema = _calls(backend)["responses"][path]
    if backend == "tei":
        schema = schema[str(status)]
    elif status != 200:
        return []
    return _problems(backend, schema, body)


def _problems(backend: str, schema: Any, value: Any) -> list[str]:
    validator = Draft202012Validator({**schema, "components": _calls(backend).get("components", {})})
    return [f"{backend}: {error.json_path}: {error.message:.300}" for error in validator.iter_errors(value)]


@cache
def _calls(backend: str) -> Any:
    if backend != "tei":
        return json.loads((FOLDER / f"{backend}.json").read_text(encoding="utf-8"))
    description = _json_schema(json.loads((FOLDER / "tei-openapi.json").read_text(encoding="utf-8")))
    calls: dict[str, Any] = {"requests": {}, "responses": {}, "components": description["components"]}
    for path, operations in description["paths"].items():
        operation = operations.get("post") or operations["get"]
        if "requestBody" in operation:
            calls["requests"][path] = _content(operation["requestBody"])
        calls["responses"][path] = {
            status: _content(answer) for status, answer in operation["responses"].items() if "content" in answer
        }
    return calls


def _content(described: Any) -> Any:
    return next(iter(described["content"].values())).get("schema", {})


def _json_schema(value: Any) -> Any:
    """A schema of OpenAPI 3.0 as JSON Schema; an object has the fields that it is described with and no others."""
    if isinstance(value, list):
        return [_json_schema(item) for item in value]
    if not isinstance(value, dict):
        return value
    # an empty list, or one of single strings, fits several of the kinds of which it should be one
    schema = {("anyOf" if name == "oneOf" else name): _json_schema(item) for name, item in value.items()}
    if schema.get("type") == "object" and "properties" in schema:
        schema.setdefault("additionalProperties", False)
    return {"anyOf": [schema, {"type": "null"}]} if schema.pop("nullable", False) is True else schema
