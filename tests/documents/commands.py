"""The reference of the two command lines, docs/cli.md, from the help texts of their commands.

It reads the commands and their options themselves, and not a page of `--help`: that changes with the width of
the terminal, with colours and with the version of Typer.
"""

import inspect
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import typer
import typer.main

from client.cli.main import app as client_app
from tests.documents.docstrings import escaped
from vendor_service.cli.main import app as vendor_app

_BEGINNING = """\
# Command line reference

Every command and option of `client` (for buyers) and of `vendor` (for sellers). `make reference` makes this
page from the help texts; `client COMMAND --help` and `vendor COMMAND --help` show the same in a terminal. The
[tutorial](tutorial.md) goes through the usual commands in order. The settings of `vendor serve`, which are
also environment variables, are explained in [operations](operations.md).

A command of either program ends with 0 if it did what was asked, with 1 if that failed, and with 2 if an
option or a folder was wrong. `client` ends with 3 where a budget, a quota or a price stopped it, or a bulk
job goes on without it; what was bought is kept, and the same command goes on. Ctrl-C ends either with 130;
`client serve`, which is ended so, with 0. `--version` prints the version.
"""
_WORDS = {int: "INTEGER", float: "NUMBER", Path: "PATH", str: "TEXT"}


def command_page() -> str:
    """The whole page, in Markdown."""
    programs = (("client", client_app), ("vendor", vendor_app))
    parts = [_BEGINNING]
    for name, app in programs:
        command = typer.main.get_command(app)
        parts.append(f"## {name}\n\n{_prose(command.help or '')}")
        parts += [_section(words, each) for words, each in _commands(name, command)]
    return "\n".join(parts)


def _commands(words: str, group: Any) -> Iterator[tuple[str, Any]]:
    """Every command below a group that can be run, with all its words, in alphabetical order."""
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from _commands(f"{words} {name}", command)
        else:
            yield f"{words} {name}", command


def _section(words: str, command: Any) -> str:
    types = get_type_hints(inspect.unwrap(command.callback))
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option"]
    usage = " ".join([words, *map(_in_usage, arguments), *(["[OPTIONS]"] if options else [])])
    text, _, example = (command.help or "").partition("Example:")
    example = inspect.cleandoc(example)
    parts = [f"### {words}\n", _prose(text), f"```\n{usage}\n```\n"]
    if example:
        parts.append(f"For example:\n\n```\n{example}\n```\n")
    explained = [each for each in arguments if each.help or get_origin(types[each.name]) is Literal]
    rows = [_row(_in_usage(each), each, types) for each in explained]
    rows += [_row(_spelling(each, types), each, types) for each in options]
    if rows:
        parts.append("\n".join(["| | |", "|---|---|", *rows]) + "\n")
    return "\n".join(parts)


def _in_usage(argument: Any) -> str:
    name = (argument.metavar or argument.name).upper().strip("[].")
    several = f"{name}..." if argument.nargs == -1 else name
    return several if argument.required else f"[{several}]"


def _spelling(option: Any, types: Mapping[str, Any]) -> str:
    """How an option is written: `--seed INTEGER`, `--views / --no-views`, `--select stratified|random`."""
    names = ", ".join(option.opts)
    if option.is_flag:
        return " / ".join([names, *option.secondary_opts])
    return f"{names} {option.metavar or _value(types.get(option.name, str))}"


def _value(kind: Any) -> str:
    """The value that an option of this type takes: its choices, or the kind of word."""
    if get_origin(kind) is Literal:
        return "|".join(map(str, get_args(kind)))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(str(each.value) for each in kind)
    inner = [each for each in get_args(kind) if each is not type(None)]
    return _value(inner[0]) if inner else _WORDS.get(kind, "TEXT")


def _row(spelling: str, parameter: Any, types: Mapping[str, Any]) -> str:
    remarks = []
    if parameter.param_type_name == "option" and parameter.required:
        remarks.append("required")
    text = escaped(" ".join((parameter.help or "").split()))
    if parameter.param_type_name == "option" and parameter.multiple and "be repeated" not in text:
        remarks.append("may be repeated")
    if not isinstance(parameter.default, bool) and isinstance(parameter.default, str | int | float | Path):
        remarks.append(f"default: `{parameter.default}`")
    if parameter.envvar:
        remarks.append(f"environment: `{parameter.envvar}`")
    if parameter.param_type_name == "argument" and get_origin(types[parameter.name]) is Literal:
        remarks.append(f"`{_value(types[parameter.name])}`")
    cell = " ".join(filter(None, [text, f"({'; '.join(remarks)})" if remarks else ""]))
    return "| `{}` | {} |".format(*(each.replace("|", r"\|") for each in (spelling, cell)))


def _prose(text: str) -> str:
    paragraphs = [" ".join(each.split()) for each in inspect.cleandoc(text).split("\n\n")]
    return "".join(f"{escaped(each)}\n\n" for each in paragraphs if each)[:-1]
