"""On a command line, `-` stands for the lines of standard input."""

import sys
from collections.abc import Iterable, Sequence
from io import TextIOWrapper

from client.errors import UsageError


def from_lines(texts: Sequence[str], images: Sequence[str]) -> tuple[list[str], list[str]]:
    """The texts and images that are meant, where `-` among either stands for the lines, without empty ones.

    Raises:
        UsageError: `-` is given twice.
    """
    if [*texts, *images].count("-") > 1:
        raise UsageError("`-` can be given once only: standard input is read once.")
    if "-" not in (*texts, *images):
        return list(texts), list(images)
    given = [line.rstrip("\r\n") for line in _lines() if line.strip()]
    text_list, image_list = (
        [item for word in words for item in (given if word == "-" else [word])] for words in (texts, images)
    )
    return text_list, image_list


def _lines() -> Iterable[str]:
    """Standard input; the name of a file there need not be UTF-8, as it need not be among the arguments."""
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
    return sys.stdin
