"""Examples of requests, which are those of commands: each act's docstring shows one."""

import shlex
from datetime import UTC, datetime
from typing import get_args, get_origin

from vendor_service.acts.declaration import Declared, Parameter, Value
from vendor_service.amounts import read_amount
from vendor_service.terms import Unit

_NONE = "none"


def example_of(declared: Declared) -> dict[str, Value]:
    """The values that the example gives, by the names of parameters, as they are on the wire."""
    _, _, shown = declared.help.partition("Example: vendor ")
    words = shlex.split(shown, comments=True)[len(declared.command.split()) or 1 :]
    options = {
        spelling: each
        for each in declared.parameters
        if each.term.typed and not each.term.is_argument
        for spelling in each.term.typed.split()
    }
    places = iter([each for each in declared.parameters if each.term.is_argument])
    found: dict[str, Value] = {}
    given = iter(words)
    for word in given:
        if word == "--":
            continue
        each = options.get(word) or next(places)
        if each.kind is bool:
            found[each.name] = True
        else:
            value = _on_wire(each, next(given) if word in options else word)
            found[each.name] = [*found.get(each.name, ()), value] if each.several else value
    return found


def _on_wire(each: Parameter, written: str) -> Value:
    if each.may_be_none and written == _NONE:
        return None
    if each.term.unit in (Unit.MONEY, Unit.PRICE):
        return read_amount(written).micros
    if each.term.unit is Unit.MOMENT:
        return datetime.fromisoformat(written).replace(tzinfo=UTC).isoformat().replace("+00:00", "Z")
    is_number = each.kind is int or int in get_args(each.kind) or get_origin(each.kind) is int
    return int(written) if is_number else written
