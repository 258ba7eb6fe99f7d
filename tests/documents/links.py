"""Finds dead links in the project's Markdown files: to files and headings of the project. Asks no network.

    python -m tests.documents.links

It names each of them and ends with 1, or says how many links there are.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parents[2]
_ROOMS = ("benchmarks", "client", "docker", "docs", "examples", "shared", "tests", "vendor_service")
# A block of code, or code in a line: what looks like a link there is none.
_CODE = re.compile(r"^(```|~~~).*?^\1|`[^`\n]+`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(\s*<?([^)>\s]+)>?(?:\s+\"[^\"]*\")?\s*\)")
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)


@dataclass(frozen=True)
class Link:
    """A link of a Markdown file to something in the project."""

    file: Path
    target: str

    @property
    def fault(self) -> str | None:
        """Why it leads nowhere, or `None`."""
        path, _, anchor = unquote(self.target).partition("#")
        target = (self.file.parent / path).resolve() if path else self.file
        if not target.exists():
            return "there is no such file"
        if anchor and anchor not in anchors(target.read_text(encoding="utf-8")):
            return "there is no such heading"
        return None


def links(file: Path) -> Iterator[Link]:
    """The links of a Markdown file that stay within the project."""
    for target in _LINK.findall(_CODE.sub("", file.read_text(encoding="utf-8"))):
        if not _ELSEWHERE.match(target):
            yield Link(file, target)


def anchors(text: str) -> set[str]:
    """The anchors of a Markdown text's headings, as GitHub makes them."""
    found: dict[str, int] = {}
    for heading in _HEADING.findall(_CODE.sub(_without_fences, text)):
        words = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)).lower()
        name = words.strip().replace(" ", "-")
        count = found.get(name, 0)
        found[name] = count + 1
        if count:
            found[f"{name}-{count}"] = 1
    return set(found)


def _without_fences(code: re.Match[str]) -> str:
    return "" if code[1] else code[0]


def markdown_files(root: Path = ROOT) -> list[Path]:
    """The project's own Markdown files: those of its root and of its rooms."""
    below = [file for room in _ROOMS for file in sorted((root / room).rglob("*.md"))]
    return sorted(root.glob("*.md")) + [file for file in below if not _is_hidden(file.relative_to(root))]


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def main() -> int:
    """Look at every link of every Markdown file; 1 if one is dead."""
    found = [link for file in markdown_files() for link in links(file)]
    dead = [(link, link.fault) for link in found if link.fault is not None]
    for link, fault in dead:
        print(f"{link.file.relative_to(ROOT)}: {link.target}: {fault}", file=sys.stderr)
    if not dead:
        print(f"Markdown: {len(found)} links within the project, none of them dead.")
    return 1 if dead else 0


if __name__ == "__main__":
    sys.exit(main())
