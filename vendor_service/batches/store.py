"""The store: where files are kept, a local folder or anything else that fsspec can reach."""

import asyncio
import logging
import os
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import copy_context
from functools import partial
from typing import Any, ParamSpec, TypeVar

import fsspec

from shared.errors import ErrorCode
from vendor_service.errors import APIError, OperatorError, UsageError

# Of a store far away, this much is sent at a time.
_BLOCK_BYTES = 8 << 20
# So many threads wait for a store at most. They are its own: one that hangs holds up nothing else.
_THREADS = 8

_log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class Store:
    """Files by name, written once. Its methods block, but for `do`. Thread-safe.

    Whatever goes wrong, a full disk say, is an `APIError` (`overloaded`): another time it may be better.

    Raises:
        UsageError: the URL is not one that fsspec knows.
    """

    def __init__(self, url: str) -> None:
        try:
            self._files, self.root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise UsageError(f"the store of files {url!r} cannot be used: {error}") from error
        self._threads = ThreadPoolExecutor(_THREADS, "store")

    async def do(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call what may wait for the store, in a thread of the store's own."""
        call = partial(copy_context().run, function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def close(self) -> None:
        """Let the threads end; what they have begun goes on."""
        self._threads.shutdown(wait=False)

    def check(self) -> None:
        """Write a small file and delete it.

        Raises:
            OperatorError: that fails.
        """
        name = f"check-{secrets.token_hex(8)}"
        try:
            self.write(name, b"ok")
            self.remove(name)
        except (APIError, FileNotFoundError) as error:
            why = error.__cause__ or error
            raise OperatorError(f"the store of files {self.root} cannot be written: {why}") from error

    @contextmanager
    def writing(self, name: str) -> Iterator[Callable[[bytes], None]]:
        """Give the block a function that writes to a new file, which is on disk after the block.

        What the block itself raises is no error of the store, and passes as it is.
        """
        path = self._path(name)
        with _translated(), suppress(FileExistsError):
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
        with _translated():
            file = self._files.open(path, "wb", block_size=_BLOCK_BYTES)

        def write(content: bytes) -> None:
            with _translated():
                file.write(content)

        try:
            yield write
        except BaseException:
            with suppress(Exception):
                file.close()
            raise
        with _translated(), file:
            inner: Any = getattr(file, "f", None)  # of a local one
            if hasattr(inner, "fileno"):
                file.flush()
                os.fsync(inner.fileno())

    def write(self, name: str, content: bytes) -> None:
        """Write a whole file."""
        with self.writing(name) as write:
            write(content)

    def read(self, name: str, start: int, size: int) -> bytes:
        """A number of bytes from `start` on."""
        try:
            with _translated():
                content: bytes = self._files.cat_file(self._path(name), start=start, end=start + size)
                return content
        except FileNotFoundError as error:
            _log.warning("the store of files has no %s", name)
            raise _away() from error

    def remove(self, name: str) -> None:
        """Delete a file, if it is there."""
        with _translated(), suppress(FileNotFoundError):
            self._files.rm_file(self._path(name))

    def names(self, folder: str) -> list[str]:
        """The names of the files in a folder; none if there is no such folder."""
        with _translated(), suppress(FileNotFoundError):
            found = self._files.ls(self._path(folder), detail=False)
            return [f"{folder}/{each.rstrip('/').rpartition('/')[2]}" for each in found]
        return []

    def remove_folder(self, folder: str) -> None:
        """Delete a folder with all that is in it, if it is there."""
        with _translated(), suppress(FileNotFoundError):
            self._files.rm(self._path(folder), recursive=True)

    def _path(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}"


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except APIError:
        raise
    except FileNotFoundError:
        raise
    except Exception as error:  # every kind of store has errors of its own
        _log.warning("the store of files does not do what it is asked: %s", error)
        raise _away() from error


def _away() -> APIError:
    message = "the vendor's store of files is full or away; try again"
    return APIError(ErrorCode.OVERLOADED, message, retry_after=5)
