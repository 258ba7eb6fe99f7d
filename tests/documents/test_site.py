"""The site of the documents: whole, without a dead link, and shown without a network."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents.site import DOCS, PAGES, ROOT

_LINKED = ("client/errors.py", ".env.example", "examples/distill.ipynb", "examples/unlabelled.toml")
_FETCHED = re.compile(r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=\"?(https?:)?//[^>]*>")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what the site is made of."""
    copied = ("mkdocs.yml", "tests/documents/site.py", *PAGES.values(), *_LINKED)
    for name in copied:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(DOCS, tmp_path / "docs")
    return tmp_path


def _build(project: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)


def test_the_site_fetches_nothing_and_has_diagrams_and_what_pages_link_to(project: Path) -> None:
    built = _build(project)
    assert built.returncode == 0, built.stderr
    site = project / "site"
    pages = {page.name: page.read_text(encoding="utf-8") for page in site.glob("*.html")}
    assert len(pages) == len(list(DOCS.glob("*.md"))) + len(PAGES) + 1  # the page for a wrong address
    assert [found[0] for page in pages.values() for found in _FETCHED.finditer(page)] == []
    assert 'src="site/mermaid.min.js"' in pages["architecture.html"]
    assert pages["architecture.html"].count('<pre class="mermaid">') == 3
    assert 'href="source/client/errors.py"' in pages["python.html"]
    assert all((site / "source" / name.lstrip(".")).is_file() for name in _LINKED)


@pytest.mark.slow  # `make check` builds the site
@pytest.mark.parametrize("link", ["buying.md#missing", "../client/missing.py"])
def test_a_dead_link_ends_the_build(project: Path, link: str) -> None:
    with (project / "docs" / "python.md").open("a", encoding="utf-8") as page:
        page.write(f"\n[dead]({link})\n")
    built = _build(project)
    assert built.returncode != 0
    assert "missing" in built.stdout + built.stderr
