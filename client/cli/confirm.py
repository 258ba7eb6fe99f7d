"""A person at the terminal, who may be asked."""

import sys
from collections.abc import Callable

import typer

from client.progress import printable
from shared.questions import interruptible_question


def on_terminal() -> Callable[[str], bool] | None:
    """A function that asks a person a question by yes or no; `None` where there is no terminal."""
    if not sys.stdin.isatty():
        return None
    return _ask


def _ask(question: str) -> bool:
    with interruptible_question():
        return typer.confirm(printable(question), err=True)
