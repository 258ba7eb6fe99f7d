"""A person at the terminal, who may be asked."""

import sys
from collections.abc import Callable

import typer

from client.progress import printable


def on_terminal() -> Callable[[str], bool] | None:
    """A function that asks a person a question by yes or no; `None` where there is no terminal."""
    if not sys.stdin.isatty():
        return None
    return lambda question: typer.confirm(printable(question), err=True)
