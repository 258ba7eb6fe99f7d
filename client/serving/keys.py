"""The callers of a deployed student: a file with the hashes of their keys."""

import hashlib
import re
from pathlib import Path

from starlette.requests import Request

from client.errors import UsageError
from shared.errors import APIError, ErrorCode
from shared.hosts import is_loopback, is_passed_on, name_in, subscriber

_LARGEST_BYTES = 2**20
_LINE = re.compile(r"(\S{1,100})\s+([0-9a-fA-F]{64})")

_ELSEWHERE = "elsewhere"


class Keys:
    """The keys, by the SHA-256 of each; without a file, everybody may ask."""

    def __init__(self, path: Path | None) -> None:
        """Read a file: a line has a name and the SHA-256 of a key in hexadecimal, or a comment behind a #.

        Raises:
            UsageError: it cannot be read, or holds something else, or no key.
        """
        self._names = None if path is None else _read(path)

    @property
    def needed(self) -> bool:
        """Whether a key is needed."""
        return self._names is not None

    @property
    def count(self) -> int:
        """For how many callers the vendor may be asked: those with keys, or all programs of this machine."""
        return 1 if self._names is None else len(set(self._names.values()))

    def may_spend(self, account: str) -> bool:
        """Whether the vendor is asked for this caller: one with a key, or on this machine."""
        return self._names is not None or is_loopback(account)

    def account_of(self, request: Request) -> str:
        """The caller's name: that of the key, or the address where no key is needed.

        Raises:
            APIError: `invalid_api_key`.
        """
        if self._names is None:
            host = "" if request.client is None else subscriber(request.client.host)
            return _ELSEWHERE if is_loopback(host) and _is_from_elsewhere(request) else host
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        # A plain hash suffices, since nobody can guess a random key, and comparing hashes tells nothing.
        name = self._names.get(hashlib.sha256(key.strip().encode()).hexdigest())
        if scheme.lower() != "bearer" or name is None:
            message = "send one of this student's keys as: Authorization: Bearer KEY"
            raise APIError(ErrorCode.INVALID_API_KEY, message)
        request.state.account_id = name  # for the log
        return name


def _is_from_elsewhere(request: Request) -> bool:
    """Whether a request to this machine is from elsewhere: by another name, or by a proxy that says so."""
    name = name_in(request.headers.get("host", ""))
    return name is None or not is_loopback(name) or is_passed_on(request.headers)


def _read(path: Path) -> dict[str, str]:
    try:
        with path.open(encoding="utf-8") as file:
            lines = file.read(_LARGEST_BYTES).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--api-keys {path} cannot be read: {error}.") from error
    names = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise UsageError(
                f"--api-keys {path}: line {number} is not a name and the SHA-256 of a key (64 hexadecimal "
                "digits). `printf %s KEY | sha256sum` prints it."
            )
        names[match[2].lower()] = match[1]
    if not names:
        raise UsageError(f"--api-keys {path} holds no key. Leave the option out to let everybody ask.")
    return names
