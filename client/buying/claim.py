"""One process at a time buys for a run, or two would send the same queries in other packs and pay twice."""

import fcntl
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from client.errors import CacheError, ClientError


@contextmanager
def claim(cache: Path, run_id: str) -> Iterator[None]:
    """Claim a run among the processes that share a cache. The death of a process ends its claim.

    Raises:
        ClientError: another process has claimed it.
        CacheError: the file beside the cache, in which claims are made, cannot be written.
    """
    place = int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:7], "big")
    path = cache.with_name(f"{cache.name}.lock")
    try:
        file = path.open("ab")
    except OSError as error:
        raise CacheError(f"{path} cannot be written: {error.strerror}.") from error
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except OSError as error:
            raise ClientError(
                "Another process is buying for this very run. Wait for it, or interrupt it: what it has "
                "bought is kept, and this command goes on from there."
            ) from error
        yield
