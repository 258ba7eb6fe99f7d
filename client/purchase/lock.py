"""One process at a time for a run: two would pay twice for what they send in other batches."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from filelock import FileLock, Timeout

from client.errors import RunBusy, unwritable

# To filelock: until it is free.
_FOREVER = -1.0


@contextmanager
def run_lock(shared: Path, run: str | None = None, *, patience: float = 0.0) -> Iterator[None]:
    """Hold a run's lock against all threads and processes that share a file.

    It is the operating system's lock on an empty file, by filelock: `flock` on Unix, `msvcrt` on Windows. So
    it ends with the process that holds it, however that ends, and the empty file stays. Over NFS, Linux turns
    `flock` into a lock at the server, which other machines respect; a mount with `nolock` or
    `local_lock=flock` keeps it to its own machine. A file system without locks is refused.

    Who only looks at a run among others makes it wait, but never busy: see `notes_lock`.

    Args:
        shared: the file; the lock is beside it, in `NAME.lock`.
        run: names the run among those that use the file, each of which has its locks in `NAME.locks`.
        patience: seconds to wait for the present holder.

    Raises:
        RunBusy: somebody holds it.
        ClientError: the lock's file cannot be written or locked.
    """
    notes = nullcontext() if run is None else _held(_notes_file(shared, run), _FOREVER)
    with _held(_lock_file(shared, run), patience), notes:
        yield


@contextmanager
def notes_lock(shared: Path, run: str) -> Iterator[None]:
    """Look at a run that is idle; meanwhile it cannot begin to work, and waits.

    Raises:
        RunBusy: a thread or process is at work on the run, or looks at it.
        ClientError: as `run_lock`.
    """
    with _held(_notes_file(shared, run), 0.0):
        yield


def is_locked(shared: Path, run: str) -> bool:
    """Whether a thread or process is at work on a run, or looks at it, right now."""
    try:
        with notes_lock(shared, run):
            return False
    except RunBusy:
        return True


@contextmanager
def _held(path: Path, patience: float) -> Iterator[None]:
    lock = FileLock(path, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire(timeout=patience, poll_interval=0.02)
    except Timeout as error:
        raise RunBusy(
            "Another process is working on this run. Wait for it, or interrupt it: what it has bought "
            "and trained is kept, and this command continues from there."
        ) from error
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        yield
    finally:
        lock.release()


def _lock_file(shared: Path, run: str | None) -> Path:
    shared = shared.resolve()
    if run is None:
        return shared.with_name(f"{shared.name}.lock")
    digest = hashlib.sha256(run.encode()).hexdigest()
    return shared.with_name(f"{shared.name}.locks") / f"{digest[:32]}.lock"


def _notes_file(shared: Path, run: str) -> Path:
    return _lock_file(shared, run).with_suffix(".notes.lock")
