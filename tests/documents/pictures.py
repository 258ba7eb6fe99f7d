"""Makes pictures of every page in every state, on a desk and on a phone, light and dark: `make pictures`.

    python -m tests.documents.pictures FOLDER [NAME ...]

It says what is cut, what axe-core finds and what a page loads from elsewhere, and fails where there is any.
The tests look at the same pages: whoever adds a page adds it to a walk.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from playwright.sync_api import Browser

from tests.client.results import pictures as results
from tests.client.serving import pictures as serving
from tests.shared.pages import gallery
from tests.support.browser import chromium
from tests.support.pictures import LOOKS, Look
from tests.vendor_service.console import pictures as vendor

# Each makes pictures in a folder, and says what is wrong.
Walk = Callable[[Browser, Path, Sequence[Look]], list[str]]
WALKS: dict[str, Walk] = {
    "components": gallery.walk,
    "results": results.walk,
    "student": serving.walk,
    "vendor": vendor.walk,
}


def main(arguments: Sequence[str]) -> int:
    """Make those that are named, or all; the exit code."""
    folder, names = Path(arguments[0]), arguments[1:] or list(WALKS)
    wrong = 0
    with chromium() as browser:
        for name in names:
            (folder / name).mkdir(parents=True, exist_ok=True)
            wrong += len(WALKS[name](browser, folder / name, LOOKS))
    print(f"{len(list(folder.rglob('*.png')))} pictures in {folder}; faults: {wrong}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
