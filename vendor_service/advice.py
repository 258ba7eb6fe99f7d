"""Advice: the commands that messages name, so that each runs as it is printed, wherever it is read.

A message writes a command between backticks, `vendor accounts list`. Where it leaves the program, at the end
of a command or in the log, the command gets the books that the message is about.
"""

import logging
import re
import shlex
from pathlib import Path

from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from vendor_service.database.urls import masked_url

_OPTION = "--database-url"
_COMMAND = re.compile(r"`vendor (?!models\b)[^`\n]+`")


def addressed(text: str, url: str | None) -> str:
    """The text, each of whose commands names the books at that URL; a password in it is `***`."""
    if not url or "`vendor " not in text:
        return text
    option = f"{_OPTION} {shlex.quote(masked_url(url))}"
    return _COMMAND.sub(lambda found: _with(found[0][1:-1], option), text)


def whole_url(url: str) -> str:
    """The URL of a database as it can be typed in any folder."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        return url
    name = parsed.database
    if parsed.get_backend_name() != "sqlite" or not name or name.startswith(("/", "file:", ":")):
        return url
    return str(parsed.set(database=str(Path(name).absolute())))


def typed_url(arguments: list[str]) -> str | None:
    """The URL of the books among the arguments of a command, if it is typed there."""
    for number, each in enumerate(arguments):
        name, equals, value = each.partition("=")
        if name == _OPTION:
            return value if equals else next(iter(arguments[number + 1 :]), None)
    return None


class AddressedLog(logging.Filter):
    """Has the log's lines name the books at a URL in their commands."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = whole_url(url)

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the message; every record passes."""
        record.msg, record.args = addressed(record.getMessage(), self._url), None
        return True


def _with(command: str, option: str) -> str:
    if _OPTION in command:
        return f"`{command}`"
    before, dashes, after = command.partition(" -- ")
    return f"`{before} {option}{dashes}{after}`"
