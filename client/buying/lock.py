"""One process at a time for a run: two would pay twice for what they send in other batches."""

import fcntl
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from client.errors import ClientError, RunBusy

# The system's locks are a process's, and end when any file that it has open on the path is closed. So a
# process opens a path once, and knows itself which places it has claimed there.
_open: dict[Path, tuple[BinaryIO, set[int]]] = {}
_changing = threading.Lock()


@contextmanager
def claim(shared: Path, run: str) -> Iterator[None]:
    """Claim a run among the threads and processes that share a file. The death of a process ends its claims.

    Args:
        shared: the file; claims are made in one beside it.
        run: names the run among those that use the file.

    Raises:
        RunBusy: it is claimed already.
        ClientError: the file in which claims are made cannot be written.
    """
    place = int.from_bytes(hashlib.sha256(run.encode()).digest()[:7], "big")
    path = shared.with_name(f"{shared.name}.lock").resolve()
    with _changing:
        _take(path, place)
    try:
        yield
    finally:
        with _changing:
            _release(path, place)


def is_claimed(shared: Path, run: str) -> bool:
    """Whether a thread or process has claimed a run right now."""
    try:
        with claim(shared, run):
            return False
    except RunBusy:
        return True


def _take(path: Path, place: int) -> None:
    try:
        file, places = _open.get(path) or (path.open("ab"), set())
    except OSError as error:
        raise ClientError(f"{path} cannot be written: {error.strerror}.") from error
    try:
        if place in places:
            raise BlockingIOError
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
    except OSError as error:
        if not places:
            file.close()
        raise RunBusy(
            "Another process is at work on this very run. Wait for it, or interrupt it: what it has bought "
            "and trained is kept, and this command goes on from there."
        ) from error
    places.add(place)
    _open[path] = (file, places)


def _release(path: Path, place: int) -> None:
    file, places = _open[path]
    places.remove(place)
    if places:
        fcntl.lockf(file, fcntl.LOCK_UN, 1, place)
    else:
        del _open[path]
        file.close()
