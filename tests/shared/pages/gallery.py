"""A page that shows each component in every state."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from jinja2 import FileSystemLoader
from playwright.sync_api import Browser

from shared.pages.environment import page_environment
from shared.pages.fields import Field
from tests.support.pictures import BRIEFLY, Look, Shown, looked_at

LONGEST = "a-project-whose-name-has-as-many-letters-as-one-may-have"
FIELDS = [
    Field("label", "What it is for", placeholder="laptop", longest=200),
    Field("quota", "Quota, in queries", "number", "5000"),
    Field("limit", "Spend limit", "money", "12.50"),
    Field("expires", "Ends", "moment"),
    Field("project", "Project", "select", choices=[("default", "default"), (LONGEST, LONGEST)]),
    Field(
        "scope",
        "Permissions",
        "several",
        choices=[("embed", "buy"), ("admin", "everything")],
        chosen=["embed"],
    ),
    Field("quiet", "Send no event", "flag"),
]
WRONG = {
    "quota": "Write a whole number, such as 5000.",
    "limit": "Write an amount in EUR, such as 12.50.",
    "scope": "Tick at least one.",
}


def gallery() -> str:
    """The page as HTML, which loads nothing."""
    made = page_environment(FileSystemLoader(Path(__file__).parent))
    made.filters["money"] = lambda micros: f"{micros / 1e6:.6f}".rstrip("0").ljust(4, "0")
    rows = [
        SimpleNamespace(name=f"{LONGEST}-{each}", used=each * 173, spent=each**3) for each in range(1, 51)
    ]
    days = [(f"{each:02d} Nov", each * each / 1000, f"{each} November: {each}") for each in range(1, 31)]
    return made.get_template("gallery.html").render(
        tables=[("One row", rows[:1]), ("Fifty rows with the longest names", rows)],
        forms=[
            ("As it is made", "new", FIELDS),
            ("With errors", "wrong", [replace(each, error=WRONG.get(each.name, "")) for each in FIELDS]),
        ],
        meters=(0, 3120, 8000, 9600, 10_400),
        charts=[("Charges by day", days), ("One day", days[:1]), ("Nothing", [(*days[0][:1], 0.0, "none")])],
        count=lambda number: f"{number:,}",
    )


def walk(browser: Browser, folder: Path, looks: Sequence[Look] = BRIEFLY) -> list[str]:
    """Pictures of the page in a folder, and what is wrong on them."""
    file = folder / "gallery.html"
    file.write_text(gallery(), encoding="utf-8")
    return looked_at(browser, [Shown("gallery", file.as_uri())], folder, looks)
