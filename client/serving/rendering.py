"""The pages for people, from `assets/`: that of a served student, and that of one in the browser."""

from functools import cache
from importlib import resources

from jinja2 import PackageLoader

from shared.pages.environment import page_environment


def render(template: str, **values: object) -> str:
    """A page as HTML, from a template among the assets; names from elsewhere are escaped, and set apart."""
    environment = page_environment(PackageLoader("client.serving", "assets"))
    environment.filters["percent"] = lambda share: f"{100 * share:.1f}%"
    return environment.get_template(template).render(**values)


@cache
def read_asset(name: str) -> bytes:
    """A file of the assets."""
    return resources.files("client.serving").joinpath("assets", name).read_bytes()
