"""An operator is asked before a command that cannot be undone."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from shared.questions import interruptible_question
from shared.text import visible
from vendor_service.errors import UsageError

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask; for scripts.")]


def confirm(facts: Sequence[str], word: str) -> None:
    """Return if nothing is lost, or if the operator wants it and types the `word`.

    Raises:
        UsageError: not wanted, or there is no terminal to ask at.
    """
    if not facts:
        return
    loss = " ".join(facts)
    if not sys.stdin.isatty():
        raise UsageError(f"{loss} Add --yes if that is meant. Nothing was changed.")
    typer.echo(visible(loss), err=True)
    try:
        with interruptible_question():
            typed = typer.prompt(f"Type {word} to continue", default="", show_default=False, err=True)
    except typer.Abort:  # the terminal has ended
        typed = ""
    if typed != word:
        raise UsageError("Nothing was changed.")
