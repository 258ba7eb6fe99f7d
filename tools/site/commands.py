"""The page of the two command lines, from the help texts of their commands.

It reads the commands and their options, and not a page of `--help`: that changes with the width of the
terminal, with colours and with the version of Typer.
"""

import inspect
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
import typer.main

from client.cli.main import app as client_app
from tools.site.docstrings import escaped, table
from vendor_service.cli.main import app as vendor_app

_BEGINNING = """\
# Command lines

Every command and option of `client` (for buyers) and of `vendor` (for sellers). `client COMMAND --help` and
`vendor COMMAND --help` show the same in a terminal. The [tutorial](tutorial.md) goes through the usual
commands in order. [Operations](operations.md#settings) explains the settings of `vendor serve`, which are
environment variables too.

| exit code | meaning |
| --- | --- |
| 0 | done |
| 1 | failed |
| 2 | an option or a folder is wrong |
| 3 | `client`: a limit or a price stopped the purchase, or a bulk job continues; the same command goes on |
| 130 | Ctrl-C (`client serve` ends with 0) |
"""
_WORDS = {int: "INTEGER", float: "NUMBER", Path: "PATH", str: "TEXT"}
PROGRAMS = {"client": client_app, "vendor": vendor_app}


def page() -> str:
    """The whole page, in Markdown."""
    parts = [_BEGINNING]
    for name, app in PROGRAMS.items():
        command = typer.main.get_command(app)
        parts.append(f"## {name}\n\n{_prose(command.help or '')}")
        parts += [_section(words, each) for words, each in _commands(name, command)]
    return "\n".join(parts)


def _commands(words: str, group: Any) -> Iterator[tuple[str, Any]]:
    """Every command below a group that can be run, with all its words, in alphabetical order."""
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from _commands(f"{words} {name}", command)
        elif not command.hidden:
            yield f"{words} {name}", command


def _section(words: str, command: Any) -> str:
    types = _types(command)
    shown = [each for each in command.params if not getattr(each, "hidden", False)]
    arguments = [each for each in shown if each.param_type_name == "argument"]
    options = [each for each in shown if each.param_type_name == "option"]
    usage = " ".join([words, *map(_in_usage, arguments), *(["[OPTIONS]"] if options else [])])
    text, _, example = (command.help or "").partition("Example:")
    parts = [f"### {words}\n", _prose(text), f"```\n{usage}\n```\n"]
    if example.strip():
        parts.append(f"For example:\n\n```\n{inspect.cleandoc(example)}\n```\n")
    explained = [each for each in arguments if each.help or get_origin(types.get(each.name)) is Literal]
    rows = [_row(_in_usage(each), each, types) for each in explained]
    rows += [_row(_spelling(each, types), each, types) for each in options]
    if rows:
        parts.append(table(("option", "meaning"), rows))
    return "\n".join(parts)


def _types(command: Any) -> Mapping[str, Any]:
    """The type of each parameter of a command's function, without its annotations for Typer."""
    parameters = inspect.signature(inspect.unwrap(command.callback), eval_str=True).parameters
    return {name: _bare(each.annotation) for name, each in parameters.items()}


def _bare(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _in_usage(argument: Any) -> str:
    name = (argument.metavar or argument.name).upper().strip("[].")
    several = f"{name}..." if argument.nargs == -1 else name
    return several if argument.required else f"[{several}]"


def _spelling(option: Any, types: Mapping[str, Any]) -> str:
    """The spelling of an option: `--seed INTEGER`, `--views / --no-views`, `--select stratified|random`."""
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


def _row(spelling: str, parameter: Any, types: Mapping[str, Any]) -> tuple[str, str]:
    is_option = parameter.param_type_name == "option"
    text = escaped(" ".join((parameter.help or "").split()))
    remarks = ["required"] if is_option and parameter.required else []
    if is_option and parameter.multiple and "be repeated" not in text:
        remarks.append("may be repeated")
    if not isinstance(parameter.default, bool) and isinstance(parameter.default, str | int | float | Path):
        remarks.append(f"default: `{parameter.default}`")
    if parameter.envvar:
        remarks.append(f"environment: `{parameter.envvar}`")
    if not is_option and get_origin(types.get(parameter.name)) is Literal:
        remarks.append(f"`{_value(types[parameter.name])}`")
    return f"`{spelling}`", " ".join(filter(None, [text, f"({'; '.join(remarks)})" if remarks else ""]))


def _prose(text: str) -> str:
    paragraphs = [" ".join(each.split()) for each in inspect.cleandoc(text).split("\n\n")]
    return "".join(f"{escaped(each)}\n\n" for each in paragraphs if each)[:-1]
