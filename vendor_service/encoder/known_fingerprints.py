"""Fingerprints that were worked out before: a start need not hash gigabytes of weights again."""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import NamedTemporaryFile

_log = logging.getLogger(__name__)

_LARGE = 1 << 28  # bytes; less is hashed sooner than it is worth remembering
_MOST = 64

# Path, inode, size, and the moments of the last change of its content and of anything about it.
FileStamp = tuple[str, int, int, int, int]


def stamps_of(files: Sequence[Path]) -> list[FileStamp]:
    """The stamps of files: take them before the files are read, so that a later change is not missed."""
    found = [(str(path.resolve()), path.stat()) for path in files]
    return [(path, each.st_ino, each.st_size, each.st_mtime_ns, each.st_ctime_ns) for path, each in found]


class KnownFingerprints:
    """A small file that holds fingerprints by the stamps of the files of the weights.

    Who changes a file changes at least the last moment of its stamp, which nobody can set. `path` is made
    when there is something to remember; where it cannot be written or read, nothing is remembered.
    `large` is the least size of all files together, in bytes, for which it is.
    """

    def __init__(self, path: Path, large: int = _LARGE) -> None:
        self._path = path
        self._large = large

    def find(self, stamps: Sequence[FileStamp], description: bytes, work_out: Callable[[], str]) -> str:
        """The fingerprint of files with these `stamps`; `description` is all else that decides it."""
        if sum(size for _, _, size, _, _ in stamps) < self._large:
            return work_out()
        programs = [version(name) for name in ("tuition", "open_clip_torch", "torch")]
        key = hashlib.sha256(json.dumps([programs, stamps, description.hex()]).encode()).hexdigest()
        known = self._read()
        if key not in known:
            known[key] = work_out()
            self._write(known)
        return known[key]

    def _read(self) -> dict[str, str]:
        try:
            known = json.loads(self._path.read_bytes())
            return {str(key): str(value) for key, value in known.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError) as error:
            _log.warning("no known fingerprint can be read from %s: %r", self._path, error)
            return {}

    def _write(self, known: dict[str, str]) -> None:
        latest = dict(list(known.items())[-_MOST:])
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with NamedTemporaryFile("w", dir=self._path.parent, delete=False) as file:
                json.dump(latest, file)
            Path(file.name).replace(self._path)  # whole or not at all, whoever else starts meanwhile
        except OSError as error:
            _log.warning("the fingerprint cannot be remembered in %s: %s", self._path, error)
