"""Docstrings in Google's form, taken apart: what a class or function is, its fields, arguments and errors."""

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import griffe


@dataclass
class Described:
    """A docstring, taken apart.

    Attributes:
        text: everything but the sections, in Markdown.
        fields: what each attribute or argument is.
        returns: what a function gives; empty where the text says it.
        raises: when each error is raised.
    """

    text: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    returns: str = ""
    raises: list[tuple[str, str]] = field(default_factory=list)


def describe(docstring: str | None) -> Described:
    """Take a docstring apart.

    Raises:
        ValueError: it has a section of another kind than attributes, arguments, result and errors.
    """
    found = Described()
    parsed = griffe.parse_google(
        griffe.Docstring(inspect.cleandoc(docstring or "")), warnings=False, returns_named_value=False
    )
    for section in parsed:
        if isinstance(section, griffe.DocstringSectionText):
            found.text = "\n\n".join(filter(None, [found.text, prose(section.value)]))
        elif isinstance(section, griffe.DocstringSectionAttributes | griffe.DocstringSectionParameters):
            found.fields |= _named(section.value)
        elif isinstance(section, griffe.DocstringSectionReturns | griffe.DocstringSectionYields):
            found.returns = " ".join(map(_result, section.value))
        elif isinstance(section, griffe.DocstringSectionRaises):
            found.raises += [(str(each.annotation), _line(each.description)) for each in section.value]
        else:
            raise ValueError(f"No page shows a section {section.kind.value!r}: {docstring}")
    return found


def describe_class(kind: type) -> Described:
    """The docstring of a class, with the fields that its base classes describe."""
    own = describe(kind.__doc__)
    for base in kind.__mro__[1:]:
        if base.__module__.startswith(("client.", "shared.")):
            own.fields = describe(base.__doc__).fields | own.fields
    return own


def prose(text: str) -> str:
    """Paragraphs, each on one line; lists and drawings stay as they are."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(each if each.startswith(("-", " ")) else _line(each) for each in paragraphs)


def escaped(text: str) -> str:
    """Markdown that shows this text; between backticks it is code already."""
    pieces = re.split(r"(`[^`]*`)", text)
    return "".join(each if each.startswith("`") else _escaped(each) for each in pieces)


def _escaped(text: str) -> str:
    # Python-Markdown takes a backslash before "<" for a backslash.
    return re.sub(r"([*_\[\]])", r"\\\1", text).replace("<", "&lt;")


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, whose cells are Markdown."""
    cells = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    lines = [heading, ["---"] * len(heading), *cells]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _named(values: Sequence[griffe.DocstringElement]) -> dict[str, str]:
    return {
        each.name: _line(each.description)
        for each in values
        if isinstance(each, griffe.DocstringNamedElement)
    }


def _result(value: griffe.DocstringElement) -> str:
    """A sentence about a result, of which griffe takes what is before a colon for a type."""
    return ": ".join(filter(None, [str(value.annotation or ""), _line(value.description)]))


def _line(text: str) -> str:
    return " ".join(text.split())
