"""A small stand-in for the npm package of icons: real drawings, few of them."""

import json
from collections.abc import Mapping
from pathlib import Path

DISC = '<circle cx="8" cy="8" r="6" fill="currentColor"/>'
RING = '<circle cx="8" cy="8" r="6" fill="none" stroke="currentColor" stroke-width="2"/>'
BAR = '<path d="M2 6h12v4H2z" fill="currentColor"/>'
TRIANGLE = '<path d="M8 2l6 12H2z" fill="currentColor"/>'
RED_DISC = '<circle cx="8" cy="8" r="4" fill="#e11"/>'


def write_package(folder: Path, sets: Mapping[str, Mapping[str, str]], licence: str = "MIT") -> Path:
    """Write sets of icons, name to SVG body, as the package lays them out."""
    (folder / "json").mkdir(parents=True)
    about = {
        name: {"name": name.title(), "author": {"name": f"Team {name}"}, "license": {"spdx": licence}}
        for name in sets
    }
    (folder / "collections.json").write_text(json.dumps(about))
    for name, icons in sets.items():
        document = {"width": 16, "height": 16, "icons": {icon: {"body": svg} for icon, svg in icons.items()}}
        (folder / "json" / f"{name}.json").write_text(json.dumps(document))
    return folder
