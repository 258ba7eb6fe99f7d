"""How commands are made, asked, and answered: each takes one model of options, makes one call, and prints."""

import json
import sys
from collections.abc import Callable, Collection
from typing import Annotated, Any, TypeVar

import typer
from pydantic import Field

from client.cli.trusted import require_trust
from client.errors import UsageError
from client.options.base import Options
from shared.declared import Option
from shared.questions import interruptible_question
from shared.text import visible
from shared.typer_commands import add_command

app = typer.Typer(
    name="client",
    help="Buy teacher embeddings once, and distil a small student that holds up on unseen domains.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

F = TypeVar("F", bound=Callable[[Any], None])


class Printed(Options):
    """How a command prints its result on standard output."""

    as_json: Annotated[bool, Option(name="json", safe=True)] = Field(
        default=False, description="Print JSON, for scripts."
    )


def command(
    app: typer.Typer, name: str | None = None, *, panel: str | None = None, without: Collection[str] = ()
) -> Callable[[F], F]:
    """Make a command of a function that takes one model; a value that is refused is bad usage."""

    def add(function: F) -> F:
        add_command(
            app, function, name=name, panel=panel, without=without, refusal=UsageError, vet=require_trust
        )
        return function

    return add


def print_line(text: str) -> None:
    """Print a line for people; text from outside cannot move or style anything."""
    print(visible(text))


def print_json(data: object) -> None:
    """Print data for scripts."""
    print(json.dumps(data, indent=2))


def on_terminal() -> Callable[[str], bool] | None:
    """A function that asks a person a question by yes or no; `None` where there is no terminal."""
    return _ask if sys.stdin.isatty() else None


def _ask(question: str) -> bool:
    with interruptible_question():
        return typer.confirm(visible(question), err=True)
