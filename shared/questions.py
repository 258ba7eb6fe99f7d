"""Questions to a person at the terminal, of either program."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer


@contextmanager
def interruptible_question() -> Iterator[None]:
    """Ctrl-C at a question of Typer's interrupts as it does elsewhere; Typer makes an `Abort` of it."""
    try:
        yield
    except typer.Abort as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        raise
