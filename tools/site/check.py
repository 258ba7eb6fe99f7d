"""Looks at the built site, page by page, for what a reader would stumble over.

A Markdown file may be right for one renderer and wrong for another. So this reads the HTML. It finds
placeholders that became tags, Markdown that is shown, tables without a head, dead links, and pages without a
title.
"""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

# Every tag that Markdown and the theme make within a page; `<domain>` or `<image>` is a placeholder.
_TAGS = frozenset({
    "a", "blockquote", "br", "code", "div", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "iframe", "img",
    "li", "ol", "p", "pre", "span", "strong", "sub", "sup", "table", "tbody", "td", "th", "thead", "tr", "ul",
})  # fmt: skip
_VOID = frozenset({"br", "hr", "img"})
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.IGNORECASE)
# Markdown that the renderer left as it stood.
_MARKDOWN = {
    "a backslash": r"\\",
    "the source of a link": r"\]\(",
    "the source of a table": r"\|\s*:?--",
    "a fence": "```",
    "a pair of asterisks": r"(?<!/)\*\*\w|\w\*\*(?!/)",
}


class Page(HTMLParser):
    """A built page: its title, its anchors and links, and the faults of its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.title = ""
        self.headings = 0
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.faults: list[str] = []
        self._open: list[str] = []
        self._in_article = False
        self._heads: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Follow the structure, and note anchors and links."""
        given = dict(attrs)
        self.anchors |= {str(given[name]) for name in ("id", "name") if given.get(name)}
        target = given.get("href") or given.get("src")
        if target and (tag in ("a", "img") or not _ELSEWHERE.match(target)):
            self.links.append(target)
        if target and tag != "a" and _ELSEWHERE.match(target):
            self.fetched.append(target)
        if tag == "article":
            self._in_article = True
        elif self._in_article:
            self._within_article(tag)

    def _within_article(self, tag: str) -> None:
        if tag not in _TAGS:
            self.faults.append(f"<{tag}> is no tag: a placeholder that must be code")
        if tag not in _VOID:
            self._open.append(tag)
        self.headings += tag == "h1"
        if tag == "thead":
            self._heads = []
        elif tag == "th":
            self._heads.append("")

    def handle_endtag(self, tag: str) -> None:
        """Close what is open, and look at a table's head as a whole."""
        if tag == "article":
            self._in_article = False
        if tag in self._open:
            while self._open.pop() != tag:
                pass
            if tag == "thead" and not all(self._heads[1:] or self._heads):
                self.faults.append(f"a table's head is empty: {' | '.join(self._heads)}")

    def handle_data(self, data: str) -> None:
        """Look for Markdown in text, and gather titles and the heads of tables."""
        if self.lasttag == "title" and not self._in_article:
            self.title += data.strip()
        if not self._in_article:
            return
        if "th" in self._open and self._heads:
            self._heads[-1] += data.strip()
        if not {"code", "pre"} & {*self._open}:
            self.faults += [
                f"{what} is shown: {data.strip()[:60]}"
                for what, pattern in _MARKDOWN.items()
                if re.search(pattern, data)
            ]


def faults(site: Path) -> list[str]:
    """The faults of a built site, each with the name of its page."""
    pages = {file: Page(file.read_text(encoding="utf-8")) for file in sorted(site.glob("*.html"))}
    return [
        f"{file.name}: {fault}" for file, page in pages.items() for fault in _faults(file, page, pages, site)
    ]


def _faults(file: Path, page: Page, pages: dict[Path, Page], site: Path) -> Iterator[str]:
    yield from page.faults
    if not page.title or (file.name != "404.html" and page.headings != 1):
        yield f"it has the title {page.title!r} and {page.headings} first headings"
    yield from (f"it fetches {each} from elsewhere" for each in page.fetched)
    for link in page.links:
        if not _ELSEWHERE.match(link) and not _leads_somewhere(link, file, pages, site):
            yield f"a dead link: {link}"


def _leads_somewhere(link: str, file: Path, pages: dict[Path, Page], site: Path) -> bool:
    path, _, anchor = unquote(link).partition("#")
    path = path.partition("?")[0]
    target = file if not path else (site / path.lstrip("/") if path.startswith("/") else file.parent / path)
    target = target / "index.html" if target.is_dir() else target
    if target.resolve() not in {each.resolve() for each in pages}:
        return target.exists()
    found = next(each for each in pages if each.resolve() == target.resolve())
    return not anchor or anchor in pages[found].anchors
