"""The two command lines: every command with its arguments and options, a line each."""

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import typer.main

from client.cli.main import app as client_app
from client.cli.settings import settings_of
from shared.typer_commands import parameter_of
from vendor_service.cli.main import app as vendor_app


def lines() -> Iterator[str]:
    """`client embed`, `client embed --out PATH required`, and so on; help texts are not recorded."""
    for program, app in (("client", client_app), ("vendor", vendor_app)):
        yield from _group(program, typer.main.get_command(app))


def _group(words: str, group: Any) -> Iterator[str]:
    """A command, or a group and all that is below it."""
    yield words
    of_file = set() if hasattr(group, "commands") or not words.startswith("client") else _of_file(group)
    place = 0
    for parameter in group.params:
        if parameter.param_type_name == "argument":
            place += 1
            yield f"{words} <{place}> {_argument(parameter)}{_remarks(parameter, of_file)}"
        else:
            yield f"{words} {_option(parameter)}{_remarks(parameter, of_file)}"
    for name, command in sorted(getattr(group, "commands", {}).items()):
        yield from _group(f"{words} {name}", command)


def _of_file(command: Any) -> set[str]:
    """The parameters that tuition.toml may set."""
    return {parameter_of(each) for each in settings_of(command).values()}


def _argument(parameter: Any) -> str:
    name = (parameter.metavar or parameter.name).upper().strip("[].")
    return f"{name}{'...' if parameter.nargs == -1 else ''}: {_type(parameter)}"


def _option(parameter: Any) -> str:
    names = ", ".join([*parameter.opts, *(f"/ {each}" for each in parameter.secondary_opts)])
    if parameter.is_flag:
        return f"{names}: flag"
    return f"{names}: {_type(parameter)}{', may be repeated' if parameter.multiple else ''}"


def _type(parameter: Any) -> str:
    """A type with its choices or bounds."""
    bounds = [
        f"{sign}{bound}"
        for sign, bound in ((">=", parameter.min), ("<=", parameter.max))
        if bound is not None
    ]
    return " ".join([_kind(parameter.type_descriptor.annotation), *bounds])


def _kind(annotation: Any) -> str:
    inner = [each for each in get_args(annotation) if each is not type(None)]
    if get_origin(annotation) is Literal:
        return "|".join(map(str, inner))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return "|".join(str(each.value) for each in annotation)
    return _kind(inner[0]) if inner else str(annotation.__name__)


def _remarks(parameter: Any, of_file: set[str]) -> str:
    told = []
    if parameter.required:
        told.append("required")
    default = parameter.default
    if isinstance(default, Enum):
        default = default.value
    if isinstance(default, bool | int | float | str | Path):
        told.append(f"default {str(default) or repr('')}")
    if parameter.envvar:
        told.append(f"env {parameter.envvar}")
    if parameter.hidden:
        told.append("hidden")
    if parameter.name in of_file:
        told.append("toml")
    return f" ({', '.join(told)})" if told else ""
