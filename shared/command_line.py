"""How the two programs end."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ended_by_interrupt() -> Iterator[None]:
    """Ctrl-C meanwhile ends the program by a word and 130, as shells have it, and by no traceback."""
    try:
        yield
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)
