"""The Python API: what `import client` offers, a line for each parameter, field, property and method."""

import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, TypeAdapter
from pydantic.errors import PydanticUserError
from pydantic.fields import FieldInfo

import client
from tests.surface.shapes import fields
from tools.site.run_files import FILES


def lines() -> Iterator[str]:
    """Every public name with its signature or its members."""
    for name in sorted(dir(client)):
        value = getattr(client, name)
        if inspect.isclass(value):
            yield from _class(f"client.{name}", value)
        else:
            yield from _call(f"client.{name}", value)


def _call(name: str, call: Any) -> Iterator[str]:
    signature = inspect.signature(call)
    yield f"{name}() -> {_type(signature.return_annotation)}"
    named = [each for each in signature.parameters.values() if each.name not in ("self", "cls")]
    for place, each in enumerate(named, 1):
        default = "" if each.default is each.empty else f" = {_default(each.default)}"
        yield f"{name}({_mark(each, place)}{each.name}: {_type(each.annotation)}{default})"


def _mark(parameter: inspect.Parameter, place: int) -> str:
    """How a parameter is given: by its place (`<1>`), or by its name alone."""
    marks: dict[object, str] = {
        parameter.KEYWORD_ONLY: "*, ",
        parameter.VAR_POSITIONAL: "*",
        parameter.VAR_KEYWORD: "**",
    }
    return marks.get(parameter.kind, f"<{place}> ")


def _class(name: str, kind: type) -> Iterator[str]:
    yield f"{name}: class"
    if any(each.record is kind for each in FILES):
        yield f"{name}: the fields of a file, see files.txt"
    elif issubclass(kind, BaseModel):
        yield from (f"{name}.{field}: {_field(info)}" for field, info in kind.model_fields.items())
    elif dataclasses.is_dataclass(kind):
        yield from (
            f"{name}.{each.name}: {_checked(each.type)}{_given(each)}"
            for each in dataclasses.fields(kind)
            if not each.name.startswith("_")
        )
    elif any("__init__" in vars(each) for each in _own(kind)):
        made: Any = kind.__init__
        yield from list(_call(name, made))[1:]
    for member, value in sorted(_members(kind).items()):
        if isinstance(value, property) and value.fget is not None:
            yield f"{name}.{member}: property {_type(inspect.signature(value.fget).return_annotation)}"
        elif inspect.isfunction(getattr(kind, member)) or isinstance(value, classmethod | staticmethod):
            yield from _call(f"{name}.{member}", getattr(kind, member))


def _members(kind: type) -> dict[str, Any]:
    """The public members of a class and of its bases in this project."""
    return {
        name: value for each in _own(kind) for name, value in vars(each).items() if not name.startswith("_")
    }


def _own(kind: type) -> list[type]:
    """A class and its bases in this project, the bases first."""
    return [each for each in reversed(kind.__mro__) if each.__module__.startswith(("client", "shared"))]


def _field(info: FieldInfo) -> str:
    """The type of a model's field with its bounds, as JSON has it where it can."""
    kind = _checked(Annotated[(info.annotation, None, *info.metadata)])
    if info.is_required():
        return f"{kind} required"
    return f"{kind} = {'(computed)' if info.default_factory else _default(info.default)}"


def _checked(hint: Any) -> str:
    """A type with its bounds, as JSON has it where it can."""
    if get_origin(hint) is not Annotated:
        return _type(hint)
    try:
        schema = TypeAdapter(hint).json_schema()
    except PydanticUserError:  # it holds what is no JSON
        return _type(get_args(hint)[0])
    return next(fields(schema, schema)).partition(": ")[2]


def _given(field: "dataclasses.Field[Any]") -> str:
    if field.default is not dataclasses.MISSING:
        return f" = {_default(field.default)}"
    return " = (computed)" if field.default_factory is not dataclasses.MISSING else ""


def _default(value: object) -> str:
    if isinstance(value, frozenset):  # whose order is another in each process
        return f"frozenset({sorted(value)!r})"
    return "(a function)" if callable(value) else repr(value)


def _type(hint: Any) -> str:
    """A type as one writes it, without the modules."""
    if hint is inspect.Signature.empty:
        return "None"
    text = hint if isinstance(hint, str) else inspect.formatannotation(hint)
    return re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", text).replace("NoneType", "None")
