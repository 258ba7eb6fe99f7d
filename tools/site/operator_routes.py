"""The page of the operators' API: its routes, as its application describes them."""

import tempfile
from pathlib import Path
from typing import Any

from tools.site.docstrings import escaped, table
from vendor_service.database import schema
from vendor_service.database.session import Database
from vendor_service.run.admin import create_admin_app
from vendor_service.run.settings import Settings

_BEGINNING = """\
# Operators' API, route by route

[Accounts and money](selling.md#the-operators-api) says how to reach `/admin`, and which scopes there are. Its
own page `/docs` shows the fields of every body, and lets you try a route. Without a scope, any token will do.
"""


def page() -> str:
    """The whole page, in Markdown."""
    rows = [
        (f"{method.upper()}", f"`{path}`", _scope(operation), escaped(_meaning(operation)))
        for path, methods in sorted(_described()["paths"].items())
        for method, operation in methods.items()
    ]
    return "\n".join([_BEGINNING, table(("method", "path", "scope", "meaning"), rows)])


def _described() -> dict[str, Any]:
    """The application's own description, OpenAPI. It opens books, so it is given empty ones."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(database_url=f"sqlite:///{folder}/books.db", keys_in=Path(folder))
        schema.prepare(Database(settings.database_url))
        described: dict[str, Any] = create_admin_app(settings).openapi()
        return described


def _scope(operation: dict[str, Any]) -> str:
    scope = operation.get("x-scope", "")
    return f"`{scope}`" if scope else ""


def _meaning(operation: dict[str, Any]) -> str:
    """The first paragraph of a route's description."""
    text = operation.get("description") or operation.get("summary") or ""
    return " ".join(text.split("\n\n")[0].split())
