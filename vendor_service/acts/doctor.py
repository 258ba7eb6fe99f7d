"""The doctor: what is wrong, or may become so, with a vendor and the machine that it runs on."""

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel

from vendor_service.acts.act import ActContext
from vendor_service.acts.declaration import query


class Finding(BaseModel):
    """One thing that was looked at; `next` says what to do where it is not good."""

    check: str
    state: Literal["good", "look", "bad"]
    found: str
    next: str | None = None


def _fault(findings: list[Finding]) -> str | None:
    bad = [each.check for each in findings if each.state == "bad"]
    return f"not in order: {', '.join(bad)}" if bad else None


def _rows(findings: list[Finding]) -> Iterator[dict[str, Any]]:
    yield from (each.model_dump() for each in findings)


@query(
    command="doctor",
    route="GET /doctor",
    transaction=False,
    rows=_rows,
    fault=_fault,
    needs_books=False,
    pages=False,
)
def examine(context: ActContext) -> list[Finding]:
    """Look at settings, database, clock, disk, files, port, keys and accounts, before any model is loaded.

    It changes nothing. What is bad ends it with 1; the rest is worth a look.

    Example: vendor doctor
    """
    return [] if context.examine is None else list(context.examine())
