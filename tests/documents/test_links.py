"""tests/documents/links.py: it finds what leads nowhere, and the project's documents have none of it."""

from pathlib import Path

import pytest

from tests.documents.links import anchors, links, main


def test_the_documents_have_no_dead_link(capsys: pytest.CaptureFixture[str]) -> None:
    assert main() == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("target", "fault"),
    [
        ("other.md", None),
        ("other.md#two-words", None),
        ("#here", None),
        ("missing.md", "there is no such file"),
        ("other.md#three-words", "there is no such heading"),
        ("#elsewhere", "there is no such heading"),
    ],
)
def test_a_link_is_followed_to_its_file_and_heading(tmp_path: Path, target: str, fault: str | None) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Here\n\nSee [this]({target}).\n")
    (tmp_path / "other.md").write_text("# Other\n\n## Two words\n")
    (link,) = links(page)
    assert link.fault == fault


def test_code_and_addresses_on_the_network_are_no_links_of_the_project(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "[a](https://example.org/x)\n`[b](b.md)`\n```\n[c](c.md)\n```\n[d](mailto:d@example.org)\n"
    )
    assert list(links(page)) == []


def test_anchors_are_named_as_github_names_them() -> None:
    text = (
        "# TLS, and a reverse proxy\n## Same\n## Same\n```\n# no heading\n```\n## The `vendor` [link](x.md)\n"
    )
    assert anchors(text) == {"tls-and-a-reverse-proxy", "same", "same-1", "the-vendor-link"}
