"""Templates filled in: those of pages, and of the cards by which a notebook shows results."""

import shlex
from base64 import b64encode
from collections.abc import Iterable
from functools import cache
from hashlib import sha256
from importlib import resources
from pathlib import Path

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from client.results.charts import ShareCurve, frequencies, shares
from client.results.escaping import in_code, in_markdown
from client.results.intervals import in_percent
from shared.pages.environment import SCRIPT, page_environment, read_component

SLIDER = "slider.js"


def render(template: str, **values: object) -> str:
    """A template of `client/results/templates`, with these values."""
    return environment().get_template(template).render(**values)


def shown_path(path: str) -> str:
    """A path on a page that may be shared: where it is absolute, its last name alone."""
    return Path(path).name if Path(path).is_absolute() else path


@cache
def read_template(name: str) -> str:
    """A style sheet or a script among the templates, as it is."""
    return resources.files("client.results").joinpath("templates", name).read_text("utf-8")


@cache  # compiling the templates takes a fifth of a second
def environment() -> Environment:
    """The templates, and their filters."""
    environment = page_environment(PackageLoader("client.results"))
    scripts = [read_component(SCRIPT).decode(), read_template(SLIDER)]
    environment.filters["percent"] = lambda share: f"{100 * share:.1f}"
    environment.filters["interval"] = in_percent
    environment.filters["units"] = lambda micros: f"{micros / 1_000_000:.4f}"
    environment.filters["duration"] = duration
    environment.filters["text"] = in_markdown
    environment.filters["code"] = in_code
    environment.filters["shell"] = shlex.quote
    environment.globals |= {
        "ShareCurve": ShareCurve,
        "frequencies": frequencies,
        "shares": shares,
        "policy": _policy(scripts),
        "scripts": [Markup(each) for each in scripts],  # noqa: S704 (ours)
    }
    return environment


def duration(seconds: float) -> str:
    """A time in its most fitting unit."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def _policy(scripts: Iterable[str]) -> str:
    """The content policy of a page that is one file: it loads nothing, and runs these scripts alone."""
    digests = (b64encode(sha256(each.encode()).digest()).decode() for each in scripts)
    ours = " ".join(f"'sha256-{each}'" for each in digests)
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {ours}"
