"""The check of the built site finds what a reader would stumble over, and nothing else."""

from pathlib import Path

import pytest

from tools.site.check import faults

GOOD = """\
<p>In <code>photos/&lt;domain&gt;/x</code> and <code>a\\|b</code> <img src="cat.png">
<a href="other.html#here">there</a> <a href="#top">up</a> <a href="https://example.org/#x">far</a></p>
<table><thead><tr><th></th><th>SQLite</th></tr></thead><tbody><tr><td></td><td>2</td></tr></tbody></table>
"""


def _site(folder: Path, content: str, title: str = "A page", heading: str = '<h1 id="top">A</h1>') -> Path:
    (folder / "cat.png").write_bytes(b"")
    (folder / "other.html").write_text(
        '<title>Other</title><body><article><h1 id="here">O</h1></article></body>'
    )
    (folder / "page.html").write_text(
        f"<title>{title}</title><body><article>{heading}{content}</article></body>"
    )
    return folder


def test_a_sound_page_has_no_fault(tmp_path: Path) -> None:
    assert faults(_site(tmp_path, GOOD)) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("<p>photos/<domain>/</p>", "<domain> is no tag"),
        ("<p>a <image> of it</p>", "<image> is no tag"),
        (r"<p>TUITION\_KEY</p>", "a backslash is shown"),
        ("<p>[a](b.md)</p>", "the source of a link is shown"),
        ("<p>| --- | --- |</p>", "the source of a table is shown"),
        ("<p>so **bold**</p>", "a pair of asterisks is shown"),
        ("<table><thead><tr><th></th><th></th></tr></thead></table>", "a table's head is empty"),
        ("<table><thead><tr><th>a</th><th></th></tr></thead></table>", "a table's head is empty"),
        ('<a href="missing.html">x</a>', "a dead link: missing.html"),
        ('<a href="other.html#missing">x</a>', "a dead link: other.html#missing"),
        ('<a href="#missing">x</a>', "a dead link: #missing"),
        ('<img src="dog.png">', "a dead link: dog.png"),
    ],
)
def test_a_fault_is_named_with_its_page(tmp_path: Path, content: str, said: str) -> None:
    (found,) = faults(_site(tmp_path, content))
    assert found.startswith("page.html: ")
    assert said in found


@pytest.mark.parametrize(("title", "heading"), [("", "<h1>A</h1>"), ("A", ""), ("A", "<h1>A</h1><h1>B</h1>")])
def test_a_page_has_a_title_and_one_first_heading(tmp_path: Path, title: str, heading: str) -> None:
    (found,) = faults(_site(tmp_path, "", title, heading))
    assert "first headings" in found


def test_a_page_fetches_nothing_from_elsewhere(tmp_path: Path) -> None:
    (found,) = faults(_site(tmp_path, '</article><script src="https://example.org/x.js"></script>'))
    assert "it fetches https://example.org/x.js" in found
