"""What the programs offer, as lines of text: gathered from the code, and compared with what was recorded."""

import difflib
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.surface import commands, files, http, names, python

RECORDED = Path(__file__).parent / "recorded"
# What stands in each file of `recorded/`.
SURFACES: dict[str, Callable[[], Iterable[str]]] = {
    "commands.txt": commands.lines,
    "routes.txt": http.lines,
    "files.txt": files.lines,
    "names.txt": names.lines,
    "python.txt": python.lines,
}


def gathered(name: str) -> str:
    """What the code offers now, in the form of the recorded file."""
    return "".join(f"{line}\n" for line in sorted(set(SURFACES[name]())))


def difference(name: str) -> str:
    """What differs from the recorded file, as a unified diff; empty where nothing does."""
    file = RECORDED / name
    before = file.read_text(encoding="utf-8") if file.exists() else ""
    lines = difflib.unified_diff(
        before.splitlines(), gathered(name).splitlines(), f"recorded/{name}", "the code", lineterm="", n=0
    )
    return "\n".join(lines)


def write() -> list[str]:
    """Record what the code offers; the names of the files that changed."""
    RECORDED.mkdir(exist_ok=True)
    changed = [name for name in SURFACES if difference(name)]
    for name in changed:
        (RECORDED / name).write_text(gathered(name), encoding="utf-8")
    return changed
