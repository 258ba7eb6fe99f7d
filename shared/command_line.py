"""How the two programs write and end."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper


def escape_what_cannot_be_encoded() -> None:
    """Have standard output write "\\u043a" for what its encoding lacks, as standard error does."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


@contextmanager
def ended_by_interrupt() -> Iterator[None]:
    """Ctrl-C meanwhile ends the program by a word and 130, as shells have it, and by no traceback."""
    try:
        yield
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)
