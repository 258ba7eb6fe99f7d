"""The environment of all templates of pages, and the assets of the components."""

from functools import cache
from importlib import resources

from jinja2 import BaseLoader, ChoiceLoader, Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from shared.pages import charts
from shared.pages.apart import SetApart
from shared.pages.fields import Field
from shared.pages.tables import columns_of, finished

STYLE, SCRIPT, ICON = "components.css", "components.js", "icon.svg"


def page_environment(loader: BaseLoader) -> Environment:
    """Templates that the loader finds, and `components.html`; what pages show is escaped and set apart."""
    made = Environment(
        loader=ChoiceLoader([loader, PackageLoader("shared.pages")]),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[SetApart],
    )
    made.filters["count"] = lambda number: f"{number:,}"
    made.globals |= {
        "Field": Field,
        "bar_chart": charts.bars,
        "meter_bar": charts.meter,
        "share_bar": charts.share,
        "level_of": charts.level,
        "columns_of": columns_of,
        "finished": finished,
        "inlined": inlined,
    }
    return made


@cache
def read_component(name: str) -> bytes:
    """The style sheet of the components, their script, or the logo: `STYLE`, `SCRIPT` or `ICON`."""
    return resources.files("shared.pages").joinpath("assets", name).read_bytes()


def inlined(name: str) -> Markup:
    """The same for within a page, which nothing in it ends."""
    return Markup(read_component(name).decode())  # noqa: S704 (a file of this package)
