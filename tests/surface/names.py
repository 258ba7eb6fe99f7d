"""Settings, environment variables, errors, exit codes and webhooks, a line each."""

import re
from collections.abc import Iterator
from pathlib import Path

from client.errors import ClientError
from shared.errors import ErrorCode
from tests.surface.shapes import fields
from vendor_service.accounts.keys import Scope
from vendor_service.errors import OperatorError
from vendor_service.run.settings import Settings
from vendor_service.webhooks.events import EventKind

_ROOT = Path(__file__).resolve().parents[2]
_VARIABLE = re.compile(r"\b(?:TUITION|OTEL)_[A-Z_]+\b")


def lines() -> Iterator[str]:
    """What a name stands for comes first on each line."""
    yield from _settings()
    yield from _environment()
    yield from (
        f"error {each.value}: {each.kind.status} {each.kind.type.value}{_retry(each)}" for each in ErrorCode
    )
    yield from _exits("client", ClientError)
    yield from _exits("vendor", OperatorError)
    yield from (f"scope of a key {each.value}" for each in Scope)
    yield from (f"webhook {each.value}" for each in EventKind)


def _settings() -> Iterator[str]:
    schema = Settings.model_json_schema()
    for line in fields(schema, schema):
        name, colon, rest = line.partition(":")
        if name != "(whole)":
            yield f"setting VENDOR_{name.upper()}{colon}{rest}"


def _environment() -> Iterator[str]:
    """The variables that the programs name, other than the vendor's settings."""
    files = [file for room in ("client", "shared", "vendor_service") for file in (_ROOT / room).rglob("*.py")]
    found = {name for file in files for name in _VARIABLE.findall(file.read_text(encoding="utf-8"))}
    yield from (f"environment {name}" for name in sorted(found))


def _retry(code: ErrorCode) -> str:
    return " retryable" if code.kind.retryable else ""


def _exits(program: str, root: type[Exception]) -> Iterator[str]:
    """The errors that a program ends with, and its exit code."""
    kinds = [root]
    for kind in kinds:
        kinds += [each for each in kind.__subclasses__() if each.__module__ == root.__module__]
    yield from (f"exit of {program} {kind.__name__}: {kind.exit_code}" for kind in kinds)  # type: ignore[attr-defined]
