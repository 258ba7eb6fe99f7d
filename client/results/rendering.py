"""Templates filled in: those of pages, and of the cards by which a notebook shows results."""

import shlex
from functools import cache

from jinja2 import Environment, PackageLoader

from client.results.charts import frequencies, shares
from client.results.escaping import in_code, in_markdown
from client.results.intervals import in_percent
from shared.pages.environment import page_environment


def render(template: str, **values: object) -> str:
    """A template of `client/results/templates`, with these values."""
    return environment().get_template(template).render(**values)


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
    environment.globals |= {"shares": shares, "frequencies": frequencies}
    return environment


def duration(seconds: float) -> str:
    """A time in its most fitting unit."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"
