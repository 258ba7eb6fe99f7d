"""The page of the Python API, from signatures and docstrings."""

import dataclasses
import importlib
import inspect
import re
from collections.abc import Iterator
from functools import cache
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import griffe
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import tuition
from tools.site.docstrings import Described, describe, describe_class, escaped, prose, table
from tools.site.run_files import FILES

_BEGINNING = """\
# Python API

Everything that `import tuition` offers. `help(tuition.distill)` and its like show the same.
[Python](python.md) is the introduction, with examples.

Money is in micros: millionths of the vendor's currency unit. `Confirm` is a function that is called with a
question (`str`) and answers it (`bool`). A result has `to_json()`, which returns a value for `json.dumps`; a
`Run` has it in its `plan`, `purchase` and `summary`. The models for sale and the bulk jobs are pydantic
models, with `model_dump(mode="json")`.
"""


def _error_names() -> Iterator[str]:
    """The root of the errors, and its kinds as they are drawn."""
    yield from re.findall(r"[A-Z]\w+(?=  )", inspect.getdoc(inspect.getmodule(tuition.ClientError)) or "")


# What belongs together, in the order in which a reader needs it.
_SECTIONS = {
    "Runs": (
        "distill",
        "plan",
        "load_run",
        "next_options",
        "DistillOptions",
        "Run",
        "Plan",
        "Purchase",
        "Summary",
    ),
    "Students": (
        "load_student",
        "AskOptions",
        "evaluate",
        "export",
        "serve",
        "ServeOptions",
        "Student",
        "Predictions",
        "DomainAccuracy",
        "Exported",
    ),
    "Comparisons": ("compare", "plan_comparison", "CompareOptions", "Comparison", "ComparisonPlan"),
    "Recipes": ("Recipe", "Variant"),
    "Embeddings": ("embed", "EmbedOptions", "Embeddings"),
    "Images": (
        "check_folder",
        "unpack_example",
        "Inspection",
    ),
    "The account": (
        "models",
        "usage",
        "reconcile",
        "batches",
        "cancel_batch",
        "VendorOptions",
        "AccountUsage",
        "Reconciliation",
    ),
    "What is signed": (
        "verify_receipts",
        "export_receipts",
        "verify_receipts_file",
        "canary",
        "CanaryOptions",
        "Evidence",
        "CanaryResult",
        "SwapCheck",
    ),
    "Progress": ("Display", "ProgressListener"),
    "Teachers": ("Teacher",),
    "Buying by hand": ("Buyer", "VendorClient", "EmbeddingCache", "Query", "Budget"),
    "Errors": tuple(_error_names()),
}


def page() -> str:
    """The whole page, in Markdown.

    Raises:
        ValueError: a field has no description.
    """
    public = dir(tuition)
    listed = {name for names in _SECTIONS.values() for name in names}
    sections = {title: [name for name in names if name in public] for title, names in _SECTIONS.items()}
    sections["More"] = [name for name in public if name not in listed]
    parts = [_BEGINNING]
    for title, names in sections.items():
        if not names:
            continue
        parts.append(f"## {title}\n")
        parts += [_entry(name) for name in names]
    return "\n".join(parts)


@cache
def _package() -> griffe.Module:
    package = griffe.load("client")
    assert isinstance(package, griffe.Module)
    return package


def _source(name: str) -> griffe.Object:
    """A public name as it stands in its source."""
    found = _package()[name]
    target = found.final_target if isinstance(found, griffe.Alias) else found
    assert isinstance(target, griffe.Object)
    return target


def _entry(name: str) -> str:
    source = _source(name)
    if isinstance(source, griffe.Function):
        return f"### {name}\n\n{_function(source, f'tuition.{name}')}"
    assert isinstance(source, griffe.Class)
    return f"### {name}\n\n{_class(source, getattr(tuition, name))}"


def _function(source: griffe.Function, shown_as: str) -> str:
    docstring = describe(source.docstring.value if source.docstring else None)
    parts = [_code(_signature(source, shown_as)), f"{escaped(docstring.text)}\n"]
    return "\n".join([*parts, *_meanings("argument", docstring), *_ending(docstring)])


def _meanings(kind: str, docstring: Described) -> Iterator[str]:
    if docstring.fields:
        yield table((kind, "meaning"), [(f"`{k}`", escaped(v)) for k, v in docstring.fields.items()])


def _ending(docstring: Described) -> Iterator[str]:
    if docstring.returns:
        yield f"Returns {escaped(docstring.returns)}\n"
    if docstring.raises:
        yield "Raises:\n\n" + "".join(f"- `{error}`: {escaped(when)}\n" for error, when in docstring.raises)


def _code(text: str) -> str:
    return f"```python\n{text}\n```\n"


def _signature(source: griffe.Function, shown_as: str) -> str:
    """A call with its annotations: on one line where it fits, or else with an argument a line."""
    parts, star = [], False
    for each in source.parameters:
        if each.name in ("self", "cls"):
            continue
        if each.kind is griffe.ParameterKind.keyword_only and not star:
            parts.append("*")
        star = star or each.kind in (griffe.ParameterKind.keyword_only, griffe.ParameterKind.var_positional)
        parts.append(_parameter(each))
    answer = (
        f" -> {str(source.returns).strip(chr(34))}" if source.returns and source.name != "__init__" else ""
    )
    line = f"{shown_as}({', '.join(parts)}){answer}"
    if len(line) <= 100:
        return line
    return f"{shown_as}(\n{''.join(f'    {each},{chr(10)}' for each in parts)}){answer}"


def _parameter(parameter: griffe.Parameter) -> str:
    stars = {griffe.ParameterKind.var_positional: "*", griffe.ParameterKind.var_keyword: "**"}
    annotation = f": {str(parameter.annotation).strip(chr(34))}" if parameter.annotation else ""
    takes_default = parameter.kind not in stars and parameter.default is not None
    default = f" = {parameter.default}" if takes_default else ""
    return f"{stars.get(parameter.kind, '') if parameter.kind else ''}{parameter.name}{annotation}{default}"


def _class(source: griffe.Class, kind: type) -> str:
    docstring = describe_class(kind)
    parts = [f"{escaped(docstring.text)}\n"]
    files = [each.name for each in FILES if each.record is kind]
    if files:
        anchor = files[0].replace(".", "")
        parts.append(f"Its fields are those of [{files[0]}](run-files.md#{anchor}).\n")
    elif issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind):
        parts.append(_fields(kind, docstring))
    elif "__init__" in source.members:
        made = source.members["__init__"]
        assert isinstance(made, griffe.Function)
        parts += _meanings("attribute", docstring)
        parts.append(_constructor(made, kind))
    members = {name: each for name, each in source.all_members.items() if not name.startswith("_")}
    parts += _properties(members, kind)
    for name, member in members.items():
        found = member.final_target if isinstance(member, griffe.Alias) else member
        if isinstance(found, griffe.Function) and name != "to_json":
            snake = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower()
            owner = kind.__name__ if "classmethod" in found.labels else snake
            parts.append(f"#### {kind.__name__}.{name}\n\n{_function(found, f'{owner}.{name}')}")
    if kind is tuition.ClientError:
        parts.append(_tree())
    return "\n".join(parts)


def _constructor(source: griffe.Function, kind: type) -> str:
    docstring = describe(source.docstring.value if source.docstring else None)
    code = _code(_signature(source, f"tuition.{kind.__name__}"))
    return "\n".join([code, *_meanings("argument", docstring), *_ending(docstring)])


def _fields(kind: type, docstring: Described) -> str:
    """A row for each field of a model or a dataclass, its base classes' first."""
    hints = get_type_hints(kind)
    if issubclass(kind, BaseModel):
        defaults = {name: _model_default(each) for name, each in kind.model_fields.items()}
    else:
        defaults = {each.name: _default(each.default) for each in dataclasses.fields(kind)}  # type: ignore[arg-type]
    meanings = docstring.fields | _descriptions(kind)
    missing = [name for name in defaults if name not in meanings]
    if missing:
        raise ValueError(f"Nothing says what {', '.join(missing)} of {kind.__name__} is.")
    rows = [
        (f"`{name}`", f"`{_type(hints[name])}`", default, escaped(meanings[name]))
        for name, default in defaults.items()
    ]
    if {*defaults.values()} <= {"", "required"}:
        return table(("field", "type", "meaning"), [(name, kind, meaning) for name, kind, _, meaning in rows])
    return table(("field", "type", "default", "meaning"), rows)


def _descriptions(kind: type) -> dict[str, str]:
    """The descriptions that the fields of a pydantic model carry themselves."""
    if not issubclass(kind, BaseModel):
        return {}
    return {name: each.description for name, each in kind.model_fields.items() if each.description}


def _model_default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    return "" if info.default_factory else _default(info.default)


def _default(value: object) -> str:
    return "" if value is dataclasses.MISSING else f"`{value!r}`"


def _type(hint: object) -> str:
    """A type as one writes it, without the modules."""
    if get_origin(hint) in (Union, UnionType):
        return " | ".join(map(_type, get_args(hint)))
    return re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", inspect.formatannotation(hint)).replace("NoneType", "None")


def _properties(members: dict[str, Any], kind: type) -> Iterator[str]:
    """A table of the properties, which some classes have."""
    rows = []
    for name in members:
        found = inspect.getattr_static(kind, name, None)
        if isinstance(found, property) and found.fget is not None:
            docstring = describe(found.fget.__doc__)
            raises = [f"Raises `{error}`: {when}" for error, when in docstring.raises]
            meaning = escaped(" ".join([docstring.text, *raises]))
            hint = get_type_hints(found.fget, vars(importlib.import_module(kind.__module__))).get("return")
            rows.append((f"`{name}`", f"`{_type(hint)}`", meaning.replace("\n\n", " ")))
    if rows:
        yield table(("property", "type", "meaning"), rows)


def _tree() -> str:
    """The tree of errors, as the module draws it."""
    text = inspect.cleandoc(importlib.import_module(tuition.ClientError.__module__).__doc__ or "")
    before, drawing = text.split("\n\n", 1)
    return f"{prose(before)}\n\n```\n{inspect.cleandoc(drawing)}\n```\n"
