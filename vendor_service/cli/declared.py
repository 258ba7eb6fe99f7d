"""Commands made from the declared acts and queries: each parses, makes one call, and prints."""

import inspect
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from shared.text import visible
from vendor_service.acts.declaration import (
    REQUIRED,
    Declared,
    DeclaredAct,
    DeclaredQuery,
    Parameter,
    Recorded,
    Value,
    data_of,
)
from vendor_service.acts.registry import ACTS, QUERIES
from vendor_service.advice import addressed
from vendor_service.amounts import Amount, read_amount
from vendor_service.cli.books import AsJson, DatabaseUrl, acting
from vendor_service.cli.confirm import Yes, confirm
from vendor_service.cli.parsers import moment, whole_number
from vendor_service.cli.printing import print_json, print_row, print_rows
from vendor_service.cli.verifying import Bar
from vendor_service.errors import OperatorError, UsageError
from vendor_service.terms import Unit

KeysIn = Annotated[
    Path | None,
    typer.Option(help="Folder of the vendor's keys. (default: beside an SQLite database)"),
]
# Settings that a command takes as options as well.
_SETTINGS: Mapping[str, Mapping[str, Any]] = {"receipts_key.rotate": {"keys_in": KeysIn}}

_NONE = "none"
_READERS: Mapping[Unit, Callable[[str], int | Amount]] = {
    Unit.PLAIN: whole_number,
    Unit.MONEY: read_amount,
    Unit.PRICE: read_amount,
    Unit.MOMENT: moment,
}
_MOST_LISTED = 100_000
_REMOVED: Any = object()  # what is read where `none` is typed


def add_commands(app: typer.Typer, groups: Mapping[str, typer.Typer]) -> None:
    """Add a command for each act and query that has one, to the group that its words begin with."""
    for each in (*ACTS.values(), *QUERIES.values()):
        if each.command:
            group, _, name = each.command.rpartition(" ")
            (groups[group] if group else app).command(name)(_command(each))


def _command(declared: Declared) -> Callable[..., None]:
    """A function that Typer makes a command of: its signature is that of what is declared."""
    typed = [each for each in declared.parameters if each.term.typed]
    asks = isinstance(declared, DeclaredAct) and declared.asks_at_times
    options = dict(_SETTINGS.get(declared.name, {}))
    options |= {"database_url": DatabaseUrl, "as_json": AsJson} | ({"yes": Yes} if asks else {})
    nothing = {"as_json": False, "yes": False}

    def run(**values: Value) -> None:
        chosen = {name: values.pop(name) for name in options}
        given = _given(typed, values)
        if isinstance(declared, DeclaredAct):
            _perform(declared, given, chosen)
        elif isinstance(declared, DeclaredQuery):
            _ask(declared, given, chosen)

    parameters = [_parameter(each, declared) for each in typed]
    parameters += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=nothing.get(name))
        for name, kind in options.items()
    ]
    run.__name__ = declared.name.replace(".", "_").replace(" ", "_")
    run.__doc__ = declared.help
    run.__signature__ = inspect.Signature(sorted(parameters, key=_is_optional))  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run


def _perform(declared: DeclaredAct, given: dict[str, Value], options: dict[str, Value]) -> None:
    as_json, url = options.pop("as_json"), options.pop("database_url")
    agreed = options.pop("yes", True)
    declared.check_given(given)
    with acting(url, new=declared.begins_books, **options) as opened, Bar() as bar:
        context = replace(opened, progress=bar.show)
        given = context.in_currency(given)
        if not agreed:
            with context.read() as act:
                facts = declared.facts(act, given) if declared.must_ask(act, given) else []
            confirm(facts, str(given[declared.word or list(given)[-1]]))
        result = declared.perform(context, given)
    _print_result(declared, result, url, as_json=as_json)


def _print_result(declared: DeclaredAct, result: Value, url: str | None, *, as_json: bool) -> None:
    if isinstance(result, Recorded) and result.before:
        note = f"this was recorded already, as entry {result.entry.seq}; nothing was changed"
        typer.echo(note, err=True)
    data = data_of(result)
    if as_json:
        print_json(data)
    elif declared.reveals:
        if data[declared.reveals] is not None:
            print(data[declared.reveals])
            typer.echo(declared.keep.format(**dict(result)), err=True)
    elif isinstance(data, list):
        rows = _rows_of(declared)
        print_rows(data if rows is None else list(rows(result)))
    else:
        print_row(data)
    if declared.hint is not None and (hint := declared.hint(result)):
        typer.echo(addressed(visible(hint, keep="\n"), url), err=True)


def _rows_of(declared: DeclaredAct) -> Callable[[Any], Iterable[Mapping[str, Any]]] | None:
    """How a query shows people what this act answers, if one answers the same."""
    alike = (each for each in QUERIES.values() if each.hints["return"] == declared.hints["return"])
    return next((each.rows for each in alike if each.rows is not None), None)


def _ask(declared: DeclaredQuery, given: dict[str, Value], options: dict[str, Value]) -> None:
    as_json, url = options.pop("as_json"), options.pop("database_url")
    if "limit" in (each.name for each in declared.parameters):
        given.setdefault("limit", declared.command_limit)
    with acting(url, reads=True, any_books=not declared.needs_books) as context, Bar() as bar:
        result = declared.ask(replace(context, progress=bar.show), given)
    data = data_of(result)
    listed = data["data"] if isinstance(data, dict) and "data" in data else data
    if as_json:
        print_json(listed)
    elif declared.rows is not None:
        print_rows(list(declared.rows(result)))
    elif isinstance(listed, list):
        print_rows(listed)
    else:
        print_row(listed)
    _print_notes(declared, result, data, as_json=as_json)


def _print_notes(declared: DeclaredQuery, result: Value, data: Value, *, as_json: bool) -> None:
    if isinstance(data, dict) and data.get("has_more"):
        after = next(iter(data["data"][-1].values()))
        typer.echo(f"There are more: list them with --after {after}", err=True)
    if declared.note is not None and not as_json and (note := declared.note(result)):
        print(visible(f"\n{note}", keep="\n"))
    if declared.fault is not None and (fault := declared.fault(result)):
        raise OperatorError(fault)


def _given(typed: Sequence[Parameter], values: Mapping[str, Value]) -> dict[str, Value]:
    """The typed values, by the names of parameters; those not typed are left out."""
    given: dict[str, Value] = {}
    for each in typed:
        value = values[each.name]
        if value is _REMOVED:
            given[each.name] = None
        elif value is not None and value != []:
            given[each.name] = _checked(each, value)
    return given


def _checked(each: Parameter, value: Value) -> Value:
    if each.term.is_file:
        return _content(value, each.term.longest or 0)
    if each.term.id_of is not None and isinstance(value, str) and (only := each.term.id_of(value)):
        raise UsageError(
            "that is a whole key or token with its secret, which belongs on no command line; "
            f"give its id: {only}"
        )
    return value


def _content(name: str, longest: int) -> str:
    """The text of a file, or of standard input."""
    try:
        with sys.stdin if name == "-" else Path(name).open(encoding="utf-8") as file:
            text = file.read(longest + 1)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{name} cannot be read: {error}") from error
    if len(text) > longest:
        raise UsageError(f"{name} has more than {longest} characters")
    return text


def _parameter(each: Parameter, declared: Declared) -> inspect.Parameter:
    default = None if each.only_changes else each.default
    if each.name == "limit" and isinstance(declared, DeclaredQuery):
        default = declared.command_limit
    if isinstance(default, Collection) and not isinstance(default, str):
        default = None
    told: dict[str, Any] = {"help": _help(each)}
    kind: Any = each.kind if each.several is None else list[each.several]  # type: ignore[name-defined]
    if kind is int:
        told["parser"] = partial(_read, each, declared)
        kind = datetime if each.term.unit is Unit.MOMENT else int
    if each.may_be_none or default is None:
        kind = kind | None
    if each.term.is_argument:
        info = typer.Argument(metavar=each.option.upper(), **told)
    else:
        metavar = "MONEY" if each.term.unit is Unit.MONEY else None
        info = typer.Option(*each.term.typed.split(), metavar=metavar, **told)
    return inspect.Parameter(
        each.name, inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[kind, info], default=default
    )


def _read(each: Parameter, declared: Declared, written: str | int) -> Value:
    """A number or a moment as it is typed; a default, which Typer passes through here too, stays as it is."""
    if not isinstance(written, str):
        return written
    if each.may_be_none and written == _NONE:
        return _REMOVED
    value = _READERS[each.term.unit](written)
    if isinstance(value, Amount):
        return value
    least, most = each.term.least, each.term.most
    if each.name == "limit" and isinstance(declared, DeclaredQuery):
        most = _MOST_LISTED
    if (least is not None and value < least) or (most is not None and value > most):
        spelling = each.term.typed.split()[0]
        raise UsageError(f"{spelling} is a number from {least} to {most}, not {value}")
    return value


def _help(each: Parameter) -> str:
    text = each.term.help
    if each.several is not None:
        text = f"{text.rstrip('.')}; may be repeated."
    if each.may_be_none and each.default is None and each.term.none not in ("", "none"):
        text += f" (default: {each.term.none})"
    if isinstance(each.default, Collection) and not isinstance(each.default, str):
        text += f" (default: {' and '.join(sorted(each.default)) or each.term.none})"
    if each.only_changes and each.may_be_none:
        text += f" (`none`: {each.term.none})"
    return text


def _is_optional(parameter: inspect.Parameter) -> bool:
    return parameter.default is not REQUIRED
