"""The API on one page, written from its own schema; needs no network, as Swagger's page would."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from momkd.templates import environment


def handbook(schema: Mapping[str, Any]) -> str:
    """The HTML of an OpenAPI ``schema``."""
    parts = schema.get("components", {}).get("schemas", {})
    routes = [
        {
            "method": method.upper(),
            "path": path,
            "text": told.get("description", ""),
            "asks": [_asked(one) for one in told.get("parameters", [])] + _body(told, parts),
            "gives": [_answer(status, one, parts) for status, one in told.get("responses", {}).items()],
        }
        for path, methods in schema["paths"].items()
        for method, told in methods.items()
    ]
    template = environment("momkd.serve").get_template("handbook.html.j2")
    return template.render(about=schema["info"]["description"], version=schema["info"]["version"], routes=routes)


def _asked(one: Mapping[str, Any]) -> dict[str, str]:
    where = f"{one['in']}, {one.get('schema', {}).get('type', 'value')}"
    return {"name": one["name"], "what": where, "text": one.get("description", ""), "fields": ""}


def _body(told: Mapping[str, Any], parts: Mapping[str, Any]) -> list[dict[str, str]]:
    found = []
    for kind, content in told.get("requestBody", {}).get("content", {}).items():
        shape = _resolved(content.get("schema", {}), parts)
        found.append({"name": "body", "what": kind, "text": shape.get("description", ""), "fields": _fields(shape)})
    return found


def _answer(status: str, one: Mapping[str, Any], parts: Mapping[str, Any]) -> dict[str, str]:
    shapes = [_resolved(content.get("schema", {}), parts) for content in one.get("content", {}).values()]
    fields = "; ".join(_fields(shape) for shape in shapes if _fields(shape))
    return {"status": status, "text": one.get("description", ""), "fields": fields}


def _resolved(shape: Mapping[str, Any], parts: Mapping[str, Any]) -> Mapping[str, Any]:
    if shape.get("type") == "array":
        return _resolved(shape.get("items", {}), parts)
    name = str(shape.get("$ref", "")).rsplit("/", 1)[-1]
    found: Mapping[str, Any] = parts.get(name, shape)
    return found


def _fields(shape: Mapping[str, Any]) -> str:
    return ", ".join(shape.get("properties", {}))
