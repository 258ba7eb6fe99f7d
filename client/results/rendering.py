"""Templates filled in: those of pages, and of the cards by which a notebook shows results."""

import shlex
from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib import resources
from pathlib import Path

from jinja2 import Environment, PackageLoader
from markupsafe import Markup

from client.results.charts import ShareCurve, frequencies, shares
from client.results.escaping import in_code, in_markdown
from client.results.intervals import in_percent
from shared.pages.environment import page_environment


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
        "policy": _policy(read_template("slider.js")),
        "script": Markup(read_template("slider.js")),  # noqa: S704 (ours)
    }
    return environment


def duration(seconds: float) -> str:
    """A time in its most fitting unit."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def _policy(script: str) -> str:
    """The content policy of a page that is one file: it loads nothing, and runs this script alone."""
    digest = b64encode(sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
