"""Makes the pictures of the vendor's pages that stand in docs/images/: a part of `make screenshots`."""

import tempfile
from pathlib import Path

from PIL import Image

from examples.demo import ROOT
from tests.support.browser import chromium
from tests.support.pictures import Look
from tests.vendor_service.console.pictures import walk

IMAGES = ROOT / "docs" / "images"
LOOKS: tuple[Look, ...] = ((1280, "light"), (1280, "dark"))
# Which pages stand in docs/customer.md and docs/selling.md, and how they are seen.
SHOWN = {
    "console-overview.png": ("console-home", "light"),
    "console-ledger.png": ("console-ledger", "dark"),
    "operator-now.png": ("operator-home", "dark"),
    "operator-account.png": ("operator-accounts-acme", "light"),
}


def main() -> None:
    """Make them all."""
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        walk(browser, Path(folder), LOOKS, {page for page, _ in SHOWN.values()})
        for name, (page, theme) in SHOWN.items():
            with Image.open(Path(folder) / f"{page}-1280-{theme}.png") as whole:
                top = whole.convert("RGB").crop((0, 0, 1280, min(whole.height, 1000)))
            top.quantize(256, dither=Image.Dither.NONE).save(IMAGES / name, optimize=True)


if __name__ == "__main__":
    main()
