"""`client init`: a tuition.toml whose comments are the options, their meaning and their defaults."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from textwrap import wrap
from typing import Annotated

import typer.main
from pydantic import Field
from typer.core import TyperGroup

from client.cli.command import app, command
from client.cli.settings import SETTINGS_FILE, commands_of, settings_of, table_of
from client.errors import UsageError, unwritable
from client.options.base import Options
from client.paths import is_there, replace_text
from shared.declared import Declared, Option

_WIDTH = 100
_BEGINNING = """\
# Options of `client` for this folder. The command line and the environment come before this file.
# Take the # away before an option to set it. A key at the top counts for every command that has the
# option, a key in a table for that command alone. `client COMMAND --help` shows what holds.
# Options that spend or send take effect after `client trust`, and again after each change.
# Your API key does not belong here: --api-key-file or TUITION_API_KEY_FILE names its file.
"""


class Init(Options):
    """The options of `client init`."""

    force: Annotated[bool, Option(typed=True)] = Field(
        default=False, description="Replace the file that is there."
    )


@command(app)
def init(given: Init) -> None:
    """Write tuition.toml into this folder: every setting, in a comment, with its meaning and default.

    Example: client init
    """
    program = typer.main.get_command(app)
    assert isinstance(program, TyperGroup)
    write_settings(SETTINGS_FILE, commented_settings(program), replace=given.force)
    print(f"{SETTINGS_FILE} is written. Take the # away before an option to set it; then `client trust`.")


def write_settings(path: Path, text: str, *, replace: bool) -> None:
    """Write the file.

    Raises:
        UsageError: it exists, and `replace` is not set.
        ClientError: it cannot be written.
    """
    if not replace and is_there(path):
        raise UsageError(f"{path} exists already. --force replaces it.")
    try:
        replace_text(path, text)
    except OSError as error:
        raise unwritable(path, error) from error


def commented_settings(program: TyperGroup) -> str:
    """The text of a file that sets nothing, and shows everything that it could set."""
    commands = {words: settings_of(command) for words, command in commands_of(program)}
    having: dict[Declared, list[str]] = defaultdict(list)
    for words, settings in commands.items():
        for setting in settings.values():
            having[setting].append(words)
    shared = {
        setting: words
        for setting, words in having.items()
        if len(words) > 1 and not setting.option.one_command
    }
    lines = [_BEGINNING]
    for setting, takers in shared.items():
        whose = f"Of {', '.join(takers)}."
        if others := [words for words in commands if setting.key in commands[words] and words not in takers]:
            whose += f" Here, it counts for {', '.join(others)} too: see [{others[0]}]."
        lines += [*_described(setting, whose), ""]
    for words, settings in commands.items():
        own = [setting for setting in settings.values() if setting not in shared]
        lines += _tabled(words, own)
    return "\n".join(lines)


def _tabled(words: str, settings: list[Declared]) -> Iterator[str]:
    if settings:
        yield from (table_of(words), "")
    for setting in settings:
        yield from (*_described(setting), "")


def _described(setting: Declared, whose: str = "") -> Iterator[str]:
    told = " ".join(filter(None, [setting.help, f"Takes {setting.accepted}.", whose]))
    yield from (
        f"# {line}" for line in wrap(told, _WIDTH - 2, break_long_words=False, break_on_hyphens=False)
    )
    yield f"#{setting.key} = {_written(setting.written_default)}".rstrip()


def _written(default: object) -> str:
    """A default as TOML; nothing where there is none."""
    if default is None:
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    return str(default) if isinstance(default, int | float) else f'"{default}"'
