"""JSON Schemas as lines of text, a field each, without the names of the classes behind them."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

_BOUNDS = {
    "minimum": ">=",
    "exclusiveMinimum": ">",
    "maximum": "<=",
    "exclusiveMaximum": "<",
    "multipleOf": "a multiple of ",
    "minLength": "length >=",
    "maxLength": "length <=",
    "minItems": "items >=",
    "maxItems": "items <=",
    "pattern": "pattern ",
    "format": "format ",
}


def fields(schema: Schema, definitions: Schema, at: str = "") -> Iterator[str]:
    """A line for each value that a schema allows: its place (`inputs[].image`), its type and its bounds.

    Args:
        schema: what is described.
        definitions: the document in which `$ref` is looked up.
        at: the place of the schema's value; empty for the whole.
    """
    yield from _value(schema, definitions, at, "", ())


def _value(schema: Schema, document: Schema, at: str, remarks: str, above: tuple[str, ...]) -> Iterator[str]:
    """The line of one value, and those of what is in it."""
    resolved, above = _resolved(schema, document, above)
    branches = _branches(resolved)
    if branches:
        yield from _union(branches, resolved, document, at, remarks, above)
        return
    yield f"{at or '(whole)'}: {_kind(resolved, document)}{_bounds(resolved)}{remarks}{_default(resolved)}"
    yield from _parts(resolved, document, at, above)


def _union(
    branches: list[Schema], schema: Schema, document: Schema, at: str, remarks: str, above: tuple[str, ...]
) -> Iterator[str]:
    """One line for a value of several types, then what is in each of those that have parts."""
    resolved = [_resolved(each, document, above) for each in branches]
    kinds = " | ".join(dict.fromkeys(f"{_kind(each, document)}{_bounds(each)}" for each, _ in resolved))
    yield f"{at or '(whole)'}: {kinds}{remarks}{_default(schema)}"
    parted = [(each, names) for each, names in resolved if _has_parts(each)]
    for number, (each, names) in enumerate(parted, 1):
        mark = f"<{number}>" if len(parted) > 1 else ""
        yield from _parts(each, document, f"{at}{mark}", names)


def _branches(schema: Schema) -> list[Schema]:
    """The types of a value of several; an object that needs one of some properties is of one type."""
    found: list[Schema] = [] if "properties" in schema else schema.get("anyOf") or schema.get("oneOf") or []
    return found


def _has_parts(schema: Schema) -> bool:
    return any(schema.get(name) for name in ("properties", "items", "prefixItems", "additionalProperties"))


def _parts(schema: Schema, document: Schema, at: str, above: tuple[str, ...]) -> Iterator[str]:
    required = schema.get("required", [])
    for name, part in schema.get("properties", {}).items():
        remarks = " required" if name in required else ""
        yield from _value(part, document, f"{at}.{name}".lstrip("."), remarks, above)
    more = schema.get("additionalProperties")
    for sign, part in (("[]", schema.get("items")), (".*", more if isinstance(more, Mapping) else None)):
        if part:
            inner, names = _resolved(part, document, above)
            if _branches(inner):
                yield from _value(inner, document, f"{at}{sign}", "", names)
            else:
                yield from _parts(inner, document, f"{at}{sign}", names)


def _resolved(schema: Schema, document: Schema, above: tuple[str, ...]) -> tuple[Schema, tuple[str, ...]]:
    """The schema that a reference leads to, with what stands beside the reference; never in a circle."""
    if len(schema.get("allOf", ())) == 1:
        schema = {**schema["allOf"][0], **{k: v for k, v in schema.items() if k != "allOf"}}
    if "$ref" not in schema:
        return schema, above
    name = str(schema["$ref"])
    if name in above:
        return {"type": "object"}, above
    found: Any = document
    for part in name.removeprefix("#/").split("/"):
        found = found[part]
    beside = {key: value for key, value in schema.items() if key != "$ref"}
    return _resolved({**found, **beside}, document, (*above, name))


def _kind(schema: Schema, document: Schema) -> str:
    if "enum" in schema:
        return " | ".join(map(json.dumps, schema["enum"]))
    if "const" in schema:
        return json.dumps(schema["const"])
    kind = str(schema.get("type", "any"))
    if kind == "array":
        if "prefixItems" in schema:
            items = ", ".join(_inner(each, document) for each in schema["prefixItems"])
            return f"array of [{items}]"
        return f"array of {_inner(schema.get('items', {}), document)}"
    more = schema.get("additionalProperties")
    if kind == "object" and isinstance(more, Mapping):
        return f"object of {_inner(more, document)}"
    needed = [name for each in schema.get("oneOf", ()) for name in each.get("required", ())]
    closed = " closed" if kind == "object" and more is False else ""
    return f"{kind}{closed} with one of {', '.join(needed)}" if needed else f"{kind}{closed}"


def _inner(schema: Schema, document: Schema) -> str:
    resolved, _ = _resolved(schema, document, ())
    kinds = [_resolved(each, document, ())[0] for each in _branches(resolved) or [resolved]]
    return " | ".join(dict.fromkeys(f"{_kind(each, document)}{_bounds(each)}" for each in kinds))


def _bounds(schema: Schema) -> str:
    return "".join(f" {sign}{schema[name]}" for name, sign in _BOUNDS.items() if name in schema)


def _default(schema: Schema) -> str:
    return f" = {json.dumps(schema['default'])}" if "default" in schema else ""


def shape(value: object, at: str = "") -> Iterator[str]:
    """The lines of a JSON value that no schema describes: the types of what is in it."""
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from shape(part, f"{at}.{name}".lstrip("."))
    elif isinstance(value, list) and value:
        yield from shape(value[0], f"{at}[]")
    else:
        yield f"{at}: {'null' if value is None else type(value).__name__}"
