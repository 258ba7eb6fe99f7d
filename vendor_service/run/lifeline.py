"""The lifeline of a process that lives no longer than the one that started it."""

import os
import signal
import threading
from contextlib import suppress
from multiprocessing.connection import Connection


def end_with_parent(lifeline: Connection) -> None:
    """Send this process SIGTERM once the other end of `lifeline` is closed; a thread waits for that."""
    threading.Thread(target=_wait, args=(lifeline,), name="lifeline", daemon=True).start()


def _wait(lifeline: Connection) -> None:
    with suppress(EOFError, OSError):
        lifeline.recv()  # nothing is ever sent this way: it returns when the parent is gone
    os.kill(os.getpid(), signal.SIGTERM)
