"""`client`: every command, what tuition.toml gives them, and what becomes of an error."""

import os
import sys
from importlib.metadata import version
from typing import Annotated

import typer
from pydantic import ValidationError
from typer.core import TyperGroup

# isort: off
from client.cli import training, students, buying, data, cache, receipts, init, trust  # noqa: F401 (in the order of help)

# isort: on
from client.cli.command import app
from client.cli.settings import read_settings
from client.errors import ClientError, UsageError
from client.interrupts import interruptible
from client.progress import Display
from shared.declared import refusal_words
from shared.threads import share_processors

__all__ = ["app", "main"]

INTERRUPTED = 130
# Commands that are about the file, which may be damaged.
_WITHOUT_FILE = ("init", "trust")
# What an installation that only serves is without.
_FOR_TRAINING = frozenset(
    {"accelerate", "httpx", "platformdirs", "safetensors", "timm", "torch", "torchvision"}
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(version("tuition"))
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    program = context.command
    if isinstance(program, TyperGroup) and context.invoked_subcommand not in _WITHOUT_FILE:
        context.obj = read_settings(program, of=context.invoked_subcommand)
        context.default_map = context.obj and context.obj.defaults


def _is_of_output() -> bool:
    """Whether standard output is what cannot be written; then nothing more is, also not as Python ends."""
    try:
        print(flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def main(arguments: list[str] | None = None) -> None:
    """Run the command line, by default that of the process; an error becomes its message and exit code."""
    share_processors()
    try:
        with interruptible():
            try:
                app(arguments)
            finally:
                if sys.stdout is not None:  # of a process that has one
                    sys.stdout.flush()  # what cannot be written is said here, and is a traceback later
    except ClientError as error:
        Display().note(f"Error: {error}")
        sys.exit(error.exit_code)
    except ValidationError as error:
        if not error.title.endswith("Options"):
            raise
        Display().note(f"Error: {refusal_words(error)}")
        sys.exit(UsageError.exit_code)
    except ModuleNotFoundError as error:
        if error.name not in _FOR_TRAINING:
            raise
        Display().note(f"Error: {error.name} is missing, which this command needs: pip install tuition")
        sys.exit(UsageError.exit_code)
    except OSError as error:
        if not _is_of_output():
            raise
        if not isinstance(error, BrokenPipeError):  # whoever reads no more knows that
            Display().note(f"Error: cannot write to standard output: {error.strerror}.")
        sys.exit(ClientError.exit_code)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # what Typer makes of Ctrl-C
            Display().note(
                "Interrupted. What was bought and trained is kept; the same command continues from here."
            )
        raise
