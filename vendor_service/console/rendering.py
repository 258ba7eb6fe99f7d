"""From a page's values to HTML; and the files that pages load, which are all in this package."""

import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from shared.kinds import KINDS, queries
from shared.pages.environment import ICON, SCRIPT, STYLE, page_environment, read_component
from vendor_service.clock import to_datetime
from vendor_service.terms import money

ASSETS = {"console.css": "text/css", "console.js": "text/javascript", ICON: "image/svg+xml"}
_PACKAGE = "vendor_service.console"


@cache  # compiling the templates takes a fifth of a second
def environment() -> Environment:
    """The templates. What they are given is escaped and set apart, whatever it is."""
    made = page_environment(PackageLoader(_PACKAGE))
    filters: dict[str, Callable[..., Any]] = {
        "money": money,
        "percent": lambda share: f"{100 * share:.0f}%",
        "time": moment,
        "short": _shortened,
        "bytes": _bytes,
        "duration": duration,
    }
    made.filters |= filters
    made.globals["asset"] = asset_path
    made.globals["queries"] = queries
    made.globals["sold"] = KINDS
    made.globals["sold_columns"] = [f"{plural.capitalize()}#" for plural in KINDS.values()]
    return made


def render(template: str, values: Mapping[str, Any]) -> str:
    """A page."""
    return environment().get_template(template).render(values)


@cache
def read_asset(name: str) -> bytes:
    """A file that pages load; the name is one of `ASSETS`. Style and script begin with the components'."""
    if name == ICON:
        return read_component(ICON)
    shared = {"console.css": STYLE, "console.js": SCRIPT}.get(name)
    before = b"" if shared is None else read_component(shared)
    return before + resources.files(_PACKAGE).joinpath("assets", name).read_bytes()


@cache
def asset_path(name: str) -> str:
    """The file's path below the console's, which changes with its content."""
    return f"assets/{name}?{hashlib.sha256(read_asset(name)).hexdigest()[:12]}"


def readable(name: str, value: Any) -> str:  # noqa: ANN401 - whatever an act or an event has recorded
    """The value recorded under a name, as text with its unit."""
    if isinstance(value, datetime):
        return moment(value)
    if value is None:
        return "never" if name.endswith("_at") else "none"
    if value == [] and name == "events":
        return "all"
    if isinstance(value, int) and name.endswith("micros"):
        return money(value)
    if isinstance(value, int) and name == "percent":
        return f"{value}%"
    if isinstance(value, int) and name.endswith(("_at", "_until")):
        return f"{to_datetime(value):%Y-%m-%d %H:%M} UTC"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def moment(when: datetime | None) -> Markup:
    """A time, which a script shows in the reader's zone, and without one is in UTC."""
    if when is None:
        return Markup('<span class="soft">never</span>')
    utc = when.astimezone(UTC)
    return Markup('<time datetime="{}">{}</time>').format(
        utc.isoformat(timespec="milliseconds").replace("+00:00", "Z"), f"{utc:%Y-%m-%d %H:%M} UTC"
    )


def duration(seconds: float) -> str:
    """A time in its most fitting unit."""
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{1000 * seconds:.1f} ms"


def _shortened(text: str) -> str:
    return text if len(text) <= 16 else f"{text[:15]}…"


def _bytes(number: float) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number:.0f} bytes"
