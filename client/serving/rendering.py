"""The pages for people, from `assets/`: that of a served student, and that of one in the browser."""

from functools import cache
from importlib import resources

from jinja2 import ChoiceLoader, PackageLoader

from client.results.intervals import in_percent
from client.results.rendering import SLIDER, read_template
from shared.pages.environment import ICON, STYLE, page_environment, read_component

STYLES = (STYLE, "results.css", "page.css")
_OF_RESULTS = {SLIDER: SLIDER, "results.css": "page.css"}  # as the report has them


def render(template: str, **values: object) -> str:
    """A page as HTML, from a template among the assets; names from elsewhere are escaped, and set apart."""
    own, of_results = PackageLoader("client.serving", "assets"), PackageLoader("client.results")
    environment = page_environment(ChoiceLoader([own, of_results]))
    environment.filters["percent"] = lambda share: f"{100 * share:.1f}%"
    environment.filters["interval"] = in_percent
    return environment.get_template(template).render(**values)


@cache
def read_asset(name: str) -> bytes:
    """A file of the assets, or one that other pages have too."""
    if name in (STYLE, ICON):
        return read_component(name)
    if name in _OF_RESULTS:
        return read_template(_OF_RESULTS[name]).encode()
    return resources.files("client.serving").joinpath("assets", name).read_bytes()
