"""The pages of the site that are made from the code, and that nobody commits.

A page of `docs/` links to one of them by its heading in docs/reference.md, which tells a reader of the
repository how to see it. On the site the link leads to the page itself.
"""

from collections.abc import Callable

from tools.site import commands, operator_routes, python_api, run_files, teachers

# Where the site has a page, by its heading in docs/reference.md.
REFERENCES = {
    "command-lines": "commands.md",
    "python-api": "python-api.md",
    "teachers": "teachers.md",
    "files-of-a-run": "run-files.md",
    "operators-api": "operator-routes.md",
}
_MADE: dict[str, Callable[[], str]] = {
    "commands.md": commands.page,
    "python-api.md": python_api.page,
    "teachers.md": teachers.page,
    "run-files.md": run_files.page,
    "operator-routes.md": operator_routes.page,
}


def made_pages() -> dict[str, str]:
    """The text of each file that the code makes, by its path on the site."""
    return {name: page() for name, page in _MADE.items()} | run_files.schemas()
