"""The pages for people, from `assets/`: that of a served student, and that of one in the browser."""

from functools import cache
from importlib import resources

from jinja2 import ChoiceLoader, PackageLoader

from client.results.rendering import read_template
from shared.pages.environment import page_environment

_SLIDER = "slider.js"  # as the report has it


def render(template: str, **values: object) -> str:
    """A page as HTML, from a template among the assets; names from elsewhere are escaped, and set apart."""
    own, of_results = PackageLoader("client.serving", "assets"), PackageLoader("client.results")
    environment = page_environment(ChoiceLoader([own, of_results]))
    environment.filters["percent"] = lambda share: f"{100 * share:.1f}%"
    return environment.get_template(template).render(**values)


@cache
def read_asset(name: str) -> bytes:
    """A file of the assets."""
    if name == _SLIDER:
        return read_template(name).encode()
    return resources.files("client.serving").joinpath("assets", name).read_bytes()
