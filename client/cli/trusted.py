"""Which folders' tuition.toml a person trusts: by the file's place and digest, in their own configuration.

Somebody else's folder names the vendor, the images and the limits, so that its file would spend and upload
where nothing is typed. Such options (all that are not `Option.safe`) count only once `client trust` has shown
them and a person has agreed. A file that has changed since is no longer trusted.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel, ValidationError

from client.cli.settings import Settings
from client.data.sources import source_names
from client.errors import UsageError, unwritable
from client.paths import resolved, whole_file
from shared.declared import Declared


class Trusted(BaseModel):
    """A file that is trusted.

    Attributes:
        path: from the root, without links to folders; what no UTF-8 holds is escaped.
        sha256: of the bytes that were agreed to (hex).
        unsafe: what it set then that is not `Option.safe`.
    """

    path: str
    sha256: str
    unsafe: dict[str, Any]


def require_trust(context: typer.Context, filed: Sequence[Declared]) -> None:
    """Refuse options that hold by a file that is not trusted, unless they are safe.

    Raises:
        UsageError: there are some.
    """
    keys = list(dict.fromkeys(f"`{each.key}`" for each in filed if not each.option.safe))
    if not keys:
        return
    settings: Settings = context.find_root().obj  # which set these
    if is_trusted(settings):
        return
    state = "is not trusted" if record_of(settings.path) is None else "has changed since it was trusted"
    raise UsageError(
        f"{settings.path} {state}, and it sets {', '.join(keys)}. `client trust` shows what it may spend and "
        "send, and asks you; or give these options on the command line. Nothing was read, sent or bought."
    )


def is_trusted(settings: Settings) -> bool:
    """Whether a file is trusted as it is."""
    record = record_of(settings.path)
    return record is not None and record.sha256 == settings.sha256


def record_of(path: Path) -> Trusted | None:
    """What was agreed to of a file, as it was then."""
    return _read(_record(path))


def records() -> Iterator[Trusted]:
    """All that was agreed to."""
    found = [_read(file) for file in sorted(_records().glob("*.json"))]
    yield from sorted((each for each in found if each is not None), key=lambda each: each.path)


def trust(settings: Settings) -> None:
    """Trust a file as it is.

    Raises:
        ClientError: that cannot be written down.
    """
    file = _record(settings.path)
    place = os.fsencode(_place(settings.path)).decode("utf-8", "backslashreplace")
    record = Trusted(path=place, sha256=settings.sha256, unsafe=settings.unsafe)
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with whole_file(file) as part:
            part.touch(mode=0o600, exist_ok=False)
            part.write_text(record.model_dump_json(indent=1), encoding="utf-8")
    except OSError as error:
        raise unwritable(file, error) from error


def revoke(path: Path) -> bool:
    """Trust a file no longer; whether it was trusted.

    Raises:
        ClientError: its record cannot be deleted.
    """
    file = _record(path)
    try:
        file.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UsageError(f"{file} cannot be deleted: {error.strerror}.") from error
    return True


def leads_outside(settings: Settings) -> list[str]:
    """Those of the unsafe options that name a path outside the folder."""
    folder = resolved(settings.path.parent)

    def outside(value: object) -> bool:
        if isinstance(value, list):
            return any(map(outside, value))
        if isinstance(value, str) and value.partition(":")[0] in source_names():
            value = value.rpartition(":")[2]
        return isinstance(value, str) and not resolved(folder / value).is_relative_to(folder)

    return [key for key, value in settings.unsafe.items() if outside(value)]


def changed(settings: Settings) -> Mapping[str, Any]:
    """Which unsafe options differ from what was agreed to, with their values of then; none of a new file."""
    record = record_of(settings.path)
    if record is None:
        return {}
    before, now = record.unsafe, settings.unsafe
    return {key: before.get(key) for key in {**before, **now} if before.get(key) != now.get(key)}


def _read(file: Path) -> Trusted | None:
    try:
        return Trusted.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None


def _record(path: Path) -> Path:
    """The file that says that another is trusted; its name tells of which."""
    return _records() / f"{hashlib.sha256(os.fsencode(_place(path))).hexdigest()}.json"


def _records() -> Path:
    from platformdirs import user_config_path  # of an installation that buys or serves

    return user_config_path("tuition") / "trusted"


def _place(path: Path) -> str:
    """Where a file lies; a link to it stays, for its relative paths begin where the link lies."""
    return str(resolved(path.parent) / path.name)
