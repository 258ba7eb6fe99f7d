"""MkDocs hooks, which mkdocs.yml names: what the site has beyond the folder docs/.

The README becomes the home page, and other Markdown files outside docs/ become pages too. Pages that are made
from the code join them. A file of the project that a page links to is copied, so the link leads somewhere.
"""

import html
import os
import re
from pathlib import Path
from urllib.parse import unquote

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from tools.site import live
from tools.site.pages import REFERENCES, made_pages

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
ASSETS = Path(__file__).parent / "assets"
ICON = ROOT / "shared" / "pages" / "assets" / "icon.svg"  # as all other pages have it
REFERENCE = DOCS / "reference.md"
# Pages of the site that lie outside docs/.
PAGES = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "reporting.md": "SECURITY.md",
    "changelog.md": "CHANGELOG.md",
    "notebook.md": "benchmarks/notebook.md",
    "icon-clip.md": "vendor_service/models/icon_clip/README.md",
}
_HOMES = {ROOT / source: page for page, source in PAGES.items()}
_CODE = re.compile(r"^(?:```|~~~).*?^(?:```|~~~)|`[^`\n]+`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages outside docs/, those that the code makes, and the files that any page links to."""
    for page, source in PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    for asset in [*ASSETS.iterdir(), ICON]:
        files.append(File.generated(config, f"site/{asset.name}", abs_src_path=str(asset)))
    for file in [each for each in files if each.is_documentation_page()]:
        text = _source(file.src_uri).read_text(encoding="utf-8")
        for target in _LINK.findall(_CODE.sub("", text)):
            _add(files, config, _target(file.src_uri, target))
    for name, text in made_pages().items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Have links lead to the place that the site has for their target, and code keep its bars.

    The home page begins with a student that answers, if one was made.
    """
    here = page.file.src_uri
    if here == "index.md" and live.RUN.is_dir():
        markdown = live.shown_in(markdown)
    pieces = re.split(f"({_CODE.pattern})", markdown, flags=_CODE.flags)
    return "".join(
        _code(piece) if _CODE.fullmatch(piece) else _LINK.sub(lambda link: _in_site(here, link[1]), piece)
        for piece in pieces
    )


def _code(code: str) -> str:
    """Code with a bar in a table: Python-Markdown would show the backslash before it."""
    if code.startswith(("```", "~~~")) or r"\|" not in code:
        return code
    return f"<code>{html.escape(code[1:-1]).replace(chr(92) + '|', '&#124;')}</code>"


def _source(page: str) -> Path:
    """The file that a page is made of."""
    return ROOT / PAGES[page] if page in PAGES else DOCS / page


def _target(page: str, link: str) -> Path | None:
    """The file that a link of a page leads to; `None` for the page itself and for the network."""
    path = unquote(link.partition("#")[0])
    if not path or re.match(r"[a-z][a-z0-9+.-]*:", link):
        return None
    return Path(os.path.normpath(_source(page).parent / path))


def _add(files: Files, config: MkDocsConfig, target: Path | None) -> None:
    """Copy a file of the project into the site, unless it is a page or lies in docs/."""
    if target is None or target in _HOMES or target.is_relative_to(DOCS) or not target.is_file():
        return
    name = _copied(target)
    if name not in files.src_uris:
        files.append(File.generated(config, name, abs_src_path=str(target)))


def _copied(target: Path) -> str:
    """Where the site has a file of the project; no name begins with a dot, which servers hide."""
    name = target.relative_to(ROOT).as_posix().lstrip(".")
    return f"source/{name}"


def _in_site(page: str, link: str) -> str:
    target = _target(page, link)
    path, hash_sign, anchor = link.partition("#")
    if anchor and REFERENCE in (target, _source(page) if not path else None):
        return _reference(page, anchor)
    if target is None:
        return link
    if target in _HOMES:
        path = _HOMES[target]
    elif target.is_relative_to(DOCS):
        path = target.relative_to(DOCS).as_posix()
    else:
        path = _copied(target)
    return f"{path}{hash_sign}{anchor}"


def _reference(page: str, anchor: str) -> str:
    """The page that the code makes, of a heading in docs/reference.md."""
    if anchor not in REFERENCES:
        raise PluginError(f"{page} links to reference.md#{anchor}, of which tools/site/pages.py has no page.")
    return REFERENCES[anchor]
